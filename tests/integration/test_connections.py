"""The data plane's connections: limits, timeouts, draining, ends of either side, memory."""

import resource
import signal
import socket
import struct
import threading
import time
from contextlib import suppress

import bson
import pytest
from harness import Mongod, Rekeyd, policy
from harness.ports import accepts, black_hole

OP_MSG = 2013
MORE_TO_COME = 2


def op_msg(request_id, body, flags=0):
    payload = struct.pack("<IB", flags, 0) + bson.encode(body)
    return struct.pack("<iiii", 16 + len(payload), request_id, 0, OP_MSG) + payload


def read_exactly(sock, n):
    data, had = bytearray(n), 0
    while had < n:
        more = sock.recv_into(memoryview(data)[had:])
        if more == 0:
            raise EOFError(f"connection closed after {had} of {n} bytes")
        had += more
    return data


def read_reply(sock):
    """(responseTo, body) of the next OP_MSG."""
    length, _, response_to, opcode = struct.unpack("<iiii", read_exactly(sock, 16))
    assert opcode == OP_MSG
    rest = read_exactly(sock, length - 16)
    return response_to, bson.decode(rest[5:])


def connect(rekeyd):
    return socket.create_connection(("127.0.0.1", rekeyd.ports[0]), timeout=15)


def closed_by_peer(sock, timeout_s=10):
    sock.settimeout(timeout_s)
    try:
        return sock.recv(1) == b""
    except ConnectionResetError:
        return True


PING = {"ping": 1, "$db": "admin"}


def test_messages_in_single_bytes(standalone, start_rekeyd):
    rekeyd = start_rekeyd(standalone)
    with connect(rekeyd) as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in op_msg(7, PING):
            sock.sendall(bytes([byte]))
        assert read_reply(sock)[0] == 7


def connect_when_free(rekeyd):
    """A connection that was served, as soon as there is a place for it."""
    deadline = time.monotonic() + 15
    while True:
        sock = connect(rekeyd)
        try:
            sock.sendall(op_msg(1, PING))
            assert read_reply(sock)[1]["ok"] == 1
            return sock
        except (EOFError, ConnectionError):
            sock.close()
            assert time.monotonic() < deadline, "places were not given back"
            time.sleep(0.02)


def test_connection_limit_refuses_and_recovers(standalone, start_rekeyd):
    rekeyd = start_rekeyd(standalone, settings={"limits": {"connections_max": 4}})
    held = [connect_when_free(rekeyd) for _ in range(4)]
    with connect(rekeyd) as extra:
        assert closed_by_peer(extra)
    assert rekeyd.wait_event("connection_refused")["connections_max"] == 4
    for sock in held:
        sock.close()
    connect_when_free(rekeyd).close()


def test_silent_client_is_dropped(standalone, start_rekeyd):
    rekeyd = start_rekeyd(standalone, settings={"limits": {"handshake_timeout_ms": 300}})
    with connect(rekeyd) as sock:
        sock.sendall(op_msg(1, PING)[:10])
        assert closed_by_peer(sock)
    assert "first message" in rekeyd.wait_event("session_timeout")["reason"]


def test_idle_timeout_spares_running_commands(single_member_set, start_rekeyd, db_name):
    rekeyd = start_rekeyd(single_member_set, settings={"limits": {"idle_timeout_ms": 400}})
    with connect(rekeyd) as sock:
        sleep = {"find": "c", "filter": {"$where": "sleep(1200) || true"}, "$db": db_name}
        with single_member_set.client() as client:
            client[db_name].c.insert_one({})
        sock.sendall(op_msg(1, sleep))
        assert read_reply(sock)[1]["ok"] == 1
        assert closed_by_peer(sock, 5)
    rekeyd.wait_event("session_idle")


def test_connect_timeout(start_rekeyd):
    class Silent:
        certificates = None

        def __init__(self, address):
            self.addresses, self.uri = [address], f"mongodb://{address}/"

    with black_hole() as address:
        rekeyd = start_rekeyd(Silent(address), settings={"limits": {"connect_timeout_ms": 300}})
        with connect(rekeyd) as sock:
            assert closed_by_peer(sock)
        assert "connect_timeout_ms" in rekeyd.wait_event("upstream_unreachable")["reason"]


def test_upstream_down_at_start_then_up(start_rekeyd, tmp_path, db_name):
    mongod = Mongod(tmp_path / "mongod")
    rekeyd = start_rekeyd(mongod)
    with connect(rekeyd) as sock:
        assert closed_by_peer(sock)
    assert "refused" in rekeyd.wait_event("upstream_unreachable")["reason"].lower()
    with mongod, rekeyd.client() as client:
        client[db_name].c.insert_one({"_id": 1})
        assert client[db_name].c.count_documents({}) == 1


