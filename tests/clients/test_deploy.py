"""What docker/ holds: images, compose, alert rules, dashboard, manifests. Each is held to the schema of the tool that reads it, to the
others, and to the program: a setting that is misspelt in a manifest, or a metric in a dashboard, is an error nowhere else.

promtool and Prometheus are no Python packages; where they are not on the path (Debian: prometheus) their tests are skipped, and say so."""
import contextlib
import fnmatch
import importlib
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import threading
import time
import types
import urllib.error
import urllib.parse
import urllib.request

import compose_spec
import kubernetes_validate
import pytest
import yaml

from conftest import BINARY, ROOT, photo, served

DOCKER = ROOT / "docker"
KUBERNETES, KSERVE, GRAFANA = DOCKER / "kubernetes", DOCKER / "kserve", DOCKER / "grafana"
DOCKERFILES = ["Dockerfile", "Dockerfile.cuda"]
ALERTS = yaml.safe_load((DOCKER / "prometheus" / "alerts.yml").read_text())["groups"][0]["rules"]
DASHBOARD = json.loads((GRAFANA / "dashboards" / "residual.json").read_text())
KUBERNETES_VERSION = "1.37.0"


def tool(name):
    return shutil.which(name) or pytest.skip(f"NOT TESTED: {name} is not on the path; Debian's package prometheus has it")


def run(*command, **environment):
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, cwd=ROOT, env=os.environ | environment)
    assert done.returncode == 0, f"{command}:\n{done.stdout}{done.stderr}"
    return done.stdout


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
    cargo = shutil.which("cargo") or pytest.skip("NOT TESTED: cargo is not on the path")
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


# --- metrics, alerts, dashboard


def metric_names(query):
    recorded = {rule["record"] for rule in ALERTS if "record" in rule}
    names = set(re.findall(r"\b(?:residual|process)_[a-z_]+", query))
    names |= {name for name in re.findall(r"\bresidual:[a-z0-9_:]+", query) if name not in recorded}
    return {re.sub(r"_(bucket|sum|count)$", "", name) for name in names}


def panels():
    return [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]


def queries():
    for panel in panels():
        for target in panel["targets"]:
            yield panel["title"], target["expr"]
    for rule in ALERTS:
        yield rule.get("alert") or rule["record"], rule["expr"]


def test_every_metric_that_is_asked_for_is_documented():
    documented = set(re.findall(r"^\| `([a-z_]+)`", (ROOT / "docs/METRICS.md").read_text(), re.MULTILINE))
    asked = {name: where for where, query in queries() for name in metric_names(query)}
    missing = {name: where for name, where in asked.items() if name not in documented}
    assert not missing, f"docs/METRICS.md knows nothing of {missing}"


def test_every_alert_has_a_severity_and_a_runbook():
    page = (ROOT / "docs/DEPLOY.md").read_text()
    headings = {heading.lower() for heading in re.findall(r"^### (Residual\w+)$", page, re.MULTILINE)}
    alerts = [rule for rule in ALERTS if "alert" in rule]
    for rule in alerts:
        name = rule["alert"]
        assert rule["labels"]["severity"] in ("critical", "warning"), name
        assert rule["annotations"]["summary"], name
        assert rule["annotations"]["runbook_url"] == f"docs/DEPLOY.md#{name.lower()}", name
    assert headings == {rule["alert"].lower() for rule in alerts}, "runbooks and alerts differ"


def test_every_alert_is_tested():
    tests = yaml.safe_load((DOCKER / "prometheus" / "alerts_test.yml").read_text())["tests"]
    cases = [case for test in tests for case in test["alert_rule_test"]]
    alerts = {rule["alert"] for rule in ALERTS if "alert" in rule}
    assert {case["alertname"] for case in cases if case.get("exp_alerts")} == alerts, "not every alert is shown to fire"


def test_promtool_reads_the_settings_and_every_rule_fires_when_it_should():
    promtool = tool("promtool")
    run(promtool, "check", "config", DOCKER / "prometheus" / "prometheus.yml")
    run(promtool, "check", "rules", DOCKER / "prometheus" / "alerts.yml")
    run(promtool, "test", "rules", DOCKER / "prometheus" / "alerts_test.yml")


