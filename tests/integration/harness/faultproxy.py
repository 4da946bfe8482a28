"""A TCP proxy whose connections can be cut, held up, slowed down and healed while they are open.

Run as a script it is the proxy, one process for a whole fleet; FaultProxy starts one and controls
it with JSON lines over a TCP connection. A listener leads to one target. Its connections belong to
*links*, each with a name and a fault of its own: a connection's link is that of the first rule
whose words occur in the first bytes of the client ("hello" names the application and, among
mongods that take test commands, the host), or the listener's own. A fault of a link:

  ok         bytes pass
  cut        connections are reset, new ones too
  blackhole  nothing passes in either direction and nobody is told; what was sent is delivered when
             the link is healed, however late that is
  drop       the same, but what was held up is lost: healing resets these connections
  half_open  requests pass, answers do not (dropped as by drop)
  delay      every read is passed on after delay_ms, give or take jitter_ms; order is kept
  throttle   bytes_per_s in each direction of a connection
"""

import asyncio
import json
import random
import socket
import struct
import sys
import threading
from contextlib import suppress

if __package__:
    from .ports import HOST, free_port
    from .process import Process

CHUNK = 1 << 16
FIRST_BYTES_TIMEOUT_S = 30
RESET = struct.pack("ii", 1, 0)  # SO_LINGER on, 0 seconds: close sends RST
FAULTS = ("ok", "cut", "blackhole", "drop", "half_open", "delay", "throttle")
LOSING = ("drop", "half_open")


class Link:
    def __init__(self, name: str):
        self.name = name
        self.fault, self.options = "ok", {}
        self.changed = asyncio.Event()
        self.connections = set()
        self.opened = self.bytes = 0

    def set(self, fault: str, options: dict):
        lost = self.fault in LOSING
        self.fault, self.options = fault, options
        if fault == "cut" or (lost and fault not in LOSING):
            for connection in list(self.connections):
                connection.reset()
        self.changed.set()
        self.changed = asyncio.Event()

    def holds(self, upwards: bool) -> bool:
        return self.fault in ("blackhole", "drop") or (self.fault == "half_open" and not upwards)

    async def admit(self, upwards: bool, size: int):
        """Returns when so many bytes may pass."""
        if self.fault == "delay":
            jitter = self.options.get("jitter_ms", 0)
            delay_ms = self.options.get("delay_ms", 0) + random.uniform(-jitter, jitter)
            await asyncio.sleep(max(0, delay_ms) / 1000)
        elif self.fault == "throttle":
            await asyncio.sleep(size / max(1, self.options.get("bytes_per_s", 1)))
        while self.holds(upwards):
            await self.changed.wait()
        self.bytes += size


class Connection:
    def __init__(self, link: Link, client: asyncio.StreamWriter):
        self.link = link
        self.sides = [client]
        link.connections.add(self)
        link.opened += 1

    def reset(self):
        self.link.connections.discard(self)
        for side in self.sides:
            reset(side)

    def close(self):
        """After both ends: what is still to be sent is sent."""
        self.link.connections.discard(self)
        for side in self.sides:
            side.close()
        self.sides = []

    async def run(self, first: bytes, reader: asyncio.StreamReader, target):
        client = self.sides[0]
        server_reader, server = await asyncio.open_connection(*target)
        self.sides.append(server)
        up = self.pump(reader, server, True, first)
        pumps = [asyncio.ensure_future(up)]
        pumps.append(asyncio.ensure_future(self.pump(server_reader, client, False)))
        try:
            await asyncio.gather(*pumps)
        finally:
            for pump in pumps:
                pump.cancel()

    async def pump(self, reader, writer, upwards: bool, first: bytes = b""):
        data = first or await reader.read(CHUNK)
        while data:
            await self.link.admit(upwards, len(data))
            writer.write(data)
            await writer.drain()
            data = await reader.read(CHUNK)
        await self.link.admit(upwards, 0)  # an end is no sooner heard of than bytes
        if writer.can_write_eof():
            writer.write_eof()


