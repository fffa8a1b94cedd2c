"""What the answers must be, by libraries that are not ours: Pillow prepares, ONNX's reference evaluator computes."""
import io
import json

import numpy as np
from onnx.reference import ReferenceEvaluator
from PIL import Image

from conftest import ROOT, TINY

MODEL = "resnet20-cifar10"
PHOTOS = MODEL + "_image"  # the same model for encoded photos
EDGE = 32
CLASSES = 10
MEAN = np.array([0.4914, 0.4822, 0.4465], np.float32)
STD = np.array([0.247, 0.2435, 0.2616], np.float32)
LABELS = list(json.loads((ROOT / "models" / MODEL / "config.json").read_text())["id2label"].values())
CAT = LABELS.index("cat")

_graph = ReferenceEvaluator(str(ROOT / "models" / MODEL / "model.onnx"))


def sample(photo):
    """A photo as the built-in model's recipe prepares it: [3,32,32] f32."""
    picture = Image.open(io.BytesIO(photo)).convert("RGB")
    width, height = picture.size
    shorter = min(width, height)
    picture = picture.resize((EDGE * width // shorter, EDGE * height // shorter), Image.BILINEAR)
    left, top = (picture.width - EDGE) // 2, (picture.height - EDGE) // 2
    pixels = np.asarray(picture.crop((left, top, left + EDGE, top + EDGE)), np.float32)
    return ((pixels / 255 - MEAN) / STD).transpose(2, 0, 1)


def logits(samples):
    """[N,3,32,32] -> [N,10]"""
    return _graph.run(None, {"input": np.asarray(samples, np.float32)})[0]


def softmax(scores):
    powers = np.exp(scores.astype(np.float64) - scores.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)


def random_samples(images, seed=0):
    return np.random.default_rng(seed).standard_normal((images, 3, EDGE, EDGE), np.float32)


# What ONNX Runtime's own package answers to plain colours, from tests/models/make.py: {model: [(rgb, probabilities)]}
COLOURS = {
    name: [(case["rgb"], [score for _, score in sorted(case["predictions"])]) for case in cases]
    for name, cases in json.loads((TINY / "expected.json").read_text()).items()
}
