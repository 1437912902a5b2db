"""Runs a demo broker ($FANLIGHT_BIN) and a real Prometheus ($PROMETHEUS) with the rules that are
shipped, and asks that Prometheus for everything that the rules and the dashboard ask for.

Every wait is for a condition and ends after PATIENCE. Whatever is started here is ended here."""

import contextlib
import json
import math
import os
import pathlib
import re
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request

import yaml

from sources import (
    PROMETHEUS, RULES, Problems, base, dashboard_expressions, load, metrics_in, rules,
)

# Far above anything expected, so that a slow machine fails no test.
PATIENCE = 60
# Scrapes that the window of a rate needs at least, and some to spare.
SCRAPES = 5
# What a browser would put in place of Grafana's variables. The window holds many scrapes, so that a
# busy machine may miss some.
VARIABLES = {"$__rate_interval": "1m", "$__range": "5m", "$instance": ".*"}
# Expressions of the dashboard that say nothing in a demo where all is well, and why.
EMPTY = {
    "annotation Hole": "there was none",
}
# Complaints of `promtool check metrics` that are not followed, and why. None so far.
LINT_EXCEPTIONS = {}

problems = Problems()
check = problems.check


def main():
    with contextlib.ExitStack() as ended_at_exit:
        folder = pathlib.Path(ended_at_exit.enter_context(tempfile.TemporaryDirectory()))
        broker = start_broker(ended_at_exit, folder)
        subscribe(ended_at_exit, broker, folder)
        server = start_prometheus(ended_at_exit, broker, folder)
        wait_for_data(server)
        text = fetch(f"{broker}/metrics")
        lint(text)
        exposed = set(re.findall(r"^# TYPE (\w+)", text, flags=re.M))
        evaluated = evaluate(server, exposed)
        quiet(server)
    problems.end(f"{evaluated} expressions have data, no alert in a healthy demo")


# === what runs ===

def start(stack, command, folder, name, **how):
    """Starts a process that is ended, by its id, when `stack` is."""
    trace = stack.enter_context(open(folder / f"{name}.log", "w"))
    process = subprocess.Popen(command, stderr=trace, stdin=subprocess.DEVNULL, text=True, **how)
    process.trace = folder / f"{name}.log"

    def end():
        process.terminate()
        try:
            process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    stack.callback(end)
    return process


def start_broker(stack, folder):
    """A demo on a free port; its address."""
    binary = str(pathlib.Path(os.environ["FANLIGHT_BIN"]).resolve())
    command = [binary, "demo", "--listen=127.0.0.1:0", "--rate=50", "--seed=1"]
    # A machine that stands still for a moment makes no hole.
    command.append("--upstream-stale-after=10m")
    process = start(
        stack, command, folder, "broker", env={}, cwd=folder, stdout=subprocess.PIPE
    )
    for line in process.stdout:
        found = re.search(r"In a browser\s+(http://[\w.:]+)/", line)
        if found:
            return found[1]
    raise SystemExit(f"the broker did not start:\n{process.trace.read_text()}")


def subscribe(stack, broker, folder):
    """Subscribers over two transports, and one who polls, so that there is something to see."""
    binary = str(pathlib.Path(os.environ["FANLIGHT_BIN"]).resolve())
    for transport in ("sse", "websocket"):
        command = [binary, "bench", broker, "--subscribers=3", "--duration=1d"]
        start(
            stack, [*command, f"--transport={transport}"], folder, transport, env={}, cwd=folder,
            stdout=subprocess.DEVNULL,
        )
    fetch(f"{broker}/poll?since=earliest&timeout=0")


