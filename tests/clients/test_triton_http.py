"""What Triton's client does over HTTP only: JSON beside binary tensors, compressed bodies, raw requests, asyncio, and the
calls of perf_analyzer, made by hand."""
import asyncio
import base64
import itertools
import json
import struct
import subprocess

import httpx
import numpy as np
import pytest
import tritonclient.http as triton
import tritonclient.http.aio as triton_aio
from tritonclient.utils import InferenceServerException

import oracle
from oracle import CAT, CLASSES, MODEL, PHOTOS

HEADER = "inference-header-content-length"


@pytest.fixture(scope="module")
def client(running):
    with triton.InferenceServerClient(running.address, concurrency=4) as client:
        yield client


@pytest.fixture(scope="module")
def infer(running):
    """Where tensors are posted, and where photos are."""
    return {model: f"{running.url}/v2/models/{model}/infer" for model in (MODEL, PHOTOS)}


def tensor(values, binary=True):
    name, datatype = ("image", "BYTES") if values.dtype == np.object_ else ("input", "FP32")
    return triton.InferInput(name, list(values.shape), datatype).set_data_from_numpy(values, binary_data=binary)


def request(values, **members):
    """The JSON of a request for one tensor without its data."""
    return {"inputs": [{"name": "input", "datatype": "FP32", "shape": list(values.shape)}]} | members


def posted(url, document, tail=b"", **headers):
    """Posts JSON and what follows it, as the binary extension has it."""
    head = document if isinstance(document, bytes) else json.dumps(document).encode()
    return httpx.post(url, content=head + tail, headers={HEADER: str(len(head))} | headers, timeout=30)


def strings(tail):
    """The elements of a binary tensor of BYTES."""
    while tail:
        (length,) = struct.unpack_from("<I", tail)
        yield tail[4 : 4 + length]
        tail = tail[4 + length :]


# --- JSON beside binary tensors


def test_json_and_binary_give_the_same_bits_whichever_goes_in_and_comes_out(client):
    samples = oracle.random_samples(2)
    answers = []
    for sent, received in itertools.product([True, False], repeat=2):
        wanted = [triton.InferRequestedOutput("logits", binary_data=received)]
        answer = client.infer(MODEL, [tensor(samples, sent)], outputs=wanted)
        assert ("data" in answer.get_output("logits")) != received
        answers.append(answer.as_numpy("logits"))
    assert all(np.array_equal(answer, answers[0]) for answer in answers)


def test_outputs_that_nobody_named_come_in_binary_as_the_client_asks(client, cat):
    answer = client.infer(PHOTOS, [tensor(np.array([cat], np.object_))])
    outputs = answer.get_response()["outputs"]
    assert [output["parameters"]["binary_data_size"] for output in outputs] == [4 * CLASSES, 8, 4 + len("cat")]
    assert answer.as_numpy("label")[0, 0] == b"cat"


def test_a_plain_json_request_gets_a_plain_json_answer(infer):
    samples = oracle.random_samples(1)
    flat, nested = samples.ravel().tolist(), samples.tolist()
    answers = []
    for data in (flat, nested):
        document = request(samples, id="7")
        document["inputs"][0]["data"] = data
        answer = httpx.post(infer[MODEL], json=document)
        assert answer.status_code == 200 and answer.headers["content-type"] == "application/json"
        assert HEADER not in answer.headers
        answers.append(answer.json())
    assert answers[0] == answers[1]
    (output,) = answers[0]["outputs"]
    assert answers[0]["id"] == "7" and answers[0]["model_name"] == MODEL and answers[0]["model_version"] == "1"
    assert (output["name"], output["datatype"], output["shape"]) == ("logits", "FP32", [1, CLASSES])
    np.testing.assert_allclose(np.ravel(output["data"]), oracle.logits(samples)[0], atol=1e-4)


def test_one_output_may_be_binary_and_the_next_json(client, cat):
    wanted = [triton.InferRequestedOutput("probabilities", binary_data=True), triton.InferRequestedOutput("label", binary_data=False)]
    answer = client.infer(PHOTOS, [tensor(np.array([cat], np.object_))], outputs=wanted)
    assert np.ravel(answer.get_output("label")["data"]).tolist() == ["cat"]
    assert answer.as_numpy("probabilities").argmax() == CAT


def test_classification_in_json_is_a_list_of_strings(client, cat):
    wanted = [triton.InferRequestedOutput("probabilities", binary_data=False, class_count=2)]
    output = client.infer(PHOTOS, [tensor(np.array([cat], np.object_))], outputs=wanted).get_output("probabilities")
    assert (output["datatype"], output["shape"]) == ("BYTES", [1, 2])
    assert [entry.split(":")[1:] for entry in np.ravel(output["data"])] == [["3", "cat"], ["5", "dog"]]


