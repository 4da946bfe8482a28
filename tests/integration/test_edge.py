"""Where clients come in and how rekeyd gets to mongod: Unix sockets, IPv6, PROXY headers,
certificates, handshakes."""

import os
import shutil
import socket
import ssl
import stat
import struct
import time
from urllib.parse import quote

import bson
import pytest
import wire
from harness import Mongod, Process, Rekeyd, policy
from harness.ports import free_port
from pymongo import MongoClient
from pymongo.errors import OperationFailure, ServerSelectionTimeoutError
from wire import RawClient

PING = {"ping": 1, "$db": "admin"}


@pytest.fixture
def socket_directory(tmp_path_factory):
    """Short: a socket's path has at most 107 bytes."""
    return tmp_path_factory.mktemp("s")


@pytest.fixture(scope="module")
def mongod_on_socket(tmp_path_factory):
    """A standalone that listens on a Unix socket and on IPv6, too."""
    directory = tmp_path_factory.mktemp("m")
    mongod = Mongod(directory, args=["--unixSocketPrefix", str(directory), "--ipv6"])
    mongod.bind, mongod.unix_socket = "127.0.0.1,::1", True
    mongod.path = str(directory / f"mongodb-{mongod.port}.sock")
    with mongod:
        yield mongod


def one_member(rekeyd, **changes):
    rekeyd.config["upstream"]["members"][0].update(changes)
    rekeyd.write_config()
    return rekeyd


def socket_uri(path, **options) -> str:
    words = "&".join(f"{key}={value}" for key, value in options.items())
    return f"mongodb://{quote(str(path), safe='')}/?{words}"


class SocketClient(RawClient):
    def __init__(self, path):
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.socket.settimeout(10)
        self.socket.connect(str(path))


@pytest.fixture
def on_socket(socket_directory, tmp_path):
    """on_socket(upstream, ...): a running rekeyd that listens on a Unix socket, rekeyd.path."""
    started = []

    def start(upstream, policies=(), access=None, **changes):
        settings = {"listener": {"socket_access": access}} if access else {}
        rekeyd = Rekeyd(upstream, policies, directory=tmp_path / "rekeyd", settings=settings)
        rekeyd.path = socket_directory / "mongodb-27017.sock"
        one_member(rekeyd, listen=str(rekeyd.path), **changes)
        rekeyd.ports = []
        rekeyd.start()
        started.append(rekeyd)
        rekeyd.wait_event("started")
        return rekeyd

    yield start
    for rekeyd in started:
        rekeyd.finish()


def test_unix_sockets_on_both_sides(mongod_on_socket, on_socket, db_name):
    """No TCP between application, rekeyd and mongod."""
    rekeyd = on_socket(
        mongod_on_socket,
        [policy(f"{db_name}.c", {"a": "random"})],
        address="db.invalid:27017",
        connect=mongod_on_socket.path,
    )
    with MongoClient(socket_uri(rekeyd.path)) as client, mongod_on_socket.client() as direct:
        client[db_name].c.insert_one({"_id": 1, "a": "secret"})
        assert client[db_name].c.find_one() == {"_id": 1, "a": "secret"}
        assert direct[db_name].c.find_one()["a"] != "secret"


def test_replica_set_over_a_unix_socket(single_member_set, on_socket, db_name):
    """A driver that discovers the set learns what advertise says: by default the socket again."""
    rekeyd = on_socket(single_member_set)
    uri = socket_uri(rekeyd.path, replicaSet="rs0", serverSelectionTimeoutMS=10000)
    with MongoClient(uri) as client:
        with client.start_session() as session, session.start_transaction():
            client[db_name].c.insert_one({"_id": 1}, session=session)
        assert client[db_name].c.find_one() == {"_id": 1}
        assert [host for host, _ in client.nodes] == [str(rekeyd.path)]


