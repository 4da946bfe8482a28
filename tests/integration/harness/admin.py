"""rekeyd's admin address, as Prometheus and load balancers use it."""

import http.client
import json
import ssl
import time

from prometheus_client.parser import text_string_to_metric_families

from .ports import HOST, free_port


def admin_settings(**changes) -> dict:
    """Part of rekey.yaml: a port of its own."""
    return {"admin": {"address": f"{HOST}:{free_port()}", **changes}}


class Admin:
    """get(path): (status, headers, text). token: sent as bearer token. ca_file: for TLS."""

    def __init__(self, address: str, token=None, ca_file=None):
        self.host, port = address.rsplit(":", 1)
        self.port = int(port)
        self.token = token
        self.ca_file = ca_file

    def get(self, path: str, method="GET", headers=None):
        if self.ca_file:
            context = ssl.create_default_context(cafile=self.ca_file)
            connection = http.client.HTTPSConnection(self.host, self.port, timeout=20, context=context)
        else:
            connection = http.client.HTTPConnection(self.host, self.port, timeout=20)
        headers = dict(headers or {})
        if self.token is not None:
            headers.setdefault("Authorization", f"Bearer {self.token}")
        try:
            connection.request(method, path, headers=headers)
            answer = connection.getresponse()
            return answer.status, dict(answer.headers), answer.read().decode()
        finally:
            connection.close()

    def families(self) -> dict:
        """Name to metric family, as Prometheus' own parser reads them."""
        deadline = time.monotonic() + 15
        while (answer := self.get("/metrics"))[0] == 503 and time.monotonic() < deadline:
            time.sleep(0.02)  # rekeyd listens for clients a moment before it has all figures
        status, headers, text = answer
        assert status == 200, (status, text)
        assert headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
        return {family.name: family for family in text_string_to_metric_families(text)}

    def value(self, name: str, **labels) -> float:
        """A sample; 0 when there is none with these labels, as sum() in PromQL has it."""
        family = self.families()[_family_of(name)]
        found = [s.value for s in family.samples if s.name == name and s.labels == labels]
        assert len(found) <= 1
        return found[0] if found else 0.0

    def wait_value(self, wanted, name: str, timeout_s: float = 15, **labels):
        """wanted: a number, or what it must hold of the value."""
        holds = wanted if callable(wanted) else lambda value: value == wanted
        deadline = time.monotonic() + timeout_s
        while not holds(value := self.value(name, **labels)):
            assert time.monotonic() < deadline, f"{name}{labels} is {value}"
            time.sleep(0.05)
        return value

    def ready(self):
        """(status, what is missing)"""
        status, headers, text = self.get("/readyz")
        assert headers["Content-Type"] == "application/json"
        said = json.loads(text)
        missing = [entry["what"] for entry in said.get("missing", [])]
        assert said["ready"] == (status == 200) == (not missing)
        return status, missing

    def wait_ready(self, wanted, timeout_s: float = 15):
        deadline = time.monotonic() + timeout_s
        while (said := self.ready()) != wanted:
            assert time.monotonic() < deadline, said
            time.sleep(0.05)


def _family_of(name: str) -> str:
    """The parser leaves _total out of a counter's name."""
    for suffix in ("_total", "_bucket", "_sum", "_count"):
        if name.endswith(suffix):
            return name.removesuffix(suffix)
    return name
