"""Turns a network of `residual synth` into the models that all servers get: `model.py IN OUT QUANTISED PHOTO...`.

Random weights give every photo the same class and nearly the same scores, so that a wrong answer would look like a
right one. The last layer is therefore shifted and scaled until each photo has scores of its own; nothing that takes
time changes. The quantised twin is made by onnxruntime's own tool with the photos to calibrate on.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import numpy as np
import onnx
from imagenet import Classifier, prepare
from onnx import numpy_helper
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process

# Spread of a photo's logits around the mean of all photos; trained ResNets have about as much.
LOGITS_STD = 3.0


def tell_apart(source: Path, target: Path, samples: list[np.ndarray]) -> None:
    """Writes the model with the logits of `samples` moved around zero and spread to `LOGITS_STD`."""
    os.environ["PEERS_MODEL"] = str(source)
    classifier = Classifier()
    logits = np.concatenate([classifier.logits(sample[None]) for sample in samples])  # [N,C]
    mean = logits.mean(axis=0)
    gain = LOGITS_STD / (logits - mean).std()
    model = onnx.load(source)
    last = model.graph.node[-1]
    if last.op_type != "Gemm":
        raise SystemExit(f"{source}: ends in {last.op_type} and not in the Gemm that `residual synth` writes")
    weights = {initializer.name: initializer for initializer in model.graph.initializer}
    weight, bias = weights[last.input[1]], weights[last.input[2]]
    weight.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weight) * np.float32(gain), weight.name))
    bias.CopyFrom(numpy_helper.from_array((numpy_helper.to_array(bias) - mean) * np.float32(gain), bias.name))
    onnx.save(model, target)


class Photos(CalibrationDataReader):
    """Hands the samples out one at a time, as the calibration asks for them."""

    def __init__(self, name: str, samples: list[np.ndarray]) -> None:
        self._rest = iter([{name: sample[None]} for sample in samples])

    def get_next(self) -> dict[str, np.ndarray] | None:
        return next(self._rest, None)


def quantise(source: Path, target: Path, samples: list[np.ndarray]) -> None:
    """Writes `source` in int8: QDQ, one scale a channel, u8 activations, as onnxruntime's guide has it for x86."""
    prepared = target.with_name("prepared.onnx")
    quant_pre_process(str(source), str(prepared), skip_symbolic_shape=True)
    name = onnx.load(prepared).graph.input[0].name
    quantize_static(
        str(prepared),
        str(target),
        Photos(name, samples),
        quant_format=QuantFormat.QDQ,
        per_channel=True,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
    )
    prepared.unlink()


def main() -> None:
    source, target, quantised = (Path(argument) for argument in sys.argv[1:4])
    samples = [prepare(Path(photo).read_bytes()) for photo in sys.argv[4:]]
    tell_apart(source, target, samples)
    quantise(target, quantised, samples)


if __name__ == "__main__":
    main()