def test_parameters_of_every_json_type_come_back(client, cat):
    sent = {"camera": "north", "attempt": 3, "certain": True, "weight": 0.5}
    response = client.infer(PHOTOS, [tensor(np.array([cat], np.object_))], parameters=sent).get_response()
    told = response["parameters"]
    assert {name: told[name] for name in sent} == sent


def test_json_takes_photos_as_base64(infer, cat):
    """A JSON string is UTF-8, which no photo is."""
    document = {"inputs": [{"name": "image", "datatype": "BYTES", "shape": [1], "data": [base64.b64encode(cat).decode()]}]}
    answer = httpx.post(infer[PHOTOS], json=document).raise_for_status()
    label = next(output for output in answer.json()["outputs"] if output["name"] == "label")
    assert np.ravel(label["data"]).tolist() == ["cat"]
    document["inputs"][0]["data"] = ["words"]
    answer = httpx.post(infer[PHOTOS], json=document)
    assert answer.status_code == 400 and "image" in answer.json()["error"]


# --- what is around the tensors


def test_the_size_of_a_single_binary_input_may_be_left_out(infer):
    """As OpenVINO Model Server's clients do."""
    samples = oracle.random_samples(2)
    answer = posted(infer[MODEL], request(samples), samples.tobytes())
    assert answer.status_code == 200, answer.text
    np.testing.assert_allclose(np.reshape(answer.json()["outputs"][0]["data"], (2, CLASSES)), oracle.logits(samples), atol=1e-4)


def test_a_photo_alone_is_a_request(infer, cat, tmp_path):
    """curl --data-binary with header length 0: everything comes back in binary."""
    photo = tmp_path / "cat.jpg"
    photo.write_bytes(cat)
    command = ["curl", "-sS", "-i", "--fail-with-body", "--data-binary", f"@{photo}", "-H", f"{HEADER}: 0", infer[PHOTOS]]
    run = subprocess.run(command, check=True, capture_output=True)
    head, body = run.stdout.split(b"\r\n\r\n", 1)
    length = int(head.lower().split(HEADER.encode() + b":")[1].split()[0])
    outputs, tail = json.loads(body[:length])["outputs"], body[length:]
    sizes = [output["parameters"]["binary_data_size"] for output in outputs]
    assert [output["name"] for output in outputs] == ["probabilities", "class_index", "label"] and len(tail) == sum(sizes)
    assert np.frombuffer(tail[: sizes[0]], "<f4").argmax() == CAT
    assert list(strings(tail[-sizes[2] :])) == [b"cat"]


def test_a_tensor_alone_is_a_request(infer):
    samples = oracle.random_samples(1)
    answer = httpx.post(infer[MODEL], content=samples.tobytes(), headers={HEADER: "0"})
    length = int(answer.headers[HEADER])
    scores = np.frombuffer(answer.content[length:], "<f4")
    np.testing.assert_allclose(scores, oracle.logits(samples)[0], atol=1e-4)


@pytest.mark.parametrize("coding", ["gzip", "deflate"])
def test_bodies_may_be_compressed_both_ways(client, coding):
    samples = oracle.random_samples(3)
    plain = client.infer(MODEL, [tensor(samples)]).as_numpy("logits")
    for sent, received in ((coding, None), (None, coding), (coding, coding)):
        for binary in (True, False):
            answer = client.infer(
                MODEL, [tensor(samples, binary)], request_compression_algorithm=sent, response_compression_algorithm=received
            )
            assert np.array_equal(answer.as_numpy("logits"), plain)


@pytest.mark.parametrize("coding", ["gzip", "deflate"])
def test_an_answer_is_compressed_where_that_was_asked(infer, coding):
    samples = oracle.random_samples(32)
    document = request(samples)
    document["inputs"][0]["data"] = samples.ravel().tolist()
    answer = httpx.post(infer[MODEL], json=document, headers={"accept-encoding": coding}, timeout=30)
    assert answer.status_code == 200 and answer.headers["content-encoding"] == coding
    assert len(answer.json()["outputs"][0]["data"]) in (32, 32 * CLASSES)


def test_an_unknown_coding_is_refused(infer):
    answer = httpx.post(infer[MODEL], content=b"{}", headers={"content-encoding": "br"})
    assert answer.status_code in (400, 415) and "br" in answer.json()["error"]


def test_names_may_be_percent_encoded(running):
    assert httpx.get(f"{running.url}/v2/models/{MODEL.replace('-', '%2D')}").json()["name"] == MODEL
    assert httpx.get(f"{running.url}/v2/").json() == httpx.get(f"{running.url}/v2").json()


