"""Requests that lie, stall or are far too large. Each protocol answers with its own error, and afterwards the server answers
rightly and holds no more memory than before. What well-meaning clients get wrong is in test_triton.py."""
import base64
import gzip
import json
import socket
import struct
import time
import zlib

import grpc
import httpx
import numpy as np
import pytest
from tritonclient.grpc import service_pb2, service_pb2_grpc

import oracle
from conftest import served
from oracle import CAT, MODEL, PHOTOS

HEADER = "Inference-Header-Content-Length"
MIB = 1024 * 1024
SAMPLE = oracle.random_samples(1)
# What one of these requests may leave behind: buffers that are kept to be used again, and the allocator's slack.
KEPT_MIB = 48


@pytest.fixture(scope="module")
def bounded():
    """A server whose stalled requests end soon."""
    with served("--body-timeout", "2s", "--header-timeout", "2s") as running:
        yield running


@pytest.fixture(scope="module")
def large():
    """A server that takes bodies of 128 MiB, so that a hundred megabytes of numbers are read and not just refused."""
    with served("--body-bytes-max", "128MiB", "--body-timeout", "60s", "--grpc-message-bytes-max", "128MiB", "--upload-memory-max", "1GiB") as running:
        yield running


def url(running, model=MODEL):
    return f"{running.url}/v2/models/{model}/infer"


def stub(channel):
    return service_pb2_grpc.GRPCInferenceServiceStub(channel)


def answers_rightly(running, cat):
    """Over HTTP and over gRPC, the cat is a cat."""
    answer = httpx.post(url(running, PHOTOS), content=cat, headers={HEADER: "0"}, timeout=30)
    assert answer.status_code == 200 and answer.content.endswith(b"cat"), answer.text
    request = service_pb2.ModelInferRequest(model_name=PHOTOS, raw_input_contents=[struct.pack("<I", len(cat)) + cat])
    request.inputs.add(name="image", datatype="BYTES", shape=[1])
    request.outputs.add(name="class_index")
    with grpc.insecure_channel(running.grpc) as channel:
        response = stub(channel).ModelInfer(request, timeout=30)
    assert np.frombuffer(response.raw_output_contents[0], "<i8")[0] == CAT


def settles_below(running, mib):
    """Memory goes back within seconds, since threads give it back when they are idle."""
    deadline = time.monotonic() + 10
    while (now := running.resident_mib()) > mib and time.monotonic() < deadline:
        time.sleep(0.2)
    assert now <= mib, f"{now:.0f} MiB are held, {mib:.0f} were expected at most"


def refused(answer, status=400):
    """The protocol's error: a status and one sentence."""
    assert answer.status_code == status, (answer.status_code, answer.text[:300])
    assert answer.headers["content-type"] == "application/json" and answer.json().keys() == {"error"}
    sentence = answer.json()["error"]
    assert isinstance(sentence, str) and 0 < len(sentence) <= 500, sentence
    return sentence


def image(**members):
    return {"name": "input", "datatype": "FP32", "shape": [1, 3, 32, 32]} | members


def document(*inputs, **members):
    return {"inputs": list(inputs)} | members


def sized(size, samples=SAMPLE):
    """A request whose binary tensor says this size, and the bytes that are there."""
    return json.dumps(document(image(parameters={"binary_data_size": size}))).encode(), samples.tobytes()


def post(running, body, **headers):
    return httpx.post(url(running), content=body, headers=headers, timeout=60)


# --- binary tensors over HTTP

RIGHT = SAMPLE.nbytes


@pytest.mark.parametrize(
    "size", [RIGHT - 1, RIGHT + 1, RIGHT * 2, 0, -1, 2**31, 2**63 - 1, 2**64, 1.5, "12288", None, True, [RIGHT], {}]
)
def test_a_binary_size_that_lies(running, size):
    head, tail = sized(size)
    refused(post(running, head + tail, **{HEADER: str(len(head))}))


@pytest.mark.parametrize("tail", [b"", SAMPLE.tobytes()[:-1], SAMPLE.tobytes() + b"\0"], ids=["none", "short", "long"])
def test_bytes_that_are_not_what_the_size_says(running, tail):
    head, _ = sized(RIGHT)
    refused(post(running, head + tail, **{HEADER: str(len(head))}))