def start_prometheus(stack, broker, folder):
    """Prometheus with the configuration that is shipped, pointed at `broker`; its address."""
    config = load(PROMETHEUS)
    config["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
    config["rule_files"] = [str(RULES)]
    config["scrape_configs"][0]["static_configs"] = [{"targets": [broker.removeprefix("http://")]}]
    path = folder / "prometheus.yml"
    path.write_text(yaml.safe_dump(config))
    # It cannot say which free port it took, so one is chosen; if another program is faster, again.
    for _ in range(5):
        with socket.create_server(("127.0.0.1", 0)) as free:
            address = f"127.0.0.1:{free.getsockname()[1]}"
        command = [
            os.environ["PROMETHEUS"], f"--config.file={path}",
            f"--storage.tsdb.path={folder / 'data'}", f"--web.listen-address={address}",
        ]
        process = start(stack, command, folder, "prometheus", stdout=subprocess.DEVNULL)
        if until(lambda: process.poll() is not None or is_ready(address), "Prometheus listens"):
            if process.poll() is None:
                return f"http://{address}"
    raise SystemExit(f"Prometheus did not start:\n{process.trace.read_text()}")


def is_ready(address):
    """Whether Prometheus answers there."""
    try:
        return bool(fetch(f"http://{address}/-/ready"))
    except (urllib.error.URLError, ConnectionError):
        return False


def wait_for_data(server):
    """Until each kind of thing that is asked for has had time to be there."""
    recorded = [rule["record"] for rule in rules() if "record" in rule]
    conditions = [
        f'count_over_time(up{{job="fanlight"}}[1m]) > {SCRAPES} and up == 1',
        *(f"{name} >= 0" for name in recorded),
        "sum(fanlight_subscribers) > 5",
        *(
            f'rate(fanlight_deliveries_total{{transport="{transport}"}}[1m]) > 0'
            for transport in ("sse", "websocket")
        ),
    ]
    for condition in conditions:
        until(lambda: query(server, condition)[1], condition)


# === what is asked ===

def evaluate(server, exposed):
    """Every expression can be evaluated, and has data where it should. Returns how many have."""
    with_data = 0
    asked = [(f"recorded {rule['record']}", rule["expr"], True) for rule in rules() if "record" in rule]
    # An alert's data is its firing.
    asked += [(f"alert {rule['alert']}", rule["expr"], None) for rule in rules() if "alert" in rule]
    asked += [(where, text, where not in EMPTY) for where, text in dashboard_expressions()]
    for where, expression, has_data in asked:
        for name in metrics_in(expression):
            check(base(name) in exposed, f"{where}: /metrics has no {name}")
        for variable, value in VARIABLES.items():
            expression = expression.replace(variable, value)
        error, result = query(server, expression)
        if not check(not error, f"{where}: {error}"):
            continue
        numbers = [sample["value"][1] for sample in result]
        is_there = any(not math.isnan(float(number)) for number in numbers)
        with_data += is_there
        if has_data is not None:
            check(is_there == has_data, f"{where}: {len(numbers)} results {numbers[:3]}: {expression}")
    left = set(EMPTY) - {where for where, _, _ in asked}
    check(not left, f"EMPTY names what is not there: {left}")
    return with_data


def quiet(server):
    """All rules work, and none calls. (A scrape that took too long may make one pend.)"""
    groups = json.loads(fetch(f"{server}/api/v1/rules"))["data"]["groups"]
    for rule in (rule for group in groups for rule in group["rules"]):
        check(rule["health"] == "ok", f"rule {rule['name']}: {rule.get('lastError')}")
        for alert in rule.get("alerts", []):
            check(alert["state"] != "firing", f"{rule['name']}: {alert['annotations']}")


def lint(text):
    """What Prometheus' own linter says of /metrics."""
    command = [os.environ["PROMTOOL"], "check", "metrics"]
    answer = subprocess.run(command, input=text, text=True, capture_output=True)
    for line in (answer.stdout + answer.stderr).splitlines():
        check(line in LINT_EXCEPTIONS, f"promtool check metrics: {line}")


def query(server, expression):
    """(error, result) of an expression, now."""
    question = urllib.parse.urlencode({"query": expression})
    try:
        answer = json.loads(fetch(f"{server}/api/v1/query?{question}"))
    except urllib.error.HTTPError as refusal:
        return json.loads(refusal.read()).get("error"), []
    return None, answer["data"]["result"]


def fetch(url):
    """The body at an address."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(url, timeout=PATIENCE) as answer:
        return answer.read().decode()


def until(condition, what):
    """Asks until the condition holds."""
    deadline = time.monotonic() + PATIENCE
    while not (value := condition()):
        if time.monotonic() > deadline:
            raise SystemExit(f"not within {PATIENCE} s: {what}")
        time.sleep(0.1)  # between two questions
    return value


sys.exit(main())
