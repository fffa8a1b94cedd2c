"""What the Python servers have in common: a JPEG becomes a sample, samples become the five best classes.

It is written once so that the servers differ in how they serve and in nothing else. The recipe is torchvision's first
one for ImageNet (shortest edge 256, centre crop 224, mean and standard deviation of ImageNet), the arithmetic Pillow's.
"""

from __future__ import annotations

import io
import os

import numpy as np
import onnxruntime
from PIL import Image

EDGE = 256
CROP = 224
MEAN = np.array([0.485, 0.456, 0.406], np.float32)
STD = np.array([0.229, 0.224, 0.225], np.float32)
# (x / 255 - mean) / std as one multiplication and one addition.
SCALE = 1 / (255 * STD)
SHIFT = -MEAN / STD

#: Class index and probability, the best first.
Answer = list[tuple[int, float]]


def prepare(jpeg: bytes) -> np.ndarray:
    """Returns the sample of a JPEG: [3,224,224] f32."""
    return prepare_image(Image.open(io.BytesIO(jpeg)))


def prepare_image(image: Image.Image) -> np.ndarray:
    """Returns the sample of an image that may not be decoded yet: [3,224,224] f32."""
    image = image.convert("RGB")
    width, height = image.size
    # torchvision cuts the longer edge off to whole pixels and rounds the crop's corner half to even.
    if width < height:
        width, height = EDGE, int(EDGE * height / width)
    else:
        width, height = int(EDGE * width / height), EDGE
    image = image.resize((width, height), Image.Resampling.BILINEAR)
    left, top = round((width - CROP) / 2), round((height - CROP) / 2)
    pixels = np.asarray(image.crop((left, top, left + CROP, top + CROP)), np.float32)
    return np.ascontiguousarray((pixels * SCALE + SHIFT).transpose(2, 0, 1))


class Classifier:
    """A model in ONNX Runtime's CPU provider; the calls may come from several threads at once."""

    def __init__(self, threads: int | None = None) -> None:
        """Loads the model named by `PEERS_MODEL`, with `threads` threads or else as many as ONNX Runtime takes."""
        options = onnxruntime.SessionOptions()
        if threads:
            options.intra_op_num_threads = threads
        self._session = onnxruntime.InferenceSession(
            os.environ["PEERS_MODEL"], options, providers=["CPUExecutionProvider"]
        )
        self._input = self._session.get_inputs()[0].name

    def logits(self, batch: np.ndarray) -> np.ndarray:
        """[N,3,224,224] f32 -> [N,C] f32."""
        return self._session.run(None, {self._input: batch})[0]

    def classify(self, batch: np.ndarray) -> list[Answer]:
        """Returns the five best classes of each sample of [N,3,224,224] f32."""
        return [best(row) for row in self.logits(batch)]


def best(logits: np.ndarray, count: int = 5) -> Answer:
    """Returns the `count` best classes of [C] logits, with probabilities by softmax."""
    exponents = np.exp(logits - logits.max())
    scores = exponents / exponents.sum()
    order = np.argsort(-scores, kind="stable")[:count]
    return [(int(index), float(scores[index])) for index in order]


def cores() -> int:
    """Returns the number of cores that this process may use."""
    return len(os.sched_getaffinity(0))
