"""Models that fail while they run, and clients that load models again and again."""
from __future__ import annotations

import collections
import concurrent.futures
import pathlib
import signal
import threading
import time

from rig import onnx, photos, server, wire
from rig.figures import mib, milliseconds
from rig.server import ROOT, Server
from told import Told

CLASSIFY = "/api/v1/classify"
GRAYISH, WHITE, BLACK = photos.plain(140, 150, 135), photos.plain(255, 255, 255), photos.plain(0, 0, 0)


def _ask_all(running: Server, path: str, bodies: list[bytes]) -> list[wire.Answer]:
    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        return list(pool.map(lambda body: wire.post(running.http, path, body), bodies))


def _failing(told: Told, running: Server, name: str, bad: bytes) -> None:
    path = f"{CLASSIFY}?model={name}"
    alone = _ask_all(running, path, [GRAYISH] * 40)
    told.holds({a.status for a in alone} == {200}, f"{name}: 40 pictures that it can take are answered")
    mixed = [bad if index % 2 else GRAYISH for index in range(200)]
    answers = _ask_all(running, path, mixed)
    good = collections.Counter(a.status for a, body in zip(answers, mixed) if body is GRAYISH)
    failed = collections.Counter(a.status for a, body in zip(answers, mixed) if body is bad)
    told.did(f"{name}: 200 pictures at 16 at a time, every other one makes it fail")
    told.saw(f"{name}: the good ones got {dict(good)}, the others {dict(failed)}")
    told.holds(failed == {500: 100}, f"{name}: each that makes it fail gets 500")
    told.holds(all(b"says why" in a.body for a in answers if a.status == 500), f"{name}: and is told where the cause is")
    told.holds(good == {200: 100}, f"{name}: no good picture suffers for its neighbour in the batch")
    told.holds(wire.post(running.http, path, GRAYISH).status == 200, f"{name}: it answers afterwards")
    logged = [entry for entry in running.errors() if entry.get("code") == "inference_failed"]
    told.saw(f"{name}: {len(logged)} lines at ERROR, such as: {logged[-1]['message'] if logged else None}")
    told.holds(len(logged) >= 100, f"{name}: the log has the cause of each, under its request id")


def failing_models(told: Told, scratch: pathlib.Path) -> None:
    """One model returns NaN for dark pictures, one throws inside the runtime for bright ones."""
    throws = onnx.throwing_model(scratch)
    nan = ROOT / "tests" / "models" / "nan"
    # So that the good and the bad ones share batches.
    batches = ["--instances", "1", "--batch-images-max", "8", "--batch-delay", "20ms"]
    with server.running("--model", str(nan), "--model", str(throws), "--provider", "cpu", *batches) as running:
        threads = running.threads()
        _failing(told, running, "nan", BLACK)
        _failing(told, running, "throws", WHITE)
        page = running.metrics()
        runs, images = page.sum("residual_batch_images_count"), page.sum("residual_batch_images_sum")
        told.saw(f"{images / runs:.1f} pictures in a batch")
        told.holds(images > 1.5 * runs, "they shared batches")
        told.holds(running.threads() <= threads + 8, "no thread is left over")
        told.holds(wire.get(running.http, "/health/live").status == 200, "the process is live")
        panics = [entry for entry in running.errors() if "panicked" in str(entry)]
        told.holds(not panics, "no panic")


