"""Everything that runs: a replica set, rekeyd instances, Vault, RabbitMQ, each connection between any two of
them through one FaultProxy, each wall clock in our hands.

Links are called after what they connect: app-rekeyd0, rekeyd0-mongod1, mongod0-mongod1,
rekeyd0-vault, rekeyd0-broker. A member's address in rs.conf() is the proxy's; who is calling is
told by the first message of a connection: applications and rekeyd give themselves names in
"hello", and a mongod that takes test commands gives its port there.
"""

import ctypes
import os
import queue
import shutil
import struct
import subprocess
import threading
from concurrent.futures import Future
from contextlib import suppress
from http.client import HTTPException
from pathlib import Path

from pymongo import MongoClient

from harness import FaultProxy, Rekeyd, ReplicaSet, Vault, admin_settings, policy, rekey_binary
from harness.process import ProcessError
from harness.rabbitmq import RabbitMq
from harness.rekeyd import merge

DB, COLL = "chaos", "people"
NAMESPACE = f"{DB}.{COLL}"
FIELDS = {"answer": "random", "ssn": "deterministic", "notes.text": "random"}
MEMBER_ARGS = ["--setParameter", "enableTestCommands=1"]
FAILED, REFUSED, UNREACHABLE = 1, 3, 4  # rekeyctl's exit codes
LEASE_MS = 3000
PREFIX = "rekey-c4a05"  # one that the broker's user may use
CLONE_NEWNS, MS_REC, MS_PRIVATE = 0x20000, 0x4000, 1 << 18
ON_BROKER = (0, 1)  # with transport amqp: the third instance works without, and they get on
SETTINGS = {
    "limits": {"connect_timeout_ms": 2000, "workers": 2, "connections_max": 2000},
    "keys": {
        "refresh_interval_ms": 200,
        "negative_cache_ms": 200,
        "instance_lease_ms": LEASE_MS,
        "cursor_grace_ms": 2000,
        "start_degraded": True,
    },
    "sweep": {
        "poll_interval_ms": 200,
        "lease_ms": LEASE_MS,
        "range_docs": 100,
        "batch_docs": 25,
        "split_after_ms": 300,
        "max_rate": 100,
        "write_timeout_ms": 3000,
        "retry_backoff_ms": 50,
        "retry_backoff_max_ms": 1000,
        "guard": {"p99_limit_ms": 0},
    },
}
VAULT = {"retry_timeout_ms": 2000, "request_timeout_ms": 1500, "connect_timeout_ms": 1000}


