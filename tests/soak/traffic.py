"""Questions that all protocols ask about photos, and how each protocol's answer says class and score."""
from __future__ import annotations

import base64
import dataclasses
import json
import struct
from collections.abc import Callable

from rig import photos, wire

Scored = tuple[str, float]  # the best class's label, and its score
JSON = {"content-type": "application/json"}
# Photos by name. Two from a camera, three that are made here; JPEG and PNG, larger and smaller than a model's input.
PHOTOS = {
    "cat": photos.photo("cat"), "coffee": photos.photo("coffee"),
    "noise-1": photos.noise(300, 200, 1), "noise-2": photos.noise(64, 96, 2), "noise-3": photos.noise(33, 33, 3),
}


@dataclasses.dataclass(frozen=True)
class Question:
    """One request about some photos to one model, and how its answer is read."""

    route: str  # as the metrics name it
    path: str
    body: bytes
    headers: dict[str, str]
    read: Callable[[wire.Answer], list[Scored]]


def _b64(name: str) -> str:
    return base64.b64encode(PHOTOS[name]).decode()


def _best(predictions: list[dict]) -> Scored:
    return predictions[0]["label"], predictions[0]["score"]


def _native(answer: wire.Answer) -> list[Scored]:
    document = json.loads(answer.body)
    return [_best(result["predictions"]) for result in document.get("results", [document])]


def native_raw(model: str, names: list[str]) -> Question:
    """The photo itself."""
    return Question("/api/v1/classify", f"/api/v1/classify?model={model}&top_k=1", PHOTOS[names[0]], {}, _native)


def native_form(model: str, names: list[str]) -> Question:
    """A multipart form of several photos."""
    body, headers = photos.multipart([PHOTOS[name] for name in names])
    return Question("/api/v1/classify", f"/api/v1/classify?model={model}", body, headers, _native)


def native_json(model: str, names: list[str]) -> Question:
    """Several photos as base64."""
    body = json.dumps({"images": [_b64(name) for name in names]}).encode()
    return Question("/api/v1/classify", f"/api/v1/classify?model={model}", body, JSON, _native)


def hugging_face(model: str, names: list[str]) -> Question:
    """As huggingface_hub asks."""
    body = json.dumps({"inputs": _b64(names[0]), "parameters": {"top_k": 2}}).encode()
    return Question("/models/{*path}", f"/models/someone/{model}", body, JSON, lambda a: [_best(json.loads(a.body))])


def torchserve(model: str, names: list[str]) -> Question:
    """As TorchServe's clients ask: the answer is an object whose first member is the best class."""
    read = lambda answer: [next(iter(json.loads(answer.body).items()))]  # noqa: E731
    return Question("/predictions/{name}", f"/predictions/{model}", PHOTOS[names[0]], {}, read)


def kserve(model: str, names: list[str]) -> Question:
    """As clients of KServe v1 and TensorFlow Serving ask."""
    body = json.dumps({"instances": [{"b64": _b64(name)} for name in names]}).encode()
    read = lambda answer: [(p["label"], p["score"]) for p in json.loads(answer.body)["predictions"]]  # noqa: E731
    return Question("/v1/models/{*path}", f"/v1/models/{model}:predict", body, JSON, read)


def _rows(outputs: dict[str, list]) -> list[Scored]:
    labels, values = outputs["label"], outputs["probabilities"]
    width = len(values) // len(labels)
    return [(label, max(values[row * width:(row + 1) * width])) for row, label in enumerate(labels)]


def v2_json(model: str, names: list[str]) -> Question:
    """The Open Inference Protocol with everything in JSON."""
    data = [_b64(name) for name in names]
    tensor = {"name": "image", "datatype": "BYTES", "shape": [len(names)], "data": data}

    def read(answer: wire.Answer) -> list[Scored]:
        return _rows({output["name"]: output["data"] for output in json.loads(answer.body)["outputs"]})

    path = f"/v2/models/{model}_image/infer"
    return Question("/v2/models/{name}/infer", path, json.dumps({"inputs": [tensor]}).encode(), JSON, read)


def texts(data: bytes) -> list[str]:
    """The elements of a BYTES tensor."""
    found, at = [], 0
    while at < len(data):
        (length,) = struct.unpack_from("<I", data, at)
        found.append(data[at + 4:at + 4 + length].decode())
        at += 4 + length
    return found


def decoded(name: str, data: bytes) -> list:
    """A tensor of an answer about photos."""
    return texts(data) if name == "label" else list(struct.unpack(f"<{len(data) // 4}f", data)) if name == "probabilities" else []


def _binary(answer: wire.Answer) -> list[Scored]:
    at = int(answer.headers["inference-header-content-length"])
    outputs = {}
    for output in json.loads(answer.body[:at])["outputs"]:
        size = output["parameters"]["binary_data_size"]
        outputs[output["name"]] = decoded(output["name"], answer.body[at:at + size])
        at += size
    return _rows(outputs)


def v2_binary(model: str, names: list[str]) -> Question:
    """The Open Inference Protocol with binary tensors both ways, as Triton's client asks."""
    data = b"".join(struct.pack("<I", len(PHOTOS[name])) + PHOTOS[name] for name in names)
    tensor = {"name": "image", "datatype": "BYTES", "shape": [len(names), 1], "parameters": {"binary_data_size": len(data)}}
    header = json.dumps({"inputs": [tensor], "parameters": {"binary_data_output": True}}).encode()
    headers = {"inference-header-content-length": str(len(header)), "content-type": "application/octet-stream"}
    return Question("/v2/models/{name}/infer", f"/v2/models/{model}_image/infer", header + data, headers, _binary)


def v2_raw(model: str, names: list[str]) -> Question:
    """A photo as a whole request."""
    path, headers = f"/v2/models/{model}_image/infer", {"inference-header-content-length": "0"}
    return Question("/v2/models/{name}/infer", path, PHOTOS[names[0]], headers, _binary)


# Each with the photos that one request may have.
KINDS: dict[str, tuple[Callable[[str, list[str]], Question], int]] = {
    "native raw": (native_raw, 1), "native form": (native_form, 4), "native json": (native_json, 3),
    "hugging face": (hugging_face, 1), "torchserve": (torchserve, 1), "kserve v1": (kserve, 3),
    "v2 json": (v2_json, 3), "v2 binary": (v2_binary, 4), "v2 raw": (v2_raw, 1),
}
