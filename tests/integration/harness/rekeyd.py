"""rekeyd in front of an upstream, and rekeyctl with the same configuration."""

import json
import os
import secrets
import shlex
import signal
import subprocess
import time
from pathlib import Path

from pymongo import MongoClient

from .admin import Admin
from .ports import HOST, free_port
from .process import Process, ProcessError, rekey_binary

SANITIZER_EXIT = 99
# An instance that learns of no key by itself, and soon holds no rotation up.
NEVER_REFRESHED = {
    "refresh_interval_ms": 3_600_000,
    "instance_lease_ms": 500,
    "cursor_grace_ms": 0,
}


def policy(namespace: str, fields: dict) -> dict:
    """policy("app.users", {"ssn": "random", "mail": {"algorithm": "deterministic"}})"""
    listed = []
    for path, wanted in fields.items():
        extra = {"algorithm": wanted} if isinstance(wanted, str) else wanted
        listed.append({"path": path, **extra})
    return {"namespace": namespace, "fields": listed}


class CtlError(ProcessError):
    """rekeyctl ended with an exit status other than 0."""

    def __init__(self, result: subprocess.CompletedProcess):
        super().__init__(f"rekeyctl exited with {result.returncode}: {result.stderr.strip()}")
        self.returncode = result.returncode
        self.stderr = result.stderr


