#!/usr/bin/env python3
"""Writes the dashboard: python3 docker/grafana/dashboard.py. With --check it only says whether the file is up to date.

What is on it stands here, once for each panel; Grafana's JSON repeats itself too much to be written or read by people. The model
is Grafana's classic one, schema version 39, which every Grafana since 10.3 reads.
"""
import json
import pathlib
import sys

FILE = pathlib.Path(__file__).with_name("dashboards") / "residual.json"
PROMETHEUS = {"type": "prometheus", "uid": "${datasource}"}
# Requests for work, as in the rules: probes and scrapes have pages of their own.
WORK = 'job=~"$job", instance=~"$instance", route!~"(.*/)?(live|ready)|/metrics|/ping|/grpc[.]health[.].*|unknown"'
SERVER = 'job=~"$job", instance=~"$instance"'
MODEL = 'job=~"$job", instance=~"$instance", model=~"$model"'
WIDTH = 24


def quantiles(of):
    return [
        (f"histogram_quantile({share}, sum by (le) (rate({of}[$__rate_interval])))", f"p{share * 100:g}")
        for share in (0.5, 0.95, 0.99)
    ]


def by_quantile(share, of, label):
    return [(f"histogram_quantile({share}, sum by (le, {label}) (rate({of}[$__rate_interval])))", f"{{{{{label}}}}}")]


