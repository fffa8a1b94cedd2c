"""Models with faults that the program itself writes none of, byte by byte: the standard library has no ONNX."""
from __future__ import annotations

import json
import pathlib
import struct

FLOAT, INT64 = 1, 7  # TensorProto.DataType
ATTRIBUTE_INT = 2  # AttributeProto.AttributeType
# The mean of a colour over a picture is -1 to 1. This many times it, cut to a whole number, is the row that is looked up:
# all rows from -8 to 7 are there, and only a picture that is all white in one colour asks for row 8.
TABLE_ROWS, TIMES = 8, 8.01
LARGE_ROWS = 16384
EXTERNAL = 1  # TensorProto.DataLocation


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def _int(field: int, value: int) -> bytes:
    return _varint(field << 3) + _varint(value)


def _bytes(field: int, value: bytes | str) -> bytes:
    data = value.encode() if isinstance(value, str) else value
    return _varint(field << 3 | 2) + _varint(len(data)) + data


def _node(operator: str, inputs: list[str], output: str, attributes: bytes = b"") -> bytes:
    named = b"".join(_bytes(1, name) for name in inputs)
    return _bytes(1, named + _bytes(2, output) + _bytes(4, operator) + attributes)


def _integer_attribute(name: str, value: int) -> bytes:
    return _bytes(5, _bytes(1, name) + _int(3, value) + _int(20, ATTRIBUTE_INT))


def _constant(name: str, shape: list[int], values: list[float]) -> bytes:
    lengths = b"".join(_int(1, length) for length in shape)
    return _bytes(5, lengths + _int(2, FLOAT) + _bytes(8, name) + _bytes(9, struct.pack(f"<{len(values)}f", *values)))


def _value(field: int, name: str, shape: list[int | str]) -> bytes:
    dims = b"".join(_bytes(1, _bytes(2, d) if isinstance(d, str) else _int(1, d)) for d in shape)
    return _bytes(field, _bytes(1, name) + _bytes(2, _bytes(1, _int(1, FLOAT) + _bytes(2, dims))))


def throwing_model(folder: pathlib.Path) -> pathlib.Path:
    """Three classes, red, green and blue. A white picture makes it look outside of its table, which ONNX Runtime refuses
    while it runs; any other picture is answered."""
    return _model(folder / "throws", _constant("table", [TABLE_ROWS], [0.0] * TABLE_ROWS))


def external_model(folder: pathlib.Path) -> pathlib.Path:
    """The same three classes with a table of 64 KiB in a file of its own, `table.bin`, in which every row differs."""
    place = _bytes(1, "location") + _bytes(2, "table.bin")
    table = _bytes(5, _int(1, LARGE_ROWS) + _int(2, FLOAT) + _bytes(8, "table") + _bytes(13, place) + _int(14, EXTERNAL))
    path = _model(folder / "external", table)
    (path / "table.bin").write_bytes(table_bytes(1))
    return path


def table_bytes(sign: int) -> bytes:
    """What `table.bin` holds; the other sign gives other answers."""
    return struct.pack(f"<{LARGE_ROWS}f", *(sign * ((row * 7919) % 101) / 25 for row in range(LARGE_ROWS)))


def _model(path: pathlib.Path, table: bytes) -> pathlib.Path:
    path.mkdir(parents=True, exist_ok=True)
    graph = b"".join([
        _node("GlobalAveragePool", ["image"], "pooled"),
        _node("Flatten", ["pooled"], "means"),
        _node("Mul", ["means", "times"], "scaled"),
        _node("Cast", ["scaled"], "rows", _integer_attribute("to", INT64)),
        _node("Gather", ["table", "rows"], "looked_up"),
        _node("Add", ["looked_up", "means"], "logits"),
        _bytes(2, "looked up"),
        _constant("times", [], [TIMES]),
        table,
        _value(11, "image", ["N", 3, 4, 4]),
        _value(12, "logits", ["N", 3]),
    ])
    model = _int(1, 9) + _bytes(2, "residual") + _bytes(7, graph) + _bytes(8, _bytes(1, "") + _int(2, 17))
    (path / "model.onnx").write_bytes(model)
    (path / "config.json").write_text(json.dumps({"id2label": {"0": "red", "1": "green", "2": "blue"}}))
    recipe = {
        "image_processor_type": "ViTImageProcessor", "size": {"height": 4, "width": 4},
        "image_mean": [0.5] * 3, "image_std": [0.5] * 3,
    }
    (path / "preprocessor_config.json").write_text(json.dumps(recipe))
    return path