def test_upstream_death_closes_the_client(start_rekeyd, tmp_path):
    with Mongod(tmp_path / "mongod") as mongod:
        rekeyd = start_rekeyd(mongod)
        with connect(rekeyd) as sock:
            sock.sendall(op_msg(1, PING))
            read_reply(sock)
            mongod.kill()
            assert closed_by_peer(sock)


def test_half_closed_client_still_gets_its_reply(standalone, start_rekeyd):
    rekeyd = start_rekeyd(standalone)
    with connect(rekeyd) as sock:
        sock.sendall(op_msg(5, PING))
        sock.shutdown(socket.SHUT_WR)
        assert read_reply(sock)[0] == 5
        assert closed_by_peer(sock)


def test_sigterm_finishes_commands_in_flight(standalone, start_rekeyd, db_name):
    rekeyd = start_rekeyd(standalone)
    with standalone.client() as client:
        client[db_name].c.insert_one({"a": 1})
    outcome = []

    def slow():
        # Its end is told to the server, which is gone by then: not for long.
        with rekeyd.client(serverSelectionTimeoutMS=1000) as client:
            outcome.append(list(client[db_name].c.find({"$where": "sleep(1500) || true"})))

    thread = threading.Thread(target=slow)
    thread.start()
    time.sleep(0.7)
    with connect(rekeyd) as idle:
        idle.sendall(op_msg(1, PING))
        read_reply(idle)
        started = time.monotonic()
        rekeyd.terminate()
        assert time.monotonic() - started < 8, "draining waited for its deadline"
        assert closed_by_peer(idle)
    thread.join()
    assert len(outcome) == 1 and len(outcome[0]) == 1, "the command in flight lost its reply"


def test_sigterm_delivers_unacknowledged_writes(start_rekeyd, tmp_path, db_name):
    """A write without a reply was in nobody's way: what the member had not taken yet was lost."""
    with Mongod(tmp_path / "mongod") as mongod:
        with mongod.client() as direct:
            coll = direct[db_name].c
            coll.insert_one({"_id": "first"})
            rekeyd = start_rekeyd(mongod, settings={"limits": {"buffer_high_bytes": 64_000_000}})
            with connect(rekeyd) as sock:
                sock.sendall(op_msg(1, PING))
                read_reply(sock)
                mongod.suspend()
                for i in range(200):
                    insert = {"insert": "c", "documents": [{"_id": i, "x": "x" * 100_000}]}
                    sock.sendall(op_msg(i, {**insert, "$db": db_name}, flags=MORE_TO_COME))
                time.sleep(1)  # for rekeyd to read them all
                rekeyd.popen.send_signal(signal.SIGTERM)
                rekeyd.wait_event("draining")
                time.sleep(0.3)
                mongod.resume()
                assert rekeyd.wait(30) == 0
            deadline = time.monotonic() + 15
            while (count := coll.count_documents({})) != 201:
                assert time.monotonic() < deadline, count
                time.sleep(0.05)


def test_drain_deadline_cuts_what_is_left(standalone, start_rekeyd, db_name):
    rekeyd = start_rekeyd(standalone, settings={"limits": {"drain_timeout_ms": 300}})
    with standalone.client() as client:
        client[db_name].c.insert_one({"a": 1})
    with connect(rekeyd) as sock:
        sleep = {"find": "c", "filter": {"$where": "sleep(5000) || true"}, "$db": db_name}
        sock.sendall(op_msg(1, sleep))
        time.sleep(0.3)
        started = time.monotonic()
        rekeyd.terminate()
        assert time.monotonic() - started < 4
        assert rekeyd.events("drained")[-1]["sessions_cut"] == 1


@pytest.mark.timeout(120)
def test_slow_reader_does_not_grow_memory(single_member_set, start_rekeyd, db_name):
    """A client that asks for 150 MB and reads nothing must stop its own reply, not fill rekeyd."""
    rekeyd = start_rekeyd(single_member_set)
    with single_member_set.client() as client:
        for i in range(3):
            client[db_name].c.insert_one({"_id": i, "data": b"x" * 5_000_000})
    with connect(rekeyd) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        sock.sendall(op_msg(1, PING))
        read_reply(sock)
        before = rekeyd.memory_kb()
        find = {"find": "c", "filter": {}, "$db": db_name}
        sock.sendall(b"".join(op_msg(i, find) for i in range(10)))
        time.sleep(3)
        grown = rekeyd.memory_kb() - before
        assert grown < 48 * 1024, f"grew by {grown} KB"
        for i in range(10):
            assert read_reply(sock)[0] == i


