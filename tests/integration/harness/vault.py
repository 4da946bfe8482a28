"""A real Vault server: TLS with a CA of its own, file storage, unsealed by us, audit log on.

VAULT_BIN names the binary; ./dev builds one from tests/vault.
"""

import json
import os
import shutil
import ssl
import time
import urllib.error
import urllib.request
from pathlib import Path

from .certs import Certificates
from .ports import HOST, free_port
from .process import Process, ProcessError

KEK = "rekey"
# update only: with create, a misspelt key name would make a new key.
POLICY = """
path "transit/datakey/plaintext/rekey" { capabilities = ["update"] }
path "transit/encrypt/rekey" { capabilities = ["update"] }
path "transit/decrypt/rekey" { capabilities = ["update"] }
path "transit/rewrap/rekey" { capabilities = ["update"] }
path "transit/keys/rekey/rotate" { capabilities = ["update"] }
path "transit/decrypt/app" { capabilities = ["update"] }
path "secret/data/*" { capabilities = ["read"] }
path "kv/*" { capabilities = ["read"] }
"""


def vault_binary() -> str:
    found = os.environ.get("VAULT_BIN") or shutil.which("vault")
    if not found:
        raise ProcessError("no Vault server: set VAULT_BIN, or run through ./dev")
    return found


class VaultError(Exception):
    """Vault answered with an error; .status is the HTTP status."""

    def __init__(self, status: int, text: str):
        super().__init__(f"{status}: {text}")
        self.status = status


