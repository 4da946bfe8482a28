"""HTTP for those who watch rekeyd: /metrics, /healthz and /readyz, for good and bad clients."""

import concurrent.futures
import contextlib
import os
import re
import secrets
import socket
import ssl
import time

import pytest
from pymongo.errors import OperationFailure

from harness import (
    SECRET,
    Admin,
    Mongod,
    Rekeyd,
    Vault,
    admin_settings,
    people_policy,
    protected,
)
from harness.ports import HOST, black_hole, free_port
from harness.process import ROOT
from harness.protected import person


@pytest.fixture
def watched(single_member_set, start_rekeyd, db_name):
    """rekeyd with an admin address and a protected collection."""
    rekeyd = start_rekeyd(single_member_set, [people_policy(db_name)], settings=admin_settings())
    with protected(rekeyd, db_name) as collection:
        yield collection


@pytest.fixture
def start_plain(single_member_set, start_rekeyd):
    """start(**admin settings): a rekeyd without policies."""

    def start(**changes):
        rekeyd = start_rekeyd(single_member_set, settings=admin_settings(**changes))
        rekeyd.wait_event("started")
        return rekeyd

    return start


def grown(before, after, name, **labels) -> float:
    def value(families):
        samples = families[name].samples
        return sum(s.value for s in samples if s.name == f"{name}_total" and s.labels == labels)

    return value(after) - value(before)


def exchange(address: str, sent: bytes, finish=False) -> bytes:
    """All that is answered to these bytes."""
    host, port = address.rsplit(":", 1)
    with socket.create_connection((host, int(port)), timeout=20) as peer:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            peer.sendall(sent)
            if finish:
                peer.shutdown(socket.SHUT_WR)
        answer = b""
        while chunk := peer.recv(65536):
            answer += chunk
        return answer


# Figures.


@pytest.mark.tsan
def test_figures_follow_what_happens(watched):
    admin = watched.rekeyd.admin
    watched.app.insert_one(person(0))
    before = admin.families()
    watched.app.insert_many([person(i) for i in range(1, 11)])
    assert len(list(watched.app.find({}))) == 11
    with pytest.raises(OperationFailure) as refused:
        watched.app.find_one({"ssn": {"$gt": "1"}})
    watched.plain.insert_one({"_id": 1})
    after = admin.families()
    encrypted = grown(before, after, "rekey_values_encrypted")
    decrypted = grown(before, after, "rekey_values_decrypted")
    assert encrypted > 0 and encrypted * 11 == decrypted * 10
    assert encrypted <= admin.value("rekey_key_encryptions_total", key="default", id="1") < 1000
    assert admin.value("rekey_current_key_id", key="default") == 1
    assert 0 <= admin.value("rekey_current_key_age_seconds", key="default") < 300
    assert admin.value("rekey_keys_loaded") == admin.value("rekey_keys", state="current") == 1
    assert admin.value("rekey_key_loads_total", result="ok") == 1
    assert admin.value("rekey_keys_missing") == 0 and admin.value("rekey_key_registry_up") == 1
    code = str(refused.value.code)
    assert grown(before, after, "rekey_commands_refused", code=code) == 1
    assert grown(before, after, "rekey_commands", **{"as": "rewritten"}) == 1
    assert grown(before, after, "rekey_commands", **{"as": "forwarded"}) >= 2
    for side in ("client", "upstream"):
        assert grown(before, after, "rekey_messages", **{"from": side}) >= 3
        assert grown(before, after, "rekey_message_bytes", **{"from": side}) > 300
    assert grown(before, after, "rekey_sessions_ended", event="other") == 0


def test_a_histogram_counts_every_round_trip(watched):
    watched.app.insert_one(person(1))
    for _ in range(20):
        watched.app.find_one({"_id": 1})
    family = watched.rekeyd.admin.families()["rekey_upstream_latency_seconds"]
    buckets = [s.value for s in family.samples if s.name.endswith("_bucket")]
    values = {s.name: s.value for s in family.samples if not s.name.endswith("_bucket")}
    assert buckets == sorted(buckets) and buckets[-1] >= 21
    assert values["rekey_upstream_latency_seconds_count"] == buckets[-1]
    assert 0 < values["rekey_upstream_latency_seconds_sum"] < 60


