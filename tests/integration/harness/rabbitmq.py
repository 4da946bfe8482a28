"""A real RabbitMQ broker: its own node, directory, user and Erlang port mapper, on loopback only.

It runs as whoever runs the tests, straight from the package's own start script. Users and the
policy come from a definitions file, so a wiped broker comes back as an operator would set it up.
"""

import base64
import hashlib
import json
import os
import secrets
import shutil
import subprocess
import time
from pathlib import Path

import pika
from pika.exceptions import AMQPError, ChannelClosedByBroker

from .ports import HOST, free_port
from .process import Process, ProcessError

USER = "rekey"
PASSWORD = "rabbit-only-for-tests"
TESTER, TESTERS_PASSWORD = "tester", "looks-into-every-queue"
DELIVERY_LIMIT = 5
# Two cores are shared by many: no threads that spin while they wait for work.
ERL_ARGS = "+S 2:2 +sbwt none +sbwtdcpu none +sbwtdio none +A 8"


def rabbitmq_script(name: str) -> str:
    path = Path(os.environ.get("RABBITMQ_BIN", "/usr/lib/rabbitmq/bin")) / name
    if not path.exists():
        raise ProcessError(f"{path} is not there: install rabbitmq-server, or run through ./dev")
    return str(path)


class PortMapper(Process):
    """epmd in the foreground, so that it ends with its broker."""

    def __init__(self, directory):
        super().__init__("epmd", directory, free_port())

    def argv(self) -> list:
        found = shutil.which("epmd")
        if not found:
            raise ProcessError("no epmd: install rabbitmq-server, or run through ./dev")
        return [found, "-address", HOST, "-port", str(self.port)]