@pytest.mark.parametrize("script", [GRAFANA / "dashboard.py", KUBERNETES / "rules.py"])
def test_what_is_generated_is_up_to_date(script):
    run(sys.executable, script, "--check")


def test_grafana_knows_every_field_of_the_dashboard():
    from grafana_foundation_sdk.cog import encoder, plugins
    from grafana_foundation_sdk.models import dashboard

    plugins.register_default_plugins()
    read = json.loads(encoder.JSONEncoder().encode(dashboard.Dashboard.from_json(DASHBOARD)))
    assert lost(DASHBOARD, read) == []


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


def test_panels_do_not_overlap_and_every_one_says_what_it_tells():
    taken = set()
    for panel in DASHBOARD["panels"]:
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert at["x"] + at["w"] <= 24 and not cells & taken, panel["title"]
        taken |= cells
        assert panel["type"] == "row" or panel["description"], panel["title"]
    source = DASHBOARD["templating"]["list"][0]
    provisioned = yaml.safe_load((GRAFANA / "provisioning/datasources/prometheus.yml").read_text())["datasources"][0]
    assert (source["type"], source["current"]["value"]) == ("datasource", provisioned["uid"])


def test_a_real_prometheus_has_data_for_every_panel(tmp_path, cat):
    """The server, some load, and Prometheus with the rules: no query may come back empty that has something to show."""
    prometheus = tool("prometheus")
    with served() as server, scraping(prometheus, server.address, tmp_path) as ask:
        stop = threading.Event()

        def load():
            while not stop.is_set():
                # Broken photos too, or the panels of errors would have nothing to show.
                for body in (cat, b"no photo"):
                    request = urllib.request.Request(f"{server.url}/api/v1/classify", body)
                    with contextlib.suppress(urllib.error.HTTPError):
                        urllib.request.urlopen(request, timeout=10).read()
                time.sleep(0.02)

        loading = threading.Thread(target=load)
        loading.start()
        try:
            wanted = {query: where for where, query in ((where, filled(query)) for where, query in dashboard_queries())}
            wanted |= {rule["record"]: rule["record"] for rule in ALERTS if "record" in rule}
            deadline = time.monotonic() + 60
            while (empty := {query: where for query, where in wanted.items() if not ask(query)}) and time.monotonic() < deadline:
                time.sleep(1)
        finally:
            stop.set()
            loading.join()
        assert not empty, f"nothing to show for {empty}"
        firing = [alert["labels"]["alertname"] for alert in ask(None)["alerts"] if alert["state"] == "firing"]
        assert firing == []


def dashboard_queries():
    return [(panel["title"], target["expr"]) for panel in panels() for target in panel["targets"]]


def filled(query):
    """A panel's query as Grafana sends it with everything selected."""
    query = query.replace("$__rate_interval", "20s")
    return re.sub(r"\$(job|instance|model)\b", ".*", query)