@pytest.mark.tsan
def test_the_sweep_is_seen(watched):
    admin = watched.rekeyd.admin
    watched.app.insert_many([person(i) for i in range(50)])
    watched.rotate()
    watched.rekeyd.ctl("start", watched.namespace, "--wait")
    assert admin.value("rekey_sweep_documents_reencrypted_total") == 50
    assert admin.value("rekey_sweep_documents_scanned_total") >= 50
    assert admin.value("rekey_sweep_dead_letters_total") == 0
    assert admin.value("rekey_sweep_rate_limit") == float("inf")
    watched.rekeyd.reload({"sweep": {"pause": True}})
    watched.rekeyd.wait_event("reloaded")
    assert admin.value("rekey_sweep_rate_limit") == 0
    assert admin.value("rekey_sweep_throttled", by="pause") == 1
    watched.rekeyd.reload({"sweep": {"pause": False, "max_rate": 500}})
    watched.rekeyd.wait_event("reloaded", 2)
    assert admin.value("rekey_sweep_rate_limit") == 500
    assert admin.value("rekey_sweep_throttled", by="pause") == 0
    assert admin.value("rekey_sweep_throttled", by="max_rate") == 1


def test_sessions_are_counted(watched):
    admin = watched.rekeyd.admin
    watched.app.find_one()
    before = admin.value("rekey_sessions_accepted_total")
    with socket.create_connection((HOST, watched.rekeyd.ports[0])) as peer:
        admin.wait_value(before + 1, "rekey_sessions_accepted_total")
        open_now = admin.value("rekey_sessions")
        peer.sendall(b"\xff" * 64)
        admin.wait_value(1, "rekey_sessions_ended_total", event="session_malformed")
    admin.wait_value(lambda value: value < open_now, "rekey_sessions")


def test_what_the_process_is(start_plain):
    rekeyd = start_plain()
    admin = rekeyd.admin
    (build,) = admin.families()["rekey_build_info"].samples
    assert build.value == 1 and build.labels["version"]
    assert abs(admin.value("process_start_time_seconds") - time.time()) < 60
    assert admin.value("process_resident_memory_bytes") > 1e6
    listed = len(os.listdir(f"/proc/{rekeyd.pid}/fd"))
    assert abs(admin.value("process_open_fds") - listed) <= 3
    assert admin.value("process_max_fds") > admin.value("process_open_fds")
    assert admin.value("process_cpu_seconds_total") > 0


def test_log_lines_are_counted(single_member_set, start_rekeyd):
    settings = {**admin_settings(), "log": {"event_lines_per_s": 2}}
    rekeyd = start_rekeyd(single_member_set, settings=settings)
    for _ in range(6):
        assert exchange(rekeyd.addresses[0], b"\xff" * 64) == b""
    admin = rekeyd.admin
    assert admin.value("rekey_log_lines_kept_back_total") >= 2
    assert admin.value("rekey_log_lines_total", level="warn") >= 2


def test_nothing_private_is_told(watched, db_name):
    watched.app.insert_one(person(1))
    watched.app.find_one({"ssn": "x"})
    admin = watched.rekeyd.admin
    told = "".join(str(admin.get(path)) for path in ("/metrics", "/healthz", "/readyz"))
    for private in (SECRET, db_name, watched.rekeyd.keyring.read_text().split()[2]):
        assert private not in told


@pytest.mark.tsan
def test_scrapes_during_traffic(watched):
    """What ThreadSanitizer is to look at: every figure is read while it changes."""

    def load(n):
        for i in range(30):
            watched.app.insert_one(person(f"{n}-{i}"))
            watched.app.find_one({"_id": f"{n}-{i}"})

    watched.app.insert_one(person(0))  # there is a key
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        running = [pool.submit(load, n) for n in range(3)]
        watched.rekeyd.ctl("keys", "rotate")
        watched.rekeyd.ctl("start", watched.namespace)
        while not all(future.done() for future in running):
            watched.rekeyd.admin.families()
        for future in running:
            future.result()