class RabbitMq(Process):
    """
    certificates: listens with TLS (self.tls_port), too. mutual: it takes TLS connections with a
    certificate of that authority only. The policy gives every queue of Rekey a delivery limit.
    """

    def __init__(self, directory=None, name="rabbitmq", certificates=None, mutual=False):
        super().__init__(name, directory, free_port())
        self.certificates = certificates
        self.mutual = mutual
        self.tls_port = free_port() if certificates else 0
        self.dist_port = free_port()
        self.node = f"rekey{secrets.token_hex(4)}@localhost"
        self.data = self.directory / f"{name}-data"
        self.mapper = PortMapper(self.directory / f"{name}-epmd")

    # Process.

    def argv(self) -> list:
        return [rabbitmq_script("rabbitmq-server")]

    def environment(self) -> dict:
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("RABBITMQ_", "ERL_"))}
        return {
            **kept,
            "HOME": str(self.directory),  # of the Erlang cookie
            "RUNNING_UNDER_SYSTEMD": "1",  # the script becomes the broker, without a shell between
            "ERL_EPMD_ADDRESS": HOST,
            "ERL_EPMD_PORT": str(self.mapper.port),
            "RABBITMQ_NODENAME": self.node,
            "RABBITMQ_DIST_PORT": str(self.dist_port),
            "RABBITMQ_NODE_IP_ADDRESS": HOST,
            "RABBITMQ_NODE_PORT": str(self.port),
            "RABBITMQ_CONFIG_FILE": str(self.directory / "rabbitmq.conf"),
            "RABBITMQ_CONF_ENV_FILE": "/dev/null",
            "RABBITMQ_MNESIA_BASE": str(self.data),
            "RABBITMQ_LOG_BASE": str(self.directory),
            "RABBITMQ_LOGS": "-",
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(self.directory / "enabled_plugins"),
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": f"{ERL_ARGS} -kernel inet_dist_use_interface "
            + "{127,0,0,1}",
            "RABBITMQ_CTL_ERL_ARGS": ERL_ARGS,
        }

    def listen_ports(self) -> list:
        return [port for port in (self.port, self.tls_port) if port]

    def spawn(self):
        if not self.mapper.alive:
            self.mapper.start()
        self.write_config()
        return super().spawn()

    def start(self, timeout_s: float = 120):
        """Erlang takes its time on a busy machine."""
        return super().start(timeout_s)

    def wait_ready(self, timeout_s: float = 120):
        super().wait_ready(timeout_s)
        deadline = time.monotonic() + timeout_s
        while True:
            try:
                with self.channel():
                    return
            except (AMQPError, OSError):
                if not self.alive or time.monotonic() > deadline:
                    raise self.error("takes no client") from None
                time.sleep(0.1)

    def close(self):
        super().close()
        self.mapper.close()

    def remove_data(self):
        shutil.rmtree(self.data, ignore_errors=True)

    def wipe(self):
        """Everything that it knew is gone; start() gives an empty broker at the same address."""
        self.kill()
        self.remove_data()

    def restart(self):
        self.kill()
        return self.start()

    # Configuration.

    def write_config(self):
        lines = [
            f"listeners.tcp.1 = {HOST}:{self.port}",
            f"load_definitions = {self.directory / 'definitions.json'}",
            "log.console = true",
            "log.console.level = info",
            "vm_memory_high_watermark.relative = 0.6",
            "disk_free_limit.absolute = 50MB",
        ]
        if self.certificates:
            pem = self.certificates.issue("broker")
            lines += [
                f"listeners.ssl.1 = {HOST}:{self.tls_port}",
                f"ssl_options.cacertfile = {self.certificates.ca_file}",
                f"ssl_options.certfile = {pem}",
                f"ssl_options.keyfile = {pem}",
                f"ssl_options.verify = {'verify_peer' if self.mutual else 'verify_none'}",
                f"ssl_options.fail_if_no_peer_cert = {str(self.mutual).lower()}",
            ]
        (self.directory / "rabbitmq.conf").write_text("\n".join(lines) + "\n")
        (self.directory / "enabled_plugins").write_text("[].\n")
        definitions = self.directory / "definitions.json"
        definitions.touch(0o600)
        definitions.write_text(json.dumps(self.definitions()))

    def definitions(self) -> dict:
        # As docs/operations.md has it, but that each test has a prefix of its own.
        own = r"^rekey(-[0-9a-f]+)?(\..*)?$"
        return {
            "vhosts": [{"name": "/"}],
            "users": [_user(USER, PASSWORD), _user(TESTER, TESTERS_PASSWORD)],
            "permissions": [_permissions(USER, own), _permissions(TESTER, ".*")],
            "policies": [
                {
                    "vhost": "/",
                    "name": "rekey",
                    "pattern": r"^rekey(-[0-9a-f]+)?\.(plan|work\..*)$",
                    "apply-to": "queues",
                    "priority": 0,
                    "definition": {
                        "delivery-limit": DELIVERY_LIMIT,
                        "max-length": 100000,
                        "overflow": "reject-publish",
                    },
                }
            ],
        }

    # The operator's side.

    def ctl(self, *words, timeout_s: float = 60) -> str:
        """rabbitmqctl WORDS: its output."""
        done = subprocess.run(
            [rabbitmq_script("rabbitmqctl"), "-q", *(str(word) for word in words)],
            capture_output=True,
            text=True,
            timeout=timeout_s,
            env=self.environment(),
            cwd=self.directory,
        )
        if done.returncode != 0:
            raise self.error(f"rabbitmqctl {words}: {done.stdout}{done.stderr}")
        return done.stdout

    def set_policy(self, name: str, pattern: str, **definition):
        spelt = {key.replace("_", "-"): value for key, value in definition.items()}
        self.ctl("set_policy", "--apply-to", "queues", name, pattern, json.dumps(spelt))

    def alarm(self, on: bool):
        """A memory alarm: connections that publish are blocked until it is off again."""
        self.ctl("set_vm_memory_high_watermark", "0.00000001" if on else "0.6")

    def hang(self, queue: str, on: bool):
        """The queue's leader gets nothing done, as without a majority: it confirms and delivers
        nothing, while connections live. What it was sent meanwhile it does afterwards."""
        leader = f"{{'%2F_{queue}', node()}}"
        self.ctl("eval", f"sys:{'suspend' if on else 'resume'}({leader}).")

    # A client of it.

    @property
    def address(self) -> str:
        return f"{HOST}:{self.port}"

    @property
    def tls_address(self) -> str:
        return f"{HOST}:{self.tls_port}"

    def channel(self) -> "Channel":
        """with broker.channel() as channel: pika's blocking channel."""
        return Channel(self)

    def length(self, queue: str) -> int:
        """Messages ready in a queue (not those that a consumer holds); -1: there is no such queue."""
        return self._declared(queue, "message_count")

    def consumers(self, queue: str) -> int:
        return self._declared(queue, "consumer_count")

    def _declared(self, queue: str, attribute: str) -> int:
        with self.channel() as channel:
            try:
                return getattr(channel.queue_declare(queue, passive=True).method, attribute)
            except ChannelClosedByBroker as failure:
                if failure.reply_code != 404:
                    raise
                return -1

    def publish(self, queue: str, body: bytes, times: int = 1):
        """To a queue by its name, confirmed."""
        persistent = pika.BasicProperties(delivery_mode=2)
        with self.channel() as channel:
            channel.confirm_delivery()
            for _ in range(times):
                channel.basic_publish("", queue, body, persistent, mandatory=True)

    def peek(self, queue: str, count: int = 100) -> list:
        """(properties, body) of the first messages, which stay where they are."""
        found = []
        with self.channel() as channel:
            while len(found) < count:
                method, properties, body = channel.basic_get(queue)
                if method is None:
                    break
                found.append((properties, body))
        return found  # unacknowledged, so the broker puts them back

    def purge(self, queue: str):
        with self.channel() as channel:
            channel.queue_purge(queue)

    # rekeyd's side.

    def settings(self, directory, prefix=None, tls=False, **changes) -> dict:
        """Parts of rekey.yaml: sweeps distributed over this broker, with quick pauses. Its user may
        only use prefixes "rekey" and "rekey-<hexadecimal digits>"."""
        directory = Path(directory)
        directory.mkdir(parents=True, exist_ok=True)
        password = directory / "amqp_password"
        if not password.exists():
            password.touch(0o600)
            password.write_text(PASSWORD + "\n")
        amqp = {
            "addresses": [self.tls_address if tls else self.address],
            "user": USER,
            "password_file": str(password),
            "prefix": prefix or f"rekey-{secrets.token_hex(4)}",
            "heartbeat_s": 5,
            "reconnect_backoff_ms": 50,
            "reconnect_backoff_max_ms": 500,
            "refeed_interval_ms": 2000,
        }
        if tls:
            amqp["tls"] = {"enabled": True, "ca_file": self.certificates.ca_file}
        given = {key: value for key, value in {**amqp, **changes}.items() if value is not None}
        return {"sweep": {"transport": "amqp"}, "amqp": given}


class Channel:
    """One blocking channel with a connection of its own; a context manager."""

    def __init__(self, broker: RabbitMq):
        login = pika.PlainCredentials(TESTER, TESTERS_PASSWORD)
        self._parameters = pika.ConnectionParameters(
            HOST, broker.port, credentials=login, socket_timeout=10, blocked_connection_timeout=20
        )
        self._connection = None

    def __enter__(self):
        self._connection = pika.BlockingConnection(self._parameters)
        return self._connection.channel()

    def __exit__(self, *_):
        try:
            self._connection.close()
        except AMQPError:
            pass  # the broker was faster


def _user(name: str, password: str) -> dict:
    return {
        "name": name,
        "password_hash": _hashed(password),
        "hashing_algorithm": "rabbit_password_hashing_sha256",
        "tags": "",
        "limits": {},
    }


def _permissions(user: str, pattern: str) -> dict:
    return {"user": user, "vhost": "/", "configure": pattern, "write": pattern, "read": pattern}


def _hashed(password: str) -> str:
    """rabbit_password_hashing_sha256."""
    salt = secrets.token_bytes(4)
    return base64.b64encode(salt + hashlib.sha256(salt + password.encode()).digest()).decode()