def lengths():
    head, tail = sized(RIGHT)
    total = len(head) + len(tail)
    return {
        "one past the body": total + 1,
        "far past the body": 10**18,
        "more than 64 bits": 10**30,
        "negative": -1,
        "in the middle of the JSON": len(head) - 3,
        "into the tensor": len(head) + 3,
        "all of the body": total,
        "a word": "all",
        "a float": "12.0",
        "hexadecimal": "0x20",
        "nothing": "",
    }


@pytest.mark.parametrize("length", lengths().values(), ids=lengths())
def test_a_header_length_that_lies(running, length):
    head, tail = sized(RIGHT)
    refused(post(running, head + tail, **{HEADER: str(length)}))


def test_a_header_length_that_is_given_twice(running):
    head, tail = sized(RIGHT)
    refused(httpx.post(url(running), content=head + tail, headers=[(HEADER, str(len(head))), (HEADER, "0")]))


@pytest.mark.parametrize(
    "tail",
    [
        struct.pack("<I", 5) + b"four",
        struct.pack("<I", 2**32 - 1) + b"x",
        b"\1\0",
        b"",
        struct.pack("<I", 1) + b"x" + struct.pack("<I", 1) + b"y",
        struct.pack("<I", 0),
    ],
    ids=["one byte short", "4 GiB", "half a length", "no element", "two elements", "an empty one"],
)
def test_elements_of_bytes_whose_lengths_lie(running, tail):
    head = json.dumps(document({"name": "image", "datatype": "BYTES", "shape": [1], "parameters": {"binary_data_size": len(tail)}}))
    answer = httpx.post(url(running, PHOTOS), content=head.encode() + tail, headers={HEADER: str(len(head))})
    refused(answer)


@pytest.mark.parametrize(
    "shape",
    [
        [0, 3, 32, 32],
        [-1, 3, 32, 32],
        [2, 3, 32, 32],
        [1, 3, 32, 33],
        [3, 32, 32],
        [1, 1, 3, 32, 32],
        [],
        [2**63, 3, 32, 32],
        [1.5, 3, 32, 32],
        ["1", 3, 32, 32],
        "all",
        None,
        [1] * 100_000,
    ],
    ids=lambda shape: repr(shape)[:20],
)
def test_a_shape_that_lies(running, shape):
    head = json.dumps(document(image(shape=shape, parameters={"binary_data_size": RIGHT}))).encode()
    refused(post(running, head + SAMPLE.tobytes(), **{HEADER: str(len(head))}))


# --- JSON

NUMBERS = SAMPLE.ravel().tolist()


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"\xff\xfe",
        b"[" * 100_000,
        b'{"inputs":' + b"[" * 100_000,
        b'{"inputs": [{"name": "input", "datatype": "FP32", "shape": [1, 3, 32, 32], "data": ' + b"[" * 100_000,
        json.dumps({}),
        json.dumps(document()),
        json.dumps({"inputs": {}}),
        json.dumps({"inputs": [7]}),
        json.dumps(document(image())),
        json.dumps(document(image(data=NUMBERS[:-1]))),
        json.dumps(document(image(data=NUMBERS + [0]))),
        json.dumps(document(image(data=["word"] * 3072))),
        json.dumps(document(image(data=[None] * 3072))),
        json.dumps(document(image(data=[True] * 3072))),
        json.dumps(document(image(data=[float("nan")] * 3072))),
        json.dumps(document(image(data=[1e39] * 3072))),
        json.dumps(document(image(data={"b64": "AAAA"}))),
        json.dumps(document(image(data="AAAA"))),
        json.dumps(document(image(data=NUMBERS, parameters={"binary_data_size": RIGHT}))),
        json.dumps(document(image(data=NUMBERS, parameters=7))),
        json.dumps(document(image(data=NUMBERS, parameters={"shared_memory_region": "r", "shared_memory_byte_size": 4}))),
        json.dumps(document(image(data=NUMBERS, datatype="FLOAT"))),
        json.dumps(document(image(data=NUMBERS, datatype=7))),
        json.dumps(document(image(data=NUMBERS, name=None))),
        json.dumps(document(image(data=NUMBERS), image(data=NUMBERS))),
        json.dumps(document(image(data=NUMBERS), id=7)),
        json.dumps(document(image(data=NUMBERS), outputs=7)),
        json.dumps(document(image(data=NUMBERS), outputs=[{"name": "logits"}, {"name": "logits"}])),
        json.dumps(document(image(data=NUMBERS), outputs=[{"name": "logits", "parameters": {"classification": -1}}])),
        json.dumps(document(image(data=NUMBERS), outputs=[{"name": "logits", "parameters": {"classification": "all"}}])),
        json.dumps(document(image(data=NUMBERS), outputs=[{"name": "logits", "parameters": {"binary_data": 3}}])),
        json.dumps(document(image(data=NUMBERS), parameters={"binary_data_output": "yes"})),
        json.dumps(document(image(data=NUMBERS), parameters={"timeout": -1})),
        json.dumps(document(image(data=NUMBERS), parameters={"timeout": "soon"})),
        json.dumps(document(image(data=NUMBERS))) + "{}",
    ],
    ids=lambda body: (body.decode("latin-1") if isinstance(body, bytes) else body).replace(str(NUMBERS)[1:60], "")[:40],
)
def test_json_that_is_no_request(running, body):
    refused(post(running, body))


