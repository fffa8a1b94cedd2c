#!/usr/bin/env python3
"""What each protocol costs beside the native route: the same photo, one connection, one request at a time.

    cargo build --release && python3 benches/protocols.py

Requests are bytes made beforehand and answers are read from the socket, so that no client library is in the times; gRPC too,
with HTTP/2 frames by hand. The protocols take turns within each round, so that a busy machine is unfair to nobody. The first
row is what the others are compared with. Needs Python 3.11 and nothing else.
"""
import argparse
import base64
import json
import os
import pathlib
import re
import socket
import statistics
import struct
import subprocess
import time

ROOT = pathlib.Path(__file__).resolve().parents[1]
MODEL = "resnet20-cifar10"
PHOTOS = MODEL + "_image"
LENGTH = "Inference-Header-Content-Length"
VALUES = 3 * 32 * 32


# --- HTTP/1.1


class Http:
    """One kept connection that sends the same request again and again."""

    def __init__(self, address, path, body, **headers):
        host, port = address.rsplit(":", 1)
        self.connection = socket.create_connection((host, int(port)))
        self.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.stream = self.connection.makefile("rb")
        lines = [f"POST {path} HTTP/1.1", f"Host: {address}", f"Content-Length: {len(body)}"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        self.request = "\r\n".join(lines).encode() + b"\r\n\r\n" + body

    def ask(self):
        self.connection.sendall(self.request)
        status = self.stream.readline()
        length = 0
        while (line := self.stream.readline()) != b"\r\n":
            if line.lower().startswith(b"content-length:"):
                length = int(line.split(b":")[1])
        answer = self.stream.read(length)
        if not status.startswith(b"HTTP/1.1 200 "):
            raise SystemExit(f"{self.request[:60]!r} was refused: {status!r} {answer[:300]!r}")
        return answer


# --- gRPC


def frame(kind, flags, stream, payload=b""):
    """A frame of HTTP/2: RFC 9113, section 4.1."""
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE = 0, 1, 3, 4, 6, 7, 8
END_STREAM = ACK = 1
END_HEADERS = 4
FRAME_BYTES_MAX = 16_384


class Grpc:
    """One kept connection on which each request is a new stream."""

    def __init__(self, address, message):
        host, port = address.rsplit(":", 1)
        self.connection = socket.create_connection((host, int(port)))
        self.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.stream = self.connection.makefile("rb")
        # The windows of answers are opened wide once, so that none has to be opened again.
        wide = struct.pack(">HI", 4, 2**31 - 1)
        preface = [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", frame(SETTINGS, 0, 0, wide)]
        self.connection.sendall(b"".join(preface) + frame(WINDOW_UPDATE, 0, 0, struct.pack(">I", 2**31 - 1 - 65_535)))
        head = {
            ":method": "POST",
            ":scheme": "http",
            ":path": "/inference.GRPCInferenceService/ModelInfer",
            ":authority": address,
        }
        head |= {"content-type": "application/grpc", "te": "trailers"}
        # Literals without indexing, RFC 7541, section 6.2.2.
        literal = lambda text: bytes([len(text)]) + text.encode()
        self.head = b"".join(b"\0" + literal(name) + literal(value) for name, value in head.items())
        self.message = struct.pack(">BI", 0, len(message)) + message
        self.next = 1

    def ask(self):
        number, self.next = self.next, self.next + 2
        parts = [self.message[at : at + FRAME_BYTES_MAX] for at in range(0, len(self.message), FRAME_BYTES_MAX)]
        frames = [frame(HEADERS, END_HEADERS, number, self.head)]
        frames += [frame(DATA, END_STREAM if part is parts[-1] else 0, number, part) for part in parts]
        self.connection.sendall(b"".join(frames))
        answer = b""
        while True:
            head = self.stream.read(9)
            kind, flags, stream = struct.unpack(">BBI", head[3:])
            payload = self.stream.read(int.from_bytes(head[:3], "big"))
            if kind in (SETTINGS, PING) and not flags & ACK:
                self.connection.sendall(frame(kind, ACK, 0, payload if kind == PING else b""))
            elif kind in (RST_STREAM, GOAWAY):
                raise SystemExit(f"the call was ended: {payload!r}")
            elif stream == number and kind == DATA:
                answer += payload
            if stream == number and flags & END_STREAM:
                if not answer:
                    raise SystemExit(f"the call was refused: {payload!r}")
                return answer


def varint(number):
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    return bytes(out + bytes([number]))


def field(number, value):
    """A field of a message: text or bytes."""
    value = value.encode() if isinstance(value, str) else value
    return varint(number << 3 | 2) + varint(len(value)) + value


def infer_request(model, name, datatype, shape, raw=None, floats=None):
    """ModelInferRequest: model_name = 1, inputs = 5, raw_input_contents = 7."""
    tensor = field(1, name) + field(2, datatype) + field(3, b"".join(map(varint, shape)))
    if floats is not None:
        tensor += field(5, field(6, floats))
    return field(1, model) + field(5, tensor) + (b"" if raw is None else field(7, raw))


# --- the protocols


def protocols(http, grpc, photo):
    """Every way to ask, by name, and what the answer has to hold."""
    b64 = base64.b64encode(photo).decode()
    element = struct.pack("<I", len(photo)) + photo
    tensor = struct.pack(f"<{VALUES}f", *((index % 61 - 30) / 10 for index in range(VALUES)))
    numbers = [(index % 61 - 30) / 10 for index in range(VALUES)]
    image = lambda **more: json.dumps({"inputs": [{"name": "image", "datatype": "BYTES", "shape": [1]} | more]}).encode()
    sample = lambda **more: json.dumps(
        {"inputs": [{"name": "input", "datatype": "FP32", "shape": [1, 3, 32, 32]} | more]}
    ).encode()
    v2 = lambda model: f"/v2/models/{model}/infer"
    as_json = {"Content-Type": "application/json"}

    def binary(model, head, tail):
        return Http(http, v2(model), head + tail, **{LENGTH: len(head)})

    sized = lambda tail: {"parameters": {"binary_data_size": len(tail)}}
    yield "native, the photo", Http(http, "/api/v1/classify", photo), b'"cat"'
    yield "native, JSON and base64", Http(http, "/api/v1/classify", json.dumps({"image": b64}).encode(), **as_json), b'"cat"'
    yield "v2 over HTTP, the photo alone", Http(http, v2(PHOTOS), photo, **{LENGTH: 0}), b"cat"
    yield "v2 over HTTP, BYTES", binary(PHOTOS, image(**sized(element)), element), b"cat"
    yield "gRPC, BYTES", Grpc(grpc, infer_request(PHOTOS, "image", "BYTES", [1], raw=element)), b"cat"
    yield "Hugging Face, the photo", Http(http, f"/models/{MODEL}", photo), b'"cat"'
    document = json.dumps({"inputs": b64, "parameters": {"top_k": 5}}).encode()
    yield "Hugging Face, JSON and base64", Http(http, f"/models/{MODEL}", document, **as_json), b'"cat"'
    rows = json.dumps({"instances": [{"b64": b64}]}).encode()
    yield "KServe v1 and TensorFlow Serving", Http(http, f"/v1/models/{MODEL}:predict", rows, **as_json), b'"cat"'
    yield "SageMaker", Http(http, "/invocations", photo, **{"Content-Type": "application/x-image"}), b'"cat"'
    yield "TorchServe", Http(http, f"/predictions/{MODEL}", photo), b'"cat"'
    yield "v2 over HTTP, FP32 in binary", binary(MODEL, sample(**sized(tensor)), tensor), b"logits"
    yield "gRPC, FP32 in raw contents", Grpc(grpc, infer_request(MODEL, "input", "FP32", [1, 3, 32, 32], raw=tensor)), b"logits"
    yield (
        "gRPC, FP32 in typed contents",
        Grpc(grpc, infer_request(MODEL, "input", "FP32", [1, 3, 32, 32], floats=tensor)),
        b"logits",
    )
    yield "v2 over HTTP, FP32 in JSON", Http(http, v2(MODEL), sample(data=numbers), **as_json), b"logits"


def cpu_seconds(pid):
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def measure(rows, pid, rounds, requests):
    """Times of single requests, and the server's CPU time for one, by protocol."""
    times, cpu = {name: [] for name, _, _ in rows}, {name: 0.0 for name, _, _ in rows}
    for turn in range(rounds + 1):
        for name, client, holds in rows if turn % 2 else rows[::-1]:
            before, found = cpu_seconds(pid), []
            for _ in range(requests):
                started = time.perf_counter()
                answer = client.ask()
                found.append(time.perf_counter() - started)
            if holds not in answer:
                raise SystemExit(f"{name} answered {answer[:300]!r}, without {holds!r}")
            if turn > 0:  # the first round warms up
                times[name] += found
                cpu[name] += (cpu_seconds(pid) - before) / (requests * rounds)
    return times, cpu


def main():
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--binary", default=ROOT / "target" / "release" / "residual")
    arguments.add_argument("--photo", type=pathlib.Path, default=ROOT / "tests" / "golden" / "inputs" / "cat.jpg")
    arguments.add_argument("--rounds", type=int, default=10)
    arguments.add_argument("--requests", type=int, default=200, help="of each protocol in each round")
    asked = arguments.parse_args()
    server = subprocess.Popen([asked.binary, "serve", "--http-port", "0", "--grpc-port", "0"], stderr=subprocess.PIPE, text=True)
    told = ""
    for line in server.stderr:
        told += line
        if line.lstrip().startswith("try "):
            break
    else:
        raise SystemExit(f"the server did not start:\n{told}")
    try:
        http = re.search(r"ready at http://(\S+)", told).group(1)
        grpc = re.search(r"^ +grpc +(\S+)$", told, re.MULTILINE).group(1)
        rows = list(protocols(http, grpc, asked.photo.read_bytes()))
        times, cpu = measure(rows, server.pid, asked.rounds, asked.requests)
    finally:
        server.terminate()
        server.wait()
    first = rows[0][0]
    base = statistics.median(times[first])
    print("| | median ms | p90 ms | µs more | x native | CPU ms |\n| --- | --- | --- | --- | --- | --- |")
    for name, found in times.items():
        median, p90 = statistics.median(found), statistics.quantiles(found, n=10)[8]
        more = "" if name == first else f"{(median - base) * 1e6:+.0f}"
        print(f"| {name} | {median * 1e3:.3f} | {p90 * 1e3:.3f} | {more} | {median / base:.2f} | {cpu[name] * 1e3:.3f} |")


if __name__ == "__main__":
    main()
