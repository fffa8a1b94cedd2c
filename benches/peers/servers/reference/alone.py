"""How fast the parts are without a server: `alone.py SECONDS PHOTO...` prints one JSON object.

- `prepare_ms`: decode, resize, crop and normalise with Pillow and numpy, CPU time of one core, mean over the photos
- `one_session_images_per_second`: one session with a thread for each core, batches of 8
- `session_per_core_images_per_second`: for each core a process with a session of one thread, batches of 8, all at once
- `batch_1_ms`: one image in one session with a thread for each core, median
"""

from __future__ import annotations

import json
import multiprocessing
import sys
import time
from collections.abc import Callable
from multiprocessing.synchronize import Barrier
from pathlib import Path
from statistics import median

import numpy as np
from imagenet import Classifier, cores, prepare

BATCH = 8


def repeat(action: Callable[[], object], seconds: float, clock: Callable[[], float] = time.perf_counter) -> list[float]:
    """Returns what each call took by `clock`, in seconds, after one call that does not count."""
    action()
    times = []
    end = time.perf_counter() + seconds
    while not times or time.perf_counter() < end:
        start = clock()
        action()
        times.append(clock() - start)
    return times


def runs_per_second(classifier: Classifier, batch: np.ndarray, seconds: float) -> float:
    times = repeat(lambda: classifier.logits(batch), seconds)
    return len(times) / sum(times)


def one_of_many(batch: np.ndarray, seconds: float, barrier: Barrier, results: multiprocessing.Queue) -> None:
    """Loads, waits for the others, and measures."""
    classifier = Classifier(threads=1)
    classifier.logits(batch)
    barrier.wait()
    results.put(runs_per_second(classifier, batch, seconds))


def session_per_core(batch: np.ndarray, seconds: float) -> float:
    """Returns the runs a second of all processes together."""
    context = multiprocessing.get_context("spawn")
    barrier, results = context.Barrier(cores()), context.Queue()
    processes = [context.Process(target=one_of_many, args=(batch, seconds, barrier, results)) for _ in range(cores())]
    for process in processes:
        process.start()
    rate = sum(results.get() for _ in processes)
    for process in processes:
        process.join()
    return rate


def one_session(batch: np.ndarray, seconds: float) -> tuple[float, float]:
    """Returns the runs a second of the whole batch, and the milliseconds that one image takes."""
    classifier = Classifier(cores())
    rate = runs_per_second(classifier, batch, seconds)
    return rate, 1000 * median(repeat(lambda: classifier.logits(batch[:1]), seconds / 2))


def main() -> None:
    seconds = float(sys.argv[1])
    jpegs = [Path(photo).read_bytes() for photo in sys.argv[2:]]
    prepare_times = repeat(lambda: [prepare(jpeg) for jpeg in jpegs], seconds / 2, time.thread_time)
    samples = [prepare(jpeg) for jpeg in jpegs]
    batch = np.stack([samples[index % len(samples)] for index in range(BATCH)])
    rate, batch_1_ms = one_session(batch, seconds)
    result = {
        "prepare_ms": 1000 * sum(prepare_times) / len(prepare_times) / len(jpegs),
        "one_session_images_per_second": BATCH * rate,
        "session_per_core_images_per_second": BATCH * session_per_core(batch, seconds),
        "batch_1_ms": batch_1_ms,
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