class Fleet:
    def __init__(self, directory, instances=3, members=3, vault=True, transport="local"):
        self.directory = Path(directory)
        self.transport = transport
        self.links = []
        self.clocks = {}
        self.mounted = None
        self.rotating = threading.Lock()
        self.last_key = None  # once it is known: from then on nobody rotates
        self._main = queue.Queue()
        self._library = self._build_clock_library()
        self.proxy = FaultProxy(self.directory / "proxy").start()
        self.servers = self._make_servers(members, instances)
        self.vault = Vault(self.directory / "vault") if vault else None
        self.broker = RabbitMq(self.directory / "rabbitmq") if transport == "amqp" else None
        self.instances = []
        self._wanted_instances = instances

    def start(self):
        self._mount_a_small_disk()
        self.servers.start()
        if self.vault:
            self.vault.start()
        if self.broker:
            self.broker.start(120)
        for number in range(self._wanted_instances):
            self.instances.append(self._make_instance(number))
        self.control = self._make_control()
        for instance in self.instances:
            instance.start()
        return self

    # Parts.

    def _make_servers(self, n, instances):
        servers = ReplicaSet(n, self.directory / "members", args=MEMBER_ARGS)
        for i, member in enumerate(servers.members):
            member.name = f"mongod{i}"
            rules = [(f"rekeyd{k}", self._link(f"rekeyd{k}-mongod{i}")) for k in range(instances)]
            for j, other in enumerate(servers.members):
                if i == j:
                    link = "self"  # a member that cannot reach itself leaves the set at its start
                else:
                    link = self._link("mongod%d-mongod%d" % (min(i, j), max(i, j)))
                rules.append((f":{other.port}\0", link))
            member.alias = self.proxy.listen(f"127.0.0.1:{member.port}", "control", rules)
            member.extra_environment = self._clock_environment(member.name)
        return servers

    def _make_instance(self, number: int) -> Rekeyd:
        name = f"rekeyd{number}"
        on_broker = self.broker is not None and number in ON_BROKER
        single = ["primary"] if number == 1 else None
        if number == 0:
            directory = self.directory / "rekeyd"
            instance = Rekeyd(
                self.servers,
                [policy(NAMESPACE, FIELDS)],
                {**SETTINGS, **admin_settings()},
                directory,
                name=name,
                single=single,
            )
        else:
            instance = self.instances[0].sibling(name, single=single)
            if single:
                del instance.config["upstream"]["members"]
        self._join(instance, name)
        if on_broker:
            self._join_broker(instance, name)
        else:
            without_broker(instance.config)
        uri = self.servers.uri_for(
            self.servers.addresses, appName=name, serverSelectionTimeoutMS=5000, socketTimeoutMS=10000
        )
        instance.config["upstream"]["uri"] = uri
        instance.extra_environment = self._clock_environment(name, rekey_binary("rekeyd"))
        instance.write_config()
        return instance

    def _join(self, instance: Rekeyd, name: str):
        """Applications and Vault through the proxy."""
        upstream = instance.config["upstream"]
        instance.reached_at = []
        for entry in upstream.get("members") or upstream["listeners"]:
            entry["advertise"] = self.proxy.listen(entry["listen"], self._link(f"app-{name}"))
            instance.reached_at.append(entry["advertise"])
        if self.vault:
            vault = self.proxy.listen(f"127.0.0.1:{self.vault.port}", self._link(f"{name}-vault"))
            secrets = self.directory / "secrets"
            settings = self.vault.settings(secrets, addresses=[f"https://{vault}"], **VAULT)
            instance.config["keys"].update(settings["keys"])

    def _join_broker(self, instance: Rekeyd, name: str):
        broker = self.proxy.listen(self.broker.address, self._link(f"{name}-broker"))
        settings = self.broker.settings(self.directory / "secrets", PREFIX, addresses=[broker])
        merge(instance.config, settings)

    def _make_control(self) -> Rekeyd:
        """A configuration for rekeyctl, past all faults of links."""
        control = self.instances[0].sibling("control")
        control.config["upstream"]["uri"] = self.servers.uri_for(
            self.servers.addresses, appName="operator", serverSelectionTimeoutMS=5000
        )
        without_broker(control.config)
        if self.vault:
            control.config["keys"]["vault"]["addresses"] = [self.vault.address]
        control.write_config()
        return control

    def _link(self, name: str) -> str:
        if name not in self.links:
            self.links.append(name)
        return name

    # What is asked of it.

    def app_client(self, number: int, **options):
        instance = self.instances[number]
        addresses = instance.reached_at
        return MongoClient(self.servers.uri_for(addresses, appName=f"app-{instance.name}"), **options)

    def direct(self, **options):
        return self.servers.client(**{"serverSelectionTimeoutMS": 30000, **options})

    def try_ctl(self, *words, timeout_s=90) -> int:
        """rekeyctl's exit status: while everything fails, refusals and failures are usual."""
        try:
            done = self.control.ctl(*words, check=False, timeout_s=timeout_s)
        except subprocess.TimeoutExpired:
            return UNREACHABLE
        assert done.returncode in (0, FAILED, REFUSED, UNREACHABLE), done
        return done.returncode

    def delivered(self) -> int:
        """Ranges that the broker has handed to the instances on it since they were started; of those that
        can be asked."""
        found = 0
        for number in ON_BROKER if self.broker else ():
            with suppress(OSError, HTTPException, AssertionError, KeyError):  # dead, suspended, starting
                admin = self.instances[number].admin
                found += int(admin.value("rekey_amqp_delivered_total", kind="range"))
        return found

    def state_db(self) -> str:
        return self.control.config["upstream"]["state_db"]

    def shift_clock(self, name: str, seconds: float):
        with open(self.clocks[name], "r+b") as clock:
            clock.write(struct.pack("q", int(seconds * 1e9)))

    def keep_alive(self, process):
        """What a supervisor does: starts it until it stays."""
        for _ in range(30):
            if process.alive:
                return
            try:
                self.in_main(process.spawn)
                process.wait_ready(60)
            except ProcessError:
                continue
        raise process.error("does not come up again")

    # Children die with the thread that starts them: that is the main one.

    def in_main(self, call):
        if threading.current_thread() is threading.main_thread():
            return call()
        wanted = Future()
        self._main.put((call, wanted))
        return wanted.result(timeout=120)

    def serve_main(self, seconds: float):
        """In the main thread: does what other threads ask for, for so long."""
        try:
            call, wanted = self._main.get(timeout=seconds)
        except queue.Empty:
            return
        try:
            wanted.set_result(call())
        except Exception as failure:
            wanted.set_exception(failure)

    # Clocks and disks.

    def _build_clock_library(self) -> Path:
        self.directory.mkdir(parents=True, exist_ok=True)
        library = self.directory / "clock_shift.so"
        source = Path(__file__).with_name("clock_shift.c")
        words = [os.environ.get("CC", "cc"), "-std=c11", "-D_GNU_SOURCE", "-O2", "-shared", "-fPIC"]
        subprocess.run([*words, "-o", str(library), str(source), "-ldl"], check=True)
        return library

    def _clock_environment(self, name: str, binary=None) -> dict:
        clock = self.directory / f"{name}.clock"
        clock.write_bytes(struct.pack("q", 0))
        self.clocks[name] = clock
        preload = [*sanitizers_of(binary), str(self._library)]
        return {"LD_PRELOAD": " ".join(preload), "REKEY_CLOCK_SHIFT": str(clock)}

    def _mount_a_small_disk(self):
        """The last member's, where we may: so that it can really be full."""
        member = self.servers.members[-1]
        if len(self.servers.members) < 3:
            return
        member.dbpath.mkdir(parents=True, exist_ok=True)
        if not private_mounts():
            return
        words = ["mount", "-t", "tmpfs", "-o", "size=600m", "tmpfs", str(member.dbpath)]
        if subprocess.run(words, capture_output=True).returncode == 0:
            self.mounted = member

    def close(self):
        for process in [*self.instances, self.vault, self.broker, *self.servers.members, self.proxy]:
            if process is None:
                continue
            if self.mounted is process:
                process.kill()
                subprocess.run(["umount", str(process.dbpath)], capture_output=True)
            process.close()

    def __enter__(self):
        try:
            return self.start()
        except BaseException:
            self.close()
            raise

    def __exit__(self, *_):
        self.close()


def private_mounts() -> bool:
    """What this process and its children mount from now on is gone with them, however they end."""
    libc = ctypes.CDLL(None)
    return libc.unshare(CLONE_NEWNS) == 0 and libc.mount(b"none", b"/", None, MS_REC | MS_PRIVATE, None) == 0


def without_broker(config: dict):
    config.pop("amqp", None)
    config["sweep"].pop("transport", None)


def sanitizers_of(binary) -> list:
    """Run-time libraries that insist on being the first."""
    if binary is None or shutil.which("ldd") is None:
        return []
    lines = subprocess.run(["ldd", binary], capture_output=True, text=True).stdout.splitlines()
    return [line.split()[2] for line in lines if "libasan" in line or "libtsan" in line]