def reset(writer: asyncio.StreamWriter):
    with suppress(OSError, AttributeError):
        plain = writer.transport.get_extra_info("socket")
        plain.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    writer.transport.abort()


class Server:
    """The proxy process: listeners and links, on one event loop."""

    def __init__(self):
        self.links = {}
        self.listeners = []

    def link(self, name: str) -> Link:
        return self.links.setdefault(name, Link(name))

    async def listen(self, port: int, target: str, link: str, rules=()):
        host, target_port = target.rsplit(":", 1)
        words = [(word.encode(), name) for word, name in rules]

        async def accepted(reader, writer):
            await self.serve(reader, writer, (host, int(target_port)), link, words)

        self.listeners.append(await asyncio.start_server(accepted, "127.0.0.1", port))

    async def serve(self, reader, writer, target, default: str, rules):
        connection = None
        try:
            first = b""
            if rules:
                first = await asyncio.wait_for(reader.read(CHUNK), FIRST_BYTES_TIMEOUT_S)
            name = next((name for word, name in rules if word in first), default)
            connection = Connection(self.link(name), writer)
            if connection.link.fault == "cut":
                return
            await connection.run(first, reader, target)
            connection.close()
        except (OSError, asyncio.TimeoutError):
            pass  # one side has gone: so has the other, by a reset
        finally:
            if connection is not None:
                connection.reset()
            else:
                reset(writer)

    async def control(self, reader, writer):
        while line := await reader.readline():
            said = json.loads(line)
            answer = {"ok": True}
            try:
                if said["do"] == "listen":
                    await self.listen(said["port"], said["target"], said["link"], said["rules"])
                elif said["do"] == "set":
                    self.link(said["link"]).set(said["fault"], said["options"])
                elif said["do"] == "links":
                    counts = {n: [len(k.connections), k.opened, k.bytes] for n, k in self.links.items()}
                    answer["links"] = counts
            except (OSError, KeyError, ValueError) as failure:
                answer = {"ok": False, "error": repr(failure)}
            writer.write(json.dumps(answer).encode() + b"\n")
            await writer.drain()
        writer.close()


async def serve(port: int):
    server = Server()
    listening = await asyncio.start_server(server.control, "127.0.0.1", port)
    async with listening:
        await listening.serve_forever()


if __package__:

    class FaultProxy(Process):
        """One proxy process. Any thread may control it."""

        def __init__(self, directory=None):
            super().__init__("faultproxy", directory, free_port())
            self._lock = threading.Lock()
            self._control = None
            self._faulty = {}

        def argv(self) -> list:
            return [sys.executable, __file__, str(self.port)]

        def listen(self, target: str, link: str, rules=()) -> str:
            """A new address that leads to target ("host:port"). rules: (words, link) pairs."""
            port = free_port()
            self.do(do="listen", port=port, target=target, link=link, rules=list(rules))
            return f"{HOST}:{port}"

        def set(self, link: str, fault: str, **options):
            assert fault in FAULTS, fault
            self.do(do="set", link=link, fault=fault, options=options)
            self._faulty[link] = fault

        def heal(self, link: str):
            self.set(link, "ok")

        def heal_all(self):
            for link in [name for name, fault in self._faulty.items() if fault != "ok"]:
                self.heal(link)

        def links(self) -> dict:
            """By name: connections that are open, those ever opened, bytes that passed."""
            return self.do(do="links")["links"]

        def do(self, **words) -> dict:
            with self._lock:
                if self._control is None:
                    connection = socket.create_connection((HOST, self.port), timeout=20)
                    self._control = connection.makefile("rw")
                self._control.write(json.dumps(words) + "\n")
                self._control.flush()
                answer = json.loads(self._control.readline())
            assert answer["ok"], answer
            return answer


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1])))