@pytest.mark.parametrize("access, mode", [(None, 0o600), ("group", 0o660), ("everyone", 0o666)])
def test_permissions_of_the_socket(standalone, on_socket, access, mode):
    before = os.umask(0o077)
    try:
        rekeyd = on_socket(standalone, access=access)
    finally:
        os.umask(before)
    status = os.stat(rekeyd.path)
    assert stat.S_ISSOCK(status.st_mode) and stat.S_IMODE(status.st_mode) == mode


def test_socket_is_removed_at_the_end(standalone, on_socket):
    rekeyd = on_socket(standalone)
    rekeyd.terminate()
    assert not rekeyd.path.exists()


def test_socket_of_a_killed_rekeyd_is_replaced(standalone, on_socket):
    rekeyd = on_socket(standalone)
    rekeyd.kill9()
    assert rekeyd.path.exists()
    rekeyd.start()
    rekeyd.wait_event("started", count=2)
    with SocketClient(rekeyd.path) as client:
        assert client.command(PING)["ok"] == 1


def test_socket_in_use_is_not_taken_over(standalone, on_socket):
    rekeyd = on_socket(standalone)
    second = one_member(Rekeyd(standalone, name="second"), listen=str(rekeyd.path))
    status, said = second.run()
    second.close()
    assert status == 1 and f"cannot listen on {rekeyd.path}" in said
    with SocketClient(rekeyd.path) as client:
        assert client.command(PING)["ok"] == 1


def test_a_file_that_is_no_socket_is_not_removed(standalone, socket_directory):
    path = socket_directory / "file"
    path.write_text("kept")
    rekeyd = one_member(Rekeyd(standalone), listen=str(path))
    status, said = rekeyd.run()
    rekeyd.close()
    assert status == 1 and "cannot listen" in said
    assert path.read_text() == "kept"


def test_the_end_removes_no_other_socket(standalone, on_socket):
    """Somebody replaced the file by hand: it is not ours any more."""
    rekeyd = on_socket(standalone)
    rekeyd.path.unlink()
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(rekeyd.path))
        rekeyd.terminate()
        assert rekeyd.path.exists()


def test_the_log_names_the_process_behind_a_socket(standalone, on_socket):
    rekeyd = on_socket(standalone)
    with SocketClient(rekeyd.path) as client:
        client.send(b"\xff" * 32)
        assert client.receive_all() == b""
    logged = rekeyd.wait_event("session_malformed")["client"]
    assert logged == f"unix:uid={os.getuid()},pid={os.getpid()}"


def test_two_rekeyd_do_not_share_a_port(standalone, start_rekeyd):
    """With SO_REUSEPORT the second one took half of the connections, unnoticed."""
    first = start_rekeyd(standalone)
    second = one_member(Rekeyd(standalone, name="second"), listen=first.addresses[0])
    status, said = second.run()
    second.close()
    assert status == 1 and f"cannot listen on {first.addresses[0]}" in said


def test_restart_on_a_port_with_old_connections(standalone, start_rekeyd):
    rekeyd = start_rekeyd(standalone)
    clients = [RawClient(rekeyd.addresses[0]) for _ in range(8)]
    for client in clients:
        assert client.command(PING)["ok"] == 1
    rekeyd.terminate()  # rekeyd closes first: its side of the connections stays in TIME_WAIT
    rekeyd.start()
    for client in clients:
        client.close()
    with RawClient(rekeyd.addresses[0]) as client:
        assert client.command(PING)["ok"] == 1


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_ipv6_on_both_sides(mongod_on_socket, db_name, host):
    """[::] takes both families, and the log shows IPv4 addresses as such."""
    rekeyd = Rekeyd(mongod_on_socket, [policy(f"{db_name}.c", {"a": "random"})])
    port = rekeyd.ports[0]
    address = f"[::1]:{mongod_on_socket.port}"
    one_member(rekeyd, address=address, listen=f"[::]:{port}", advertise=f"[::1]:{port}")
    with rekeyd:
        shown = f"[{host}]" if ":" in host else host
        with MongoClient(f"mongodb://{shown}:{port}/?directConnection=true") as client:
            client[db_name].c.insert_one({"_id": 1, "a": "secret"})
            assert client[db_name].c.find_one() == {"_id": 1, "a": "secret"}
        with socket.create_connection((host, port), timeout=10) as sock:
            local = "%s:%d" % (shown, sock.getsockname()[1])
            sock.sendall(b"\xff" * 32)
            assert sock.recv(1) == b""
        assert rekeyd.wait_event("session_malformed")["client"] == local