# Health.


def test_alive_and_ready(watched):
    admin = watched.rekeyd.admin
    assert admin.get("/healthz")[::2] == (200, "ok\n")
    admin.wait_ready((200, []))


def test_not_ready_without_mongod(tmp_path, start_rekeyd):
    with Mongod(tmp_path / "mongod") as mongod:
        rekeyd = start_rekeyd(mongod, settings=admin_settings())
        rekeyd.admin.wait_ready((200, []))
        mongod.kill()
        rekeyd.admin.wait_ready((503, ["upstream"]))
        assert rekeyd.admin.get("/healthz")[0] == 200
        mongod.start()
        rekeyd.admin.wait_ready((200, []))


def test_ready_while_one_member_lives(single_member_set, tmp_path):
    """One that is down, and one that never answers, take nothing away."""
    settings = admin_settings(request_timeout_ms=8000)
    with black_hole() as silent:
        rekeyd = Rekeyd(single_member_set, settings=settings, directory=tmp_path / "rekeyd")
        members = rekeyd.config["upstream"]["members"]
        for address in (f"{HOST}:{free_port()}", silent):
            members.insert(0, {"address": address, "listen": f"{HOST}:{free_port()}"})
        rekeyd.write_config()
        with rekeyd:
            rekeyd.admin.wait_ready((200, []))
            del members[-1]
            rekeyd.write_config()
            rekeyd.sighup()
            rekeyd.wait_event("reloaded")
            rekeyd.admin.wait_ready((503, ["upstream"]))


@pytest.mark.tsan
def test_many_who_ask_share_an_answer(start_plain):
    admin = start_plain(connections_max=64).admin
    with concurrent.futures.ThreadPoolExecutor(12) as pool:
        assert set(pool.map(lambda _: admin.ready()[0], range(60))) == {200}


def test_not_ready_without_keys(single_member_set, start_rekeyd, db_name):
    settings = {**admin_settings(), "keys": {"create_first_key": False, "refresh_interval_ms": 100}}
    rekeyd = start_rekeyd(single_member_set, [people_policy(db_name)], settings=settings)
    rekeyd.admin.wait_ready((503, ["keys"]))
    rekeyd.ctl("keys", "rotate")
    rekeyd.admin.wait_ready((200, []))


@pytest.mark.tsan
def test_not_ready_while_draining(start_plain, db_name):
    """A load balancer learns it while the last commands are still being answered."""
    rekeyd = start_plain()
    rekeyd.admin.wait_ready((200, []))
    with rekeyd.client(retryReads=False) as client, concurrent.futures.ThreadPoolExecutor(1) as pool:
        client[db_name].plain.insert_one({"_id": 1})
        slow = {"$where": "sleep(4000) || true"}
        running = pool.submit(client[db_name].command, {"count": "plain", "query": slow})
        time.sleep(1)
        rekeyd.popen.terminate()
        rekeyd.admin.wait_ready((503, ["listeners"]))
        assert running.result()["n"] == 1
    assert rekeyd.wait() == 0


# Who may look.


def token_file(directory, text=None):
    path = directory / "token"
    path.touch(0o600)
    path.write_text((text or secrets.token_hex(16)) + "\n")
    return path