class Rekeyd(Process):
    """
    upstream: a Mongod or ReplicaSet. policies: see policy(). settings: parts of rekey.yaml that
    are merged over the defaults below, such as {"sweep": {"max_rate": 100}}. legacy_keys: name to
    32 bytes. A client's connection string is .uri; the configuration is .config, a dict that a
    test may change before write_config() and sighup(). single: the reads of the listeners of a
    single topology, such as ["primary", "secondary"]; None: mirror.
    """

    def __init__(
        self,
        upstream,
        policies=(),
        settings=None,
        directory=None,
        legacy_keys=None,
        listener_certificates=None,
        environment=None,
        name="rekeyd",
        single=None,
    ):
        super().__init__(name, directory)
        self.upstream = upstream
        self.listener_certificates = listener_certificates
        self.extra_environment = environment or {}
        self.keyring = self.directory / "keyring"
        self.config_path = self.directory / f"{name}.yaml"
        self.single = single
        self.ports = [free_port() for _ in single or upstream.addresses]
        if not self.keyring.exists():
            self.write_keyring(secrets.token_bytes(32), legacy_keys or {})
        self.config = merge(self._defaults(policies), settings or {})
        self.write_config()

    def sibling(self, name="rekeyd2", **changes):
        """A second rekeyd over the same servers, keys and state."""
        other = Rekeyd(self.upstream, directory=self.directory, name=name, **changes)
        listeners = other._listeners()
        other.config = json.loads(json.dumps(self.config))
        other.config["upstream"].update(listeners)
        if "admin" in other.config:
            other.config["admin"]["address"] = f"{HOST}:{free_port()}"
        other.write_config()
        return other

    # Files.

    def write_keyring(self, kek: bytes, legacy_keys: dict):
        lines = [f"kek main {kek.hex()}"]
        lines += [f"legacy {name} {key.hex()}" for name, key in legacy_keys.items()]
        self.keyring.touch(0o600)
        self.keyring.write_text("\n".join(lines) + "\n")

    def write_config(self):
        # JSON is YAML.
        self.config_path.write_text(json.dumps(self.config, indent=2) + "\n")

    def _listeners(self) -> dict:
        if self.single:
            pairs = zip(self.single, self.addresses)
            listeners = [{"listen": listen, "read": read} for read, listen in pairs]
            return {"topology": "single", "listeners": listeners}
        pairs = zip(self.upstream.addresses, self.addresses)
        return {"members": [{"address": a, "listen": listen} for a, listen in pairs]}

    def _defaults(self, policies) -> dict:
        config = {
            "upstream": {
                "uri": self.upstream.uri,
                # Servers are shared by tests that have keys and jobs of their own.
                "state_db": f"rekey_{secrets.token_hex(4)}",
                **self._listeners(),
            },
            "limits": {"workers": 2, "connections_max": 1000},
            "keys": {
                "provider": "keyring",
                "keyring_file": str(self.keyring),
                # Rotations that follow a crash are not to take minutes.
                "cursor_grace_ms": 5000,
            },
            # No limit: tests count lines, and read the whole log for what must not be in it.
            "log": {"level": "info", "event_lines_per_s": 0},
            "policies": list(policies),
        }
        if self.upstream.certificates:
            ca_file = self.upstream.certificates.ca_file
            config["upstream"]["tls"] = {"enabled": True, "ca_file": ca_file, "verify": True}
        if self.listener_certificates:
            pem = self.listener_certificates.issue(self.name)
            config["listener_tls"] = {"enabled": True, "cert_file": pem, "key_file": pem}
        return config

    # Process.

    def argv(self) -> list:
        return self._argv_of("rekeyd")

    def _argv_of(self, binary: str, *words) -> list:
        wrap = shlex.split(os.environ.get("REKEY_WRAP", ""))
        return [*wrap, rekey_binary(binary), "-c", str(self.config_path), *map(str, words)]

    def environment(self) -> dict:
        return {**sanitizer_environment(self.directory, self.name), **self.extra_environment}

    def listen_ports(self) -> list:
        return list(self.ports)

    @property
    def admin(self) -> Admin:
        """Where the settings have an admin address, see admin_settings()."""
        return Admin(self.config["admin"]["address"])

    def run(self, timeout_s=30):
        """For configurations that must be refused: (exit status, what was logged)."""
        self.spawn()
        return self.wait(timeout_s), self.logs()

    def sighup(self):
        self.popen.send_signal(signal.SIGHUP)

    def reload(self, changes: dict):
        """Merges changes into the configuration and has rekeyd read it."""
        merge(self.config, changes)
        self.write_config()
        self.sighup()

    def terminate(self, timeout_s=30):
        """SIGTERM: must drain, exit with 0 and leave no sanitizer report."""
        status = self.stop(timeout_s)
        self.check()
        if status != 0:
            raise self.error(f"exited with {status} on SIGTERM")

    def kill9(self):
        self.kill()

    def kill(self):
        super().kill()
        if self.popen is not None:
            # libmongoc's counters outlive a process that could not remove them.
            Path(f"/dev/shm/mongoc-{self.pid}").unlink(missing_ok=True)

    def check(self):
        """Fails when rekeyd crashed or a sanitizer had something to say."""
        reports = self.sanitizer_reports()
        if reports:
            raise self.error("sanitizer report\n" + reports)
        ended = self.returncode
        if ended is not None and not self._killed and (ended < 0 or ended == SANITIZER_EXIT):
            raise self.error(f"crashed with {ended}")

    def sanitizer_reports(self) -> str:
        paths = sorted(self.directory.glob(f"{self.name}.sanitizer.*"))
        return "\n".join(path.read_text(errors="replace") for path in paths)

    def finish(self):
        """What the end of a test owes: a clean exit unless the test already ended it."""
        try:
            if self.alive:
                self.resume()
                self.terminate()
            else:
                self.check()
        finally:
            self.close()

    def events(self, name=None) -> list:
        """Log lines as dicts, all or those of one event."""
        found = []
        for line in self.logs().splitlines():
            try:
                entry = json.loads(line)
            except ValueError:
                continue
            if isinstance(entry, dict) and (name is None or entry.get("event") == name):
                found.append(entry)
        return found

    def wait_event(self, name: str, count=1, timeout_s=10) -> dict:
        deadline = time.monotonic() + timeout_s
        while len(self.events(name)) < count:
            if time.monotonic() > deadline or not self.alive:
                raise self.error(f"logged no {name} (number {count})")
            time.sleep(0.05)
        return self.events(name)[-1]

    def memory_kb(self) -> int:
        """Resident memory."""
        for line in Path(f"/proc/{self.pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1])
        raise self.error("no VmRSS")

    # Clients.

    @property
    def addresses(self) -> list:
        return [f"{HOST}:{port}" for port in self.ports]

    @property
    def uri(self) -> str:
        return self.upstream.uri_for(self.addresses, self.listener_certificates)

    def client(self, **options) -> MongoClient:
        options.setdefault("serverSelectionTimeoutMS", 10000)
        return MongoClient(self.uri, **options)

    def ctl(self, *words, check=True, timeout_s=120):
        """rekeyctl --json WORDS: its parsed output. check=False: the CompletedProcess."""
        result = self._run_ctl(["--json", *words], check, timeout_s)
        if not check:
            return result
        return json.loads(result.stdout) if result.stdout.strip() else None

    def ctl_text(self, *words, timeout_s=120) -> str:
        """What a person is shown."""
        return self._run_ctl(words, True, timeout_s).stdout

    def ctl_begin(self, *words, **pipes) -> subprocess.Popen:
        """rekeyctl WORDS, which runs meanwhile; pipes: stdout=subprocess.PIPE and so on."""
        return self._with_ctl(subprocess.Popen, words, **pipes)

    def _run_ctl(self, words, check: bool, timeout_s: float) -> subprocess.CompletedProcess:
        result = self._with_ctl(subprocess.run, words, capture_output=True, timeout=timeout_s)
        if check and result.returncode != 0:
            raise CtlError(result)
        return result

    def _with_ctl(self, call, words, **options):
        argv = self._argv_of("rekeyctl", *words)
        return call(argv, text=True, env=self.environment(), cwd=self.directory, **options)

    def __exit__(self, kind, *_):
        if kind is None:
            self.finish()
        else:
            self.close()


def merge(base: dict, changes: dict) -> dict:
    """Changes into base, sub-dicts merged, everything else replaced."""
    for key, value in changes.items():
        if isinstance(value, dict) and isinstance(base.get(key), dict):
            merge(base[key], value)
        else:
            base[key] = value
    return base


def sanitizer_environment(directory: Path, name: str) -> dict:
    """Sanitizer builds report into files of this process, leaks included; others ignore it."""
    common = {"log_path": directory / f"{name}.sanitizer", "exitcode": SANITIZER_EXIT}
    suppressions = Path(__file__).resolve().parents[2] / "sanitizers"
    options = {
        "ASAN_OPTIONS": {"detect_leaks": 1, "halt_on_error": 1, "detect_stack_use_after_return": 1},
        "UBSAN_OPTIONS": {"print_stacktrace": 1, "halt_on_error": 1},
        "TSAN_OPTIONS": {"second_deadlock_stack": 1, "suppressions": suppressions / "tsan.supp"},
        "LSAN_OPTIONS": {"suppressions": suppressions / "lsan.supp"},
    }
    environment = {"REKEY_ALLOW_CORE": "1"}
    for variable, values in options.items():
        joined = {**common, **values} if variable != "LSAN_OPTIONS" else values
        environment[variable] = ":".join(f"{key}={value}" for key, value in joined.items())
    return {**os.environ, **environment}
