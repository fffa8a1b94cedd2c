#!/usr/bin/env python3
"""Writes prometheusrule.yaml from docker/prometheus/alerts.yml, so that there is one source: python3 docker/kubernetes/rules.py.
With --check it only says whether the file is up to date."""
import pathlib
import sys

HERE = pathlib.Path(__file__).parent
RULES = HERE.parent / "prometheus" / "alerts.yml"
FILE = HERE / "prometheusrule.yaml"
HEAD = """\
# Made by rules.py from docker/prometheus/alerts.yml: change it there.
apiVersion: monitoring.coreos.com/v1
kind: PrometheusRule
metadata:
  name: residual
spec:
"""


def resource():
    """The rules without their comments, as the resource's spec: two steps further in."""
    lines = (line for line in RULES.read_text().splitlines() if not line.lstrip().startswith("#"))
    return HEAD + "".join(f"  {line}".rstrip() + "\n" for line in lines)


def main():
    if sys.argv[1:] == ["--check"]:
        return 0 if FILE.read_text() == resource() else f"{FILE} is not what {__file__} writes: run it without --check"
    FILE.write_text(resource())
    return 0


if __name__ == "__main__":
    sys.exit(main())
