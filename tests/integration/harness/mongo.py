"""Real mongod servers: a standalone, or a replica set of any size, with or without auth and TLS."""

import secrets
import shutil
import time
from pathlib import Path
from urllib.parse import urlencode

from pymongo import MongoClient
from pymongo.errors import PyMongoError

from .ports import HOST, free_port
from .process import Process, mongod_binary

USERNAME = "app"


class Upstream:
    """What a client needs in order to reach servers, in front of them or through rekeyd."""

    set_name = None
    username = None
    password = None
    certificates = None

    @property
    def addresses(self) -> list:
        raise NotImplementedError

    def uri_for(self, addresses, tls_files=None, **options) -> str:
        """The connection string of these servers as seen at other addresses."""
        login = ""
        if self.username:
            login = f"{self.username}:{self.password}@"
            options["authSource"] = "admin"
        if self.set_name:
            options["replicaSet"] = self.set_name
        else:
            options["directConnection"] = "true"
        if tls_files:
            options["tls"] = "true"
            options["tlsCAFile"] = tls_files.ca_file
        return f"mongodb://{login}{','.join(addresses)}/?{urlencode(options, safe='/')}"

    @property
    def uri(self) -> str:
        return self.uri_for(self.addresses, self.certificates)

    def client(self, **options) -> MongoClient:
        options.setdefault("serverSelectionTimeoutMS", 10000)
        return MongoClient(self.uri, **options)


class Mongod(Process, Upstream):
    bind = HOST
    unix_socket = False

    def __init__(self, directory=None, port=None, args=(), cache_gb=0.25, certificates=None):
        super().__init__("mongod", directory, port or free_port())
        self.args = list(args)
        self.cache_gb = cache_gb
        self.certificates = certificates
        self.alias = None  # the address of a proxy in front, by which everybody knows it
        self.extra_environment = {}
        self.dbpath = self.directory / "data"

    @property
    def address(self) -> str:
        return self.alias or f"{HOST}:{self.port}"

    def environment(self) -> dict:
        return {**super().environment(), **self.extra_environment}

    @property
    def addresses(self) -> list:
        return [self.address]

    def argv(self) -> list:
        self.dbpath.mkdir(exist_ok=True)
        argv = [mongod_binary(), "--bind_ip", self.bind, "--port", str(self.port)]
        argv += ["--dbpath", str(self.dbpath), "--wiredTigerCacheSizeGB", str(self.cache_gb)]
        if not self.unix_socket:
            argv += ["--nounixsocket"]
        argv += ["--setParameter", "diagnosticDataCollectionEnabled=false"]
        # A signalled member would otherwise answer for another 15 s before it leaves.
        argv += ["--setParameter", "shutdownTimeoutMillisForSignaledShutdown=100"]
        if self.certificates:
            argv += ["--tlsMode", "requireTLS", "--tlsAllowConnectionsWithoutCertificates"]
            argv += ["--tlsCAFile", self.certificates.ca_file]
            argv += ["--tlsCertificateKeyFile", self.certificates.issue(f"mongod-{self.port}")]
        return argv + self.args

    def remove_data(self):
        shutil.rmtree(self.dbpath, ignore_errors=True)

    def log_tail(self) -> str:
        """Warnings and worse; the whole log is in the directory."""
        usual = ('"s":"I"', '"startupWarnings"')
        lines = self.logs().splitlines()
        serious = [line for line in lines if not any(word in line for word in usual)]
        return "\n".join(serious[-20:])

    def data_files(self) -> list:
        """Everything that mongod wrote: tables, journal and its log."""
        return [p for p in self.dbpath.rglob("*") if p.is_file()] + [self.log_path]