def test_ipv6_upstream_that_is_down(mongod_on_socket):
    rekeyd = Rekeyd(mongod_on_socket)
    one_member(rekeyd, connect="[::1]:1")
    with rekeyd:
        uri = f"mongodb://{rekeyd.addresses[0]}/?serverSelectionTimeoutMS=1000"
        with MongoClient(uri) as client, pytest.raises(ServerSelectionTimeoutError):
            client.admin.command("ping")
        assert "refused" in rekeyd.wait_event("upstream_unreachable")["reason"].lower()


def test_bad_clients_cannot_flood_the_log(standalone, start_rekeyd):
    rekeyd = start_rekeyd(standalone, settings={"log": {"event_lines_per_s": 3}})
    for _ in range(100):
        with RawClient(rekeyd.addresses[0]) as client:
            client.send(b"\xff" * 32)
            assert client.receive_all() == b""
    rekeyd.terminate()  # what is left to tell is told at the end
    shown = len(rekeyd.events("session_malformed"))
    kept_back = sum(entry["lines"] for entry in rekeyd.events("log_lines_kept_back"))
    assert shown + kept_back == 100
    assert 3 <= shown < 100


# PROXY protocol.

SIGNATURE = bytes.fromhex("0d0a0d0a000d0a515549540a")
LOOPBACK = {"proxy_protocol": "required", "proxy_networks": ["127.0.0.0/8"]}


def proxy_header(family=0x11, rest=None, command=0x21) -> bytes:
    if rest is None:
        rest = bytes([192, 0, 2, 1, 192, 0, 2, 2]) + struct.pack(">HH", 55555, 27017)
    return SIGNATURE + bytes([command, family]) + struct.pack(">H", len(rest)) + rest


class Haproxy(Process):
    """A real load balancer in front of rekeyd. options: of its server line."""

    def __init__(self, directory, target: str, options: str):
        super().__init__("haproxy", directory, free_port())
        self.target, self.options = target, options

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def argv(self) -> list:
        config = self.directory / "haproxy.cfg"
        config.write_text(
            "defaults\n  mode tcp\n  timeout connect 5s\n  timeout client 1m\n  timeout server 1m\n"
            f"listen rekeyd\n  bind {self.address}\n  server one {self.target} {self.options}\n"
        )
        binary = shutil.which("haproxy", path=f"{os.environ['PATH']}:/usr/sbin")
        assert binary, "haproxy is not installed"
        return [binary, "-db", "-f", str(config)]

    def listen_ports(self) -> list:
        return []  # a connection would be passed on


def behind_proxy(upstream, **options) -> Rekeyd:
    """Connections without a header, such as those of the harness, are refused."""
    rekeyd = Rekeyd(upstream, settings={"listener": LOOPBACK}, **options)
    rekeyd.listen_ports = lambda: []
    return rekeyd


