"""Where clients come in and how rekeyd gets to mongod: Unix sockets, IPv6."""

import os
import socket
import stat
from urllib.parse import quote

import pytest
from harness import Mongod, Rekeyd, policy
from pymongo import MongoClient
from pymongo.errors import ServerSelectionTimeoutError
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