@pytest.mark.timeout(180)
def test_idle_connections_cost_little(single_member_set, start_rekeyd):
    """4,000 idle plain connections, each at most 24 KB of rekeyd's memory."""
    n = 4000
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 65536), hard))
    limits = {"handshake_timeout_ms": 170000, "connections_max": n + 10}
    rekeyd = start_rekeyd(single_member_set, settings={"limits": limits})
    with connect(rekeyd) as first:
        first.sendall(op_msg(1, PING))
        read_reply(first)
        before = rekeyd.memory_kb()
    socks = []
    try:
        for i in range(n):
            sock = connect(rekeyd)
            socks.append(sock)
            sock.sendall(op_msg(i, PING))
            if i >= 50:
                read_reply(socks[i - 50])
        for sock in socks[-50:]:
            read_reply(sock)
        each_kb = (rekeyd.memory_kb() - before) / n
        print(f"idle connection: {each_kb:.1f} KB")
        assert each_kb <= 24
        for i in (0, n // 2, n - 1):
            socks[i].sendall(op_msg(i, PING))
            assert read_reply(socks[i])[0] == i
    finally:
        for sock in socks:
            sock.close()
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_unacknowledged_writes_arrive(standalone, start_rekeyd, db_name):
    rekeyd = start_rekeyd(standalone)
    with rekeyd.client(w=0) as quiet, rekeyd.client() as client:
        for i in range(100):
            quiet[db_name].c.insert_one({"_id": i})
        deadline = time.monotonic() + 10
        while client[db_name].c.count_documents({}) < 100:
            assert time.monotonic() < deadline, "unacknowledged writes were lost"


def test_large_documents_pass(standalone, start_rekeyd, db_name):
    rekeyd = start_rekeyd(standalone)
    with rekeyd.client() as client:
        coll = client[db_name].c
        many = [{"_id": i, "data": bytes([i]) * 9_000_000} for i in range(5)]
        coll.insert_many(many)
        assert {d["_id"]: d["data"] for d in coll.find()} == {d["_id"]: d["data"] for d in many}


def test_bad_listen_address_is_refused(standalone):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        rekeyd = Rekeyd(standalone)
        rekeyd.config["upstream"]["members"][0]["listen"] = "127.0.0.1:%d" % taken.getsockname()[1]
        rekeyd.write_config()
        status, said = rekeyd.run()
        assert status == 1
        assert "cannot listen on 127.0.0.1" in said
        rekeyd.close()


def test_reload_refuses_what_needs_a_restart(standalone, start_rekeyd):
    rekeyd = start_rekeyd(standalone)
    rekeyd.reload({"limits": {"workers": 3}})
    refused = rekeyd.wait_event("reload_refused")
    assert "limits.workers" in refused["reason"]
    with connect(rekeyd) as one, connect(rekeyd) as two:
        for sock in (one, two):
            sock.sendall(op_msg(1, PING))
            read_reply(sock)
        rekeyd.reload({"limits": {"workers": 2, "connections_max": 2}})
        rekeyd.wait_event("reloaded")
        deadline = time.monotonic() + 10
        while True:  # the workers are told one after the other
            assert time.monotonic() < deadline, "the new limit is not in force"
            with connect(rekeyd) as third, suppress(EOFError, ConnectionError):
                third.sendall(op_msg(1, PING))
                read_reply(third)
                continue
            break


def test_more_connections_by_reload_raise_the_file_limit(standalone, start_rekeyd):
    rekeyd = start_rekeyd(standalone)
    _, hard = resource.prlimit(rekeyd.pid, resource.RLIMIT_NOFILE)
    resource.prlimit(rekeyd.pid, resource.RLIMIT_NOFILE, (600, hard))
    rekeyd.reload({"limits": {"connections_max": 700}})
    rekeyd.wait_event("reloaded")
    soft, _ = resource.prlimit(rekeyd.pid, resource.RLIMIT_NOFILE)
    assert soft >= 2 * 700


def test_client_that_leaves_a_hanging_member_is_not_kept(start_rekeyd, tmp_path):
    """A suspended mongod never sees the client's end; the session must not wait for it for ever."""
    with Mongod(tmp_path / "mongod") as mongod:
        rekeyd = start_rekeyd(mongod, settings={"limits": {"drain_timeout_ms": 300}})
        with connect(rekeyd) as sock:
            sock.sendall(op_msg(1, PING))
            read_reply(sock)
            mongod.suspend()
            sock.sendall(op_msg(2, PING))
        assert "client left" in rekeyd.wait_event("session_timeout")["reason"]
        mongod.resume()


@pytest.mark.tsan
def test_sigterm_right_after_the_first_accept_drains(single_member_set, tmp_path, db_name):
    """The signals' handlers were set up after the listeners: a signal in between killed rekeyd."""
    policies = [policy(f"{db_name}.c", {"a": "random"})]
    for i in range(5):
        with Rekeyd(single_member_set, policies, directory=tmp_path / str(i)).spawn() as rekeyd:
            deadline = time.monotonic() + 20
            while not accepts(rekeyd.ports[0]):
                assert rekeyd.alive and time.monotonic() < deadline
            rekeyd.terminate()
