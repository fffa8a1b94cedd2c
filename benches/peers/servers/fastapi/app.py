"""FastAPI: an upload handler as its tutorial has it, one session for each process.

The handler is a plain `def`, which FastAPI runs in its thread pool; blocking work in an `async def` would stop the
loop.
"""

from __future__ import annotations

import os

from fastapi import FastAPI, UploadFile
from imagenet import Classifier, cores, prepare

# The workers share the cores: each takes its part of them.
classifier = Classifier(threads=max(1, cores() // int(os.environ["PEERS_WORKERS"])))
app = FastAPI()


@app.post("/classify")
def classify(file: UploadFile) -> list[tuple[int, float]]:
    return classifier.classify(prepare(file.file.read())[None])[0]
