"""Triton Inference Server through PyTriton, with its dynamic batcher.

The requests are of the Open Inference Protocol with the JPEG as a binary tensor. The images of a batch are decoded by
as many threads as there are cores, since Pillow lets go of the interpreter while it decodes and resizes.
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from imagenet import Classifier, cores, prepare
from pytriton.decorators import batch
from pytriton.model_config import DynamicBatcher, ModelConfig, Tensor
from pytriton.triton import Triton, TritonConfig

classifier = Classifier()
pool = ThreadPoolExecutor(cores())


@batch
def classify(image: np.ndarray) -> dict[str, np.ndarray]:
    """image: [N,1] bytes -> index: [N,5] i32, score: [N,5] f32"""
    samples = np.stack(list(pool.map(prepare, image[:, 0])))
    answers = classifier.classify(samples)
    return {
        "index": np.array([[index for index, _ in answer] for answer in answers], np.int32),
        "score": np.array([[score for _, score in answer] for answer in answers], np.float32),
    }


if __name__ == "__main__":
    config = TritonConfig(
        http_address="127.0.0.1",
        http_port=int(os.environ["PEERS_PORT"]),
        grpc_address="127.0.0.1",
        grpc_port=int(os.environ["PEERS_PORT_2"]),
        metrics_port=int(os.environ["PEERS_PORT_3"]),
    )
    with Triton(config=config) as triton:
        triton.bind(
            model_name="resnet",
            infer_func=classify,
            inputs=[Tensor(name="image", dtype=bytes, shape=(1,))],
            outputs=[
                Tensor(name="index", dtype=np.int32, shape=(5,)),
                Tensor(name="score", dtype=np.float32, shape=(5,)),
            ],
            # No delay: Triton fills batches while the instance is busy, which its guide has as the first thing to try.
            config=ModelConfig(max_batch_size=8, batcher=DynamicBatcher(max_queue_delay_microseconds=0)),
            strict=True,
        )
        triton.serve()