# (title, what it tells, unit, width, [(query, legend)], further options)
ROWS = [
    ("Now", [
        ("Ready", "Servers that take requests, of those that are scraped.", "none", 4,
         [(f"sum(residual_ready{{{SERVER}}})", "ready"), (f"count(residual_ready{{{SERVER}}})", "scraped")], {"type": "stat"}),
        ("Requests", "Requests for work a second; probes and scrapes are not counted.", "reqps", 4,
         [(f"sum(rate(residual_requests_total{{{WORK}}}[$__rate_interval]))", "requests")], {"type": "stat"}),
        ("Answered", "Share of the requests that got an answer with 200.", "percentunit", 4,
         [(f'sum(rate(residual_requests_total{{{WORK}, outcome="ok"}}[$__rate_interval])) '
           f"/ sum(rate(residual_requests_total{{{WORK}}}[$__rate_interval]))", "ok")],
         {"type": "stat", "steps": [("red", None), ("orange", 0.95), ("green", 0.99)], "max": 1}),
        ("Latency, 99 %", "From the end of the request's head to its answer; slow uploads count.", "s", 4,
         [(f"histogram_quantile(0.99, sum by (le) (rate(residual_request_duration_seconds_bucket{{{WORK}}}[$__rate_interval])))",
           "p99")], {"type": "stat"}),
        ("Models", "What is served, by provider and precision.", "none", 8,
         [(f"count by (model, version, provider, precision) (residual_model_info{{{MODEL}}})",
           "")], {"type": "table"}),
    ]),
    ("Requests", [
        ("Requests by outcome", "`ok`, or the error code of docs/API.md.", "reqps", 12,
         [(f"sum by (outcome) (rate(residual_requests_total{{{WORK}}}[$__rate_interval]))", "{{outcome}}")], {"stacked": True}),
        ("Requests by route", "Which protocols are spoken.", "reqps", 12,
         [(f"sum by (route) (rate(residual_requests_total{{{WORK}}}[$__rate_interval]))", "{{route}}")], {"stacked": True}),
        ("Latency", "From the end of the request's head to its answer.", "s", 12,
         quantiles(f"residual_request_duration_seconds_bucket{{{WORK}}}"), {"log": True}),
        ("Errors", "Everything that is not `ok`, as a share of the requests.", "percentunit", 12,
         [(f'sum by (outcome) (rate(residual_requests_total{{{WORK}, outcome!="ok"}}[$__rate_interval])) '
           f"/ on () group_left () sum(rate(residual_requests_total{{{WORK}}}[$__rate_interval]))", "{{outcome}}")], {}),
    ]),
    ("Images", [
        ("Images by model", "Images answered, whatever the outcome.", "short", 8,
         [(f"sum by (model, version) (rate(residual_images_total{{{MODEL}}}[$__rate_interval]))", "{{model}} {{version}}")],
         {"stacked": True}),
        ("Stages, mean", "Time one image spends in each stage; together they are its way through the server.", "s", 8,
         [(f"sum by (stage) (rate(residual_stage_duration_seconds_sum{{{MODEL}}}[$__rate_interval])) "
           f"/ sum by (stage) (rate(residual_stage_duration_seconds_count{{{MODEL}}}[$__rate_interval]))", "{{stage}}")],
         {"stacked": True}),
        ("Stages, 99 %", "The slowest hundredth of each stage. A long `queue` is overload, a long `decode` too few decode threads.",
         "s", 8, by_quantile(0.99, f"residual_stage_duration_seconds_bucket{{{MODEL}}}", "stage"), {"log": True}),
        ("Queue", "Prepared images that wait, beside the bound at which requests are refused.", "short", 8,
         [(f"sum by (instance, model) (residual_queue_images{{{MODEL}}})", "{{instance}} {{model}}"),
          (f"min(residual_queue_images_max{{{MODEL}}})", "bound")], {"bound": "bound"}),
        ("Batch size, mean", "Images in one run. Above 1 only where images wait for cores, or --batch-delay has them wait.",
         "short", 8,
         [(f"sum by (model) (rate(residual_batch_images_sum{{{MODEL}}}[$__rate_interval])) "
           f"/ sum by (model) (rate(residual_batch_images_count{{{MODEL}}}[$__rate_interval]))", "{{model}}")], {}),
        ("Runs by cores", "Wide runs mean an idle machine, narrow ones a busy one.", "short", 8,
         [(f"sum by (cores) (rate(residual_runs_total{{{MODEL}}}[$__rate_interval]))", "{{cores}} cores")], {"stacked": True}),
    ]),
    ("Bounds", [
        ("In flight", "Requests that are being answered.", "short", 6,
         [(f"sum by (instance) (residual_requests_in_flight{{{SERVER}}})", "{{instance}}")], {}),
        ("Connections", "Open connections, beside how many there may be.", "short", 6,
         [(f"sum by (instance) (residual_connections{{{SERVER}}})", "{{instance}}"),
          (f"min(residual_connections_max{{{SERVER}}})", "bound")], {"bound": "bound"}),
        ("Upload memory", "What uploads hold, beside what they may.", "bytes", 6,
         [(f"sum by (instance) (residual_upload_memory_bytes{{{SERVER}}})", "{{instance}}"),
          (f"min(residual_upload_memory_max_bytes{{{SERVER}}})", "bound")], {"bound": "bound"}),
        ("Decode memory", "What decodes have reserved, beside what they may.", "bytes", 6,
         [(f"sum by (instance) (residual_decode_memory_bytes{{{SERVER}}})", "{{instance}}"),
          (f"min(residual_decode_memory_max_bytes{{{SERVER}}})", "bound")], {"bound": "bound"}),
    ]),
    ("Process", [
        ("Cores in use", "Processor time a second.", "short", 6,
         [(f"sum by (instance) (rate(process_cpu_seconds_total{{{SERVER}}}[$__rate_interval]))", "{{instance}}")], {}),
        ("Memory", "What of the process is in RAM.", "bytes", 6,
         [(f"sum by (instance) (process_resident_memory_bytes{{{SERVER}}})", "{{instance}}")], {}),
        ("File descriptors", "Open ones, beside how many there may be.", "short", 6,
         [(f"sum by (instance) (process_open_fds{{{SERVER}}})", "{{instance}}"),
          (f"min(process_max_fds{{{SERVER}}})", "bound")], {"bound": "bound"}),
        ("Up for", "Since the process began.", "dtdurations", 6,
         [(f"time() - process_start_time_seconds{{{SERVER}}}", "{{instance}}")], {}),
    ]),
]


