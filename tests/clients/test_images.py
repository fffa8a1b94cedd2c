"""The Dockerfiles and compose.yaml: what they say, and what their steps make of a small program. docker/check.py runs a built image."""
import fnmatch
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys

import compose_spec
import pytest
import yaml

from conftest import ROOT
from deploy import DOCKER, printed_settings, run, seconds, tool

DOCKERFILES = ["Dockerfile", "Dockerfile.cuda"]


# --- images


def instructions(name):
    """The Dockerfile as (keyword, rest), lines joined, comments gone."""
    text = re.sub(r"^\s*#.*\n", "", (DOCKER / name).read_text(), flags=re.MULTILINE)
    return [tuple(line.split(maxsplit=1)) for line in text.replace("\\\n", " ").splitlines() if line.strip()]


def last_stage(name):
    told = instructions(name)
    return told[max(index for index, (keyword, _) in enumerate(told) if keyword == "FROM") :]


@pytest.mark.parametrize("name", DOCKERFILES)
def test_the_linter_of_dockerfiles_has_nothing_to_say(name):
    run(pathlib.Path(sys.executable).parent / "hadolint", DOCKER / name)


@pytest.mark.parametrize("name", DOCKERFILES)
def test_an_image_starts_the_program_without_a_shell_and_not_as_root(name):
    stage = dict(last_stage(name))
    assert json.loads(stage["ENTRYPOINT"]) == ["/opt/residual/residual"]
    # SageMaker runs IMAGE serve.
    assert json.loads(stage["CMD"]) == ["serve"]
    assert json.loads(stage["HEALTHCHECK"].partition("CMD")[2]) == ["/opt/residual/residual", "health"]
    assert stage["STOPSIGNAL"] == "SIGTERM"
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", stage["USER"])
    assert "RUN" not in stage
    # What ONNX Runtime sends home otherwise, and what a container should not fetch when it starts.
    assert "ORT_DISABLE_TELEMETRY=1" in stage["ENV"]
    assert "RESIDUAL_OFFLINE=true" in stage["ENV"]


def test_both_images_are_built_from_the_same_stages():
    def shared(name):
        text = (DOCKER / name).read_text()
        return text[text.index("ARG RUST_IMAGE") : text.index("# ONNX Runtime")]

    assert shared("Dockerfile") == shared("Dockerfile.cuda")


@pytest.mark.parametrize("name", DOCKERFILES)
def test_images_are_built_with_the_projects_own_toolchain_from_pinned_bases(name):
    bases = dict(rest.split("=", 1) for keyword, rest in instructions(name) if keyword == "ARG" and "_IMAGE=" in rest)
    assert set(bases) == {"RUST_IMAGE", "PYTHON_IMAGE", "RUNTIME_IMAGE"}
    for base in bases.values():
        assert ":" in base and not base.endswith(":latest"), base
    channel = re.search(r'channel = "(.+)"', (ROOT / "rust-toolchain.toml").read_text()).group(1)
    assert bases["RUST_IMAGE"].startswith(f"rust:{channel}-")


def test_the_cuda_image_takes_the_version_of_onnx_runtime_that_the_program_fetches():
    line = re.search(r"RUNTIME_VERSION: Version = .*", (ROOT / "src/runtime/mod.rs").read_text()).group()
    known = ".".join(re.findall(r"(?:major|minor|patch): (\d+)", line))
    assert ("ARG", f"ONNX_RUNTIME={known}") in instructions("Dockerfile.cuda")


def test_the_empty_program_has_every_target_that_cargo_looks_for():
    stubs = next(rest for keyword, rest in instructions("Dockerfile") if keyword == "RUN" and "src/lib.rs" in rest)
    benches = re.findall(r'\[\[bench\]\]\nname = "(\w+)"', (ROOT / "Cargo.toml").read_text())
    assert benches
    for path in ["build.rs", "src/main.rs", "src/lib.rs", *(f"benches/{bench}.rs" for bench in benches)]:
        assert path in stubs, f"cargo refuses a manifest whose {path} is not there"


