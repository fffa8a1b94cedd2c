"""Alert rules and the dashboard: held to the tools that read them, to docs/METRICS.md, and to a real Prometheus."""
import contextlib
import json
import re
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.parse
import urllib.request

import pytest
import yaml

from conftest import ROOT, served
from deploy import DOCKER, lost, run, tool

GRAFANA = DOCKER / "grafana"
ALERTS = yaml.safe_load((DOCKER / "prometheus" / "alerts.yml").read_text())["groups"][0]["rules"]
DASHBOARD = json.loads((GRAFANA / "dashboards" / "residual.json").read_text())


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


@pytest.mark.parametrize("script", [GRAFANA / "dashboard.py", DOCKER / "kubernetes" / "rules.py"])
def test_what_is_generated_is_up_to_date(script):
    run(sys.executable, script, "--check")


def test_grafana_knows_every_field_of_the_dashboard():
    from grafana_foundation_sdk.cog import encoder, plugins
    from grafana_foundation_sdk.models import dashboard

    plugins.register_default_plugins()
    read = json.loads(encoder.JSONEncoder().encode(dashboard.Dashboard.from_json(DASHBOARD)))
    assert lost(DASHBOARD, read) == []


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
