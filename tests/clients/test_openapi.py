"""Schemathesis, the property-based tester of APIs, reads /openapi.json and sends what it allows and what it forbids."""
import base64
import os
import pathlib
import re
import subprocess
import sys

import numpy as np
import pytest
import requests
import schemathesis

import oracle
from conftest import served
from oracle import MODEL, PHOTOS

SECONDS = os.environ.get("SCHEMATHESIS_SECONDS", "60")
# What the server may say beside answers and refusals: that it is busy, and as KServe does, that it explains nothing.
SETTINGS = """
[checks]
not_a_server_error.expected-statuses = ["2xx", "3xx", "4xx", "501", "503"]
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
    # Every route that there can be. Loading and unloading are tried and refused, so that the model stays for the others.
    everything = ["--model", "builtin", "--model-control", "off", "--sagemaker-multi-model"]
    with served(*everything, "--sagemaker-models-root", str(tmp_path)) as running:
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


def test_answers_of_the_open_inference_protocol_are_as_described(described, server, cat, tensor):
    infer = "/v2/models/{name}/infer"
    classified = tensor | {"id": "7", "outputs": [{"name": "logits", "parameters": {"classification": 3}}]}
    for request in (tensor, classified, tensor | {"parameters": {"camera": "north", "n": 1, "f": 0.5, "b": True}}):
        check(described, server, infer, names={"name": MODEL}, json=request)
    check(described, server, infer, names={"name": PHOTOS}, data=cat, headers={"Inference-Header-Content-Length": "0"})
    check(described, server, "/v2/repository/index", data=b"")


def test_answers_of_other_apis_are_as_described(described, server, cat, tensor):
    photo, named = base64.b64encode(cat).decode(), {"names": {"name": MODEL}}
    numbers = np.reshape(tensor["inputs"][0]["data"], tensor["inputs"][0]["shape"]).tolist()
    predict = "/v1/models/{name}:predict"
    for path, request in (
        ("/", {"data": cat}),
        ("/models/{name}", named | {"data": cat}),
        ("/models/{name}", named | {"json": {"inputs": photo, "parameters": {"top_k": 2}}}),
        (predict, named | {"json": {"instances": [{"b64": photo}, photo]}}),
        (predict, named | {"json": {"instances": numbers}}),
        (predict, named | {"json": {"inputs": [{"b64": photo}]}}),
        (predict, named | {"json": {"inputs": {"input": numbers}}}),
        ("/invocations", {"data": cat}),
        ("/invocations", {"data": cat, "headers": {"Accept": "application/json;verbose"}}),
        ("/invocations", {"json": {"image": photo}}),
        ("/predictions/{name}", named | {"data": cat}),
        ("/predictions/{name}", named | {"files": [("data", cat), ("data", cat)]}),
    ):
        check(described, server, path, **request)
