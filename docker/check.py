#!/usr/bin/env python3
"""Runs a built image as a platform would, and fails if it is not what docs/DEPLOY.md promises.

    python3 docker/check.py residual                        # or residual:cuda --mib-max 2000
    python3 docker/check.py residual --engine podman

Needs Python 3.11 and an engine with Docker's command line. All containers are its own and removed again; the only address that is
asked is one of this machine. `--run-flag` goes to every run, for engines with needs of their own; `--host-network` takes the
place of a published port where the engine cannot make one.
"""
import argparse
import json
import pathlib
import shlex
import socket
import subprocess
import sys
import time
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parents[1]
PHOTO = ROOT / "tests" / "golden" / "inputs" / "cat.jpg"
PROGRAM = "/opt/residual/residual"
READY_SECONDS_MAX = 120
# Docker and Kubernetes kill after 10 and 30 s; an idle server has nothing to wait for.
STOP_SECONDS_MAX = 5
# Everything that a careful platform takes away.
HARDENED = ["--read-only", "--cap-drop", "ALL", "--security-opt", "no-new-privileges", "--pids-limit", "256", "--memory", "1g"]
# What engines themselves put into a container's writable layer.
ENGINES_OWN = {"/etc", "/etc/hosts", "/etc/hostname", "/etc/resolv.conf", "/etc/mtab", "/dev", "/dev/console", "/run", "/run/secrets"}


class Engine:
    """Docker's command line, or one like it."""

    def __init__(self, command, run_flags):
        self.command, self.run_flags = shlex.split(command), run_flags

    def __call__(self, *words, check=True):
        done = subprocess.run([*self.command, *words], capture_output=True, text=True, timeout=120)
        if check and done.returncode:
            raise SystemExit(f"{shlex.join([*self.command, *words])} ended with {done.returncode}:\n{done.stdout}{done.stderr}")
        return done

    def inspect(self, name):
        return json.loads(self("inspect", name).stdout)[0]

    def start(self, image, *flags):
        return Container(self, self("run", "--detach", *self.run_flags, *flags, image).stdout.split()[-1])


class Container:
    """A started container, which is removed in any case."""

    def __init__(self, engine, identity):
        self.engine, self.identity = engine, identity

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.engine("rm", "--force", "--volumes", self.identity, check=False)

    def health(self):
        return self.engine("exec", self.identity, PROGRAM, "health", check=False)

    def wait_until_ready(self):
        """Seconds from now until the server's own health command says so."""
        start = time.monotonic()
        while (asked := self.health()).returncode:
            waited = time.monotonic() - start
            if waited > READY_SECONDS_MAX or not self.engine.inspect(self.identity)["State"]["Running"]:
                logs = self.engine("logs", self.identity, check=False)
                raise SystemExit(f"not ready after {waited:.0f} s: {asked.stdout}{asked.stderr}\n{logs.stdout}{logs.stderr}")
            time.sleep(0.1)
        return time.monotonic() - start

    def stop(self):
        """Seconds that a stop took; the exit code must be 0."""
        start = time.monotonic()
        self.engine("stop", "-t", "30", self.identity)
        elapsed = time.monotonic() - start
        code = self.engine.inspect(self.identity)["State"]["ExitCode"]
        demand(code == 0, f"stopped by its signal it exits with {code}, expected 0")
        demand(elapsed < STOP_SECONDS_MAX, f"it took {elapsed:.1f} s to stop, at most {STOP_SECONDS_MAX} expected")
        return elapsed


def demand(holds, otherwise):
    if not holds:
        raise SystemExit(f"FAILED: {otherwise}")