@pytest.mark.tsan
def test_token(start_plain, tmp_path):
    path = token_file(tmp_path, "a" * 32)
    rekeyd = start_plain(token_file=str(path))
    admin = rekeyd.admin
    for headers in (
        {},
        {"Authorization": "Bearer " + "b" * 32},
        {"Authorization": "Bearer " + "a" * 31},
        {"Authorization": "Bearer " + "a" * 33},
        {"Authorization": "Basic " + "a" * 32},
        {"Authorization": "Bearer"},
    ):
        status, answered, text = admin.get("/metrics", headers=headers)
        assert (status, text) == (401, "Unauthorized\n")
        assert answered["WWW-Authenticate"] == "Bearer"
    assert len(rekeyd.events("admin_refused")) == 6
    assert admin.get("/healthz")[0] == 200
    admin.wait_ready((200, []))
    admin.token = "a" * 32
    assert admin.value("rekey_admin_requests_total", code="401") == 6
    path.write_text("c" * 32)  # replaced without a restart
    assert admin.get("/metrics")[0] == 401
    admin.token = "c" * 32
    assert admin.get("/metrics")[0] == 200
    path.unlink()
    assert admin.get("/metrics")[0] == 503
    assert str(path) in rekeyd.wait_event("admin_token_unreadable")["reason"]
    assert "c" * 32 not in rekeyd.logs()


def refused_start(upstream, directory, **changes) -> str:
    rekeyd = Rekeyd(upstream, settings=admin_settings(**changes), directory=directory / "refused")
    try:
        status, said = rekeyd.run()
    finally:
        rekeyd.finish()
    assert status == 1
    return said


def test_tokens_that_are_none(single_member_set, tmp_path):
    path = token_file(tmp_path, "short")
    said = refused_start(single_member_set, tmp_path, token_file=str(path))
    assert "admin: " in said and "a token of at least 16 characters is needed" in said
    path.chmod(0o644)
    said = refused_start(single_member_set, tmp_path, token_file=str(path))
    assert "lets others at its secret" in said


def test_an_address_that_is_taken(single_member_set, tmp_path):
    with socket.create_server((HOST, 0)) as other:
        address = "%s:%d" % other.getsockname()
        said = refused_start(single_member_set, tmp_path, address=address)
    assert f"admin: cannot listen on {address}: Address already in use" in said


def test_everywhere_else_takes_tls_and_a_token(single_member_set, tmp_path):
    said = refused_start(single_member_set, tmp_path, address="0.0.0.0:9270")
    assert "admin.tls.enabled: must be true where admin.address is not on the loopback" in said


@pytest.mark.tsan
def test_tls(start_plain, certificates, tmp_path):
    path = token_file(tmp_path)
    port = free_port()
    tls = {"enabled": True, "cert_file": certificates.issue("admin")}
    rekeyd = start_plain(address=f"0.0.0.0:{port}", token_file=str(path), tls=tls)
    admin = Admin(f"{HOST}:{port}", path.read_text().strip(), certificates.ca_file)
    assert admin.value("rekey_sessions") == 0
    admin.wait_ready((200, []))
    admin.token = None
    assert admin.get("/metrics")[0] == 401
    with contextlib.suppress(ConnectionResetError):  # whoever speaks no TLS gets an alert at most
        assert b"HTTP" not in exchange(f"{HOST}:{port}", b"GET /healthz HTTP/1.1\r\n\r\n")
    admin.wait_ready((200, []))
    assert rekeyd.alive


def test_client_certificates(start_plain, certificates):
    pem = certificates.issue("admin")
    verify = {"enabled": True, "cert_file": pem, "ca_file": certificates.ca_file, "verify": True}
    admin = start_plain(tls=verify).admin
    admin.ca_file = certificates.ca_file
    with pytest.raises((ssl.SSLError, ConnectionError)):
        admin.get("/healthz")


@pytest.mark.tsan
def test_unix_socket(single_member_set, start_rekeyd):
    path = f"/tmp/rk-admin-{secrets.token_hex(4)}.sock"
    rekeyd = start_rekeyd(single_member_set, settings={"admin": {"address": path}})
    with socket.socket(socket.AF_UNIX) as peer:
        peer.connect(path)
        peer.sendall(b"GET /healthz HTTP/1.0\r\n\r\n")
        answer = b""
        while chunk := peer.recv(4096):
            answer += chunk
    assert answer.startswith(b"HTTP/1.1 200 OK\r\n") and answer.endswith(b"\r\n\r\nok\n")
    assert os.stat(path).st_mode & 0o777 == 0o600
    rekeyd.terminate()
    assert not os.path.exists(path)


