"""Checks the files operators run, without running them: Dockerfile, docker-compose.yml, rules,
dashboard. What they say of the broker is asked of the broker itself ($FANLIGHT_BIN)."""

import json
import os
import pathlib
import re
import shutil
import subprocess
import tempfile

from sources import (
    DASHBOARD, PROMETHEUS, ROOT, Problems, base, dashboard, dashboard_expressions, load, metrics_in,
    panels, rules,
)

BROKER = str(pathlib.Path(os.environ["FANLIGHT_BIN"]).resolve())
PROGRAM = "/usr/local/bin/fanlight"
# Those that come with every Grafana.
PANELS = {"stat", "timeseries", "state-timeline", "heatmap", "table"}

problems = Problems()
check = problems.check


def main():
    stages = dockerfile()
    context(stages)
    image = runtime(stages[-1])
    compose(image)
    alerts()
    picture()
    documented()
    problems.end("Dockerfile, docker-compose.yml, rules, dashboard")


def broker(*arguments, env=None):
    """Runs the broker's command with this environment alone."""
    with tempfile.TemporaryDirectory() as folder:
        return subprocess.run(
            [BROKER, *arguments], env=env or {}, cwd=folder, text=True, capture_output=True,
            timeout=30,
        )


# === Dockerfile ===

def dockerfile():
    """The stages, each a list of (instruction, rest)."""
    text = (ROOT / "Dockerfile").read_text()
    text = re.sub(r"^\s*#.*\n", "", text, flags=re.M).replace("\\\n", " ")
    stages = [[]]
    for line in filter(str.strip, text.splitlines()):
        word, rest = line.split(None, 1)
        if word == "FROM":
            stages.append([])
        stages[-1].append((word, rest.strip()))
    arguments = dict(rest.split("=", 1) for word, rest in stages.pop(0) if word == "ARG")
    for stage in stages:
        name = re.sub(r"\$\{(\w+)\}", lambda found: arguments[found[1]], stage[0][1]).split()[0]
        tag = name.partition(":")[2]
        check(tag and tag != "latest", f"Dockerfile: {name} names no version")
    return stages


def context(stages):
    """What is copied is there, all that the build reads is copied, and the manifests alone are a
    package."""
    lines = (ROOT / ".dockerignore").read_text().split()
    included = {line[1:] for line in lines if line.startswith("!")}
    check("*" in lines, ".dockerignore does not begin with nothing")
    for name in included:
        check((ROOT / name).exists(), f".dockerignore: there is no {name}")
    copied = " ".join(rest for stage in stages for _, rest in stage)
    for name in re.findall(r"(?:LICENSE-\w+)", copied):
        check(name in included, f"Dockerfile: {name} is not in the build context")
    for source in (ROOT / "src").rglob("*.rs"):
        if source.name in ("tests.rs", "properties.rs"):
            continue
        for name in re.findall(r'include_(?:str|bytes)!\("([^"]+)"\)', source.read_text()):
            place = (source.parent / name).resolve().relative_to(ROOT).parts[0]
            check(place in included, f".dockerignore leaves out {name}, which {source} includes")
    check(not (ROOT / "build.rs").exists() or "build.rs" in included, ".dockerignore: build.rs")

    with tempfile.TemporaryDirectory() as folder:
        copy, manifests = pathlib.Path(folder, "context"), pathlib.Path(folder, "manifests")
        copy.mkdir()
        for name in included:
            place = ROOT / name
            (shutil.copytree if place.is_dir() else shutil.copy)(place, copy / name)
        script = next(rest for word, rest in stages[0] if word == "RUN")
        script = script.replace("/manifests", str(manifests))
        subprocess.run(["sh", "-euc", script], cwd=copy, check=True)
        question = ["cargo", "metadata", "--locked", "--offline", "--no-deps", "--format-version=1"]
        answer = subprocess.run(question, cwd=manifests, text=True, capture_output=True)
        if check(answer.returncode == 0, f"Dockerfile, manifests: {answer.stderr}"):
            for package in json.loads(answer.stdout)["packages"]:
                for target in package["targets"]:
                    stub = pathlib.Path(target["src_path"])
                    is_stub = stub.exists() and stub.stat().st_size < 20
                    check(is_stub, f"Dockerfile, manifests: {stub} is no stub")


