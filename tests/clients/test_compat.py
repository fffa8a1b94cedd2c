"""The APIs of other servers, each with the client or the curl line that its users have: TensorFlow Serving, SageMaker, Vertex
AI, TorchServe. KServe's own client and Hugging Face's have their files beside this one."""
import base64
import concurrent.futures
import json
import shutil
import socket
import subprocess

import httpx
import numpy as np
import ovmsclient
import pytest
import requests
from ovmsclient.tfs_compat.base.errors import InvalidInputError, ModelNotFoundError

import oracle
from conftest import TINY, served
from oracle import CLASSES, LABELS, MODEL
from test_same_answers import b64


def free_port():
    """A port that was free a moment ago, for the platforms that name it in a variable."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def curl(*arguments):
    run = subprocess.run(["curl", "-sS", "--fail-with-body", *arguments], capture_output=True)
    assert run.returncode == 0, run.stdout + run.stderr
    return json.loads(run.stdout)


@pytest.fixture
def cat_file(cat, tmp_path):
    path = tmp_path / "cat.jpg"
    path.write_bytes(cat)
    return path


# --- TensorFlow Serving


@pytest.fixture
def tfs(server):
    return f"{server}/v1/models/{MODEL}"


def predicted(answer, key="predictions"):
    assert answer.status_code == 200, answer.text
    return answer.json()[key]


def is_cat(prediction):
    return prediction["classes"][0] == "cat"


def test_tensorflow_serving_rows_of_photos(tfs, cat, coffee):
    for instances in (
        [{"b64": b64(cat)}, {"b64": b64(coffee)}],
        [{"image": {"b64": b64(cat)}}, {"image": {"b64": b64(coffee)}}],
        [{"input": {"b64": b64(cat)}}, {"input": {"b64": b64(coffee)}}],
    ):
        body = {"signature_name": "serving_default", "instances": instances}
        first, second = predicted(requests.post(f"{tfs}:predict", data=json.dumps(body), timeout=30))
        assert is_cat(first) and not is_cat(second)


def test_tensorflow_serving_columns_of_photos(tfs, cat, coffee):
    for inputs in ([{"b64": b64(cat)}, {"b64": b64(coffee)}], {"image": [{"b64": b64(cat)}, {"b64": b64(coffee)}]}):
        outputs = predicted(requests.post(f"{tfs}:predict", json={"inputs": inputs}, timeout=30), "outputs")
        assert len(outputs) == 2 or {len(column) for column in outputs.values()} == {2}


def test_tensorflow_serving_rows_and_columns_of_numbers(tfs):
    samples = oracle.random_samples(3)
    expected = oracle.logits(samples)
    rows = predicted(requests.post(f"{tfs}:predict", json={"instances": samples.tolist()}, timeout=30))
    columns = predicted(requests.post(f"{tfs}:predict", json={"inputs": samples.tolist()}, timeout=30), "outputs")
    np.testing.assert_allclose(rows, expected, atol=1e-4)
    np.testing.assert_allclose(columns, expected, atol=1e-4)


def test_tensorflow_serving_fails_whole_and_says_why(server, tfs, cat):
    for path, body, status in (
        (f"{tfs}:predict", {"instances": [{"b64": b64(cat)}, {"b64": b64(b"text")}]}, 400),
        (f"{tfs}:predict", {"instances": [{"b64": "not base64!"}]}, 400),
        (f"{tfs}:predict", {"instances": []}, 400),
        (f"{tfs}:predict", {"instances": 7}, 400),
        (f"{tfs}:predict", {}, 400),
        (f"{tfs}:predict", {"instances": [[1, 2, 3]]}, 400),
        (f"{tfs}/versions/7:predict", {"instances": [{"b64": b64(cat)}]}, 404),
        (f"{server}/v1/models/nobody:predict", {"instances": [{"b64": b64(cat)}]}, 404),
    ):
        answer = requests.post(path, json=body, timeout=30)
        assert answer.status_code == status and answer.json().keys() == {"error"}, (body, answer.text)


def test_the_client_of_openvino_model_server(running, cat, coffee):
    client = ovmsclient.make_http_client(running.address)
    assert client.get_model_status(MODEL) == {1: {"state": "AVAILABLE", "error_code": 0, "error_message": ""}}
    metadata = client.get_model_metadata(MODEL)
    assert metadata["model_version"] == 1
    samples = oracle.random_samples(2)
    for version in (0, 1):
        scores = client.predict({"input": samples}, MODEL, model_version=version)
        np.testing.assert_allclose(scores, oracle.logits(samples), atol=1e-4)
    answer = client.predict({"image": [cat, coffee]}, MODEL)
    assert len(answer) == 2 or {len(column) for column in answer.values()} == {2}
    with pytest.raises(ModelNotFoundError, match="nobody"):
        client.predict({"image": [cat]}, "nobody")
    with pytest.raises(InvalidInputError):
        client.predict({"image": [b"text"]}, MODEL)
    with pytest.raises(ModelNotFoundError):
        client.get_model_status(MODEL, model_version=7)


# --- SageMaker


def test_sagemaker_pings_and_invokes(server, cat, cat_file):
    with requests.Session() as session:
        ping = session.get(f"{server}/ping", timeout=2)
        assert ping.status_code == 200
        headers = {"Content-Type": "application/x-image", "X-Amzn-SageMaker-Custom-Attributes": "c000b4f9", "Accept": "application/json"}
        raw = session.post(f"{server}/invocations", data=cat, headers=headers, timeout=60)
        bare = session.post(f"{server}/invocations", data=cat, timeout=60)
        assert raw.status_code == 200 and raw.json() == bare.json()
    assert "cat" in raw.text


def test_sagemaker_names_the_port(cat):
    port = str(free_port())
    with served(http_port=None, SAGEMAKER_BIND_TO_PORT=port) as running:
        assert running.address.endswith(f":{port}")
        assert requests.get(f"http://127.0.0.1:{port}/ping", timeout=2).status_code == 200


# --- Vertex AI


def test_vertex_names_port_routes_and_model(cat):
    port = str(free_port())
    variables = {
        "AIP_MODE": "PREDICTION",
        "AIP_HTTP_PORT": port,
        "AIP_HEALTH_ROUTE": "/alive",
        "AIP_PREDICT_ROUTE": "/v1/endpoints/4/deployedModels/7:predict",
        "AIP_STORAGE_URI": f"file://{TINY / 'colours'}",
    }
    with served(http_port=None, **variables) as running:
        url = f"http://127.0.0.1:{port}"
        assert httpx.get(url + "/alive").status_code == 200
        body = {"instances": [{"b64": b64(cat)}] * 3, "parameters": {"top_k": 2}}
        predictions = httpx.post(url + variables["AIP_PREDICT_ROUTE"], json=body).raise_for_status().json()["predictions"]
        assert len(predictions) == 3 and predictions[0] == predictions[2]
        refused = httpx.post(url + variables["AIP_PREDICT_ROUTE"], json={"instances": [{"b64": b64(b"text")}]})
        assert refused.status_code == 400 and "error" in refused.json()


# --- TorchServe


@pytest.mark.parametrize("way", [["-T"], ["-X", "POST", "-T"], ["--data-binary", "@"], ["-F", "data=@"]], ids=" ".join)
def test_torchserve_takes_a_photo_every_way(server, cat_file, way):
    argument = [way[-1] + str(cat_file)] if way[-1].endswith("@") else [way[-1], str(cat_file)]
    for version in ("", "/1"):
        answer = curl(*way[:-1], *argument, f"{server}/predictions/{MODEL}{version}")
        assert len(answer) == 5 and list(answer)[0] == "cat"
        assert all(label in LABELS and 0 <= score <= 1 for label, score in answer.items())


def test_torchserve_is_healthy_and_says_why_not(server, cat):
    assert requests.get(f"{server}/ping", timeout=2).json() == {"status": "Healthy"}
    for path, body, status in ((f"/predictions/nobody", cat, 404), (f"/predictions/{MODEL}/7", cat, 404), (f"/predictions/{MODEL}", b"text", None)):
        answer = requests.post(server + path, data=body, timeout=30)
        assert answer.status_code == status or (status is None and 400 <= answer.status_code < 500)
        document = answer.json()
        assert document.keys() == {"code", "type", "message"} and document["code"] == answer.status_code


def test_torchserve_as_perf_analyzer_posts(server, cat):
    """--service-kind torchserve sends a form with one part named data."""
    with concurrent.futures.ThreadPoolExecutor(4) as callers:
        ask = lambda _: requests.post(f"{server}/predictions/{MODEL}", files={"data": cat}, timeout=30).json()
        answers = list(callers.map(ask, range(32)))
    assert all(answer == answers[0] for answer in answers) and len(answers[0]) == min(5, CLASSES)