@pytest.fixture
def proxied(standalone, tmp_path):
    with behind_proxy(standalone, directory=tmp_path / "rekeyd") as rekeyd:
        rekeyd.wait_event("started")
        yield rekeyd


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
@pytest.mark.parametrize("options", ["send-proxy-v2", "send-proxy-v2 proxy-v2-options unique-id"])
def test_haproxy_names_the_client(standalone, certificates, tmp_path, db_name, tls, options):
    """Through HAProxy; the log shows the client's own address, TLS begins behind the header."""
    listener = certificates if tls else None
    with behind_proxy(
        standalone, directory=tmp_path / "rekeyd", listener_certificates=listener
    ) as rekeyd:
        rekeyd.wait_event("started")
        with Haproxy(tmp_path / "haproxy", rekeyd.addresses[0], options) as haproxy:
            uri = standalone.uri_for([haproxy.address], listener)
            with MongoClient(uri, serverSelectionTimeoutMS=10000) as client:
                client[db_name].c.insert_one({"_id": 1})
                assert client[db_name].c.find_one() == {"_id": 1}
            with socket.create_connection(("127.0.0.1", haproxy.port), timeout=10) as sock:
                local = "127.0.0.1:%d" % sock.getsockname()[1]
                sock.sendall(b"\xff" * 32)
                sock.recv(1)
            event = "client_failed" if tls else "session_malformed"
            assert rekeyd.wait_event(event)["client"] == local


def test_haproxy_health_checks_are_taken(proxied, tmp_path):
    """LOCAL headers: the connection speaks for itself, and mongod is behind it."""
    options = "send-proxy-v2 check check-send-proxy inter 200"
    with Haproxy(tmp_path / "haproxy", proxied.addresses[0], options) as haproxy:
        with MongoClient(haproxy.address, serverSelectionTimeoutMS=10000) as client:
            assert client.admin.command("ping")["ok"] == 1
            time.sleep(1)
            assert client.admin.command("ping")["ok"] == 1
    assert not [e for e in proxied.events("client_failed") if "PROXY header of" in e["reason"]]


def test_haproxy_with_version_1_is_refused(proxied, tmp_path):
    with Haproxy(tmp_path / "haproxy", proxied.addresses[0], "send-proxy") as haproxy:
        with MongoClient(haproxy.address, serverSelectionTimeoutMS=1500) as client:
            with pytest.raises(ServerSelectionTimeoutError):
                client.admin.command("ping")
    reason = proxied.wait_event("client_failed")["reason"]
    assert "version 1" in reason and "send-proxy-v2" in reason


NAMED = {
    "IPv4": (proxy_header(), "192.0.2.1:55555"),
    "IPv6": (
        proxy_header(0x21, bytes.fromhex("20010db8") + bytes(28) + b"\0\x50\0\1"),
        "[2001:db8::]:80",
    ),
    "Unix": (proxy_header(0x31, b"/run/app.sock".ljust(216, b"\0")), "unix:/run/app.sock"),
    "with fields": (
        proxy_header(rest=proxy_header()[16:] + b"\4" + struct.pack(">H", 3000) + bytes(3000)),
        "192.0.2.1:55555",
    ),
}


@pytest.mark.tsan
@pytest.mark.parametrize("piece", [1, 7, 100000])
@pytest.mark.parametrize("header, shown", NAMED.values(), ids=NAMED)
def test_header_and_message_in_pieces(proxied, header, shown, piece):
    with RawClient(proxied.addresses[0], timeout_s=20) as client:
        data = header + wire.op_msg(PING)
        for start in range(0, len(data), piece):
            client.send(data[start : start + piece])
        assert client.receive().document["ok"] == 1
        client.send(b"\xff" * 32)
        assert client.receive() is None
    assert proxied.wait_event("session_malformed")["client"] == shown


@pytest.mark.parametrize(
    "header",
    [proxy_header(0, b"", 0x20), proxy_header(0x11, None, 0x20), proxy_header(0, b"abc")],
    ids=["LOCAL", "LOCAL with addresses", "unspecified"],
)
def test_headers_without_a_client(proxied, header):
    with RawClient(proxied.addresses[0]) as client:
        local = "127.0.0.1:%d" % client.socket.getsockname()[1]
        client.send(header + wire.op_msg(PING))
        assert client.receive().document["ok"] == 1
        client.send(b"\xff" * 32)
        assert client.receive() is None
    assert proxied.wait_event("session_malformed")["client"] == local