def runtime(stage):
    """What the image says of itself: its environment and the port it exposes."""
    said = {word: rest for word, rest in stage}
    env = dict(pair.split("=", 1) for pair in said["ENV"].split())
    check(re.fullmatch(r"[1-9]\d*:[1-9]\d*", said.get("USER", "")), "Dockerfile: USER is no number")
    check(said.get("STOPSIGNAL") == "SIGTERM", "Dockerfile: STOPSIGNAL")
    check(json.loads(said["ENTRYPOINT"]) == [PROGRAM], "Dockerfile: ENTRYPOINT")
    commands(json.loads(said["CMD"]), "Dockerfile")
    probe = json.loads(said["HEALTHCHECK"].split("CMD", 1)[1])
    check(probe[0] == PROGRAM, "Dockerfile: HEALTHCHECK asks something else")
    commands(probe[1:], "Dockerfile: HEALTHCHECK")
    # Others can reach it, so it wants a key, or to be told that it is to be open.
    answer = broker("check", env={**env, "FANLIGHT_UPSTREAM_SOURCE": "demo"})
    check(answer.returncode == 2 and "access.mode" in answer.stderr, "Dockerfile: it is open to all")
    settings({**env, "FANLIGHT_ACCESS_MODE": "off"}, "Dockerfile")
    port = said["EXPOSE"]
    check(env["FANLIGHT_LISTEN"] == f"0.0.0.0:{port}", "Dockerfile: EXPOSE is another port")
    return {"env": env, "port": port}


def commands(arguments, where):
    """The broker has such a command, with such flags."""
    answer = broker(*arguments, "--help")
    check(answer.returncode == 0, f"{where}: fanlight {' '.join(arguments)}: {answer.stderr}")


def settings(env, where):
    """The broker starts with these settings, and warns of none."""
    env = dict(env)
    with tempfile.NamedTemporaryFile("w") as token:
        token.write("not-a-real-token")
        token.flush()
        if "FANLIGHT_UPSTREAM_TOKEN_FILE" in env:
            env["FANLIGHT_UPSTREAM_TOKEN_FILE"] = token.name
        else:
            env["FANLIGHT_UPSTREAM_SOURCE"] = "demo"
        answer = broker("check", env=env)
    check(answer.returncode == 0 and not answer.stderr, f"{where}: {answer.stderr}")


# === docker-compose.yml ===