def test_unknown_paths_and_verbs_answer_as_triton_does(running, infer):
    for answer, status, error in (
        (httpx.get(f"{running.url}/v2/nothing"), 404, "Not Found"),
        (httpx.get(infer[MODEL]), 405, "Method Not Allowed"),
    ):
        assert (answer.status_code, answer.json()) == (status, {"error": error})
    assert "POST" in answer.headers["allow"]


# --- many at once


def test_many_requests_from_greenlets(client, cat, coffee):
    inputs = {name: [tensor(np.array([photo], np.object_))] for name, photo in (("cat", cat), ("coffee", coffee))}
    asked = [(name, client.async_infer(PHOTOS, inputs[name], request_id=str(turn))) for turn in range(8) for name in inputs]
    answers = [(name, call.get_result()) for name, call in asked]
    assert [answer.get_response()["id"] for _, answer in answers] == [str(turn) for turn in range(8) for _ in inputs]
    indexes = {(name, int(answer.as_numpy("class_index")[0, 0])) for name, answer in answers}
    assert len(indexes) == 2 and ("cat", CAT) in indexes


def test_many_requests_from_asyncio(running, cat):
    samples = oracle.random_samples(16)

    async def main():
        async with triton_aio.InferenceServerClient(running.address) as client:
            assert await client.is_server_ready() and (await client.get_model_metadata(MODEL))["name"] == MODEL
            assert any(entry["name"] == MODEL for entry in await client.get_model_repository_index())
            calls = (client.infer(MODEL, [tensor(samples[at : at + 1])], response_compression_algorithm="gzip") for at in range(16))
            scores = np.concatenate([answer.as_numpy("logits") for answer in await asyncio.gather(*calls)])
            np.testing.assert_allclose(scores, oracle.logits(samples), atol=1e-4)
            with pytest.raises(InferenceServerException) as raised:
                await client.infer("nobody", [tensor(samples)])
            assert raised.value.status() == "404"

    asyncio.run(main())


def test_documents_come_unpacked_since_the_asyncio_client_unpacks_answers_of_infer_alone(tiny):
    """It accepts gzip in every request all the same."""

    async def main():
        async with triton_aio.InferenceServerClient(tiny.address) as client:
            statistics = await client.get_inference_statistics()
            assert len(json.dumps(statistics)) > 4096, "or packing it would not be worth the while"

    asyncio.run(main())


# --- perf_analyzer


def test_the_calls_of_perf_analyzer(running):
    """`perf_analyzer -m resnet20-cifar10 -u HOST:PORT -i http` asks these, in this order, without checking what it reads."""
    get = lambda path: httpx.get(f"{running.url}/v2{path}").raise_for_status().json()
    assert isinstance(get("")["extensions"], list)
    metadata, config = get(f"/models/{MODEL}"), get(f"/models/{MODEL}/config")
    assert config["max_batch_size"] > 0, "so the first dimension of every shape is the batch"
    assert "decoupled" not in json.dumps(config.get("model_transaction_policy", {})) or not config["model_transaction_policy"]["decoupled"]
    for told, configured in ((metadata["inputs"], config["input"]), (metadata["outputs"], config["output"])):
        assert {tensor["name"] for tensor in told} == {tensor["name"] for tensor in configured}
    (image,) = metadata["inputs"]
    shape = [1, *image["shape"][1:]]
    assert all(length > 0 for length in shape), "or it asks for --shape"

    stats = lambda: get(f"/models/{MODEL}/stats")["model_stats"][0]
    before = stats()
    # 200 random tensors with two in flight, inputs and outputs binary.
    body = lambda samples: tensor(samples)._get_binary_data()
    size = 4 * int(np.prod(shape))
    document = {
        "id": "0",
        "inputs": [{"name": image["name"], "shape": shape, "datatype": "FP32", "parameters": {"binary_data_size": size}}],
        "outputs": [{"name": metadata["outputs"][0]["name"], "parameters": {"binary_data": True}}],
    }

    async def load():
        async with httpx.AsyncClient() as client:

            async def caller(seed):
                for turn in range(100):
                    head = json.dumps(document).encode()
                    tail = body(oracle.random_samples(1, seed=seed + turn))
                    answer = await client.post(
                        f"{running.url}/v2/models/{MODEL}/infer", content=head + tail, headers={HEADER: str(len(head))}
                    )
                    assert answer.status_code == 200
                    assert len(answer.content) - int(answer.headers[HEADER]) == 4 * CLASSES

            await asyncio.gather(caller(0), caller(1000))

    asyncio.run(load())
    after = stats()
    assert isinstance(after["version"], str)
    for name in ("success", "queue", "compute_input", "compute_infer", "compute_output", "cache_hit", "cache_miss"):
        assert after["inference_stats"][name].keys() >= {"count", "ns"}
    assert after["inference_stats"]["success"]["count"] - before["inference_stats"]["success"]["count"] == 200
    assert after["inference_count"] - before["inference_count"] == 200