@pytest.mark.parametrize("images", [33, 2**62])
def test_more_images_than_one_request_may_hold(running, images):
    head = json.dumps(document(image(shape=[images, 3, 32, 32], parameters={"binary_data_size": RIGHT}))).encode()
    assert str(images) in refused(post(running, head + SAMPLE.tobytes(), **{HEADER: str(len(head))}), 413)


# --- NaN


def test_a_tensor_of_nan_fails_alone(running):
    """Its neighbours in the batch get their answers."""
    good, bad = oracle.random_samples(1), np.full_like(SAMPLE, np.nan)
    expected = oracle.logits(good)[0]
    with grpc.insecure_channel(running.grpc) as channel:
        calls = []
        for turn in range(40):
            samples = bad if turn % 4 == 0 else good
            request = service_pb2.ModelInferRequest(model_name=MODEL, raw_input_contents=[samples.tobytes()])
            request.inputs.add(name="input", datatype="FP32", shape=[1, 3, 32, 32])
            calls.append((turn % 4 == 0, stub(channel).ModelInfer.future(request, timeout=30)))
        for is_bad, call in calls:
            if is_bad:
                assert call.code() == grpc.StatusCode.INVALID_ARGUMENT and "NaN" in call.details()
            else:
                np.testing.assert_allclose(np.frombuffer(call.result().raw_output_contents[0], "<f4"), expected, atol=1e-4)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 3e38])
def test_values_that_no_photo_has(running, cat, value):
    head, tail = sized(RIGHT, np.full_like(SAMPLE, value))
    refused(post(running, head + tail, **{HEADER: str(len(head))}))
    answers_rightly(running, cat)


# --- a hundred megabytes