def compose(image):
    """Mounts exist, ports stay on this machine, and the parts find each other."""
    text = (ROOT / "docker-compose.yml").read_text()
    whole = load(ROOT / "docker-compose.yml")
    services, volumes = whole["services"], whole["volumes"]
    variables(text)
    printed = broker("check", "--print", env={"FANLIGHT_UPSTREAM_SOURCE": "demo"}).stdout
    drain = seconds(re.search(r'drain_window = "(\w+)"', printed)[1])
    for name, service in services.items():
        where = f"docker-compose.yml: {name}"
        check(set(service["profiles"]) <= {"serve", "demo"}, f"{where}: unknown profile")
        check(re.search(r":[\w.]+$", service["image"]), f"{where}: the image names no version")
        check(not service["image"].endswith(":latest"), f"{where}: latest is no version")
        check(service.get("cap_drop") == ["ALL"], f"{where}: cap_drop")
        check("no-new-privileges:true" in service["security_opt"], f"{where}: security_opt")
        check("healthcheck" in service, f"{where}: no healthcheck")
        for port in service["ports"]:
            check(port.startswith("127.0.0.1:"), f"{where}: {port} is not of loopback")
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            known = (ROOT / source).exists() if source.startswith(".") else source in volumes
            check(known, f"{where}: there is no {source}")
        for secret in service.get("secrets", []):
            check(secret in whole["secrets"], f"{where}: secret {secret}")
        for other, how in service.get("depends_on", {}).items():
            known = how["condition"] != "service_healthy" or "healthcheck" in services[other]
            check(known, f"{where}: {other} has no health to wait for")
        if "build" in service:
            check(seconds(service["stop_grace_period"]) > drain, f"{where}: stop_grace_period")
            check(service["read_only"] is True, f"{where}: read_only")
            commands(service["command"], where)
            commands(service["healthcheck"]["test"][2:], where)
            settings(image["env"] | service.get("environment", {}), where)
            port = service["ports"][0].split(":")[-1]
            check(port == image["port"], f"{where}: port {port} is not the image's")
    state = image["env"]["FANLIGHT_STATE_DIR"]
    check(f"state:{state}" in services["fanlight"]["volumes"], f"docker-compose.yml: {state}")
    secret = f"/run/secrets/{services['fanlight']['secrets'][0]}"
    said = services["fanlight"]["environment"].get("FANLIGHT_UPSTREAM_TOKEN_FILE")
    check(said == secret, f"docker-compose.yml: the token is at {secret}")
    names(services, image)
    for ignored in ("/.env", "/secrets/"):
        check(ignored in (ROOT / ".gitignore").read_text().split(), f".gitignore: {ignored}")
    asked = ["docker", "compose", "version"]
    if shutil.which("docker") and subprocess.run(asked, capture_output=True).returncode == 0:
        for profile in ("serve", "demo"):
            asked = ["docker", "compose", "--profile", profile, "config", "--quiet"]
            answer = subprocess.run(asked, cwd=ROOT, text=True, capture_output=True)
            check(answer.returncode == 0, f"docker compose config: {answer.stderr}")


def variables(text):
    """Each variable is in .env.example with the same default, and no other is."""
    used = dict(re.findall(r"\$\{(\w+):-([^}]*)\}", text))
    check(len(used) == len(set(re.findall(r"\$\{(\w+)", text))), "docker-compose.yml: no default")
    lines = (ROOT / ".env.example").read_text().splitlines()
    given = dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))
    check(given.pop("COMPOSE_PROFILES") == "serve", ".env.example: COMPOSE_PROFILES")
    check(given == used, f".env.example has {given}, docker-compose.yml {used}")
    check(not any(name.startswith("FANLIGHT_") for name in given), ".env.example: not a setting")


