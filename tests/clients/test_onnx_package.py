"""The ResNet-50 that the onnx package ships for tests of backends: a Caffe2 export, batch fixed to 1, softmax inside.

Its weights are constants, so the shipped output is the same for every picture.
"""
import json
import pathlib
import subprocess

import numpy as np
import onnx
import pytest
import requests

from conftest import BINARY, served

LIGHT = pathlib.Path(onnx.__file__).parent / "backend" / "test" / "data" / "light"
MODEL = LIGHT / "light_resnet50.onnx"


@pytest.fixture(scope="module")
def light():
    with served("--model", str(MODEL)) as running:
        yield running.url


def test_it_is_recognised():
    output = subprocess.run([BINARY, "inspect", str(MODEL), "--json"], check=True, capture_output=True).stdout
    summary = json.loads(output)
    assert summary["name"] == "ResNet-50 v1.5"
    assert summary["parameters"] == 25_557_032
    assert summary["shortcuts"]["identity"] == 12 and summary["shortcuts"]["projection"] == 4


def test_its_shipped_output_is_reproduced(light, cat):
    tensor = onnx.TensorProto.FromString((LIGHT / "light_resnet50_output_0.pb").read_bytes())
    expected = onnx.numpy_helper.to_array(tensor)[0]
    answer = requests.post(f"{light}/api/v1/classify", params={"top_k": 1000}, data=cat)
    assert answer.status_code == 200, answer.text
    predictions = answer.json()["predictions"]
    assert len(predictions) == expected.size == 1000
    scores = np.array([one["score"] for one in sorted(predictions, key=lambda one: one["index"])])
    np.testing.assert_allclose(scores, expected, rtol=1e-5)


def test_what_is_not_known_is_said(light):
    details = requests.get(f"{light}/api/v1/models/light_resnet50").json()
    assert details["recipe_source"] == "assumed"
    assert details["label_source"] == "imagenet-1k"
    assert details["contract"]["output"]["scores"] == "probabilities"