def test_what_is_built_is_the_program_and_not_the_empty_one(tmp_path):
    """The steps of the Dockerfile as they stand there, on a program of three lines whose files are older than the empty ones, as a
    checkout's are. Cargo goes by time stamps: without the step that removes the empty program, it keeps parts of it."""
    cargo = tool("cargo")
    told = instructions("Dockerfile")
    first, second = [rest for keyword, rest in told if keyword == "RUN" and "cargo build" in rest]
    benches = "".join(f'[[bench]]\nname = "{name}"\nharness = false\n' for name in re.findall(r"benches/(\w+)\.rs", first))
    source, folder = tmp_path / "checkout", tmp_path / "source"
    (source / "src").mkdir(parents=True)
    folder.mkdir()
    (source / "build.rs").write_text('fn main() { println!("cargo::rustc-env=BUILT=by the real script"); }')
    (source / "src/lib.rs").write_text('pub const BUILT: &str = env!("BUILT");')
    (source / "src/main.rs").write_text('fn main() { println!("{}", residual::BUILT); }')
    for path in source.rglob("*.rs"):
        os.utime(path, (1_600_000_000, 1_600_000_000))
    (folder / "Cargo.toml").write_text(f'[package]\nname = "residual"\nversion = "0.1.0"\nedition = "2024"\n{benches}')
    (folder / "Cargo.lock").write_text('version = 4\n[[package]]\nname = "residual"\nversion = "0.1.0"\n')
    settings = os.environ | {"CARGO_TARGET_DIR": str(tmp_path / "target"), "PATH": f"{pathlib.Path(cargo).parent}:{os.environ['PATH']}"}

    def step(shell):
        subprocess.run(["sh", "-c", shell], cwd=folder, env=settings, check=True)

    step(first)
    shutil.copytree(source, folder, dirs_exist_ok=True)
    step(second)
    assert run(tmp_path / "target/release/residual") == "by the real script\n"


def in_context(path):
    """Whether .dockerignore lets a file in: the last line that fits it, or a folder around it, decides."""
    allowed = True
    folders = [path, *(str(parent) for parent in pathlib.PurePosixPath(path).parents)]
    for line in (ROOT / ".dockerignore").read_text().splitlines():
        if line and not line.startswith("#") and any(fnmatch.fnmatchcase(at, line.removeprefix("!")) for at in folders):
            allowed = line.startswith("!")
    return allowed


def test_the_build_context_has_what_the_program_includes_and_no_more():
    included = set()
    for source in (ROOT / "src").rglob("*.rs"):
        for path in re.findall(r'include_(?:bytes|str)!\("(.+?)"\)', source.read_text()):
            included.add(os.path.relpath(source.parent / path, ROOT))
    outside = {path for path in included if not in_context(path)}
    assert "models/resnet20-cifar10/model.onnx" in included - outside
    # Only tests include these.
    assert all(path.startswith(("docs/", "tests/")) for path in outside), outside
    for secret in [".git/config", ".env", "key.pem", "models/private.onnx", "shared/notes.md", "target/release/residual"]:
        assert not in_context(secret), secret


# --- compose


def composed(**variables):
    """compose.yaml with its variables put in, as Compose does it."""

    def value(match):
        name, operator, word = match["name"], match["operator"], match["word"]
        given = variables.get(name, "")
        return (word if given else "") if operator == ":+" else given or word

    text = (DOCKER / "compose.yaml").read_text()
    return re.sub(r"\$\{(?P<name>\w+)(?P<operator>:[-+])(?P<word>[^}]*)\}", value, text)


@pytest.mark.parametrize("variables", [{}, {"RESIDUAL_MODELS_DIR": "/srv/models", "LOAD_RATE": "200"}])
def test_compose_reads_the_file(variables):
    text = composed(**variables)
    assert "${" not in text
    compose = compose_spec.PyCompose.from_yaml(text)
    compose.validate()
    compose.to_spec()
    residual = yaml.safe_load(text)["services"]["residual"]
    mounted = bool(variables)
    assert residual["environment"]["RESIDUAL_MODELS"] == ("/models" if mounted else None)
    assert residual["volumes"] == [("/srv/models" if mounted else "models") + ":/models:ro"]


def test_every_service_is_pinned_bounded_and_on_this_machine_alone():
    compose = yaml.safe_load(composed())
    for name, service in compose["services"].items():
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert service["mem_limit"], name
        assert "build" in service or re.search(r":v?\d", service["image"]), name
        for port in service.get("ports", []):
            assert port.startswith("127.0.0.1:"), f"{name} would be open to other machines: {port}"
        for volume in service.get("volumes", []):
            source, _, flags = volume.partition(":")
            if source.startswith("."):
                assert (DOCKER / source).exists(), f"{name} mounts {source}, which is not there"
                assert flags.endswith(":ro"), volume
            else:
                assert source in compose["volumes"], volume
    residual = compose["services"]["residual"]
    assert residual["read_only"] and residual["pids_limit"]
    assert seconds(residual["stop_grace_period"]) > printed_settings()["drain_grace"]


def test_the_load_is_offered_by_a_program_that_takes_its_arguments(server):
    command = yaml.safe_load(composed(LOAD_RATE="40", LOAD_SECONDS="1"))["services"]["load"]["command"]
    mounted = {"/load/load.py": ROOT / "benches/load.py", "/load/photo.jpg": ROOT / "tests/golden/inputs/cat.jpg"}
    words = [str(word) for word in command[1:]]
    for inside, here in mounted.items():
        words = [word.replace(inside, str(here)) for word in words]
    words = [word.replace("http://residual:8000", server) for word in words]
    report = json.loads(run(sys.executable, *words))
    assert report["outcomes"] == {"200": report["offered"]} and report["offered"] > 10