def names(services, image):
    """Prometheus finds the broker under either profile, and Grafana finds Prometheus."""
    config = load(PROMETHEUS)
    (job,) = config["scrape_configs"]
    target = job["static_configs"][0]["targets"][0]
    check(job["job_name"] == "fanlight", "prometheus.yml: the rules want the job fanlight")
    check(target == f"fanlight:{image['port']}", f"prometheus.yml: {target} is not the broker")
    aliases = services["demo"]["networks"]["default"]["aliases"]
    check("fanlight" in services and "fanlight" in aliases, "docker-compose.yml: who is fanlight?")
    for file in config["rule_files"]:
        mount = f"./deploy/prometheus/{file}:/etc/prometheus/{file}:ro"
        check(mount in services["prometheus"]["volumes"], f"docker-compose.yml: {file}")
    folder = ROOT / "deploy/grafana/provisioning"
    (source,) = load(folder / "datasources/prometheus.yml")["datasources"]
    check(source["url"] == "http://prometheus:9090", "Grafana's data source is not Prometheus")
    interval = config["global"]["scrape_interval"]
    check(source["jsonData"]["timeInterval"] == interval, "Grafana's timeInterval")
    (provider,) = load(folder / "dashboards/fanlight.yml")["providers"]
    place = provider["options"]["path"]
    mount = f"./{DASHBOARD.parent.relative_to(ROOT)}:{place}:ro"
    check(mount in services["grafana"]["volumes"], f"Grafana: nothing is mounted at {place}")
    home = services["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    check(home == f"{place}/{DASHBOARD.name}", f"Grafana: {home} is not the dashboard")


def seconds(text):
    """`1m30s` as a number."""
    units = {"h": 3600, "m": 60, "s": 1}
    return sum(int(count) * units[unit] for count, unit in re.findall(r"(\d+)([hms])", text))


# === rules and dashboard ===

def alerts():
    """Each alert says what to do, in a place that exists, and is tested; and no place is left."""
    headings = {}
    for page in ("docs/operations.md", "docs/metrics.md"):
        for title in re.findall(r"^#+ (.+)$", (ROOT / page).read_text(), flags=re.M):
            slug = re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-")
            headings[f"{page}#{slug}"] = title
    tested = (ROOT / "deploy/prometheus/rules_test.yml").read_text()
    known = set()
    for rule in rules():
        if "alert" not in rule:
            continue
        name, said = rule["alert"], rule["annotations"]
        known.add(name)
        check(set(said) == {"summary", "description", "runbook"}, f"{name}: annotations")
        check("$labels" in said["summary"] or name == "FanlightNotWatched", f"{name}: who?")
        check("$value" in said["description"], f"{name}: the description has no value")
        check(headings.get(said["runbook"]) == name, f"{name}: no heading at {said['runbook']}")
        check(rule["labels"]["severity"] in ("critical", "warning", "info"), f"{name}: severity")
        check(f'{{alertname="{name}"}}' in tested, f"{name}: rules_test.yml never sees it fire")
    left = {title for title in headings.values() if re.fullmatch(r"Fanlight[A-Z]\w+", title)}
    check(left == known, f"docs/operations.md: no such alerts: {left - known}")


def picture():
    """The dashboard works wherever it is put, and every panel says what it shows."""
    whole = dashboard()
    sorted_text = json.dumps(whole, indent=2, sort_keys=True, ensure_ascii=False) + "\n"
    check(DASHBOARD.read_text() == sorted_text, f"{DASHBOARD.name}: sort it with indent 2")
    check(whole["uid"] == "fanlight" and whole["id"] is None, "dashboard: uid, id")
    ids = [panel["id"] for panel in whole["panels"]]
    check(len(ids) == len(set(ids)), "dashboard: an id occurs twice")
    taken = {}
    for panel in whole["panels"]:
        place, title = panel["gridPos"], panel["title"]
        for x in range(place["x"], place["x"] + place["w"]):
            for y in range(place["y"], place["y"] + place["h"]):
                over = taken.setdefault((x, y), title)
                check(over == title and x < 24, f"dashboard: {title} lies over {over}")
    for panel in panels():
        title, source = panel["title"], {"type": "prometheus", "uid": "${datasource}"}
        check(panel["type"] in PANELS, f"dashboard: {title} needs a plugin")
        check(panel.get("description"), f"dashboard: {title} does not say what it shows")
        check(panel["fieldConfig"]["defaults"].get("unit"), f"dashboard: {title} has no unit")
        sources = [panel["datasource"], *(target["datasource"] for target in panel["targets"])]
        check(all(each == source for each in sources), f"dashboard: {title} has its own source")
        for target in panel["targets"]:
            windows = set(re.findall(r"\[([^\]]+)\]", target["expr"]))
            known = windows <= {"$__rate_interval", "$__range"}
            check(known, f"dashboard: {title} has the window {windows}")
            check('instance=~"$instance"' in target["expr"], f"dashboard: {title} shows all brokers")


def documented():
    """Each metric that is named is on the page of metrics."""
    page = (ROOT / "docs/metrics.md").read_text()
    known = set(re.findall(r"^\| `(fanlight_\w+)`", page, flags=re.M))
    known |= {f"fanlight_process_{name}" for name in re.findall(r"`…_(\w+)`", page)}
    expressions = [(f"rule {rule.get('alert', rule.get('record'))}", rule["expr"]) for rule in rules()]
    for where, expression in [*expressions, *dashboard_expressions()]:
        for name in metrics_in(expression):
            check(base(name) in known, f"{where}: docs/metrics.md has no {name}")


main()