class Vault(Process):
    """start() leaves it unsealed, with transit key KEK, the policy "rekey" and an AppRole."""

    def __init__(self, directory=None, name="vault", policy=POLICY, token_ttl="1h", mutual=False):
        """mutual: it takes connections with a certificate of its authority only."""
        super().__init__(name, directory, free_port())
        self.mutual = mutual
        self.cluster_port = free_port()
        self.certificates = Certificates(self.directory / "ca", "Vault test CA")
        self.policy = policy
        self.token_ttl = token_ttl
        self.unseal_key = None
        self.root_token = None
        self.role_id = None
        self.audit_log = self.directory / "audit.log"
        self._context = ssl.create_default_context(cafile=self.certificates.ca_file)
        if mutual:
            self._context.load_cert_chain(self.certificates.issue("operator"))

    @property
    def address(self) -> str:
        return f"https://{HOST}:{self.port}"

    def argv(self) -> list:
        pem = self.certificates.issue("server")
        config = {
            "disable_mlock": True,
            "ui": False,
            "api_addr": self.address,
            "cluster_addr": f"https://{HOST}:{self.cluster_port}",
            "storage": {"file": {"path": str(self.directory / "data")}},
            "listener": {
                "tcp": {
                    "address": f"{HOST}:{self.port}",
                    "cluster_address": f"{HOST}:{self.cluster_port}",
                    "tls_cert_file": pem,
                    "tls_key_file": pem,
                    "tls_require_and_verify_client_cert": self.mutual,
                    "tls_client_ca_file": self.certificates.ca_file,
                }
            },
        }
        path = self.directory / "vault.json"
        path.write_text(json.dumps(config))
        return [vault_binary(), "server", "-config", str(path)]

    def environment(self) -> dict:
        return {key: v for key, v in os.environ.items() if not key.startswith("VAULT_")}

    def wait_ready(self, timeout_s: float = 60):
        super().wait_ready(timeout_s)
        if self.unseal_key is None:
            self._initialize()
        else:
            self.unseal()

    def remove_data(self):
        shutil.rmtree(self.directory / "data", ignore_errors=True)

    # The API, as an operator uses it.

    def api(self, method: str, path: str, body=None, token=None):
        """The JSON answer, None when there is no body."""
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"{self.address}/v1/{path}", data, method=method)
        request.add_header("X-Vault-Token", token or self.root_token or "")
        try:
            with urllib.request.urlopen(request, context=self._context, timeout=30) as answer:
                text = answer.read()
        except urllib.error.HTTPError as error:
            raise VaultError(error.code, error.read().decode(errors="replace")) from None
        return json.loads(text) if text else None

    def has(self, path: str) -> bool:
        try:
            return self.api("GET", path) is not None
        except VaultError as error:
            if error.status != 404:
                raise
            return False

    def seal(self):
        self.api("PUT", "sys/seal")

    def unseal(self):
        self.api("PUT", "sys/unseal", {"key": self.unseal_key})
        self._wait_active()

    def rotate_kek(self):
        self.api("POST", f"transit/keys/{KEK}/rotate", {})

    def configure_kek(self, **settings):
        self.api("POST", f"transit/keys/{KEK}/config", settings)

    def secret_id(self) -> str:
        return self.api("POST", "auth/approle/role/rekey/secret-id", {})["data"]["secret_id"]

    def keep(self, name: str, **fields) -> str:
        """A secret in the kv engine, version 2; returns its path in the API."""
        self.api("POST", f"secret/data/{name}", {"data": fields})
        return f"secret/data/{name}"

    def keep_in_version_1(self, name: str, **fields) -> str:
        self.api("POST", f"kv/{name}", fields)
        return f"kv/{name}"

    def kek_version(self) -> int:
        return self.api("GET", f"transit/keys/{KEK}")["data"]["latest_version"]

    def token(self, **options) -> str:
        """A token with Rekey's policy that is not AppRole's."""
        made = self.api("POST", "auth/token/create", {"policies": ["rekey"], **options})
        return made["auth"]["client_token"]

    def revoke_tokens(self):
        """All but root's."""
        for accessor in self.api("LIST", "auth/token/accessors")["data"]["keys"]:
            found = self.api("POST", "auth/token/lookup-accessor", {"accessor": accessor})
            if "root" not in found["data"]["policies"]:
                self.api("POST", "auth/token/revoke-accessor", {"accessor": accessor})

    def forget_secret_ids(self):
        role = "auth/approle/role/rekey"
        for accessor in self.api("LIST", f"{role}/secret-id")["data"]["keys"]:
            self._destroy_secret_id(role, accessor)

    def _destroy_secret_id(self, role: str, accessor: str):
        try:
            self.api("POST", f"{role}/secret-id-accessor/destroy", {"secret_id_accessor": accessor})
        except VaultError as error:
            if "invalid accessor" not in str(error):  # listed, and tidied up since
                raise

    def audited(self) -> list:
        """What the audit log holds, requests and responses."""
        lines = self.audit_log.read_text().splitlines() if self.audit_log.exists() else []
        return [json.loads(line) for line in lines]

    def requests(self, path: str) -> int:
        """How many requests for path Vault has answered."""
        wanted = [e for e in self.audited() if e["type"] == "response"]
        return sum(1 for entry in wanted if entry["request"]["path"] == path)

    # rekeyd's side.

    def settings(self, directory, **changes) -> dict:
        """Parts of rekey.yaml: the vault provider with a secret_id in a file there."""
        directory = Path(directory)
        directory.mkdir(parents=True, exist_ok=True)
        secret = directory / "secret_id"
        if not secret.exists():
            secret.touch(0o600)
            secret.write_text(self.secret_id() + "\n")
        vault = {
            "addresses": [self.address],
            "ca_file": self.certificates.ca_file,
            "role_id": self.role_id,
            "secret_id_file": str(secret),
            "retry_backoff_ms": 50,
            "retry_backoff_max_ms": 500,
            "health_interval_ms": 200,
        }
        given = {key: value for key, value in {**vault, **changes}.items() if value is not None}
        return {"keys": {"provider": "vault", "vault": given}}

    def _initialize(self):
        self._wait_http()
        made = self.api("PUT", "sys/init", {"secret_shares": 1, "secret_threshold": 1})
        self.unseal_key = made["keys_base64"][0]
        self.root_token = made["root_token"]
        self.unseal()
        audit = {"type": "file", "options": {"file_path": str(self.audit_log)}}
        self.api("POST", "sys/audit/file", audit)
        self.api("POST", "sys/mounts/transit", {"type": "transit"})
        self.api("POST", f"transit/keys/{KEK}", {"type": "aes256-gcm96"})
        self.api("POST", "sys/mounts/secret", {"type": "kv", "options": {"version": "2"}})
        self.api("POST", "sys/mounts/kv", {"type": "kv", "options": {"version": "1"}})
        self.api("PUT", "sys/policies/acl/rekey", {"policy": self.policy})
        self.api("POST", "sys/auth/approle", {"type": "approle"})
        self.configure_role()
        self.role_id = self.api("GET", "auth/approle/role/rekey/role-id")["data"]["role_id"]

    def configure_role(self, **changes):
        lease = {"token_ttl": self.token_ttl, "token_max_ttl": 0}
        role = {"token_policies": ["rekey"], **lease, **changes}
        self.api("POST", "auth/approle/role/rekey", role)

    def _wait_http(self, timeout_s: float = 30):
        self._wait(lambda: self.api("GET", "sys/seal-status") is not None, timeout_s, "no answer")

    def _wait_active(self, timeout_s: float = 30):
        def active():
            return not self.api("GET", "sys/seal-status")["sealed"] and self._healthy()

        self._wait(active, timeout_s, "not active")

    def _healthy(self) -> bool:
        try:
            self.api("GET", "sys/health")
        except VaultError:
            return False
        return True

    def _wait(self, condition, timeout_s: float, what: str):
        deadline = time.monotonic() + timeout_s
        while True:
            try:
                if condition():
                    return
            except (OSError, VaultError):
                pass
            if time.monotonic() > deadline or not self.alive:
                raise self.error(f"{what} after {timeout_s} s")
            time.sleep(0.05)