@contextlib.contextmanager
def scraping(prometheus, address, folder):
    """A Prometheus on a free port that scrapes one server; yields a way to ask it."""
    settings = yaml.safe_load((DOCKER / "prometheus" / "prometheus.yml").read_text())
    settings["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
    settings["rule_files"] = [str(DOCKER / "prometheus" / "alerts.yml")]
    settings["scrape_configs"][0]["static_configs"][0]["targets"] = [address]
    (folder / "prometheus.yml").write_text(yaml.safe_dump(settings))
    command = [prometheus, f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/data"]
    process = subprocess.Popen(
        [*command, "--web.listen-address=127.0.0.1:0", "--log.level=info"], stderr=subprocess.PIPE, text=True
    )
    try:
        for line in process.stderr:
            if found := re.search(r'address=(127\.0\.0\.1:[1-9]\d*)', line):
                break
        else:
            pytest.fail("Prometheus did not start")
        # Whatever it logs from here on is read away, so that a full pipe cannot hold it up.
        threading.Thread(target=process.stderr.read, daemon=True).start()

        def ask(query):
            path = "query?" + urllib.parse.urlencode({"query": query}) if query else "alerts"
            try:
                with urllib.request.urlopen(f"http://{found.group(1)}/api/v1/{path}", timeout=10) as answer:
                    data = json.load(answer)["data"]
            except urllib.error.HTTPError as error:
                # Until it has read its own files.
                assert error.code == 503 and query, error.read()
                return []
            return [result for result in data["result"] if result["value"][1] != "NaN"] if query else data

        yield ask
    finally:
        process.terminate()
        process.wait(timeout=30)


# --- Kubernetes


def resources(folder):
    """What a kustomization lists, read from the files."""
    kustomization = yaml.safe_load((folder / "kustomization.yaml").read_text())
    return {
        made["kind"]: made
        for name in kustomization["resources"]
        for made in yaml.safe_load_all((folder / name).read_text())
    }


CLUSTER = resources(KUBERNETES)
CORE = ["Deployment", "Service", "HorizontalPodAutoscaler", "PodDisruptionBudget", "NetworkPolicy"]
LABELS = {"app.kubernetes.io/name": "residual"}


@pytest.mark.parametrize("kind", CORE)
def test_kubernetes_knows_every_field(kind):
    kubernetes_validate.validate(CLUSTER[kind], KUBERNETES_VERSION, strict=True)


@pytest.mark.parametrize("kind", ["ServiceMonitor", "PrometheusRule"])
def test_the_prometheus_operator_knows_every_field(kind):
    models = importlib.import_module("cloudcoil.models.prometheus_operator.v1")
    read = getattr(models, kind).model_validate(CLUSTER[kind]).model_dump(mode="json", by_alias=True, exclude_none=True)
    assert lost(CLUSTER[kind], read) == []


def test_the_kustomization_has_every_manifest_and_builds():
    listed = set(yaml.safe_load((KUBERNETES / "kustomization.yaml").read_text())["resources"])
    # Not a resource, but values of a chart.
    there = {path.name for path in KUBERNETES.glob("*.yaml")} - {"kustomization.yaml", "prometheus-adapter.yaml"}
    assert listed == there
    kubectl = shutil.which("kubectl") or pytest.skip("NOT TESTED: kubectl is not on the path; it builds kustomizations")
    built = {made["kind"]: made for made in yaml.safe_load_all(run(kubectl, "kustomize", KUBERNETES))}
    assert set(built) == set(CLUSTER)
    template = built["Deployment"]["spec"]["template"]
    assert template["metadata"]["labels"] == LABELS
    assert template["spec"]["containers"][0]["image"] == "registry.example/residual:0.1.0"
    for kind in CORE:
        kubernetes_validate.validate(built[kind], KUBERNETES_VERSION, strict=True)


def test_the_overlay_in_the_documentation_builds(tmp_path):
    kubectl = shutil.which("kubectl") or pytest.skip("NOT TESTED: kubectl is not on the path; it builds kustomizations")
    page = (ROOT / "docs/DEPLOY.md").read_text()
    overlay = re.search(r"```yaml\n(# kustomization.yaml\n.*?)```", page, re.DOTALL).group(1)
    shutil.copytree(KUBERNETES, tmp_path / "residual" / "docker" / "kubernetes")
    (tmp_path / "vision").mkdir()
    (tmp_path / "vision" / "kustomization.yaml").write_text(overlay)
    built = {made["kind"]: made for made in yaml.safe_load_all(run(kubectl, "kustomize", tmp_path / "vision"))}
    kubernetes_validate.validate(built["Deployment"], KUBERNETES_VERSION, strict=True)
    pod = built["Deployment"]["spec"]["template"]["spec"]
    (only,) = pod["containers"]
    assert only["image"] == "registry.acme.example/residual:0.1.0-resnet50"
    assert [mount["name"] for mount in only["volumeMounts"]] == [volume["name"] for volume in pod["volumes"]] == ["models"]
    assert {"name": "RESIDUAL_MODELS", "value": "/models"} in only["env"]


def container():
    (only,) = CLUSTER["Deployment"]["spec"]["template"]["spec"]["containers"]
    return only


def test_selectors_ports_and_targets_agree():
    assert CLUSTER["Deployment"]["spec"]["selector"]["matchLabels"] == LABELS
    assert CLUSTER["Service"]["spec"]["selector"] == LABELS
    assert CLUSTER["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"] == LABELS
    assert CLUSTER["NetworkPolicy"]["spec"]["podSelector"]["matchLabels"] == LABELS
    assert CLUSTER["ServiceMonitor"]["spec"]["selector"]["matchLabels"] == LABELS
    ports = {port["name"]: port["containerPort"] for port in container()["ports"]}
    assert {port["targetPort"] for port in CLUSTER["Service"]["spec"]["ports"]} == set(ports)
    assert {probe["httpGet"]["port"] for name, probe in container().items() if name.endswith("Probe")} == {"admin"}
    allowed = {port["port"] for rule in CLUSTER["NetworkPolicy"]["spec"]["ingress"] for port in rule["ports"]}
    assert allowed == set(ports)
    served_ports = {port["name"] for port in CLUSTER["Service"]["spec"]["ports"]}
    assert {endpoint["port"] for endpoint in CLUSTER["ServiceMonitor"]["spec"]["endpoints"]} <= served_ports
    target = CLUSTER["HorizontalPodAutoscaler"]["spec"]["scaleTargetRef"]
    deployment = CLUSTER["Deployment"]
    assert (target["kind"], target["name"]) == ("Deployment", deployment["metadata"]["name"])
    assert target["apiVersion"] == deployment["apiVersion"] and "replicas" not in deployment["spec"]
    # The rules count on the job's name, which is the Service's.
    assert CLUSTER["Service"]["metadata"]["name"] == "residual"


def test_the_autoscaler_asks_for_the_metric_that_the_adapter_makes():
    (rule,) = yaml.safe_load((KUBERNETES / "prometheus-adapter.yaml").read_text())["rules"]["custom"]
    asked = [metric["pods"]["metric"]["name"] for metric in CLUSTER["HorizontalPodAutoscaler"]["spec"]["metrics"] if "pods" in metric]
    assert asked == [rule["name"]["as"]]
    assert re.match(rule["name"]["matches"], rule["seriesQuery"].partition("{")[0])


def test_pods_meet_the_restricted_standard():
    """https://kubernetes.io/docs/concepts/security/pod-security-standards, restricted, and a read-only root beyond it."""
    pod = CLUSTER["Deployment"]["spec"]["template"]["spec"]
    assert pod["securityContext"]["runAsNonRoot"] and pod["securityContext"]["runAsUser"] > 0
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert not {"hostNetwork", "hostPID", "hostIPC", "volumes"} & set(pod)
    assert pod["automountServiceAccountToken"] is False
    context = container()["securityContext"]
    assert context["allowPrivilegeEscalation"] is False and context["readOnlyRootFilesystem"]
    assert context["capabilities"] == {"drop": ["ALL"]}
    assert container()["resources"]["limits"].keys() == {"cpu", "memory"}


def environment():
    return {variable["name"]: variable["value"] for variable in container()["env"]}


def seconds(text):
    amount, unit = re.fullmatch(r"(\d+)(s|m)", text).groups()
    return int(amount) * {"s": 1, "m": 60}[unit]


def printed_settings(*flags, **variables):
    """What the program makes of its settings, as `serve --print-config` tells it: durations in seconds."""
    printed = run(BINARY, "serve", *flags, "--print-config", **variables)
    settings = dict(re.findall(r'^(\w+) = "?(.*?)"?$', printed, re.MULTILINE))
    return {key: seconds(value) if re.fullmatch(r"\d+[sm]", value) else value for key, value in settings.items()}


def test_the_program_knows_every_setting_of_the_deployment_and_its_ports_are_those():
    help_text = run(BINARY, "serve", "--help")
    for name in environment():
        assert f"[env: {name}=" in help_text, f"the program has no {name}"
    settings = printed_settings(**environment(), RESIDUAL_HOST="0.0.0.0")
    ports = {port["name"]: str(port["containerPort"]) for port in container()["ports"]}
    assert settings["http_port"] == ports["http"]
    assert settings["admin_port"] == ports["admin"]
    # Where it is not set it is the one after HTTP's.
    assert settings.get("grpc_port", "8001") == ports["grpc"]


def test_pods_are_given_the_time_that_draining_takes():
    settings = printed_settings(**environment())
    grace = CLUSTER["Deployment"]["spec"]["template"]["spec"]["terminationGracePeriodSeconds"]
    assert grace > settings["drain_delay"] + settings["drain_grace"]


# --- KServe


@pytest.fixture(scope="module")
def kserve_models():
    """KServe's own types, without the rest of its package: its messages do not load beside those of Triton's client."""
    before = {name for name in sys.modules if name.partition(".")[0] == "kserve"}
    package = types.ModuleType("kserve")
    package.__path__ = importlib.util.find_spec("kserve").submodule_search_locations
    sys.modules["kserve"] = package
    try:
        yield importlib.import_module("kserve.models")
    finally:
        for name in [name for name in sys.modules if name.partition(".")[0] == "kserve" and name not in before]:
            del sys.modules[name]


def unknown_fields(value, kind, models, path=""):
    """Fields that the type generated from KServe's or Kubernetes' schema has not, or of another type."""
    import kubernetes.client as core

    if (inner := re.fullmatch(r"[lL]ist\[(.+)\]", kind)) and isinstance(value, list):
        return [bad for index, each in enumerate(value) for bad in unknown_fields(each, inner[1], models, f"{path}/{index}")]
    if (inner := re.fullmatch(r"(?:dict\(|Dict\[)str, (.+)[)\]]", kind)) and isinstance(value, dict):
        return [bad for key, each in value.items() for bad in unknown_fields(each, inner[1], models, f"{path}/{key}")]
    plain = {"str": str, "int": int, "bool": bool, "object": object}
    if kind in plain:
        return [] if isinstance(value, plain[kind]) else [f"{path}: {value!r} is no {kind}"]
    # Kubernetes' "8080 or http".
    if kind in ("IntOrString", "ResourceQuantity"):
        return [] if isinstance(value, int | str) else [path]
    made = getattr(models, kind, None) or getattr(core, kind)
    names = {name: attribute for attribute, name in made.attribute_map.items()}
    return [
        bad
        for key, each in value.items()
        for bad in (unknown_fields(each, made.openapi_types[names[key]], models, f"{path}/{key}") if key in names else [f"{path}/{key}"])
    ]


def manifest(name):
    return yaml.safe_load((KSERVE / name).read_text())


@pytest.mark.parametrize(
    ("name", "kind"),
    [("clusterservingruntime.yaml", "V1alpha1ClusterServingRuntime"), ("inferenceservice.yaml", "V1beta1InferenceService")],
)
def test_kserve_knows_every_field(name, kind, kserve_models):
    assert unknown_fields(manifest(name), kind, kserve_models) == []
    broken = manifest(name) | {"specs": {}}
    assert unknown_fields(broken, kind, kserve_models) == ["/specs"]


def test_the_service_fits_the_runtime():
    runtime, service = manifest("clusterservingruntime.yaml"), manifest("inferenceservice.yaml")
    model = service["spec"]["predictor"]["model"]
    assert model["runtime"] == runtime["metadata"]["name"]
    assert model["protocolVersion"] in runtime["spec"]["protocolVersions"]
    formats = [(taken["name"], taken["version"]) for taken in runtime["spec"]["supportedModelFormats"]]
    assert (model["modelFormat"]["name"], model["modelFormat"]["version"]) in formats


def test_the_runtimes_arguments_serve_a_model_under_the_services_name(tmp_path):
    spec = manifest("clusterservingruntime.yaml")["spec"]
    (only,) = spec["containers"]
    shutil.copytree(ROOT / "tests/models/colours", tmp_path / "models")
    arguments = [argument.replace("{{.Name}}", "flowers").replace("/mnt/models", str(tmp_path / "models")) for argument in only["args"]]
    assert arguments[0] == "serve"
    settings = printed_settings(*arguments[1:])
    assert settings["http_port"] == str(only["ports"][0]["containerPort"]) == spec["annotations"]["prometheus.kserve.io/port"]
    kubernetes_default_seconds = 30
    assert settings["drain_delay"] + settings["drain_grace"] < kubernetes_default_seconds
    # On free ports, and soon gone.
    own = [argument for argument in arguments[1:] if not re.match(r"--(http-port|grpc-port|log-format|drain-delay)=", argument)]
    with served(*own, "--provider", "cpu") as server:
        with urllib.request.urlopen(f"{server.url}/v2/models/flowers/ready", timeout=10) as answer:
            assert json.load(answer)["ready"] is True
        with urllib.request.urlopen(f"{server.url}{spec['annotations']['prometheus.kserve.io/path']}", timeout=10) as answer:
            assert b"residual_model_info" in answer.read()
        with urllib.request.urlopen(f"{server.url}/api/v1/classify?model=flowers", photo("cat"), timeout=10) as answer:
            assert json.load(answer)["model"] == "flowers"
