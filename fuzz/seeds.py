#!/usr/bin/env python3
"""Writes what fuzzing begins with into corpus/: files of the tests, and requests as clients send them. Python alone.

    python3 fuzz/seeds.py [FOLDER]

Names begin with `seed-`; files of other names, which fuzzing has found, stay.
"""

import base64
import gzip
import json
import pathlib
import struct
import sys
import zlib

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent
OUT = pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else HERE / "corpus"
# Of one file of the tests that is taken over; what a larger one would add is pixels.
BYTES_MAX = 1300


def write(target, seeds):
    folder = OUT / target
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("seed-*"):
        old.unlink()
    for name, data in seeds.items():
        (folder / f"seed-{name}").write_bytes(data if isinstance(data, bytes) else data.encode())


def small_files(folder, pattern, bytes_max=BYTES_MAX):
    return {
        path.relative_to(folder).as_posix().replace("/", "-"): path.read_bytes()
        for path in sorted(folder.glob(pattern))
        if path.stat().st_size <= bytes_max
    }


IMAGES = small_files(ROOT / "tests/golden/fixtures", "*") | small_files(
    ROOT / "tests/golden/hostile", "*.webp", 10_000
)
PNG = IMAGES["png-1x1.png"]
WEBP = IMAGES["webp-1x1.webp"]


def b64(data):
    return base64.b64encode(data).decode()


# A tensor of the model `floats`, [3,2,3], and one of `bytes`, [2,3,3].
FLOATS = [[[0.5, -1, 2], [1, 0, 3e-2]]] * 3
BYTES = [[[0, 255, 7], [1, 2, 3], [4, 5, 6]]] * 2
RAW_FLOATS = struct.pack("<18f", *range(18))
RAW_BYTES = bytes(range(18))


# --- protobuf, by hand ---------------------------------------------------------------------------------------------


def varint(number):
    out = b""
    while True:
        number, byte = number >> 7, number & 0x7F
        out += bytes([byte | (0x80 if number else 0)])
        if not number:
            return out


def field(number, value):
    """A field: an int as a varint, a float in 8 bytes, anything else with its length."""
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    if isinstance(value, float):
        return varint(number << 3 | 1) + struct.pack("<d", value)
    value = value.encode() if isinstance(value, str) else value
    return varint(number << 3 | 2) + varint(len(value)) + value


def entry(name, choice, value):
    return field(1, name) + field(2, field(choice, value))


def tensor(name, datatype, shape, contents=b"", parameters=()):
    packed = field(3, b"".join(map(varint, shape)))
    return field(1, name) + field(2, datatype) + packed + b"".join(parameters) + (field(5, contents) if contents else b"")


def infer(model, *inputs, raw=(), more=b""):
    return field(1, model) + more + b"".join(field(5, one) for one in inputs) + b"".join(field(7, one) for one in raw)


def framed(*messages, packed=0):
    return b"".join(bytes([packed]) + struct.pack(">I", len(message)) + message for message in messages)


PHOTO = struct.pack("<I", len(PNG)) + PNG
MESSAGES = {
    "raw": infer("floats", tensor("input", "FP32", [1, 3, 2, 3]), raw=[RAW_FLOATS]),
    "raw-bytes": infer("bytes", tensor("input", "UINT8", [1, 2, 3, 3]), raw=[RAW_BYTES]),
    "typed": infer("floats", tensor("input", "FP32", [1, 3, 2, 3], field(6, RAW_FLOATS))),
    "typed-uints": infer("bytes", tensor("input", "UINT8", [1, 2, 3, 3], field(4, RAW_BYTES))),
    "photo": infer("floats_image", tensor("image", "BYTES", [1, 1], field(8, PNG))),
    "photo-raw": infer("floats_image", tensor("image", "BYTES", [1]), raw=[PHOTO]),
    "two-photos": infer("bytes_image", tensor("image", "BYTES", [2], field(8, PNG) + field(8, WEBP))),
    "parameters": infer(
        "floats_image",
        tensor("image", "BYTES", [1], field(8, PNG), [field(4, entry("a", 3, "b"))]),
        more=field(2, "1")
        + field(3, "id")
        + field(4, entry("n", 2, 7))
        + field(4, entry("d", 4, 1.5))
        + field(4, entry("u", 5, 9))
        + field(4, entry("t", 1, 1))
        + field(6, field(1, "probabilities") + field(2, entry("classification", 2, 3))),
    ),
    "every-type": infer(
        "floats",
        tensor("b", "BOOL", [2], field(1, b"\1\0")),
        tensor("i", "INT32", [2], field(2, varint(2**64 - 1) + varint(5))),
        tensor("l", "INT64", [1], field(3, varint(1))),
        tensor("u", "UINT32", [1], field(4, varint(1))),
        tensor("v", "UINT64", [1], field(5, varint(2**64 - 1))),
        tensor("d", "FP64", [1], field(7, struct.pack("<d", 0.5))),
    ),
}

