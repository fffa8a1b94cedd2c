"""The description of all routes, read by programs that are not ours: it is OpenAPI 3.1, and the server answers as it says."""
import base64
import copy

import httpx
import pytest
from jsonschema import Draft202012Validator, ValidationError
from openapi_spec_validator import OpenAPIV31SpecValidator

VALUES = {"{name}": "resnet20-cifar10", "{version}": "1", "{file}": "start.js"}


@pytest.fixture(scope="module")
def document(server):
    answer = httpx.get(server + "/openapi.json")
    assert answer.headers["content-type"] == "application/json"
    return answer.json()


def validate(document, operation, answer):
    """Holds an answer to what its operation says of the status: the content type, and the schema of JSON."""
    described = operation["responses"].get(str(answer.status_code))
    assert described, f"{answer.request.method} {answer.url}: {answer.status_code} is not described: {answer.text[:300]}"
    if "content" not in described:
        assert answer.content == b""
        return None
    media_type = answer.headers["content-type"].split(";")[0]
    assert media_type in described["content"], f"{answer.url}: {media_type}"
    if not media_type.endswith("json"):
        return None
    schema = described["content"][media_type]["schema"]
    Draft202012Validator({**schema, "components": document["components"]}).validate(answer.json())
    return answer.json()


def test_it_is_valid_openapi_3_1(document):
    assert document["openapi"].startswith("3.1.")
    errors = [error.message for error in OpenAPIV31SpecValidator(document).iter_errors()]
    assert errors == []
    for name, schema in document["components"]["schemas"].items():
        Draft202012Validator.check_schema(schema)
        assert schema.get("description"), f"{name} is not described"


def test_every_route_that_reads_answers_as_described(server, document):
    checked = 0
    for path, item in document["paths"].items():
        if "get" not in item:
            continue
        for part, value in VALUES.items():
            path = path.replace(part, value)
        answer = httpx.get(server + path)
        validate(document, item["get"], answer)
        assert answer.status_code == 200, f"{path}: {answer.text}"
        checked += 1
    assert checked > 20


def test_an_unknown_model_is_answered_as_described(server, document):
    for path, item in document["paths"].items():
        if "get" in item and "{name}" in path:
            path = path.replace("{name}", "nobody").replace("{version}", "1")
            answer = httpx.get(server + path)
            assert answer.status_code == 404, path
            validate(document, item["get"], answer)


def test_classes_and_problems_come_as_described(server, document, cat):
    url, classify = server + "/api/v1/classify", document["paths"]["/api/v1/classify"]["post"]
    encoded = base64.b64encode(cat).decode()
    for arguments, status in (
        ({"content": cat}, 200),
        ({"content": cat, "params": {"top_k": 1}}, 200),
        ({"files": [("image", ("a.jpg", cat)), ("image", ("b.jpg", b"no photo"))]}, 200),
        ({"json": {"image": encoded}}, 200),
        ({"json": {"images": [encoded, "!", encoded]}}, 200),
        ({"content": b""}, 400),
        ({"content": cat, "params": {"top_k": 0}}, 400),
        ({"json": {"photo": encoded}}, 400),
        ({"content": cat, "params": {"model": "nobody"}}, 404),
        ({"content": bytes(25 * 1024 * 1024)}, 413),
        ({"content": b"no photo"}, 415),
        ({"content": cat[:2000]}, 422),
    ):
        answer = httpx.post(url, **arguments)
        assert answer.status_code == status, answer.text
        validate(document, classify, answer)


def test_tensors_come_as_described(server, document):
    path = "/v2/models/{name}/infer"
    infer = document["paths"][path]["post"]
    url = server + path.replace("{name}", VALUES["{name}"])
    metadata = httpx.get(url.removesuffix("/infer")).json()
    tensor = {"name": metadata["inputs"][0]["name"], "datatype": "FP32", "shape": [1, 3, 32, 32], "data": [0.5] * 3072}
    good = {"id": "7", "inputs": [tensor]}
    for body, status in ((good, 200), ({"inputs": []}, 400), ({"inputs": [{**tensor, "shape": [1, 1]}]}, 400)):
        answer = httpx.post(url, json=body)
        assert answer.status_code == status, answer.text
        validate(document, infer, answer)
    schema = infer["requestBody"]["content"]["application/json"]["schema"]
    Draft202012Validator({**schema, "components": document["components"]}).validate(good)


def test_a_schema_refuses_what_is_not_so(server, document):
    """Otherwise the tests above would prove nothing."""
    operation = document["paths"]["/api/v1/models/{name}"]["get"]
    answer = httpx.get(server + "/api/v1/models/" + VALUES["{name}"])
    good = validate(document, operation, answer)
    schema = operation["responses"]["200"]["content"]["application/json"]["schema"]
    validator = Draft202012Validator({**schema, "components": document["components"]})
    for path, wrong in (("name", 7), ("contract", {}), ("recipe", {**good["recipe"], "filter": "sharp"}), ("classes", [{}])):
        bad = copy.deepcopy(good)
        bad[path] = wrong
        with pytest.raises(ValidationError):
            validator.validate(bad)
