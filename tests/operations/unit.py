"""Checks deploy/systemd/fanlight.service: how far its sandbox is open, as $SYSTEMD_ANALYZE counts it,
and that the broker understands what the unit gives it ($FANLIGHT_BIN)."""

import os
import pathlib
import shlex
import subprocess
import tempfile

from sources import ROOT, Problems

BROKER = str(pathlib.Path(os.environ["FANLIGHT_BIN"]).resolve())
UNIT = ROOT / "deploy/systemd/fanlight.service"
# Of 10; a service without any of it has 9.6. What is left is the network (0.9), the root directory
# and the clock that ProtectClock= lets it read.
EXPOSURE_MAX = 1.5

problems = Problems()
check = problems.check


def main():
    settings = parse(UNIT.read_text())
    exposure()
    starts(settings)
    documented()
    problems.end("systemd unit")


def parse(text):
    """Each setting of [Service] with its values, in order."""
    settings, section = {}, None
    for line in text.splitlines():
        if line.startswith("["):
            section = line
        elif section == "[Service]" and "=" in line and not line.startswith("#"):
            key, value = line.split("=", 1)
            settings.setdefault(key, []).append(value)
    return settings


def exposure():
    analyze = [os.environ["SYSTEMD_ANALYZE"], "security", "--offline=true", "--no-pager"]
    threshold = f"--threshold={round(EXPOSURE_MAX * 10)}"
    environment = os.environ | {"LC_ALL": "C.UTF-8"}
    if libraries := os.environ.get("SYSTEMD_LIBRARIES"):
        environment["LD_LIBRARY_PATH"] = libraries
    done = subprocess.run(
        [*analyze, threshold, str(UNIT)], text=True, capture_output=True, env=environment, timeout=30,
    )
    check("Overall exposure level" in done.stdout, f"systemd-analyze: {done.stdout}{done.stderr}")
    open_ones = [line for line in done.stdout.splitlines() if line.startswith("✗")]
    check(done.returncode == 0, "the sandbox is open too far:\n  " + "\n  ".join(open_ones))
    # It says so of settings that it does not know, and goes on.
    check("nknown" not in done.stderr and "ailed" not in done.stderr, done.stderr)


def starts(settings):
    """With what systemd would put in its place, the broker has nothing to say against it."""
    program, command, *arguments = shlex.split(settings["ExecStart"][0])
    check((program, command) == ("/usr/local/bin/fanlight", "serve"), f"it runs {program} {command}")
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        (folder / "fanlight.toml").write_text("")
        (folder / "token").write_text("0123456789abcdef-not-a-token\n")
        (folder / "token").chmod(0o400)
        arguments = [argument.replace("/etc/fanlight", str(folder)) for argument in arguments]
        environment = dict(value.split("=", 1) for value in settings["Environment"])
        environment = {key: value.replace("%d", str(folder)) for key, value in environment.items()}
        environment["STATE_DIRECTORY"] = str(folder / settings["StateDirectory"][0])
        done = subprocess.run(
            [BROKER, "check", *arguments], env=environment, text=True, capture_output=True, timeout=30,
        )
        check(done.returncode == 0, f"fanlight check: {done.stdout}{done.stderr}")
        printed = subprocess.run(
            [BROKER, "check", "--print", *arguments], env=environment, text=True,
            capture_output=True, timeout=30,
        ).stdout
        check(environment["STATE_DIRECTORY"] in printed, "the state directory is not taken up")
        check(environment["FANLIGHT_UPSTREAM_TOKEN_FILE"] in printed, "the token is not taken up")
    # The code for a wrong configuration, from the broker itself.
    wrong = subprocess.run([BROKER, "check", "--listen", "nowhere"], env={}, capture_output=True)
    check([str(wrong.returncode)] == settings["RestartPreventExitStatus"], "another exit code")
    families = settings["RestrictAddressFamilies"][0].split()
    check(families == ["AF_INET", "AF_INET6", "AF_UNIX"], f"it may open {families}")


def documented():
    page = (ROOT / "docs/operations.md").read_text()
    check("deploy/systemd/fanlight.service" in page, "docs/operations.md does not name the unit")
    check("[Service]" not in page, "docs/operations.md has a unit of its own")


main()
