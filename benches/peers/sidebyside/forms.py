"""The forms in which servers take a JPEG, and how each one's answer is read."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from dataclasses import dataclass

BOUNDARY = "sidebyside-5b1f8d3c"

#: Class index and probability, the best first.
Answer = list[tuple[int, float]]


@dataclass(frozen=True)
class Upload:
    """A request's body with the headers that belong to it."""

    body: bytes
    headers: dict[str, str]


@dataclass(frozen=True)
class Form:
    """How one server wants its photo, and how to read what it says."""

    title: str
    path: str
    upload: Callable[[bytes], Upload]
    read: Callable[[bytes], Answer]


def _raw(jpeg: bytes) -> Upload:
    return Upload(jpeg, {"Content-Type": "image/jpeg"})


def _multipart(field: str) -> Callable[[bytes], Upload]:
    """Returns the function that makes an HTML form's upload with one file."""

    def upload(jpeg: bytes) -> Upload:
        head = (
            f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{field}"; filename="photo.jpg"\r\n'
            "Content-Type: image/jpeg\r\n\r\n"
        )
        body = head.encode() + jpeg + f"\r\n--{BOUNDARY}--\r\n".encode()
        return Upload(body, {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"})

    return upload


def _binary_tensor(jpeg: bytes) -> Upload:
    """A tensor [1,1] of BYTES after its JSON header, as the binary extension of the Open Inference Protocol has it."""
    tensor = struct.pack("<I", len(jpeg)) + jpeg
    head = json.dumps(
        {
            "inputs": [
                {"name": "image", "datatype": "BYTES", "shape": [1, 1], "parameters": {"binary_data_size": len(tensor)}}
            ],
        }
    ).encode()
    return Upload(
        head + tensor, {"Content-Type": "application/octet-stream", "Inference-Header-Content-Length": str(len(head))}
    )


def _pairs(answer: list[list[float]]) -> Answer:
    return [(int(index), float(score)) for index, score in answer]


def _read_tensors(body: bytes) -> Answer:
    outputs = {output["name"]: output["data"] for output in json.loads(body)["outputs"]}
    return list(zip(outputs["index"], outputs["score"], strict=True))


def _read_residual(body: bytes) -> Answer:
    return [(prediction["index"], prediction["score"]) for prediction in json.loads(body)["predictions"]]


FASTAPI = Form("multipart", "/classify", _multipart("file"), lambda body: _pairs(json.loads(body)))
LITSERVE = Form("multipart", "/predict", _multipart("file"), lambda body: _pairs(json.loads(body)["predictions"]))
BENTOML = Form("multipart", "/classify", _multipart("images"), lambda body: _pairs(json.loads(body)[0]))
TRITON = Form("binary tensor", "/v2/models/resnet/infer", _binary_tensor, _read_tensors)
TORCHSERVE = Form("raw body", "/predictions/resnet", _raw, lambda body: _pairs(json.loads(body)))
RESIDUAL = Form("raw body", "/api/v1/classify?top_k=5", _raw, _read_residual)