def hundred_megabytes(number=b"0.123456789"):
    """0.123456789,0.123456789,..."""
    return (number + b",") * (100_000_000 // (len(number) + 1)) + number


BEFORE_NUMBERS = b'{"inputs":[{"name":"input","datatype":"FP32","shape":[1,3,32,32],"data":['


def test_a_hundred_megabytes_of_numbers_are_above_the_bound(running, cat):
    before = running.resident_mib()
    for body in (BEFORE_NUMBERS + hundred_megabytes() + b"]}]}", iter([BEFORE_NUMBERS, hundred_megabytes(), b"]}]}"])):
        assert str(20 * MIB) in refused(post(running, body), 413)
    answers_rightly(running, cat)
    settles_below(running, before + KEPT_MIB)


@pytest.mark.parametrize("number", [b"0.123456789", b"[0.123456789]", b"7"], ids=["flat", "nested", "short"])
def test_a_hundred_megabytes_of_numbers_are_read_and_let_go(large, cat, number):
    answers_rightly(large, cat)
    before = large.resident_mib()
    sentence = refused(post(large, BEFORE_NUMBERS + hundred_megabytes(number) + b"]}]}"))
    assert "3072" in sentence or "12288" in sentence, sentence
    answers_rightly(large, cat)
    settles_below(large, before + KEPT_MIB)


def test_a_hundred_megabytes_over_grpc(running, large, cat):
    request = service_pb2.ModelInferRequest(model_name=MODEL)
    request.inputs.add(name="input", datatype="FP32", shape=[1, 3, 32, 32]).contents.fp32_contents.extend([0.5] * 25_000_000)
    for target, code in ((running, grpc.StatusCode.RESOURCE_EXHAUSTED), (large, grpc.StatusCode.INVALID_ARGUMENT)):
        answers_rightly(target, cat)
        before = target.resident_mib()
        with grpc.insecure_channel(target.grpc, options=[("grpc.max_send_message_length", -1)]) as channel:
            with pytest.raises(grpc.RpcError) as raised:
                stub(channel).ModelInfer(request, timeout=60)
        assert raised.value.code() == code, raised.value
        answers_rightly(target, cat)
        settles_below(target, before + KEPT_MIB)


@pytest.mark.parametrize(
    "coding, compress", [("gzip", gzip.compress), ("deflate", zlib.compress)], ids=["gzip", "deflate"]
)
def test_a_small_body_that_unpacks_to_a_quarter_of_a_gigabyte(running, cat, coding, compress):
    before = running.resident_mib()
    answer = post(running, compress(bytes(256 * MIB)), **{"Content-Encoding": coding})
    assert str(20 * MIB) in refused(answer, 413)
    answers_rightly(running, cat)
    settles_below(running, before + KEPT_MIB)


@pytest.mark.parametrize("coding", ["gzip", "deflate"])
def test_a_body_that_is_not_compressed_as_it_says(running, coding):
    for body in (b"plain", b"", gzip.compress(b"{}" * 1000)[:-9]):
        refused(post(running, body, **{"Content-Encoding": coding}))


# --- the APIs of other servers

ERROR = {"error"}
# Where each takes a request, what its errors hold, and where in its JSON the numbers of a tensor would stand.
OTHERS = {
    "Hugging Face": (f"/models/{MODEL}", ERROR, b'{"inputs":[', b"]}"),
    "TensorFlow Serving, rows": (f"/v1/models/{MODEL}:predict", ERROR, b'{"instances":[[[[', b"]]]]}"),
    "TensorFlow Serving, columns": (f"/v1/models/{MODEL}:predict", ERROR, b'{"inputs":{"input":[[[[', b"]]]]}}"),
    "SageMaker": ("/invocations", ERROR, b'{"instances":[[[[', b"]]]]}"),
    "TorchServe": (f"/predictions/{MODEL}", {"code", "type", "message"}, b'{"data":[', b"]}"),
}


@pytest.fixture(params=OTHERS)
def other(request):
    return OTHERS[request.param]


def refused_as(keys, answer, *statuses):
    """The API's own error: its members, its status, one sentence."""
    assert answer.status_code in statuses, (answer.status_code, answer.text[:300])
    assert answer.headers["content-type"] == "application/json" and answer.json().keys() == keys, answer.text
    sentence = answer.json().get("error") or answer.json()["message"]
    assert isinstance(sentence, str) and 0 < len(sentence) <= 600, sentence


def test_nonsense_gets_the_error_of_its_api(running, other):
    path, keys, opening, closing = other
    for body in (
        b"",
        b"{",
        b"{}",
        b'{"inputs":7}',
        b"[" * 100_000,
        opening + b"[" * 100_000,
        opening + b"1e39" + closing,
        opening + b"NaN" + closing,
        opening + b'"' + b"!" * 1000 + b'"' + closing,
        b"\xff\xd8\xff" + bytes(1000),
        b"\0" * 1000,
    ):
        refused_as(keys, httpx.post(running.url + path, content=body, timeout=30), 400, 415, 422)
    truncated = base64.b64encode(SAMPLE.tobytes())
    refused_as(keys, httpx.post(running.url + path, content=truncated, headers={"content-type": "image/png"}), 400, 415, 422)


def test_a_hundred_megabytes_get_the_error_of_its_api(running, large, cat, other):
    path, keys, opening, closing = other
    body = opening + hundred_megabytes() + closing
    for target, statuses in ((running, [413]), (large, [400])):
        answers_rightly(target, cat)
        before = target.resident_mib()
        refused_as(keys, httpx.post(target.url + path, content=body, timeout=60), *statuses)
        answers_rightly(target, cat)
        settles_below(target, before + KEPT_MIB)


# --- gRPC messages


def request_with(inputs=None, raw=(), model=MODEL, **members):
    request = service_pb2.ModelInferRequest(model_name=model, raw_input_contents=raw, **members)
    for one in [{}] if inputs is None else inputs:
        request.inputs.add(**{"name": "input", "datatype": "FP32", "shape": [1, 3, 32, 32]} | one)
    return request


def contents(**values):
    return {"contents": service_pb2.InferTensorContents(**values)}


MESSAGES = {
    "no input": request_with([]),
    "no data": request_with(),
    "raw bytes for two inputs": request_with(raw=[SAMPLE.tobytes()] * 2),
    "raw bytes and no input": request_with([], [SAMPLE.tobytes()]),
    "raw and typed": request_with([contents(fp32_contents=NUMBERS)], [SAMPLE.tobytes()]),
    "raw and short": request_with(raw=[SAMPLE.tobytes()[:-1]]),
    "raw and long": request_with(raw=[SAMPLE.tobytes() + b"\0"]),
    "typed and short": request_with([contents(fp32_contents=NUMBERS[:-1])]),
    "typed and long": request_with([contents(fp32_contents=[*NUMBERS, 0])]),
    "doubles for floats": request_with([contents(fp64_contents=NUMBERS)]),
    "integers for floats": request_with([contents(int_contents=[0] * 3072)]),
    "two kinds of contents": request_with([contents(fp32_contents=NUMBERS, int_contents=[0])]),
    "a shape of 2^62": request_with([{"shape": [2**62, 3, 32, 32]}], [SAMPLE.tobytes()]),
    "a negative shape": request_with([{"shape": [-1, 3, 32, 32]}], [SAMPLE.tobytes()]),
    "an unknown type": request_with([{"datatype": "FLOAT"}], [SAMPLE.tobytes()]),
    "shared memory": request_with([{"parameters": {"shared_memory_region": service_pb2.InferParameter(string_param="r")}}]),
    "an element past the end": request_with(
        [{"name": "image", "datatype": "BYTES", "shape": [1]}], [struct.pack("<I", 2**32 - 1) + b"x"], model=PHOTOS
    ),
    "NaN": request_with(raw=[np.full_like(SAMPLE, np.nan).tobytes()]),
}


@pytest.fixture(scope="module")
def channel(running):
    with grpc.insecure_channel(running.grpc) as channel:
        yield channel


@pytest.mark.parametrize("message", MESSAGES.values(), ids=MESSAGES)
def test_a_message_that_lies(channel, message):
    with pytest.raises(grpc.RpcError) as raised:
        stub(channel).ModelInfer(message, timeout=30)
    assert raised.value.code() == grpc.StatusCode.INVALID_ARGUMENT and 0 < len(raised.value.details()) <= 500
    # In a stream the same sentence comes as a message, and the stream goes on.
    told, right = stub(channel).ModelStreamInfer(iter([message, request_with(raw=[SAMPLE.tobytes()])]), timeout=30)
    assert told.error_message == raised.value.details()
    assert not right.error_message and len(right.infer_response.outputs) == 1


@pytest.mark.parametrize("call", ["ModelInfer", "ModelStreamInfer"])
def test_bytes_that_are_no_message(channel, running, cat, call):
    path = f"/inference.GRPCInferenceService/{call}"
    many = channel.stream_stream if call == "ModelStreamInfer" else channel.stream_unary
    for nonsense in (b"\xff" * 100, b"\x3a\xff\xff\xff\xff\x0f" + b"x" * 10, b"\x0a\x05ab"):
        ask = many(path, request_serializer=bytes, response_deserializer=bytes)
        with pytest.raises(grpc.RpcError) as raised:
            answer = ask(iter([nonsense]), timeout=30)
            if call == "ModelStreamInfer":
                list(answer)
        assert raised.value.code() in (grpc.StatusCode.INTERNAL, grpc.StatusCode.INVALID_ARGUMENT), raised.value
    answers_rightly(running, cat)


def test_a_stream_that_is_half_closed_at_once(channel):
    assert list(stub(channel).ModelStreamInfer(iter([]), timeout=30)) == []


def test_a_call_that_sends_no_message(channel):
    ask = channel.stream_unary("/inference.GRPCInferenceService/ModelInfer", request_serializer=bytes, response_deserializer=bytes)
    with pytest.raises(grpc.RpcError) as raised:
        ask(iter([]), timeout=30)
    assert raised.value.code() in (grpc.StatusCode.INTERNAL, grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.UNIMPLEMENTED)


# --- bodies that do not come


def connect(address):
    host, port = address.rsplit(":", 1)
    return socket.create_connection((host, int(port)), timeout=30)


def test_half_a_body_and_then_silence(bounded, cat):
    with connect(bounded.address) as waiting:
        waiting.sendall(
            f"POST /v2/models/{MODEL}/infer HTTP/1.1\r\nHost: x\r\nContent-Length: {RIGHT}\r\n{HEADER}: 0\r\n\r\n".encode()
            + SAMPLE.tobytes()[:100]
        )
        head, _, body = waiting.recv(65536).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 408 ") and json.loads(body).keys() == {"error"}
    answers_rightly(bounded, cat)


def test_half_a_body_and_then_the_end(bounded, cat):
    with connect(bounded.address) as leaving:
        leaving.sendall(
            f"POST /v2/models/{MODEL}/infer HTTP/1.1\r\nHost: x\r\nContent-Length: {RIGHT}\r\n{HEADER}: 0\r\n\r\n".encode()
            + SAMPLE.tobytes()[:100]
        )
        leaving.shutdown(socket.SHUT_WR)
        head = leaving.recv(65536)
    assert not head or head.startswith(b"HTTP/1.1 400 ")
    answers_rightly(bounded, cat)


def frame(kind, flags, stream, payload=b""):
    """A frame of HTTP/2: RFC 9113, section 4.1."""
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


DATA, HEADERS, RST_STREAM, SETTINGS, GOAWAY = 0, 1, 3, 4, 7
END_STREAM, END_HEADERS = 1, 4


def literal(name, value):
    """A header that neither side remembers: RFC 7541, section 6.2.2."""
    return b"\0" + bytes([len(name)]) + name.encode() + bytes([len(value)]) + value.encode()


def half_a_message(call="ModelInfer"):
    """A connection, a call, and the first 100 bytes of a message that claims 12 MiB."""
    head = {":method": "POST", ":scheme": "http", ":path": f"/inference.GRPCInferenceService/{call}", ":authority": "x"}
    head |= {"content-type": "application/grpc", "te": "trailers"}
    return b"".join(
        [
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
            frame(SETTINGS, 0, 0),
            frame(HEADERS, END_HEADERS, 1, b"".join(literal(name, value) for name, value in head.items())),
            frame(DATA, 0, 1, struct.pack(">BI", 0, 12 * MIB) + bytes(100)),
        ]
    )


def frames(connection):
    """What the server sends, as (kind, flags, stream, payload), until it says no more."""
    stream = connection.makefile("rb")
    while len(head := stream.read(9)) == 9:
        length = int.from_bytes(head[:3], "big")
        kind, flags, number = struct.unpack(">BBI", head[3:])
        yield kind, flags, number, stream.read(length)


@pytest.mark.parametrize("call", ["ModelInfer", "ModelStreamInfer"])
def test_half_a_message_and_then_silence(bounded, cat, call):
    before = bounded.resident_mib()
    connections = [connect(bounded.grpc) for _ in range(20)]
    for connection in connections:
        connection.sendall(half_a_message(call))
    for connection in connections:
        ends = (1 for kind, flags, stream, _ in frames(connection) if stream == 1 and (kind == RST_STREAM or flags & END_STREAM))
        assert next(ends, 0), "the call was ended"
        connection.close()
    answers_rightly(bounded, cat)
    settles_below(bounded, before + KEPT_MIB)


@pytest.mark.parametrize("call", ["ModelInfer", "ModelStreamInfer"])
def test_half_a_message_and_then_the_end_of_the_stream(bounded, cat, call):
    with connect(bounded.grpc) as connection:
        connection.sendall(half_a_message(call) + frame(DATA, END_STREAM, 1))
        ended = next(kind for kind, flags, stream, _ in frames(connection) if stream == 1 and (kind == RST_STREAM or flags & END_STREAM))
        assert ended in (HEADERS, RST_STREAM)
    answers_rightly(bounded, cat)


def test_half_a_message_and_then_no_connection(bounded, cat):
    before = bounded.resident_mib()
    for _ in range(50):
        with connect(bounded.grpc) as connection:
            connection.sendall(half_a_message())
    answers_rightly(bounded, cat)
    settles_below(bounded, before + KEPT_MIB)


def test_a_thousand_requests_that_lie_leave_nothing_behind(running, cat):
    head, tail = sized(RIGHT + 1)
    photo = base64.b64encode(cat[:3000])
    with httpx.Client() as client:

        def lie():
            refused(client.post(url(running), content=head + tail, headers={HEADER: str(len(head))}))
            refused(client.post(url(running, PHOTOS), content=photo, headers={HEADER: "0"}))

        for _ in range(100):
            lie()
        before = running.resident_mib()
        for _ in range(500):
            lie()
    answers_rightly(running, cat)
    settles_below(running, before + 16)
