"""The APIs of other servers, each with the client or the curl line that its users have: TensorFlow Serving, SageMaker, Vertex
AI, TorchServe. KServe's own client and Hugging Face's have their files beside this one."""
import base64
import concurrent.futures
import json
import shutil
import socket
import subprocess

import numpy as np
import ovmsclient
import pytest
import requests
from ovmsclient.tfs_compat.base.errors import InvalidInputError, ModelNotFoundError

import oracle
from conftest import TINY, served
from oracle import CAT, CLASSES, LABELS, MODEL


def b64(photo):
    return base64.b64encode(photo).decode()


def free_port():
    """A port that was free a moment ago, for the platforms that name it in a variable."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return str(listener.getsockname()[1])


def post(url, **options):
    return requests.post(url, timeout=30, **options)


def told(answer, status=200):
    """The JSON of an answer that has this status."""
    assert answer.status_code == status, (answer.status_code, answer.text[:300])
    return answer.json()


# --- TensorFlow Serving


@pytest.fixture
def tfs(server):
    return f"{server}/v1/models/{MODEL}"


def test_tensorflow_serving_rows_of_photos(tfs, cat, coffee):
    photos = [b64(cat), b64(coffee)]
    for wrap in (
        lambda photo: photo,
        lambda photo: {"b64": photo},
        lambda photo: {"image_bytes": {"b64": photo}},
        lambda photo: {"input": {"b64": photo}, "key": "7"},
        lambda photo: [{"b64": photo}],
    ):
        body = {"signature_name": "serving_default", "instances": [wrap(photo) for photo in photos]}
        # As tutorials post it: text without a content type.
        first, second = told(post(f"{tfs}:predict", data=json.dumps(body)))["predictions"]
        assert (first["classes"], first["label"]) == (CAT, "cat") and 0.97 < first["score"] < 0.98
        assert second["classes"] != CAT and LABELS[second["classes"]] == second["label"]
        assert len(first["predictions"]) == 5


def test_tensorflow_serving_columns_of_photos(tfs, cat, coffee):
    photos = [{"b64": b64(cat)}, {"b64": b64(coffee)}]
    for inputs in (photos, {"image": photos}):
        outputs = told(post(f"{tfs}:predict", json={"inputs": inputs}))["outputs"]
        assert np.shape(outputs["probabilities"]) == (2, CLASSES) and np.shape(outputs["class_index"]) == (2, 1)
        assert outputs["label"][0] == ["cat"] and outputs["class_index"][0] == [CAT]


def test_tensorflow_serving_rows_and_columns_of_numbers(tfs):
    samples = oracle.random_samples(3)
    rows = told(post(f"{tfs}:predict", json={"instances": samples.tolist()}))["predictions"]
    columns = told(post(f"{tfs}/versions/1:predict", json={"inputs": {"input": samples.tolist()}}))["outputs"]
    np.testing.assert_allclose(rows, oracle.logits(samples), atol=1e-4)
    assert columns == rows


def test_tensorflow_serving_fails_whole_and_says_why(server, tfs, cat):
    photo = {"instances": [{"b64": b64(cat)}]}
    for path, body, status in (
        (f"{tfs}:predict", {"instances": [{"b64": b64(cat)}, {"b64": b64(b"text")}]}, 400),
        (f"{tfs}:predict", {"instances": [{"b64": "not base64!"}]}, 400),
        (f"{tfs}:predict", {"instances": []}, 400),
        (f"{tfs}:predict", {"instances": 7}, 400),
        (f"{tfs}:predict", {}, 400),
        (f"{tfs}:predict", {"instances": [[1, 2, 3]]}, 400),
        (f"{tfs}:predict", photo | {"inputs": photo["instances"]}, 400),
        (f"{tfs}/versions/7:predict", photo, 404),
        (f"{server}/v1/models/nobody:predict", photo, 404),
    ):
        assert told(post(path, json=body), status).keys() == {"error"}, body


def test_the_client_of_openvino_model_server(running, cat, coffee):
    client = ovmsclient.make_http_client(running.address)
    assert client.get_model_status(MODEL) == {1: {"state": "AVAILABLE", "error_code": 0, "error_message": ""}}
    assert client.get_model_metadata(MODEL) == {
        "model_version": 1,
        "inputs": {"input": {"dtype": "DT_FLOAT", "shape": [-1, 3, 32, 32]}},
        "outputs": {"logits": {"dtype": "DT_FLOAT", "shape": [-1, CLASSES]}},
    }
    samples = oracle.random_samples(2)
    for version in (0, 1):  # 0 is what it says for the newest
        scores = client.predict({"input": samples}, MODEL, model_version=version)
        np.testing.assert_allclose(scores, oracle.logits(samples), atol=1e-4)
    answer = client.predict({"image": [cat, coffee]}, MODEL)
    assert answer["label"][0, 0] == "cat" and answer["probabilities"].shape == (2, CLASSES)
    with pytest.raises(ModelNotFoundError, match="nobody"):
        client.predict({"image": [cat]}, "nobody")
    with pytest.raises(ModelNotFoundError):
        client.get_model_status(MODEL, model_version=7)
    with pytest.raises(InvalidInputError):
        client.predict({"image": [b"text"]}, MODEL)


# --- SageMaker


def test_sagemaker_pings_and_invokes(server, cat):
    with requests.Session() as session:
        assert session.get(f"{server}/ping", timeout=2).status_code == 200
        attributes = {"X-Amzn-SageMaker-Custom-Attributes": "c000b4f9"}
        for content_type in ("application/x-image", "image/jpeg", "application/octet-stream", None):
            headers = attributes | ({} if content_type is None else {"Content-Type": content_type})
            found = told(session.post(f"{server}/invocations", data=cat, headers=headers, timeout=60))
            assert found[0]["label"] == "cat" and len(found) == 5


def test_sagemaker_answers_in_the_form_of_the_request(server, cat):
    invoke = lambda **options: post(f"{server}/invocations", **options)
    photo = b64(cat)
    assert told(invoke(json={"inputs": photo, "parameters": {"top_k": 2}}))[1]["label"] == "dog"
    assert told(invoke(json={"instances": [{"b64": photo}]}))["predictions"][0]["label"] == "cat"
    assert told(invoke(json={"image": photo}))["predictions"][0]["label"] == "cat"
    lines = invoke(data=cat, headers={"Accept": "application/jsonlines"}).text.splitlines()
    assert [json.loads(line)["label"] for line in lines][:2] == ["cat", "dog"]
    verbose = told(invoke(data=cat, headers={"Accept": "application/json;verbose"}))
    assert verbose["predicted_label"] == "cat" and len(verbose["probabilities"]) == len(verbose["labels"]) == CLASSES
    refused = invoke(data=b"text")
    assert 400 <= refused.status_code < 500 and refused.json().keys() == {"error"}


def test_sagemaker_takes_the_binary_protocol_under_its_own_media_type(server):
    """SageMaker strips the header that says how long the JSON is, so the content type does."""
    samples = oracle.random_samples(2)
    tensor = {"name": "input", "datatype": "FP32", "shape": [2, 3, 32, 32], "parameters": {"binary_data_size": samples.nbytes}}
    head = json.dumps({"inputs": [tensor], "parameters": {"binary_data_output": True}}).encode()
    kind = "application/vnd.sagemaker-triton.binary+json;json-header-size="
    answer = post(f"{server}/invocations", data=head + samples.tobytes(), headers={"Content-Type": f"{kind}{len(head)}"})
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"].startswith(kind)
    length = int(answer.headers["content-type"].removeprefix(kind))
    assert json.loads(answer.content[:length])["outputs"][0]["shape"] == [2, CLASSES]
    scores = np.frombuffer(answer.content[length:], "<f4").reshape(2, CLASSES)
    np.testing.assert_allclose(scores, oracle.logits(samples), atol=1e-4)


def test_sagemaker_names_the_port():
    port = free_port()
    with served(http_port=None, SAGEMAKER_BIND_TO_PORT=port):
        assert requests.get(f"http://127.0.0.1:{port}/ping", timeout=2).status_code == 200


def test_sagemaker_loads_and_unloads_models(tmp_path, cat):
    shutil.copytree(TINY / "colours", tmp_path / "1f2e" / "model")
    with served("--sagemaker-models-root", str(tmp_path), SAGEMAKER_MULTI_MODEL="true") as running:
        url = f"http://127.0.0.1:{running.url.rsplit(':', 1)[1]}"
        colours = {"model_name": "c1", "url": str(tmp_path / "1f2e" / "model")}
        target = {"X-Amzn-SageMaker-Target-Model": "c1.tar.gz"}
        assert requests.get(f"{url}/ping", timeout=2).status_code == 200, "without a model, too"
        assert told(requests.get(f"{url}/models", timeout=5)) == {"models": []}
        assert post(f"{url}/models/c1/invoke", data=cat, headers=target).status_code == 404

        assert post(f"{url}/models", json=colours).status_code == 200
        assert post(f"{url}/models", json=colours).status_code == 409
        listed = {"modelName": "c1", "modelUrl": colours["url"]}
        assert told(requests.get(f"{url}/models", timeout=5)) == {"models": [listed]}
        assert told(requests.get(f"{url}/models/c1", timeout=5)) == listed
        found = told(post(f"{url}/models/c1/invoke", data=cat, headers=target))
        assert {one["label"] for one in found} == {"red", "green", "blue"}

        for name, place in (("c2", "/etc"), ("c2", str(tmp_path / "none")), ("c2", str(tmp_path / ".." / "1f2e"))):
            refused = post(f"{url}/models", json={"model_name": name, "url": place})
            assert 400 <= refused.status_code < 500 and "error" in refused.json(), refused.text

        assert requests.delete(f"{url}/models/c1", timeout=5).status_code == 200
        assert requests.delete(f"{url}/models/c1", timeout=5).status_code == 404
        assert requests.get(f"{url}/models/c1", timeout=5).status_code == 404
        assert post(f"{url}/models/c1/invoke", data=cat, headers=target).status_code == 404
        assert post(f"{url}/models", json=colours).status_code == 200, "and again"


# --- Vertex AI


def test_vertex_names_port_routes_and_model(cat):
    port = free_port()
    variables = {
        "AIP_MODE": "PREDICTION",
        "AIP_HTTP_PORT": port,
        "AIP_HEALTH_ROUTE": "/alive",
        "AIP_PREDICT_ROUTE": "/v1/endpoints/4/deployedModels/7:predict",
        "AIP_STORAGE_URI": f"file://{TINY / 'colours'}",
    }
    with served(http_port=None, **variables):
        url = f"http://127.0.0.1:{port}"
        predict = url + variables["AIP_PREDICT_ROUTE"]
        assert requests.get(url + "/alive", timeout=5).status_code == 200
        body = {"instances": [{"b64": b64(cat)}] * 3, "parameters": {"maxPredictions": 2}}
        predictions = told(post(predict, json=body))["predictions"]
        assert len(predictions) == 3 and predictions[0] == predictions[2]
        first = predictions[0]
        assert len(first["ids"]) == len(first["displayNames"]) == len(first["confidences"]) == 2
        assert set(first["displayNames"]) <= {"red", "green", "blue"}
        assert "error" in told(post(predict, json={"instances": [{"b64": b64(b"text")}]}), 400)


# --- TorchServe


def curl(*arguments):
    run = subprocess.run(["curl", "-sS", "--fail-with-body", *arguments], capture_output=True)
    assert run.returncode == 0, run.stdout + run.stderr
    return json.loads(run.stdout)


@pytest.mark.parametrize(
    "way",
    [["-T", "{}"], ["-X", "POST", "-T", "{}"], ["--data-binary", "@{}"], ["-F", "data=@{}"], ["-F", "data=@{};filename="]],
    ids=" ".join,
)
def test_torchserve_takes_a_photo_every_way(server, cat, tmp_path, way):
    photo = tmp_path / "cat.jpg"
    photo.write_bytes(cat)
    for version in ("", "/1"):
        answer = curl(*(part.format(photo) for part in way), f"{server}/predictions/{MODEL}{version}")
        assert len(answer) == 5 and list(answer)[:2] == ["cat", "dog"]
        assert all(label in LABELS and 0 <= score <= 1 for label, score in answer.items())


def test_torchserve_takes_several_photos_and_base64(server, cat, coffee):
    url = f"{server}/predictions/{MODEL}"
    several = told(post(url, files=[("data", cat), ("data", coffee)]))
    assert len(several) == 2 and list(several[0])[0] == "cat" and list(several[1])[0] != "cat"
    assert told(post(url, json={"data": b64(cat)})) == several[0]


def test_torchserve_is_healthy_and_says_why_not(server, cat):
    assert told(requests.get(f"{server}/ping", timeout=2)) == {"status": "Healthy"}
    for path, body, status, kind in (
        ("nobody", cat, 404, "ModelNotFoundException"),
        (f"{MODEL}/7", cat, 404, "ModelVersionNotFoundException"),
        (MODEL, b"", 400, "BadRequestException"),
    ):
        document = told(post(f"{server}/predictions/{path}", data=body), status)
        assert (document["code"], document["type"]) == (status, kind) and document["message"]
    refused = post(f"{server}/predictions/{MODEL}", data=b"text")
    assert 400 <= refused.status_code < 500 and refused.json().keys() == {"code", "type", "message"}


def test_torchserve_as_perf_analyzer_posts(server, cat):
    """--service-kind torchserve sends a form with one part named data."""
    with concurrent.futures.ThreadPoolExecutor(4) as callers:
        answers = list(callers.map(lambda _: told(post(f"{server}/predictions/{MODEL}", files={"data": cat})), range(32)))
    assert all(answer == answers[0] for answer in answers) and list(answers[0])[0] == "cat"


# --- all of them


@pytest.mark.parametrize(
    "api, route",
    [
        ("v2", f"/v2/models/{MODEL}/infer"),
        ("huggingface", f"/models/{MODEL}"),
        ("kserve", f"/v1/models/{MODEL}:predict"),
        ("sagemaker", "/invocations"),
        ("torchserve", f"/predictions/{MODEL}"),
    ],
)
def test_an_api_that_is_not_listed_has_no_routes(cat, api, route):
    others = [name for name in ("v2", "grpc", "huggingface", "kserve", "sagemaker", "vertex", "torchserve") if name != api]
    with served("--apis", ",".join(others)) as running:
        assert post(running.url + route, data=cat).status_code == 404
        assert told(post(running.url + "/api/v1/classify", data=cat))["predictions"][0]["label"] == "cat"