NAME = field(1, "floats")
CALLS = {
    **{f"infer-{name}": bytes([0, 0, 255]) + framed(message) for name, message in MESSAGES.items()},
    "infer-cut": bytes([0, 0, 3]) + framed(MESSAGES["photo"]),
    "infer-gzip": bytes([0, 1, 20]) + framed(gzip.compress(MESSAGES["raw"], mtime=0), packed=1),
    "infer-deflate": bytes([0, 2, 9]) + framed(zlib.compress(MESSAGES["raw"]), packed=1),
    "stream": bytes([1, 0, 60]) + framed(MESSAGES["raw"], MESSAGES["photo"], MESSAGES["raw-bytes"]),
    "no-message": bytes([0, 1, 0]),
    "wrong-flag": bytes([0, 1, 9]) + framed(MESSAGES["raw"], packed=2),
    "metadata": bytes([2, 0, 2]) + framed(NAME),
    "config": bytes([3, 0, 2]) + framed(NAME + field(2, "1")),
    "statistics": bytes([4, 0, 2]) + framed(b""),
    "index": bytes([5, 0, 2]) + framed(field(2, 1)),
    "unload": bytes([6, 0, 2]) + framed(field(2, "floats") + field(3, entry("unload_dependents", 1, 1))),
    "ready": bytes([7, 0, 2]) + framed(NAME),
    "health": bytes([8, 0, 2]) + framed(field(1, "inference.GRPCInferenceService")),
    "reflection": bytes([9, 0, 2]) + framed(field(7, "*"), field(4, "inference.GRPCInferenceService")),
}


# --- HTTP ----------------------------------------------------------------------------------------------------------


def multipart(boundary, *parts):
    body = b""
    for head, data in parts:
        body += f"--{boundary}\r\ncontent-disposition: form-data; {head}\r\n\r\n".encode() + data + b"\r\n"
    return body + f"--{boundary}--\r\n".encode()


TWO_FILES = multipart("b", ('name="image"; filename="a.png"', PNG), ('name="image"; filename="b"', WEBP))
WITH_FIELD = multipart("b", ('name="token"', b"x"), ('name="data"; filename="a.png"', PNG))
FORMS = {
    "two-files": b"multipart/form-data; boundary=b\n" + TWO_FILES,
    "with-field": b'multipart/form-data; boundary="b"\n' + WITH_FIELD,
    "typed-part": b"multipart/form-data; boundary=b\n"
    + TWO_FILES.replace(b"\r\n\r\n", b"\r\ncontent-type: image/png\r\n\r\n", 1),
    "json-one": "application/json\n" + json.dumps({"image": b64(PNG)}),
    "json-two": "application/json; charset=utf-8\n" + json.dumps({"images": [b64(WEBP), "data:image/png;base64," + b64(PNG)]}),
    "json-escapes": 'application/json\n{"im\\u0061ge": "aGVs\\nbG8="}',
    "json-many": "application/json\n" + json.dumps({"images": ["aGk="] * 5}),
    "raw": b"image/png\n" + PNG,
}