# Bad clients.


def test_paths_and_methods(start_plain):
    admin = start_plain().admin
    for path in ("/", "/metrics/", "/v1/keys", "/../etc/passwd", "/healthz%20"):
        assert admin.get(path)[0] == 404
    assert admin.get("/healthz?verbose=1")[0] == 200
    for method in ("POST", "PUT", "DELETE", "OPTIONS", "NONSENSE"):
        status, headers, _ = admin.get("/metrics", method)
        assert (status, headers["Allow"]) == (405, "GET, HEAD")
    status, headers, text = admin.get("/metrics", "HEAD")
    assert (status, text) == (200, "") and int(headers["Content-Length"]) > 1000


@pytest.mark.parametrize(
    "sent",
    [
        b"\r\n\r\n",
        b"hello\r\n\r\n",
        b"GET /healthz\r\n\r\n",
        b"GET /healthz HTTP/3\r\n\r\n",
        b"GET http://host/healthz HTTP/1.1\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nno colon\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nA: b\r\n folded\r\n\r\n",
        b"GET /heal\x00thz HTTP/1.1\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nA: \x00\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
    ],
)
def test_what_is_no_request(start_plain, sent):
    rekeyd = start_plain()
    address = rekeyd.config["admin"]["address"]
    assert exchange(address, sent).startswith(b"HTTP/1.1 400 Bad Request\r\n")
    assert rekeyd.admin.get("/healthz")[0] == 200


def test_a_request_that_is_too_long(start_plain):
    rekeyd = start_plain(request_bytes_max=1024)
    address = rekeyd.config["admin"]["address"]
    fitting = b"GET /healthz HTTP/1.1\r\nA: " + b"a" * 900 + b"\r\n\r\n"
    assert exchange(address, fitting).startswith(b"HTTP/1.1 200 ")
    for end in (b"", b"\r\n\r\n"):
        answer = exchange(address, b"GET /healthz HTTP/1.1\r\nA: " + b"a" * 5000 + end)
        assert answer.startswith(b"HTTP/1.1 431 ")


def test_requests_in_pieces_and_with_bodies(start_plain):
    address = start_plain().config["admin"]["address"]
    request = b"GET /healthz HTTP/1.1\r\nHost: here\r\n\r\n"
    host, port = address.rsplit(":", 1)
    with socket.create_connection((host, int(port)), timeout=20) as peer:
        peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in request:
            peer.sendall(bytes([byte]))
            time.sleep(0.002)
        assert peer.recv(4096).startswith(b"HTTP/1.1 200 ")
    # What comes behind the head is not looked at, and takes no answer back.
    post = b"POST /metrics HTTP/1.1\r\nContent-Length: 100000\r\n\r\n" + b"x" * 100000
    assert exchange(address, post).startswith(b"HTTP/1.1 405 ")
    two = exchange(address, request + request)
    assert two.count(b"HTTP/1.1") == 1 and b"Connection: close" in two


@pytest.mark.parametrize("path", [b"/healthz", b"/metrics", b"/readyz"])
def test_a_client_that_has_said_all(start_plain, path):
    """It closed its side with the request, and waits."""
    address = start_plain().config["admin"]["address"]
    request = b"GET " + path + b" HTTP/1.1\r\n\r\n"
    assert exchange(address, request, finish=True).startswith(b"HTTP/1.1 200 ")
    assert exchange(address, b"GET /healthz HT", finish=True) == b""


@pytest.mark.tsan
def test_slow_clients_hold_nobody_up(start_plain):
    rekeyd = start_plain(request_timeout_ms=1000, connections_max=4)
    admin = rekeyd.admin
    with contextlib.ExitStack() as stack:
        slow = []
        for _ in range(3):
            peer = stack.enter_context(socket.create_connection((admin.host, admin.port)))
            peer.settimeout(20)
            peer.sendall(b"GET /healthz HTTP/1.1\r\n")
            slow.append(peer)
        assert admin.get("/healthz")[0] == 200
        for peer in slow:  # a byte now and then makes no difference
            with contextlib.suppress(ConnectionResetError):
                assert peer.recv(1) == b""
    assert admin.value("rekey_admin_requests_total", code="408") == 3


