"""The manifests for Kubernetes and KServe: held to their schemas, to each other, and to the program. A setting that is misspelt
in a manifest is an error nowhere else."""
import importlib
import json
import re
import shutil
import sys
import types
import urllib.request

import kubernetes_validate
import pytest
import yaml

from conftest import BINARY, ROOT, photo, served
from deploy import DOCKER, lost, printed_settings, run, tool

KUBERNETES, KSERVE = DOCKER / "kubernetes", DOCKER / "kserve"
KUBERNETES_VERSION = "1.37.0"


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
    kubectl = tool("kubectl")
    built = {made["kind"]: made for made in yaml.safe_load_all(run(kubectl, "kustomize", KUBERNETES))}
    assert set(built) == set(CLUSTER)
    template = built["Deployment"]["spec"]["template"]
    assert template["metadata"]["labels"] == LABELS
    assert template["spec"]["containers"][0]["image"] == "registry.example/residual:0.1.0"
    for kind in CORE:
        kubernetes_validate.validate(built[kind], KUBERNETES_VERSION, strict=True)


def test_the_overlay_in_the_documentation_builds(tmp_path):
    kubectl = tool("kubectl")
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
