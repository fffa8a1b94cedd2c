"""What the tests of docker/ share. promtool, Prometheus and kubectl are no Python packages: where one is not on the path its tests are
skipped, and say so."""
import os
import re
import shutil
import subprocess

import pytest

from conftest import BINARY, ROOT

DOCKER = ROOT / "docker"


def tool(name):
    return shutil.which(name) or pytest.skip(f"NOT TESTED: {name} is not on the path")


def run(*command, **environment):
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, cwd=ROOT, env=os.environ | environment)
    assert done.returncode == 0, f"{command}:\n{done.stdout}{done.stderr}"
    return done.stdout


def seconds(text):
    amount, unit = re.fullmatch(r"(\d+)(s|m)", text).groups()
    return int(amount) * {"s": 1, "m": 60}[unit]


def printed_settings(*flags, **variables):
    """What the program makes of its settings, as `serve --print-config` tells it: durations in seconds."""
    printed = run(BINARY, "serve", *flags, "--print-config", **variables)
    settings = dict(re.findall(r'^(\w+) = "?(.*?)"?$', printed, re.MULTILINE))
    return {key: seconds(value) if re.fullmatch(r"\d+[sm]", value) else value for key, value in settings.items()}


def lost(written, read, path=""):
    """What a strict reader dropped or changed."""
    if isinstance(written, dict) and isinstance(read, dict):
        return [
            entry
            for key, value in written.items()
            for entry in (lost(value, read[key], f"{path}/{key}") if key in read else [f"{path}/{key}"])
        ]
    if isinstance(written, list) and isinstance(read, list) and len(written) == len(read):
        return [entry for index, pair in enumerate(zip(written, read)) for entry in lost(*pair, f"{path}/{index}")]
    return [] if written == read else [path]