def loads_beside_photos(told: Told, scratch: pathlib.Path) -> None:
    """30 clients load the same model over v2 at once while photos are asked about another."""
    model = server.synth("resnet18", scratch)
    with server.running("--model", "builtin", "--model", str(model), "--default-model", "resnet20-cifar10") as running:
        took: list[wire.Answer] = []
        over = threading.Event()

        def photos_meanwhile() -> None:
            while not over.is_set():
                took.append(wire.post(running.http, CLASSIFY, photos.photo("cat")))

        beside = threading.Thread(target=photos_meanwhile)
        beside.start()
        before, began = running.threads(), time.monotonic()
        with concurrent.futures.ThreadPoolExecutor(30) as pool:
            path = "/v2/repository/models/resnet18/load"
            loads = [pool.submit(wire.post, running.http, path, b"", seconds=60) for _ in range(30)]
            time.sleep(6)
            answers = [load.result() for load in loads if load.done()]
            told.did(f"30 loads at once; {len(answers)} were done after 6 s: {collections.Counter(a.status for a in answers)}")
            told.holds({a.status for a in answers} <= {200}, "each is done in its turn")
            over.set()
            beside.join()
            told.saw(f"{len(took)} photos meanwhile, the slowest took {milliseconds(max(a.seconds for a in took))}")
            told.holds({a.status for a in took} == {200}, "photos are classified meanwhile")
            told.holds(max(a.seconds for a in took) < 2.0, "within 2 s each, on cores that they share with the loads")
            told.holds(running.threads() < before + 40, "threads stay bounded")
            stopped = running.stop()
        told.saw(f"SIGTERM in the middle of them: it ended after {stopped.seconds:.1f} s with {stopped.code}")
        told.holds(stopped.code == 0 and stopped.seconds < 10, "it ends with 0 within 10 s")


def files_overwritten(told: Told, scratch: pathlib.Path) -> None:
    """The files of a model are emptied and overwritten in place while it serves, as a careless copy does."""
    model = onnx.external_model(scratch / "models")
    color = photos.plain(140, 20, 230)
    with server.running("--models", str(model.parent), "--model", "builtin", "--provider", "cpu") as running:
        path = f"{CLASSIFY}?model=external"
        right = wire.post(running.http, path, color)
        told.holds(right.status == 200, "it answers")
        (model / "table.bin").write_bytes(onnx.table_bytes(-1))
        told.did("its external data are overwritten in place by others of the same length")
        told.holds(wire.post(running.http, path, color).body == right.body, "it gives the answers of what was loaded")
        (model / "table.bin").write_bytes(b"")
        (model / "model.onnx").write_bytes(b"")
        told.did("model and external data are emptied in place")
        try:
            answer = wire.post(running.http, path, color)
            told.holds(answer.body == right.body, "it gives the answers of what was loaded")
        except OSError as error:
            time.sleep(0.5)
            told.holds(False, f"it goes on: {error!r}, the process ended with {running.process.poll()}")
            return
        running.send(signal.SIGHUP)
        running.until_logged("SIGHUP: looked at", 20)
        told.holds(wire.post(running.http, path, color).body == right.body, "a reload that cannot read them leaves it serving")
        told.holds(running.stop().code == 0, "it ends with 0")


def reloads_leave_nothing(told: Told, scratch: pathlib.Path) -> None:
    """A model of 47 MB is loaded 10 times and a small one 50 times, with a photo after each."""
    large, small = server.synth("resnet18", scratch), server.synth("resnet20", scratch)
    with server.running("--model", str(small), "--model", str(large)) as running:
        def reload(name: str, times: int) -> None:
            for _ in range(times):
                load = wire.post(running.http, f"/v2/repository/models/{name}/load", b"{}", seconds=60)
                photo = wire.post(running.http, f"{CLASSIFY}?model={name}", photos.photo("cat"))
                if (load.status, photo.status) != (200, 200):
                    told.holds(False, f"{name}: load {load.status}, photo {photo.status}")

        def held() -> tuple[int, int, int]:
            time.sleep(0.5)
            return running.resident_bytes(), running.threads(), running.descriptors()

        for name, first, times in (("resnet20", 10, 50), ("resnet18", 3, 10)):
            reload(name, first)
            before = held()
            reload(name, times)
            after = held()
            told.did(f"{name} is loaded {times} times, after {first} to warm up")
            told.saw(f"memory {mib(before[0])} before, {mib(after[0])} after; threads {before[1]}, {after[1]}; descriptors {before[2]}, {after[2]}")
            told.holds(after[0] - before[0] < 24 << 20, "memory is as before, to half of the large model's size")
            told.holds(after[1] <= before[1] + 2 and after[2] <= before[2], "no thread and no descriptor is left over")
        page = running.metrics()
        told.holds(page.sum("residual_model_info") == 2, "the metrics name the two engines that answer, and no older one")


SCENARIOS = [failing_models, loads_beside_photos, files_overwritten, reloads_leave_nothing]