def choice(api, model):
    """The character whose number chooses an API and a model, as `items` reads it."""
    return next(chr(code) for code in range(48, 128) if (code % 5, code // 5 % 2) == (api, model))


ITEMS = {
    "rows": choice(0, 0) + json.dumps({"signature_name": "serving_default", "instances": [{"b64": "aGVsbG8="}, {"image": {"b64": "aGk="}}]}),
    "rows-of-floats": choice(0, 0) + json.dumps({"instances": [FLOATS, FLOATS]}),
    "rows-of-bytes": choice(0, 1) + json.dumps({"instances": [BYTES]}),
    "rows-named": choice(0, 0) + json.dumps({"instances": [{"input": FLOATS, "key": [1, {"a": None}]}]}),
    "columns": choice(0, 1) + json.dumps({"inputs": {"input": [BYTES]}, "parameters": {"top_k": 2.0}}),
    "column-one": choice(0, 0) + json.dumps({"inputs": "aGk"}),
    "huggingface": choice(1, 0) + json.dumps({"inputs": "aGk=", "parameters": {"top_k": 3, "function_to_apply": "softmax"}}),
    "huggingface-list": choice(1, 0) + json.dumps({"inputs": ["aGk=", "aGVsbG8="]}),
    "vertex": choice(2, 0) + json.dumps({"instances": [{"content": "aGk="}], "parameters": {"maxPredictions": 5, "confidenceThreshold": 0.5}}),
    "sagemaker-image": choice(3, 1) + json.dumps({"image": "aGk="}),
    "sagemaker-images": choice(3, 0) + json.dumps({"images": ["aGk=", "aGVsbG8="]}),
    "torchserve": choice(4, 0) + json.dumps({"data": "aGk="}),
    "torchserve-row": choice(4, 0) + json.dumps({"instances": [["aGk="], ["aGVsbG8="]]}),
    "body": choice(4, 0) + json.dumps({"body": {"b64": "aGk=", "x": 1}}),
}


def v2(name, shape, datatype, data=None, parameters=None):
    one = {"name": name, "shape": shape, "datatype": datatype}
    return one | ({} if data is None else {"data": data}) | ({} if parameters is None else {"parameters": parameters})


def document(*inputs, **more):
    return json.dumps({"inputs": list(inputs), **more}).encode()


V2_JSON = document(v2("input", [1, 3, 2, 3], "FP32", FLOATS), id="7")
V2_PHOTO = document(
    v2("image", [2], "BYTES", [b64(PNG), b64(WEBP)]),
    outputs=[{"name": "probabilities", "parameters": {"classification": 3, "binary_data": True}}],
    parameters={"binary_data_output": False, "n": 1, "t": "x"},
)
V2_HEAD = document(v2("input", [1, 3, 2, 3], "FP32", parameters={"binary_data_size": 72}))
V2_HEAD_PHOTO = document(v2("image", [1], "BYTES", parameters={"binary_data_size": len(PHOTO)}))
TENSORS = {
    "json": b"tensor - all\n" + V2_JSON,
    "json-photo": b"image - all\n" + V2_PHOTO,
    "binary": f"tensor - {len(V2_HEAD)}\n".encode() + V2_HEAD + RAW_FLOATS,
    "binary-photo": f"image - {len(V2_HEAD_PHOTO)}\n".encode() + V2_HEAD_PHOTO + PHOTO,
    "raw": b"tensor - 0\n" + RAW_FLOATS,
    "raw-photo": b"image - 0\n" + PNG,
    "gzip": b"tensor gzip all\n" + gzip.compress(V2_JSON, mtime=0),
    "deflate": b"tensor deflate all\n" + zlib.compress(V2_JSON),
    "every-type": b"tensor - all\n"
    + document(
        v2("a", [3], "BOOL", [True, False, 1]),
        v2("b", [2], "UINT8", [0, 255]),
        v2("c", [1], "INT8", [-128]),
        v2("d", [1], "INT16", [-2]),
        v2("e", [1], "UINT16", [65535]),
        v2("f", [1], "INT32", [-1]),
        v2("g", [1], "UINT32", [1]),
        v2("h", [1], "INT64", [-1]),
        v2("i", [1], "UINT64", [2**64 - 1]),
        v2("j", [2], "FP16", [1, 0.1]),
        v2("k", [1], "BF16", [1]),
        v2("l", [1], "FP64", [1e300]),
        v2("m", [2], "BYTES", ["ab", "é\n"]),
    ),
}


def request(line, body=b"", **headers):
    body = body if isinstance(body, bytes) else body.encode()
    lines = [line] + [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\n".join(lines).encode() + b"\n\n" + body


def of_api(name):
    return ITEMS[name][1:]


JSON_TYPE = {"content_type": "application/json"}
REQUESTS = {
    "native": request("POST /api/v1/classify?top_k=3", PNG, content_type="image/png", x_request_id="a-1"),
    "native-jpeg": request("POST /api/v1/classify", IMAGES["jpeg-gray.jpg"]),
    "native-multipart": request("POST /api/v1/classify?model=bytes", TWO_FILES, content_type="multipart/form-data; boundary=b"),
    "native-json": request("POST /api/v1/classify", json.dumps({"images": [b64(PNG), "!"]}), **JSON_TYPE),
    "models": request("GET /api/v1/models"),
    "model": request("GET /api/v1/models/floats/graph"),
    "openapi": request("GET /api/v1/openapi.json"),
    "metrics": request("GET /metrics"),
    "health": request("GET /health/ready"),
    "options": request("OPTIONS /api/v1/classify"),
    "v2": request("POST /v2/models/floats/infer", V2_JSON, accept_encoding="gzip"),
    "v2-photo": request("POST /v2/models/floats_image/versions/1/infer", V2_PHOTO),
    "v2-binary": request(
        "POST /v2/models/floats/infer", V2_HEAD + RAW_FLOATS, inference_header_content_length=len(V2_HEAD)
    ),
    "v2-gzip": request("POST /v2/models/floats/infer", gzip.compress(V2_JSON, mtime=0), content_encoding="gzip"),
    "v2-config": request("GET /v2/models/bytes/config"),
    "v2-stats": request("GET /v2/models/stats"),
    "v2-index": request("POST /v2/repository/index", '{"ready": true}'),
    "v2-unload": request("POST /v2/repository/models/floats/unload", '{"parameters": {"unload_dependents": true}}'),
    "kserve": request("POST /v1/models/floats:predict?top_k=2", of_api("rows-of-floats")),
    "kserve-photo": request("POST /v1/models/floats:predict", json.dumps({"instances": [{"b64": b64(PNG)}]})),
    "kserve-columns": request("POST /v1/models/bytes/versions/1:predict", of_api("columns")),
    "kserve-metadata": request("GET /v1/models/floats/metadata"),
    "kserve-explain": request("POST /v1/models/floats:explain"),
    "huggingface": request("POST /models/owner/floats", json.dumps({"inputs": b64(PNG), "parameters": {"top_k": 2}})),
    "huggingface-raw": request("POST /", PNG),
    "sagemaker": request("POST /invocations", PNG, accept="application/jsonlines"),
    "sagemaker-verbose": request("POST /invocations", PNG, accept="application/json;verbose"),
    "sagemaker-v2": request(
        "POST /invocations",
        V2_HEAD + RAW_FLOATS,
        content_type=f"application/vnd.sagemaker-triton.binary+json;json-header-size={len(V2_HEAD)}",
    ),
    "sagemaker-load": request("POST /models", '{"model_name": "m", "url": "/nonexistent/m"}', **JSON_TYPE),
    "sagemaker-models": request("GET /models?next_page_token=a"),
    "torchserve": request("PUT /predictions/floats/1", WITH_FIELD, content_type="multipart/form-data; boundary=b"),
    "torchserve-text": request("POST /predictions/floats", b64(PNG), content_type="text/plain"),
    "vertex": request("POST /vertex", json.dumps({"instances": [{"content": b64(PNG)}], "parameters": {"maxPredictions": 2}})),
}


# --- files ---------------------------------------------------------------------------------------------------------

TOML = {
    "model": 'model = ["a", "b=c"]\nmodels = "/models"\nhttp_port = 9000\ngrpc_port = 0\n',
    "work": 'batch_delay = "250us"\nbatch_images_max = 8\nqueue_images_max = 64\nintra_op_threads = 2\nprovider = "cpu"\n',
    "bounds": 'body_bytes_max = "3MiB"\nupload_memory_max = "64 MB"\nrequest_timeout = "1m 5s"\nimage_pixels_max = 1_000_000\n',
    "words": 'apis = ["v2", "kserve"]\nlog = "info,residual=debug"\nlog_format = "json"\noffline = true\nexif_orientation = "ignore"\n',
    "unknown": 'batch_dealy = "1ms"\n',
    "strings": "host = '''::1'''\nlabel = \"\\u00e9\\t\"\n",
    "vertex": 'vertex_predict_route = "/p"\nvertex_health_route = "/h"\nsagemaker_multi_model = "yes"\n',
}

PREPROCESSOR = {
    "do_normalize": True,
    "do_resize": True,
    "crop_pct": 0.875,
    "feature_extractor_type": "ConvNextFeatureExtractor",
    "image_mean": [0.485, 0.456, 0.406],
    "image_std": [0.229, 0.224, 0.225],
    "resample": 3,
    "size": {"shortest_edge": 4},
}
BIT = {
    "image_processor_type": "BitImageProcessor",
    "size": {"height": 4, "width": 4},
    "crop_size": {"height": 4, "width": 4},
    "do_center_crop": True,
    "do_rescale": True,
    "rescale_factor": 0.00392156862745098,
    "image_mean": 0.5,
    "image_std": 0.5,
    "resample": 2,
}
TIMM = {
    "architecture": "resnet18",
    "num_classes": 3,
    "pretrained_cfg": {
        "input_size": [3, 4, 4],
        "interpolation": "bicubic",
        "crop_pct": 0.95,
        "crop_mode": "center",
        "mean": [0.485, 0.456, 0.406],
        "std": [0.229, 0.224, 0.225],
    },
    "label_names": ["a", "b", "c"],
    "label_descriptions": {"a": "ant"},
}
HUGGINGFACE = {"id2label": {"0": "a", "1": "b", "2": "c"}, "problem_type": "multi_label_classification"}
RESIDUAL = """labels = ["a", "b", "c"]
preset = "torchvision-v2"
[recipe]
resize = { shortest_edge = 5 }
crop = { width = 4, height = 4, rounding = "floor", fill = [1, 2, 3] }
filter = "opencv_area"
rescale = 0.5
mean = [0, 0, 0]
std = [1.0, 1, 1]
channel_order = "bgr"
[input]
layout = "nchw"
[output]
scores = "probabilities"
"""


def folder(model, toml="", config=None, preprocessor=None):
    texts = [toml] + [json.dumps(text) if text else "" for text in (config, preprocessor)]
    return model + "\0".join(texts)


FOLDERS = {
    "none": folder("0"),
    "residual": folder("0", RESIDUAL),
    "residual-open": folder("1", RESIDUAL.replace("nchw", "nhwc")),
    "exact": folder("1", '[recipe]\nresize = { exact = { width = 9, height = 4 } }\ncrop = "none"\n'),
    "contain": folder("1", '[recipe]\nresize = { contain = { width = 9, height = 4 } }\ncrop = { width = 3, height = 8 }\n'),
    "convnext": folder("0", config=HUGGINGFACE, preprocessor=PREPROCESSOR),
    "bit": folder("1", config=HUGGINGFACE, preprocessor=BIT),
    "timm": folder("0", config=TIMM),
    "timm-open": folder("1", config=TIMM),
    "all": folder("1", '[recipe]\nmean = [1, 2, 3]\n', HUGGINGFACE, PREPROCESSOR),
}


def safetensors(tensors, metadata=None):
    """A file of zeros: tensors by name as (type, shape)."""
    sizes = {"F32": 4, "F16": 2, "BF16": 2, "F64": 8, "I64": 8, "U8": 1}
    header, at = ({"__metadata__": metadata} if metadata else {}), 0
    for name, (dtype, shape) in sorted(tensors.items()):
        size = sizes[dtype]
        for side in shape:
            size *= side
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [at, at + size]}
        at += size
    text = json.dumps(header, separators=(",", ":")).encode()
    return struct.pack("<Q", len(text)) + text + bytes(at)


def norm(name, dtype="F32"):
    return {f"{name}.{part}": (dtype, [1]) for part in ("weight", "bias", "running_mean", "running_var")}


# The smallest networks: one channel everywhere, one stage of one block.
BASIC = {"conv1.weight": ("F16", [1, 3, 3, 3]), "layer1.0.conv1.weight": ("F16", [1, 1, 3, 3]), "layer1.0.conv2.weight": ("F16", [1, 1, 3, 3])}
BASIC |= norm("bn1", "F16") | norm("layer1.0.bn1", "F16") | norm("layer1.0.bn2", "F16")
BASIC |= {"fc.weight": ("F16", [2, 1]), "fc.bias": ("F16", [2])}
DEEPER = BASIC | {"layer2.0.conv1.weight": ("F32", [1, 1, 3, 3]), "layer2.0.conv2.weight": ("F32", [1, 1, 3, 3])}
DEEPER |= norm("layer2.0.bn1") | norm("layer2.0.bn2") | {"layer2.0.downsample.0.weight": ("F32", [1, 1, 1, 1])}
DEEPER |= norm("layer2.0.downsample.1")
BOTTLENECK = BASIC | {"layer1.0.conv1.weight": ("F32", [1, 1, 1, 1]), "layer1.0.conv3.weight": ("F32", [1, 1, 1, 1])}
BOTTLENECK |= norm("layer1.0.bn3")
WEIGHTS = {
    "empty": safetensors({}),
    "two": safetensors({"a": ("F32", [2, 3]), "b": ("I64", [])}, {"format": "pt"}),
    "types": safetensors({"a": ("BF16", [2]), "b": ("F64", [1, 0]), "c": ("U8", [3])}),
    "basic": safetensors(BASIC),
    "prefixed": safetensors({f"module.{name}": tensor for name, tensor in BASIC.items()}),
    "deeper": safetensors(DEEPER),
    "bottleneck": safetensors(BOTTLENECK),
    "lfs": b"version https://git-lfs.github.com/spec/v1\n",
}

write("call", CALLS)
write("forms", FORMS)
write("image", IMAGES)
write("items", ITEMS)
write("message", MESSAGES)
write("model", small_files(ROOT / "tests/models", "*/model.onnx"))
write("model_folder", FOLDERS)
write("request", REQUESTS)
write("settings", TOML)
write("tensors", TENSORS)
write("weights", WEIGHTS)
