"""One photo, every protocol: the answers are the same, in every bit where the wire carries bits."""
import base64
import io

import httpx
import numpy as np
import pytest
import tritonclient.grpc
import tritonclient.http
from huggingface_hub import InferenceClient
from PIL import Image

import oracle
from conftest import photo
from oracle import CLASSES, LABELS, MODEL, PHOTOS
from triton import Wire, photos

PICTURES = {"cat": photo("cat"), "coffee": photo("coffee")}


def png(name):
    """The same pixels from another format."""
    buffer = io.BytesIO()
    Image.open(io.BytesIO(PICTURES[name])).convert("RGB").save(buffer, "PNG")
    return buffer.getvalue()


PICTURES["coffee as png"] = png("coffee")


def by_index(found, index, score):
    scores = np.full(CLASSES, np.nan)
    for one in found:
        scores[index(one)] = score(one)
    return scores


def by_label(found):
    return by_index(found.items(), lambda one: LABELS.index(one[0]), lambda one: one[1])


def b64(picture):
    return base64.b64encode(picture).decode()


def native(running, picture):
    answer = httpx.post(f"{running.url}/api/v1/classify", params={"top_k": CLASSES}, content=picture).raise_for_status()
    return by_index(answer.json()["predictions"], lambda one: one["index"], lambda one: one["score"])


def triton(name, **options):
    def ask(running, picture):
        with Wire(name, running) as wire:
            return wire.infer(PHOTOS, photos(picture), **options).as_numpy("probabilities")[0]

    return ask


def triton_json(running, picture):
    with tritonclient.http.InferenceServerClient(running.address) as client:
        image = tritonclient.http.InferInput("image", [1, 1], "BYTES").set_data_from_numpy(np.array([[picture]], np.object_))
        wanted = [tritonclient.http.InferRequestedOutput("probabilities", binary_data=False)]
        return np.ravel(client.infer(PHOTOS, [image], outputs=wanted).get_output("probabilities")["data"])


def triton_classification(name):
    """Values have six decimals here."""

    def ask(running, picture):
        with Wire(name, running) as wire:
            entries = wire.infer(PHOTOS, photos(picture), outputs=["probabilities"], classes=CLASSES).as_numpy("probabilities")[0]
            split = [entry.decode().split(":") for entry in entries]
            return by_index(split, lambda one: int(one[1]), lambda one: float(one[0]))

    return ask


def raw_v2(running, picture):
    header = "inference-header-content-length"
    answer = httpx.post(f"{running.url}/v2/models/{PHOTOS}/infer", content=picture, headers={header: "0"}).raise_for_status()
    return np.frombuffer(answer.content[int(answer.headers[header]) :][: 4 * CLASSES], "<f4")


def own_tensor(name):
    """Prepared by the client, softmax by the client: equal as far as two libraries' arithmetic is."""

    def ask(running, picture):
        with Wire(name, running) as wire:
            return oracle.softmax(wire.infer(MODEL, {"input": oracle.sample(picture)[None]}).as_numpy("logits"))[0]

    return ask


def huggingface(**options):
    def ask(running, picture):
        found = InferenceClient(f"{running.url}/models/{MODEL}").image_classification(picture, top_k=CLASSES, **options)
        return by_label({one.label: one.score for one in found})

    return ask


def tensorflow_serving(running, picture):
    body = {"inputs": [{"b64": b64(picture)}]}
    answer = httpx.post(f"{running.url}/v1/models/{MODEL}:predict", json=body).raise_for_status()
    return np.array(answer.json()["outputs"]["probabilities"][0])


def kserve_v1(running, picture):
    body = {"instances": [{"b64": b64(picture)}]}
    answer = httpx.post(f"{running.url}/v1/models/{MODEL}:predict", params={"top_k": CLASSES}, json=body).raise_for_status()
    return by_index(answer.json()["predictions"][0]["predictions"], lambda one: one["index"], lambda one: one["score"])


def sagemaker(running, picture):
    headers = {"Accept": "application/json;verbose"}
    answer = httpx.post(f"{running.url}/invocations", content=picture, headers=headers).raise_for_status()
    return np.array(answer.json()["probabilities"])


def torchserve(running, picture):
    """It tells five classes; the others are taken from nowhere, and not compared."""
    answer = httpx.put(f"{running.url}/predictions/{MODEL}", content=picture).raise_for_status()
    return by_label(answer.json())


EXACT, SIX_DECIMALS, TWO_LIBRARIES = 0, 5.1e-7, 1e-6
PROTOCOLS = {
    "v2 over HTTP, binary": (triton("http"), EXACT),
    "v2 over HTTP, gzip": (triton("http", response_compression_algorithm="gzip"), EXACT),
    "v2 over HTTP, JSON": (triton_json, EXACT),
    "v2 over HTTP, the photo alone": (raw_v2, EXACT),
    "v2 over HTTP, classification": (triton_classification("http"), SIX_DECIMALS),
    "v2 over HTTP, own tensor": (own_tensor("http"), TWO_LIBRARIES),
    "gRPC": (triton("grpc"), EXACT),
    "gRPC, classification": (triton_classification("grpc"), SIX_DECIMALS),
    "gRPC, own tensor": (own_tensor("grpc"), TWO_LIBRARIES),
    "Hugging Face": (huggingface(), EXACT),
    "Hugging Face, softmax": (huggingface(function_to_apply="softmax"), EXACT),
    "TensorFlow Serving": (tensorflow_serving, EXACT),
    "KServe v1": (kserve_v1, EXACT),
    "SageMaker": (sagemaker, EXACT),
    "TorchServe": (torchserve, EXACT),
}


@pytest.fixture(scope="module", params=PICTURES)
def picture(request):
    return PICTURES[request.param]


@pytest.fixture(scope="module")
def expected(running, picture):
    scores = native(running, picture)
    np.testing.assert_allclose(scores, oracle.softmax(oracle.logits([oracle.sample(picture)]))[0], atol=1e-6)
    return scores.astype(np.float32)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_the_answer_is_that_of_the_native_api(running, picture, expected, protocol):
    ask, tolerance = PROTOCOLS[protocol]
    found = np.asarray(ask(running, picture), np.float32)
    known = ~np.isnan(found)
    assert found.shape == (CLASSES,) and known.sum() == (5 if protocol == "TorchServe" else CLASSES), found
    assert np.abs(found - expected)[known].max() <= tolerance, (found, expected)