def check_settings(image, mib_max):
    """What the image says of itself."""
    settings = image["Config"]
    user = settings.get("User", "").partition(":")[0]
    demand(user.isdigit() and int(user) > 0, f"its user is {settings.get('User')!r}, expected a number that is not root's")
    demand(settings["Entrypoint"] == [PROGRAM], f"its entry point is {settings['Entrypoint']}, expected the program itself")
    demand(settings["Cmd"] == ["serve"], f"its command is {settings['Cmd']}, expected serve")
    demand(settings.get("StopSignal") in ("SIGTERM", "15"), f"its stop signal is {settings.get('StopSignal')}")
    health = settings.get("Healthcheck") or image.get("HealthCheck") or image.get("Healthcheck")
    demand(health and health["Test"] == ["CMD", PROGRAM, "health"], f"its health check is {health}; was it built as OCI, not Docker?")
    demand({"8000/tcp", "8001/tcp"} <= set(settings["ExposedPorts"]), f"it exposes {list(settings['ExposedPorts'])}")
    labels = settings["Labels"]
    for label in ("title", "description", "licenses", "version", "revision", "created"):
        demand(labels.get(f"org.opencontainers.image.{label}"), f"it has no label {label}")
    mib = image["Size"] / 2**20
    demand(mib <= mib_max, f"it is {mib:.0f} MiB, at most {mib_max} allowed: what came in?")
    return f"{mib:.1f} MiB of at most {mib_max}, user {user}"


def check_hardened(engine, image):
    """It starts with nothing that a platform could take away, no network included, and stops when told."""
    with engine.start(image, "--network", "none", *HARDENED) as container:
        ready = container.wait_until_ready()
        shell = engine("exec", container.identity, "/bin/sh", "-c", "true", check=False)
        demand(shell.returncode, "it has a shell")
        return f"ready after {ready:.1f} s without network, with a read-only root; stopped after {container.stop():.1f} s with 0"


def check_answers(engine, image, host_network):
    """It answers a photo over HTTP, and writes nothing although it could."""
    port = free_port()
    if host_network:
        flags = ["--network", "host", "--env", f"RESIDUAL_HTTP_PORT={port}", "--env", f"RESIDUAL_GRPC_PORT={free_port()}"]
        # On the host's network the container would be open to other machines.
        flags += ["--env", "RESIDUAL_HOST=127.0.0.1"]
    else:
        flags = ["--publish", f"127.0.0.1:{port}:8000"]
    with engine.start(image, *flags) as container:
        container.wait_until_ready()
        ask = f"http://127.0.0.1:{port}"
        with urllib.request.urlopen(f"{ask}/api/v1/classify?top_k=1", PHOTO.read_bytes(), timeout=30) as answer:
            best = json.load(answer)["predictions"][0]
        demand(best["label"] == "cat", f"it takes the cat for a {best['label']}")
        with urllib.request.urlopen(f"{ask}/metrics", timeout=30) as answer:
            demand(b"residual_images_total{" in answer.read(), "its metrics do not count the photo")
        container.stop()
        changed = {line.split(maxsplit=1)[1] for line in engine("diff", container.identity).stdout.splitlines()}
        demand(changed <= ENGINES_OWN, f"it wrote {sorted(changed - ENGINES_OWN)}")
        return f"a photo of a cat is a {best['label']} ({best['score']:.3f}); nothing was written"


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("image")
    parser.add_argument("--engine", default="docker", help="the command, with its flags in one word")
    parser.add_argument("--mib-max", type=float, default=110, help="how large the image may be, uncompressed")
    parser.add_argument("--run-flag", action="append", default=[], metavar="FLAG", help="for every run; may be repeated")
    parser.add_argument("--host-network", action="store_true", help="do not publish a port, use the host's network")
    options = parser.parse_args()
    engine = Engine(options.engine, options.run_flag)
    steps = [
        ("settings", lambda: check_settings(engine.inspect(options.image), options.mib_max)),
        ("hardened", lambda: check_hardened(engine, options.image)),
        ("answers", lambda: check_answers(engine, options.image, options.host_network)),
    ]
    for name, step in steps:
        print(f"{name:<10}{step()}", flush=True)
    print(f"{len(steps)} passed, 0 failed")


if __name__ == "__main__":
    sys.exit(main())
