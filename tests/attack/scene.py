"""The broker that is attacked, the cloud behind it, and what the kernel says of them.

Law: whatever is started is ended, by its id, when the stack it was given to ends; should this program be
killed, the kernel ends it."""

import ctypes
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
# For whatever is waited for: far above anything expected.
PATIENCE = 60
PR_SET_PDEATHSIG = 1
LIBC = ctypes.CDLL(None)
PAGE = os.sysconf("SC_PAGE_SIZE")
MIB = 1 << 20


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def fetch(url, data=None):
    with urllib.request.urlopen(url, data, timeout=PATIENCE) as answer:
        return answer.read().decode()


def eventually(what, condition, step=0.1):
    until = time.monotonic() + PATIENCE
    while not (found := condition()):
        if time.monotonic() > until:
            raise SystemExit(f"{what}: not after {PATIENCE} s")
        time.sleep(step)
    return found


def start(stack, folder, name, command, cpus=(), **options):
    """Starts a process; what it says goes to a file of its name."""
    def tied():
        LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
        if cpus:
            os.sched_setaffinity(0, cpus)

    said = stack.enter_context(open(folder / f"{name}.said", "w"))
    process = subprocess.Popen(
        [str(word) for word in command], cwd=folder, stdin=subprocess.DEVNULL, stderr=said, text=True,
        preexec_fn=tied, **options,
    )

    def end():
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    stack.callback(end)
    return process


class Broker:
    """A broker on a simulated cloud."""

    def __init__(self, stack, folder, binary, flags, cpus, load_cpus):
        self.folder, self.binary, self.load_cpus = folder, binary, load_cpus
        cloud, listen, admin = (f"127.0.0.1:{free_port()}" for _ in range(3))
        self.cloud, self.address, self.admin = f"http://{cloud}", listen, f"http://{admin}"
        start(
            stack, folder, "cloud", [binary, "simulate", f"--listen={cloud}", "--rate=0", "--no-limits"], load_cpus,
            stdout=subprocess.DEVNULL,
        )
        eventually("the simulated cloud answers", lambda: self.answers(f"{self.cloud}/sim"))
        self.process = start(
            stack, folder, "broker",
            [
                binary, "serve", f"--listen={listen}", f"--server-admin-listen={admin}",
                f"--upstream-url={self.cloud}", f"--state-dir={folder}", "--trace-level=warn", *flags,
            ],
            cpus, stdout=subprocess.DEVNULL, env={"PATH": os.environ["PATH"]},
        )
        eventually("the broker is ready", self.is_ready)

    @staticmethod
    def answers(url):
        try:
            return fetch(url)
        except OSError:
            return None

    def is_ready(self):
        if self.process.poll() is not None:
            raise SystemExit((self.folder / "broker.said").read_text())
        return self.answers(f"{self.admin}/readyz")

    def publish(self, name, data):
        body = json.dumps({"name": name, "data": data}).encode()
        request = urllib.request.Request(
            f"{self.cloud}/v1/devices/events", body, {"Content-Type": "application/json"}
        )
        fetch(request)

    def metrics(self):
        """Samples by name and labels."""
        lines = (line for line in fetch(f"{self.admin}/metrics").splitlines() if line and line[0] != "#")
        return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines)}

    def now(self):
        """What it holds at this moment."""
        pid, port = self.process.pid, self.address.rsplit(":", 1)[1]
        if self.process.poll() is not None:
            raise SystemExit("the broker has ended:\n" + (self.folder / "broker.said").read_text())
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
        metrics = self.metrics()
        sockets, kernel = kernel_memory(port)
        return {
            "process": pages * PAGE, "files": len(os.listdir(f"/proc/{pid}/fd")), "sockets": sockets,
            "kernel": kernel, "connections": int(metrics["fanlight_connections"]),
            "subscribers": int(sum(value for name, value in metrics.items() if is_subscribers(name))),
            "panics": int(metrics["fanlight_panics_total"]),
        }

    def ends(self):
        """How often it ended a subscriber or reached a limit so far, and why."""
        return {
            name.split('"')[1]: int(value) for name, value in self.metrics().items()
            if name.startswith(("fanlight_subscribers_closed_total{", "fanlight_limits_reached_total{"))
        }

    def healthy(self, stack, subscribers, rate, seconds):
        """Subscribers that read, and events that they count."""
        return start(
            stack, self.folder, "healthy",
            [
                self.binary, "bench", f"http://{self.address}", f"--subscribers={subscribers}", "--name=bench",
                f"--publish={self.cloud}", f"--rate={rate}", f"--duration={seconds}s", "--json",
            ],
            self.load_cpus, stdout=subprocess.PIPE,
        )

    def attack(self, stack, name, clients, seconds, pause):
        program = Path(__file__).with_name("attacker.py")
        return start(
            stack, self.folder, name,
            [sys.executable, program, name, self.address, clients, seconds, pause],
            self.load_cpus, stdout=subprocess.PIPE,
        )


def is_subscribers(name):
    return name.startswith("fanlight_subscribers{")


def kernel_memory(port):
    """Sockets of the broker that a client has or had, and what the kernel holds for them: received, to be sent,
    and set aside (ss(8), skmem)."""
    try:
        command = ["ss", "-tnmHO", "state", "connected", f"sport = :{port}"]
        found = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return 0, 0
    held = re.findall(r"skmem:\(r(\d+),rb\d+,t\d+,tb\d+,f(\d+),w(\d+),", found)
    return len(held), sum(int(number) for one in held for number in one)
