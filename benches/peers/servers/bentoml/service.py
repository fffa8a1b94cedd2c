"""BentoML with adaptive batching: a batchable API over images, as its guide has it."""

from __future__ import annotations

import bentoml
import numpy as np
from imagenet import Answer, Classifier, prepare_image
from PIL.Image import Image


@bentoml.service(workers=1, traffic={"timeout": 60}, logging={"access": {"enabled": False}})
class ResNet:
    def __init__(self) -> None:
        self.classifier = Classifier()

    @bentoml.api(batchable=True, max_batch_size=8)
    def classify(self, images: list[Image]) -> list[Answer]:
        return self.classifier.classify(np.stack([prepare_image(image) for image in images]))