def panel(identity, place, row_height, title, tells, unit, width, queries, options):
    kind = options.get("type", "timeseries")
    made = {
        "id": identity,
        "type": kind,
        "title": title,
        "description": tells,
        "datasource": PROMETHEUS,
        "gridPos": {"h": row_height, "w": width, **place},
        "targets": [
            {
                "refId": chr(ord("A") + index),
                "datasource": PROMETHEUS,
                "expr": query,
                "legendFormat": legend,
                # A table shows what is, the others what was.
                **({"instant": True, "range": False, "format": "table"} if kind == "table" else {"range": True}),
            }
            for index, (query, legend) in enumerate(queries)
        ],
        "fieldConfig": {"defaults": {"unit": unit}, "overrides": []},
    }
    defaults = made["fieldConfig"]["defaults"]
    if kind == "timeseries":
        defaults["min"] = 0
        defaults["custom"] = {
            "drawStyle": "line",
            "fillOpacity": 20 if options.get("stacked") else 5,
            "showPoints": "never",
            "stacking": {"mode": "normal" if options.get("stacked") else "none", "group": "A"},
            "scaleDistribution": {"type": "log", "log": 10} if options.get("log") else {"type": "linear"},
        }
        if options.get("log"):
            del defaults["min"]
        made["options"] = {
            "legend": {"displayMode": "list", "placement": "bottom", "showLegend": True, "calcs": []},
            "tooltip": {"mode": "multi", "sort": "desc"},
        }
    elif kind == "stat":
        made["options"] = {
            "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
            "colorMode": "value",
            "graphMode": "area",
            "textMode": "auto",
        }
    else:
        made["transformations"] = [
            {"id": "organize", "options": {"excludeByName": {"Time": True}, "renameByName": {"Value": "servers"}}}
        ]
    if "max" in options:
        defaults["max"] = options["max"]
    if "steps" in options:
        steps = [{"color": color, "value": value} for color, value in options["steps"]]
        defaults["thresholds"] = {"mode": "absolute", "steps": steps}
        defaults["color"] = {"mode": "thresholds"}
    if "bound" in options:
        line = [
            {"id": "color", "value": {"mode": "fixed", "fixedColor": "red"}},
            {"id": "custom.lineStyle", "value": {"fill": "dash", "dash": [10, 10]}},
            {"id": "custom.fillOpacity", "value": 0},
        ]
        made["fieldConfig"]["overrides"] = [
            {"matcher": {"id": "byName", "options": options["bound"]}, "properties": line}
        ]
    return made


def variable(name, label, query):
    return {
        "name": name,
        "label": label,
        "type": "query",
        "datasource": PROMETHEUS,
        "query": query,
        "refresh": 2,
        "sort": 1,
        "multi": True,
        "includeAll": True,
        "allValue": ".*",
        "current": {"text": "All", "value": "$__all"},
    }


def dashboard():
    panels, y = [], 0
    for title, row in ROWS:
        height = 5 if title == "Now" else 8
        panels.append({
            "id": len(panels) + 1, "type": "row", "title": title, "collapsed": False,
            "gridPos": {"h": 1, "w": WIDTH, "x": 0, "y": y}, "panels": [],
        })
        y, x = y + 1, 0
        for of_row in row:
            width = of_row[3]
            if x + width > WIDTH:
                x, y = 0, y + height
            panels.append(panel(len(panels) + 1, {"x": x, "y": y}, height, *of_row))
            x += width
        y += height
    source = {
        "name": "datasource", "label": "Source", "type": "datasource", "query": "prometheus",
        "current": {"text": "Prometheus", "value": "prometheus"},
    }
    return {
        "uid": "residual",
        "title": "Residual",
        "description": "Image classification: requests, stages, bounds. Made by docker/grafana/dashboard.py",
        "tags": ["residual"],
        "schemaVersion": 39,
        "editable": False,
        "graphTooltip": 1,
        "refresh": "10s",
        "time": {"from": "now-30m", "to": "now"},
        "timezone": "browser",
        "templating": {
            "list": [
                source,
                variable("job", "Job", "label_values(residual_build_info, job)"),
                variable("instance", "Server", 'label_values(residual_build_info{job=~"$job"}, instance)'),
                variable("model", "Model", 'label_values(residual_model_info{job=~"$job", instance=~"$instance"}, model)'),
            ]
        },
        "annotations": {
            "list": [
                {
                    "name": "Alerts",
                    "datasource": PROMETHEUS,
                    "enable": True,
                    "iconColor": "red",
                    "expr": 'ALERTS{alertname=~"Residual.*", alertstate="firing"}',
                }
            ]
        },
        "panels": panels,
    }


def main():
    text = json.dumps(dashboard(), indent=1) + "\n"
    if sys.argv[1:] == ["--check"]:
        return 0 if FILE.read_text() == text else f"{FILE} is not what {__file__} writes: run it without --check"
    FILE.parent.mkdir(exist_ok=True)
    FILE.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