BAD_HEADERS = {
    "none": (wire.op_msg(PING), "no PROXY header"),
    "version 1": (b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n", "version 1"),
    "version 3": (proxy_header(command=0x31), "unknown version"),
    "command": (proxy_header(command=0x27), "unknown command"),
    "datagrams": (proxy_header(0x12), "that is no stream's"),
    "short": (proxy_header(0x21), "too short"),
    "long": (proxy_header(rest=bytes(5000)), "listener.proxy_header_bytes_max"),
}


@pytest.mark.parametrize("header, reason", BAD_HEADERS.values(), ids=BAD_HEADERS)
def test_bad_headers_are_refused(proxied, header, reason):
    with RawClient(proxied.addresses[0]) as client:
        client.send(header)
        assert client.receive_all() == b""
    assert reason in proxied.wait_event("client_failed")["reason"]


def test_header_that_ends_early(proxied):
    with RawClient(proxied.addresses[0]) as client:
        client.send(proxy_header()[:20])
        client.end()
        assert client.receive_all() == b""
    assert "before the end" in proxied.wait_event("client_failed")["reason"]


def test_header_that_never_comes(standalone, tmp_path):
    rekeyd = behind_proxy(standalone, directory=tmp_path / "rekeyd")
    rekeyd.config["limits"]["handshake_timeout_ms"] = 300
    rekeyd.write_config()
    with rekeyd:
        rekeyd.wait_event("started")
        with RawClient(rekeyd.addresses[0]) as client:
            client.send(proxy_header()[:20])
            assert client.receive_all() == b""
        assert "PROXY header" in rekeyd.wait_event("session_timeout")["reason"]


def test_only_known_networks_may_send_a_header(standalone, tmp_path):
    rekeyd = behind_proxy(standalone, directory=tmp_path / "rekeyd")
    rekeyd.config["listener"]["proxy_networks"] = ["10.0.0.0/8", "127.0.0.2"]
    rekeyd.write_config()
    with rekeyd:
        rekeyd.wait_event("started")
        with RawClient(rekeyd.addresses[0]) as client:
            client.send(proxy_header() + wire.op_msg(PING))
            assert client.receive_all() == b""
        assert "proxy_networks" in rekeyd.wait_event("connection_refused")["reason"]
        with socket.create_connection(
            ("127.0.0.1", rekeyd.ports[0]), timeout=10, source_address=("127.0.0.2", 0)
        ) as sock:
            sock.sendall(proxy_header() + wire.op_msg(PING))
            assert wire.receive(sock).document["ok"] == 1


@pytest.mark.parametrize("header", [proxy_header(), b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n"])
def test_header_where_none_is_expected(standalone, start_rekeyd, header):
    rekeyd = start_rekeyd(standalone)
    with RawClient(rekeyd.addresses[0]) as client:
        client.send(header + wire.op_msg(PING))
        assert client.receive_all() == b""
    assert "listener.proxy_protocol is off" in rekeyd.wait_event("session_malformed")["reason"]


# Authentication by certificate.


@pytest.fixture(scope="module")
def x509_server(certificates, tmp_path_factory):
    """A mongod where the certificate that rekeyd itself shows is a user: nobody else may be it."""
    with Mongod(tmp_path_factory.mktemp("x509"), certificates=certificates) as mongod:
        with mongod.client() as client:
            external = client["$external"]
            for name in ("rekeyd-own", "app"):
                role = {"role": "readWriteAnyDatabase", "db": "admin"}
                external.command("createUser", f"CN={name}", roles=[role])
        yield mongod


@pytest.fixture
def in_front_of_x509(x509_server, certificates, start_rekeyd):
    own = certificates.issue("rekeyd-own")
    settings = {
        "upstream": {"tls": {"cert_file": own}},
        "listener_tls": {"verify": True, "ca_file": certificates.ca_file},
    }
    return start_rekeyd(x509_server, settings=settings, listener_certificates=certificates)


def x509_refused(document) -> bool:
    text = document.get("errmsg", document.get("$err", ""))
    return document["ok"] == 0 and document["code"] == 18 and "SCRAM" in text


def test_x509_is_refused_with_advice(in_front_of_x509, x509_server, certificates):
    """Passed on, it would make every client the user of rekeyd's own certificate."""
    options = {
        "authMechanism": "MONGODB-X509",
        "authSource": "$external",
        "tlsCertificateKeyFile": certificates.issue("app"),
    }
    with x509_server.client(**options) as direct:
        direct.test.c.find_one()  # it works without rekeyd
    with in_front_of_x509.client(**options) as client:
        with pytest.raises(OperationFailure, match="MONGODB-X509 cannot pass Rekey.*SCRAM"):
            client.test.c.find_one()


@pytest.fixture
def x509_client(in_front_of_x509, certificates):
    context = ssl.create_default_context(cafile=certificates.ca_file)
    context.load_cert_chain(certificates.issue("app"))
    with RawClient(in_front_of_x509.addresses[0]) as client:
        client.socket = context.wrap_socket(client.socket, server_hostname="127.0.0.1")
        yield client


AUTHENTICATE = {"authenticate": 1, "mechanism": "MONGODB-X509"}
X509_COMMANDS = {
    "authenticate": AUTHENTICATE,
    "with user": {**AUTHENTICATE, "user": "CN=rekeyd-own"},
    "mechanism twice": bson.encode({"authenticate": 1, "mechanism": "SCRAM-SHA-1"})[4:-1]
    + wire.string("mechanism", "MONGODB-X509"),
    "other case": {**AUTHENTICATE, "mechanism": "mongodb-X509"},
    "saslStart": {"saslStart": 1, "mechanism": "MONGODB-X509", "payload": b""},
    "hello": {"hello": 1, "speculativeAuthenticate": AUTHENTICATE},
    "isMaster": {"isMaster": 1, "speculativeAuthenticate": AUTHENTICATE},
    "second speculation": bson.encode({"hello": 1, "speculativeAuthenticate": {"a": 1}})[4:-1]
    + bson.encode({"speculativeAuthenticate": AUTHENTICATE})[4:-1],
}


@pytest.mark.parametrize("command", X509_COMMANDS.values(), ids=X509_COMMANDS)
def test_x509_in_every_command(x509_client, command):
    """Whatever the form, the answer is rekeyd's, and the connection is nobody's afterwards."""
    if isinstance(command, bytes):
        body = wire.raw_document(command, wire.string("$db", "$external"))
    else:
        body = {**command, "$db": "$external"}
    x509_client.send(wire.op_msg(wire.body_section(body)))
    assert x509_refused(x509_client.receive().document)
    status = x509_client.command({"connectionStatus": 1, "$db": "admin"})
    assert status["authInfo"]["authenticatedUsers"] == []


@pytest.mark.parametrize("wrap", [lambda c: c, lambda c: {"$query": c}], ids=["plain", "$query"])
@pytest.mark.parametrize("name", ["authenticate", "isMaster"])
def test_x509_in_op_query(x509_client, name, wrap):
    """As PyMongo's first message has it."""
    x509_client.send(wire.op_query("$external.$cmd", wrap(X509_COMMANDS[name])))
    reply = x509_client.receive()
    assert reply.opcode == wire.OP_REPLY and x509_refused(reply.document)
    status = x509_client.command({"connectionStatus": 1, "$db": "admin"})
    assert status["authInfo"]["authenticatedUsers"] == []


# Malformed hello and SASL: an answer or an end, and rekeyd goes on.

DEEP = bson.decode(wire.nested(90, bson.encode({})))
ODD_COMMANDS = {
    "saslStart without anything": {"saslStart": 1},
    "mechanism a number": {"saslStart": 1, "mechanism": 5, "payload": b""},
    "mechanism a document": {"saslStart": 1, "mechanism": DEEP, "payload": b""},
    "mechanism of 1 MB": {"saslStart": 1, "mechanism": "x" * 1_000_000, "payload": b""},
    "payload a number": {"saslStart": 1, "mechanism": "SCRAM-SHA-256", "payload": 5},
    "payload of 10 MB": {"saslStart": 1, "mechanism": "SCRAM-SHA-256", "payload": bytes(10**7)},
    "saslContinue of nothing": {"saslContinue": 1, "conversationId": 99, "payload": b""},
    "saslContinue of a text": {"saslContinue": 1, "conversationId": "x", "payload": "y"},
    "authenticate a number": {"authenticate": 1, "mechanism": 7, "user": 8},
    "speculation a number": {"hello": 1, "speculativeAuthenticate": 5},
    "speculation a list": {"hello": 1, "speculativeAuthenticate": [AUTHENTICATE]},
    "speculation deep": {"hello": 1, "speculativeAuthenticate": DEEP},
    "compression a number": {"hello": 1, "compression": 5},
    "compression of other types": {"hello": 1, "compression": [1, None, {}]},
    "compression with another type": {"hello": 1, "compression": ["zlib", 5]},
    "client a number": {"hello": 1, "client": 5},
    "client of 100 KB": {"hello": 1, "client": {"driver": {"name": "x" * 100_000}}},
    "topologyVersion a number": {"hello": 1, "topologyVersion": 5, "maxAwaitTimeMS": 1},
    "hello a document": {"hello": DEEP},
    "saslSupportedMechs a number": {"hello": 1, "saslSupportedMechs": 5},
}


@pytest.fixture(scope="module", params=["policies", "no policies"])
def plain_rekeyd(request, single_member_set, tmp_path_factory):
    policies = [policy("edge.c", {"a": "random"})] if request.param == "policies" else []
    with Rekeyd(single_member_set, policies, directory=tmp_path_factory.mktemp("r")) as rekeyd:
        yield rekeyd


@pytest.mark.parametrize("opcode", ["OP_MSG", "OP_QUERY"])
@pytest.mark.parametrize("command", ODD_COMMANDS.values(), ids=ODD_COMMANDS)
def test_odd_hello_and_sasl(plain_rekeyd, single_member_set, command, opcode):
    """The same outcome as without rekeyd: what is not its business is mongod's to judge."""
    name = next(iter(command))
    if opcode == "OP_QUERY":
        message = wire.op_query("admin.$cmd", command)
    else:
        message = wire.op_msg({**command, "$db": "admin"})
    outcomes = []
    for address in (single_member_set.addresses[0], plain_rekeyd.addresses[0]):
        with RawClient(address) as client:
            client.send(message)
            reply = client.receive()
            outcomes.append(reply and (reply.document["ok"], reply.document.get("code")))
    assert outcomes[0] == outcomes[1], f"{name}: direct {outcomes[0]}, rekeyd {outcomes[1]}"
    plain_rekeyd.check()
    with RawClient(plain_rekeyd.addresses[0]) as client:
        assert client.command(PING)["ok"] == 1


@pytest.mark.parametrize("resumed", [False, True], ids=["new", "resumed"])
def test_tls_sessions_are_resumed_where_certificates_are_demanded(
    standalone, certificates, start_rekeyd, resumed
):
    """Without a session id context OpenSSL failed every resumption that shows a certificate."""
    settings = {"listener_tls": {"verify": True, "ca_file": certificates.ca_file}}
    rekeyd = start_rekeyd(standalone, settings=settings, listener_certificates=certificates)
    context = ssl.create_default_context(cafile=certificates.ca_file)
    context.load_cert_chain(certificates.issue("someone"))
    session = None
    for _ in range(2 if resumed else 1):
        with RawClient(rekeyd.addresses[0]) as client:
            client.socket = context.wrap_socket(
                client.socket, server_hostname="127.0.0.1", session=session
            )
            assert client.command(PING)["ok"] == 1
            assert client.socket.session_reused == (session is not None)
            session = client.socket.session
