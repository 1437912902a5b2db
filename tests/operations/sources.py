"""What operators get, as data: the rules, the dashboard, and the expressions in both."""

import json
import pathlib
import re

import yaml

ROOT = pathlib.Path(__file__).resolve().parents[2]
RULES = ROOT / "deploy/prometheus/rules.yml"
PROMETHEUS = ROOT / "deploy/prometheus/prometheus.yml"
DASHBOARD = ROOT / "deploy/grafana/dashboards/fanlight.json"


class Problems:
    """Collects what is wrong, so that all of it is told at once."""

    def __init__(self):
        self.found = []

    def check(self, is_right, text):
        """Notes `text` where something is not right. Returns whether it is."""
        if not is_right and text not in self.found:
            self.found.append(text)
        return bool(is_right)

    def end(self, what):
        """Ends the test: with 1 and the list, or with a line that says what was looked at."""
        if self.found:
            raise SystemExit("\n".join([f"{len(self.found)} problems:", *self.found]))
        print(f"ok: {what}")


def load(path):
    """A YAML file."""
    return yaml.safe_load(path.read_text())


def rules():
    """Every rule, recorded ones and alerts."""
    return [rule for group in load(RULES)["groups"] for rule in group["rules"]]


def panels():
    """Every panel of the dashboard that shows something."""
    return [panel for panel in dashboard()["panels"] if panel["type"] != "row"]


def dashboard():
    """The dashboard."""
    return json.loads(DASHBOARD.read_text())


def dashboard_expressions():
    """(where, expression) of all panels, annotations and variables."""
    for panel in panels():
        for target in panel["targets"]:
            yield f"panel {panel['title']}/{target['refId']}", target["expr"]
    for annotation in dashboard()["annotations"]["list"]:
        if "expr" in annotation:
            yield f"annotation {annotation['name']}", annotation["expr"]
    for variable in dashboard()["templating"]["list"]:
        if variable["type"] == "query":
            name = re.fullmatch(r"label_values\((\w+), \w+\)", variable["query"]["query"])
            yield f"variable {variable['name']}", name[1]


def metrics_in(expression):
    """Names of the broker's metrics in an expression, without what is recorded."""
    return set(re.findall(r"(?<![:\w])fanlight_\w+", expression))


def base(name):
    """A metric's name, without what a histogram adds to it."""
    return re.sub(r"_(bucket|sum|count)$", "", name)