@pytest.mark.tsan
def test_connections_are_limited(start_plain):
    rekeyd = start_plain(connections_max=2, request_timeout_ms=20000)
    admin = rekeyd.admin
    with contextlib.ExitStack() as stack:
        for _ in range(2):
            stack.enter_context(socket.create_connection((admin.host, admin.port)))
        with pytest.raises((ConnectionError, socket.timeout)):
            admin.get("/healthz")
        rekeyd.wait_event("admin_refused")
    deadline = time.monotonic() + 15
    while True:  # places are given back
        try:
            assert admin.get("/healthz")[0] == 200
            break
        except ConnectionError:
            assert time.monotonic() < deadline
            time.sleep(0.05)


@pytest.mark.tsan
def test_a_client_that_does_not_read_its_answer(start_plain):
    """Its connection ends at the deadline, others are served meanwhile, and rekeyd can end."""
    rekeyd = start_plain(request_timeout_ms=2000)
    admin = rekeyd.admin
    with contextlib.ExitStack() as stack:
        for _ in range(8):
            peer = socket.socket()
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1024)
            stack.enter_context(peer)
            peer.connect((admin.host, admin.port))
            peer.sendall(b"GET /metrics HTTP/1.1\r\n\r\n")
        assert admin.get("/metrics")[0] == 200
        rekeyd.terminate()


# Life.


def test_settings_need_a_restart(start_plain):
    rekeyd = start_plain()
    rekeyd.reload({"admin": {"connections_max": 3}})
    assert "admin cannot change" in rekeyd.wait_event("reload_refused")["reason"]


@pytest.mark.tsan
def test_reloads_leave_it_alone(start_plain, tmp_path):
    """What it was configured with is used for as long as it runs, after reloads as well."""
    path = token_file(tmp_path, "a" * 32)
    rekeyd = start_plain(token_file=str(path))
    for i in range(1, 3):
        rekeyd.reload({"log": {"event_lines_per_s": i}})
        rekeyd.wait_event("reloaded", i)
    admin = rekeyd.admin
    admin.token = "a" * 32
    assert admin.get("/metrics")[0] == 200
    assert admin.get("/readyz")[0] == 200


def test_off_without_an_address(single_member_set, start_rekeyd):
    rekeyd = start_rekeyd(single_member_set)
    assert not rekeyd.events("admin_listening")


# What docs/operations.md says.


def documented() -> set:
    """(name, type) of its table of metrics."""
    text = (ROOT / "docs" / "operations.md").read_text()
    section = text.split("### Metrics", 1)[1].split("\n## ", 1)[0]
    found = set()
    for line in section.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if len(cells) == 4 and cells[0].startswith("`"):
            found |= {(name, cells[1]) for name in re.findall(r"`(\w+)`", cells[0])}
    return found


def test_the_documented_metrics_are_the_ones_there_are(
    single_member_set, start_rekeyd, tmp_path, db_name
):
    password = tmp_path / "password"
    password.touch(0o600)
    password.write_text("not needed: nobody is there\n")
    broker = {"addresses": [f"{HOST}:{free_port()}"], "user": "x", "password_file": str(password)}
    with Vault(tmp_path / "vault") as vault:
        settings = {**vault.settings(tmp_path / "secrets"), **admin_settings()}
        settings.update({"sweep": {"transport": "amqp"}, "amqp": broker})
        rekeyd = start_rekeyd(single_member_set, [people_policy(db_name)], settings=settings)
        rekeyd.admin.wait_ready((200, []))
        text = rekeyd.admin.get("/metrics")[2]
        rekeyd.terminate()
    told = set(re.findall(r"^# TYPE (\w+) (\w+)$", text, re.MULTILINE))
    assert told == documented()
    helped = re.findall(r"^# HELP (\w+) \S", text, re.MULTILINE)
    assert sorted(helped) == sorted(name for name, _ in told)