class ReplicaSet(Upstream):
    """n members on loopback, the last of them arbiters. Elections are quick, so that tests can
    afford them."""

    def __init__(
        self, n=3, directory=None, auth=False, certificates=None, args=(), cache_gb=0.25, arbiters=0
    ):
        self.arbiters = arbiters
        self.set_name = "rs0"
        self.certificates = certificates
        args = ["--replSet", self.set_name, "--oplogSize", "512", *args]
        self.members = [
            Mongod(directory and Path(directory) / f"member{i}", None, args, cache_gb, certificates)
            for i in range(n)
        ]
        if auth:
            self._require_auth()

    @property
    def addresses(self) -> list:
        return [member.address for member in self.members]

    def start(self):
        for member in self.members:
            member.spawn()
        for member in self.members:
            member.wait_ready()
        self._initiate()
        if self.password:
            self._create_user()
        self.wait_writable()
        self.wait_secondaries()
        self._first_config = self._config()["members"]
        return self

    def restore(self):
        """As it was at first, whoever was killed, suspended, removed or hidden since."""
        for member in self.members:
            if member.alive:
                member.resume()
            else:
                member.start()
        self.wait_writable(60)
        config = self._config()
        if config["members"] != self._first_config:
            config.update(version=config["version"] + 1, members=self._first_config)
            with self.client() as client:
                client.admin.command("replSetReconfig", config)
        self.wait_secondaries()

    def _config(self) -> dict:
        with self.client() as client:
            return client.admin.command("replSetGetConfig")["config"]

    def close(self):
        for member in self.members:
            member.close()

    def member(self, address) -> Mongod:
        return next(m for m in self.members if m.address == address)

    def primary(self) -> Mongod:
        """The member that takes writes, once there is one."""
        with self.client(serverSelectionTimeoutMS=20000) as client:
            client.admin.command("ping")
            return self.member("%s:%d" % client.primary)

    def secondaries(self) -> list:
        primary = self.primary()
        return [m for m in self.members if m.alive and m is not primary]

    def step_down(self, seconds=10):
        """Makes the primary give up; returns once another member takes writes."""
        with self.client() as client:
            client.admin.command({"replSetStepDown": seconds, "secondaryCatchUpPeriodSecs": 5})
        self.wait_writable()

    def keep_primary(self):
        """No elections from now on, however late this machine lets heartbeats be."""
        config = self._config()
        config["version"] += 1
        config["settings"]["electionTimeoutMillis"] = 3_600_000
        with self.client() as client:
            client.admin.command("replSetReconfig", config)

    def wait_writable(self, timeout_s=30):
        deadline = time.monotonic() + timeout_s
        while True:
            try:
                with self.client(serverSelectionTimeoutMS=1000) as client:
                    return client.admin.command("appendOplogNote", 1, data={"ready": 1})
            except PyMongoError:
                if time.monotonic() > deadline:
                    raise self.members[0].error("no primary took a write") from None
                time.sleep(0.05)

    def wait_secondaries(self, timeout_s=60):
        deadline = time.monotonic() + timeout_s
        states = []
        while time.monotonic() < deadline:
            with self.client() as client:
                status = client.admin.command("replSetGetStatus")
            states = sorted(m["stateStr"] for m in status["members"])
            secondaries = len(self.members) - self.arbiters - 1
            if states == ["ARBITER"] * self.arbiters + ["PRIMARY"] + ["SECONDARY"] * secondaries:
                return
            time.sleep(0.05)
        raise self.members[0].error(f"members are {states}")

    def _direct(self, member) -> MongoClient:
        """One member without logging in, before the set or its user exists."""
        tls = {}
        if self.certificates:
            tls = {"tls": True, "tlsCAFile": self.certificates.ca_file}
        return MongoClient(HOST, member.port, directConnection=True, **tls)

    def _initiate(self):
        first_arbiter = len(self.members) - self.arbiters
        members = [
            {"_id": i, "host": address, "arbiterOnly": i >= first_arbiter}
            for i, address in enumerate(self.addresses)
        ]
        settings = {"electionTimeoutMillis": 2000, "heartbeatIntervalMillis": 500, "chainingAllowed": False}
        config = {"_id": self.set_name, "members": members, "settings": settings}
        with self._direct(self.members[0]) as client:
            client.admin.command("replSetInitiate", config)

    def _require_auth(self):
        self.username, self.password = USERNAME, secrets.token_hex(12)
        key = secrets.token_hex(24)
        for member in self.members:
            key_file = member.directory / "cluster.key"
            key_file.write_text(key)
            key_file.chmod(0o600)
            member.args += ["--auth", "--keyFile", str(key_file)]

    def _create_user(self):
        """Through the localhost exception, on whichever member becomes primary."""
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            for member in self.members:
                with self._direct(member) as client:
                    if client.admin.command("hello")["isWritablePrimary"]:
                        name, password = self.username, self.password
                        client.admin.command("createUser", name, pwd=password, roles=["root"])
                        return
            time.sleep(0.1)
        raise self.members[0].error("no primary to create the user on")

    def __enter__(self):
        try:
            return self.start()
        except BaseException:
            self.close()
            raise

    def __exit__(self, *_):
        self.close()
