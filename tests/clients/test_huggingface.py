"""`huggingface_hub.InferenceClient.image_classification`, unchanged, pointed at this server."""
import numpy as np
import pytest
from huggingface_hub import AsyncInferenceClient, InferenceClient
from huggingface_hub.errors import BadRequestError, HfHubHTTPError

import oracle
from conftest import ROOT
from oracle import CLASSES, LABELS, MODEL

CAT_FILE = ROOT / "tests" / "golden" / "inputs" / "cat.jpg"


@pytest.fixture(params=["", "/", f"/models/{MODEL}"])
def client(request, server):
    return InferenceClient(server + request.param)


@pytest.fixture(scope="module")
def logits(cat):
    return oracle.logits([oracle.sample(cat)])[0].astype(np.float64)


def check(found, scores):
    """The answer is the best of these scores, best first."""
    best = np.argsort(-scores, kind="stable")[: len(found)]
    assert [element.label for element in found] == [LABELS[index] for index in best]
    np.testing.assert_allclose([element.score for element in found], scores[best], rtol=1e-4, atol=1e-6)


def test_bytes_files_and_paths(client, cat, logits):
    """Bytes come without a content type, files with one."""
    for image in (cat, CAT_FILE, str(CAT_FILE)):
        found = client.image_classification(image)
        assert len(found) == 5
        check(found, oracle.softmax(logits))


@pytest.mark.parametrize("top_k", [1, 3, CLASSES, 1000])
def test_top_k(client, cat, logits, top_k):
    found = client.image_classification(cat, top_k=top_k)
    assert len(found) == min(top_k, CLASSES), "more than there are is all, as in transformers' pipeline"
    check(found, oracle.softmax(logits))


@pytest.mark.parametrize(
    "function, scores",
    [
        ("softmax", oracle.softmax),
        ("sigmoid", lambda logits: 1 / (1 + np.exp(-logits))),
        ("none", lambda logits: logits),
    ],
)
def test_function_to_apply(client, cat, logits, function, scores):
    check(client.image_classification(cat, function_to_apply=function, top_k=4), scores(logits))


def test_the_async_client(server, cat, logits):
    import asyncio

    async def main():
        async with AsyncInferenceClient(f"{server}/models/{MODEL}") as client:
            return await asyncio.gather(*(client.image_classification(cat) for _ in range(8)))

    for found in asyncio.run(main()):
        check(found, oracle.softmax(logits))


def test_refusals_tell_the_user_why(client, server, cat):
    for image, options, word in (
        (b"not a photo", {}, "image"),
        (cat[:5000], {}, "image"),
        (b"not a photo", {"top_k": 1}, "image"),
        (cat, {"top_k": 0}, "top_k"),
        (cat, {"top_k": -1}, "-1"),
        (cat, {"function_to_apply": "cube"}, "cube"),
    ):
        with pytest.raises(HfHubHTTPError) as raised:
            client.image_classification(image, **options)
        assert 400 <= raised.value.response.status_code < 500, raised.value
        assert "error" in raised.value.response.json()
        assert word in raised.value.server_message, raised.value
    with pytest.raises(HfHubHTTPError) as raised:
        InferenceClient(f"{server}/models/nobody").image_classification(cat)
    assert raised.value.response.status_code == 404 and "nobody" in raised.value.server_message
    assert not isinstance(raised.value, BadRequestError)
