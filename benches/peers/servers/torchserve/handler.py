"""TorchServe: a custom handler around ONNX Runtime, in the steps that its base handler calls."""

from __future__ import annotations

import numpy as np
from imagenet import Answer, Classifier, cores, prepare
from ts.torch_handler.base_handler import BaseHandler


class ResNet(BaseHandler):
    def initialize(self, context) -> None:
        # The guide's advice for CPUs is a worker for each core; model-config.yaml is written that way.
        workers = int(context.model_yaml_config["minWorkers"])
        self.classifier = Classifier(threads=max(1, cores() // workers))
        self.context = context
        self.initialized = True

    def preprocess(self, data: list[dict[str, bytes]]) -> np.ndarray:
        return np.stack([prepare(bytes(row.get("data") or row["body"])) for row in data])

    def inference(self, data: np.ndarray) -> list[Answer]:
        return self.classifier.classify(data)

    def postprocess(self, data: list[Answer]) -> list[Answer]:
        return data
