"""Schemathesis, the property-based tester of APIs, reads /openapi.json and sends what it allows and what it forbids."""
import base64
import os
import pathlib
import re
import subprocess
import sys

import pytest
import requests
import schemathesis

import oracle
from conftest import served
from oracle import MODEL, PHOTOS

SECONDS = os.environ.get("SCHEMATHESIS_SECONDS", "60")
# What the program may say beside answers and refusals: it is busy or leaving.
SETTINGS = """
[checks]
not_a_server_error.expected-statuses = ["2xx", "3xx", "4xx", "503"]
"""
# Refusing what the schema forbids is checked, accepting all that it allows is not: a schema knows a string of bytes, and not
# which strings are photos; a list of numbers, and not how many a model takes.
CHECKS = [
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
    "unsupported_method",
    "allow_header_conformance",
]


def test_nothing_that_is_sent_gets_an_answer_outside_the_description(tmp_path):
    (tmp_path / "schemathesis.toml").write_text(SETTINGS)
    # Loading and unloading are tried and refused, so that the model is there for the other routes.
    with served("--model-control", "off") as running:
        tool = pathlib.Path(sys.executable).with_name("schemathesis")
        command = [tool, "run", f"{running.url}/openapi.json", "--max-time", SECONDS, "--checks", ",".join(CHECKS)]
        command += ["--no-color", "--warnings", "off", "--continue-on-failure"]
        run = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
        assert run.returncode == 0, run.stdout[-20_000:] + run.stderr
        generated, passed = re.search(r"(\d+) generated, (\d+) passed", run.stdout).groups()
        assert generated == passed and int(passed) > 500
        assert requests.get(f"{running.url}/health/ready").status_code == 200


# --- answers to what makes sense, which random bytes never do


@pytest.fixture(scope="module")
def described(server):
    return schemathesis.openapi.from_url(f"{server}/openapi.json")


@pytest.fixture(scope="module")
def tensor():
    samples = oracle.random_samples(1)
    return {"inputs": [{"name": "input", "datatype": "FP32", "shape": [1, 3, 32, 32], "data": samples.ravel().tolist()}]}


def check(described, server, path, **request):
    """Posts, and holds the answer to the description of its route, whose path may have names in it."""
    route = path
    for name, value in request.pop("names", {}).items():
        path = path.replace(f"{{{name}}}", value)
    answer = requests.post(server + path, timeout=30, **request)
    assert answer.status_code == 200, answer.text
    described[route]["POST"].validate_response(answer)


def test_answers_of_the_native_api_are_as_described(described, server, cat):
    for request in (
        {"data": cat},
        {"files": [("images", cat), ("images", b"text")]},
        {"json": {"image": base64.b64encode(cat).decode()}},
    ):
        check(described, server, "/api/v1/classify", **request)


def test_answers_of_the_open_inference_protocol_are_as_described(described, server, cat, tensor):
    infer = "/v2/models/{name}/infer"
    classified = tensor | {"id": "7", "outputs": [{"name": "logits", "parameters": {"classification": 3}}]}
    for request in (tensor, classified, tensor | {"parameters": {"camera": "north", "n": 1, "f": 0.5, "b": True}}):
        check(described, server, infer, names={"name": MODEL}, json=request)
    check(described, server, infer, names={"name": PHOTOS}, data=cat, headers={"Inference-Header-Content-Length": "0"})
    check(described, server, "/v2/repository/index", data=b"")
