"""LitServe with batching: decoded by `decode_request`, put together by `batch`, both in the inference worker.

LitServe hands the annotations of the first and the last step to FastAPI: they are types here and not strings, and a
request without one is the form of the upload.
"""

import os

import litserve
import numpy as np
from imagenet import Answer, Classifier, prepare


class ResNet(litserve.LitAPI):
    def setup(self, device: str) -> None:
        self.classifier = Classifier()

    def decode_request(self, request) -> np.ndarray:
        return prepare(request["file"].file.read())

    def batch(self, inputs: list[np.ndarray]) -> np.ndarray:
        return np.stack(inputs)

    def predict(self, batch: np.ndarray) -> list[Answer]:
        return self.classifier.classify(batch)

    def unbatch(self, output: list[Answer]) -> list[Answer]:
        return output

    def encode_response(self, output: Answer) -> dict[str, Answer]:
        return {"predictions": output}


if __name__ == "__main__":
    # A batch takes what is queued and waits for no more: the timeout of 0 s is LitServe's default.
    server = litserve.LitServer(ResNet(max_batch_size=8, batch_timeout=0.0), accelerator="cpu")
    server.run(host="127.0.0.1", port=int(os.environ["PEERS_PORT"]), generate_client_file=False, log_level="warning")
