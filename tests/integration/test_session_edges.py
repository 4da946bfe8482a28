"""The corners of a session: waits for keys, watermarks on both sides at once, TLS with megabytes in
flight, what a member or a client does at the worst moment."""

import socket
import ssl
import struct
import threading
import time
from contextlib import suppress

import pytest
import wire
from harness import Mongod, people_policy
from harness.mongo import Upstream
from harness.ports import HOST, black_hole, free_port
from harness.rekeyd import NEVER_REFRESHED
from harness.waiting import wait_until
from scripted_upstream import ScriptedUpstream
from wire import RawClient

PING = {"ping": 1, "$db": "admin"}


class Valve(Upstream):
    """
    The same servers, but rekeyd's own connections go through a relay. While it is shut, reads of
    the key registry wait inside; everything else passes, so only key loads hang.
    """

    def __init__(self, servers: Upstream):
        self.servers, self.set_name = servers, servers.set_name
        self.open = threading.Event()
        self.open.set()
        self.held, self._free = 0, 0
        self._listener = socket.create_server((HOST, free_port()))
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def addresses(self):
        return self.servers.addresses

    @property
    def uri(self):
        return "mongodb://%s:%d/?directConnection=true" % self._listener.getsockname()

    def client(self, **options):
        return self.servers.client(**options)

    def _accept(self):
        with suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                host, port = self.servers.addresses[0].rsplit(":", 1)
                far = socket.create_connection((host, int(port)))
                threading.Thread(target=self._requests, args=(near, far), daemon=True).start()
                threading.Thread(target=self._replies, args=(far, near), daemon=True).start()

    def _requests(self, near, far):
        with near, far, suppress(OSError):
            while (message := wire.receive(near)) is not None:
                if b"\x02find\x00\x05\x00\x00\x00keys\x00" in message.raw:
                    self._wait()
                far.sendall(message.raw)

    def shut(self, after=0):
        """after: so many reads still pass."""
        self.held, self._free = 0, after
        self.open.clear()

    def _wait(self):
        if self._free > 0:
            self._free -= 1
        elif not self.open.is_set():
            self.held += 1
            self.open.wait()

    def _replies(self, far, near):
        with suppress(OSError):
            while data := far.recv(1 << 16):
                near.sendall(data)
            near.shutdown(socket.SHUT_WR)

    def close(self):
        self.open.set()
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()


@pytest.fixture
def valve(single_member_set):
    valve = Valve(single_member_set)
    yield valve
    valve.close()


@pytest.fixture
def behind(valve, start_rekeyd, db_name):
    """behind(limits): a rekeyd that has not loaded the key under which people's "new" is written."""

    def start(**limits):
        settings = {"keys": NEVER_REFRESHED, "limits": limits}
        rekeyd = start_rekeyd(valve, [people_policy(db_name)], settings=settings)
        with rekeyd.client() as client:
            client[db_name].people.insert_one({"_id": "old", "ssn": "1"})
        rekeyd.ctl("keys", "rotate")
        with rekeyd.sibling() as other, other.client() as client:
            client[db_name].people.insert_one({"_id": "new", "ssn": "2"})
        return rekeyd

    yield start
    valve.open.set()


def find_new(db_name) -> dict:
    return {"find": "people", "filter": {"_id": "new"}, "$db": db_name}


def send_requests(client, *documents):
    client.send(b"".join(wire.op_msg(d, request_id=i) for i, d in enumerate(documents, 1)))


# Waiting for a key.


def test_reply_waits_for_its_key_and_keeps_its_place(behind, valve, db_name):
    rekeyd = behind()
    valve.shut()
    with RawClient(rekeyd.addresses[0]) as client:
        refused = {**find_new(db_name), "filter": {"ssn": {"$gt": "1"}}}
        insert = {"insert": "people", "documents": [{"_id": 3, "ssn": "3"}], "$db": db_name}
        send_requests(client, PING, find_new(db_name), PING, refused, insert, PING)
        assert client.receive().response_to == 1
        wait_until(lambda: valve.held > 0)
        client.socket.settimeout(0.5)
        with pytest.raises(TimeoutError):
            client.receive()
        client.socket.settimeout(10)
        valve.open.set()
        replies = [client.receive() for _ in range(5)]
    assert [reply.response_to for reply in replies] == [2, 3, 4, 5, 6]
    assert replies[0].document["cursor"]["firstBatch"][0]["ssn"] == "2"
    assert [reply.document["ok"] for reply in replies] == [1, 1, 0, 1, 1]


def test_registry_that_does_not_answer_ends_the_wait(behind, valve, db_name):
    rekeyd = behind(key_wait_timeout_ms=2000, pipeline_max=2)
    valve.shut()
    with RawClient(rekeyd.addresses[0]) as client:
        for _ in range(2):
            started = time.monotonic()
            send_requests(client, find_new(db_name), *[PING] * 5)
            replies = [client.receive() for _ in range(6)]
            assert 1.8 < time.monotonic() - started
            assert [reply.response_to for reply in replies] == [1, 2, 3, 4, 5, 6]
            assert replies[0].document["code"] == 6
            assert "key_wait_timeout_ms" in replies[0].document["errmsg"]
            assert all(reply.document["ok"] == 1 for reply in replies[1:])
        valve.open.set()
        wait_until(lambda: client.command(find_new(db_name))["ok"] == 1)


def test_clients_that_leave_while_they_wait(behind, valve, db_name):
    rekeyd = behind(key_wait_timeout_ms=2000)
    valve.shut()
    for linger in range(20):
        client = RawClient(rekeyd.addresses[0])
        send_requests(client, PING, find_new(db_name), PING)
        client.receive()
        if linger % 2:  # a reset instead of an end
            option = struct.pack("ii", 1, 0)
            client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, option)
        client.close()
    wait_until(lambda: valve.held > 0)
    valve.open.set()
    with RawClient(rekeyd.addresses[0]) as client:
        batch = client.command(find_new(db_name))["cursor"]["firstBatch"]
        assert batch[0]["ssn"] == "2"


def test_half_closed_client_gets_the_reply_that_waits_for_a_key(behind, valve, db_name):
    rekeyd = behind()
    valve.shut()
    with RawClient(rekeyd.addresses[0]) as client:
        send_requests(client, find_new(db_name), PING)
        client.end()
        wait_until(lambda: valve.held > 0)
        time.sleep(0.3)
        valve.open.set()
        assert client.receive().document["cursor"]["firstBatch"][0]["ssn"] == "2"


def test_stop_while_a_key_is_being_loaded(behind, valve, db_name):
    """The load called back into a worker that was gone: the server was freed before the keys."""
    rekeyd = behind(key_wait_timeout_ms=30_000, drain_timeout_ms=200)
    valve.shut()
    with RawClient(rekeyd.addresses[0]) as client:
        send_requests(client, find_new(db_name))
        wait_until(lambda: valve.held > 0)
        timer = threading.Timer(2, valve.open.set)
        timer.start()
        rekeyd.terminate()
        timer.join()


def test_first_key_is_made_once(valve, single_member_set, start_rekeyd, db_name):
    """
    Two instances found the registry empty. The slower one then looked again for the next free id
    and rotated the key that the faster one had just made.
    """
    valve.shut(after=1)
    slow = start_rekeyd(valve, [people_policy(db_name)])
    wait_until(lambda: valve.held > 0)
    fast = slow.sibling()
    fast.config["upstream"]["uri"] = single_member_set.uri
    fast.write_config()
    with fast:
        fast.wait_event("key_loaded")
    valve.open.set()
    slow.wait_event("key_loaded")
    with single_member_set.client() as direct:
        keys = direct[slow.config["upstream"]["state_db"]]["keys"]
        assert [key["_id"] for key in keys.find()] == [1]


# Watermarks.


def test_refusals_that_nobody_reads_do_not_pile_up(single_member_set, start_rekeyd, db_name):
    """
    A refused request never reaches the member, so the member's slowness does not hold the client
    back: rekeyd kept up to message_bytes_max of its own answers, then cut the client off.
    """
    rekeyd = start_rekeyd(single_member_set, [people_policy(db_name)])
    refused = {"find": "people", "filter": {"ssn": {"$gt": 1}}, "$db": db_name}
    n = 200_000
    request = wire.op_msg(refused, request_id=1)
    with RawClient(rekeyd.addresses[0], timeout_s=20) as client:
        client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        assert client.command(refused)["code"] == 51118
        before = rekeyd.memory_kb()
        writer = threading.Thread(target=client.send, args=(request * n,))
        writer.start()
        time.sleep(3)
        grown = rekeyd.memory_kb() - before
        got = 0
        size = None
        while size is None or got < n * size:
            data = client.socket.recv(1 << 20)
            assert data, f"cut off after {got} bytes; grew by {grown} KB"
            size = size or struct.unpack_from("<i", data)[0]
            got += len(data)
        writer.join()
    assert got == n * size
    assert grown < 40 * 1024, f"grew by {grown} KB"


def read_slowly(client, n, pause_s=0.0005):
    """Replies in order, each read in small pieces with pauses."""
    received = []
    data = b""
    while len(received) < n:
        more = client.socket.recv(16384)
        assert more, f"closed after {len(received)} replies"
        data += more
        time.sleep(pause_s)
        if len(data) > 1 << 20 or len(more) < 16384:
            found = wire.messages(data)
            received += [message.response_to for message in found]
            data = data[sum(len(message.raw) for message in found) :]
    return received


@pytest.mark.timeout(90)
@pytest.mark.parametrize("pipeline_max", [1, 2, 128, 2000])
def test_a_thousand_pipelined_requests_and_a_slow_reader(
    single_member_set, start_rekeyd, db_name, pipeline_max
):
    limits = {"pipeline_max": pipeline_max, "buffer_high_bytes": 65536, "buffer_low_bytes": 4096}
    rekeyd = start_rekeyd(single_member_set, [people_policy(db_name)], settings={"limits": limits})
    with rekeyd.client() as direct:
        direct[db_name].people.insert_one({"_id": 1, "ssn": "x" * 20_000})
        direct[db_name].plain.insert_one({"_id": 1, "data": "x" * 20_000})
    kinds = [
        {"find": "people", "filter": {}, "$db": db_name},
        PING,
        {"find": "plain", "filter": {}, "$db": db_name},
        {"find": "people", "filter": {"ssn": {"$gt": 1}}, "$db": db_name},
    ]
    requests = [kinds[i % len(kinds)] for i in range(1000)]
    with RawClient(rekeyd.addresses[0], timeout_s=20) as client:
        client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        writer = threading.Thread(target=send_requests, args=(client, *requests))
        writer.start()
        assert read_slowly(client, 1000) == list(range(1, 1001))
        writer.join()


@pytest.mark.timeout(60)
@pytest.mark.parametrize("collection", ["people", "plain"])
def test_reply_far_above_the_watermark_while_requests_come(
    single_member_set, start_rekeyd, db_name, collection
):
    limits = {"buffer_high_bytes": 4096, "buffer_low_bytes": 0}
    rekeyd = start_rekeyd(single_member_set, [people_policy(db_name)], settings={"limits": limits})
    with rekeyd.client() as direct:
        direct[db_name][collection].insert_one({"_id": 1, "ssn": "x" * 5_000_000})
    with RawClient(rekeyd.addresses[0], timeout_s=20) as client:
        client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        send_requests(client, {"find": collection, "filter": {}, "$db": db_name})
        time.sleep(0.5)
        insert = {"insert": collection, "$db": db_name}
        for i in range(2, 12):
            sequence = wire.sequence_section("documents", [{"_id": i, "ssn": "y" * 100_000}])
            client.send(wire.op_msg(insert, sequence, request_id=i))
            time.sleep(0.02)
        replies = [client.receive() for _ in range(11)]
    assert [reply.response_to for reply in replies] == list(range(1, 12))
    assert replies[0].document["cursor"]["firstBatch"][0]["ssn"] == "x" * 5_000_000


def test_last_words_to_a_client_that_does_not_read(start_rekeyd, single_member_set):
    """The member has ended; what it said last is for a client that never takes it."""
    with ScriptedUpstream(single_member_set) as upstream:
        limits = {"drain_timeout_ms": 500, "buffer_high_bytes": 64_000_000}
        rekeyd = start_rekeyd(upstream, settings={"limits": limits})
        big = {"ok": 1, "data": b"x" * 16_000_000}
        upstream.answer(lambda r: wire.op_msg(big, response_to=r.request_id), hang_up=True)
        with RawClient(rekeyd.addresses[0]) as client:
            client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
            client.send(wire.op_msg(PING))
            assert "last reply" in rekeyd.wait_event("session_timeout")["reason"]


def test_half_closed_client_that_reads_slowly_gets_everything(start_rekeyd, single_member_set):
    """The time for the member's last words is for silence, not for a large reply."""
    with ScriptedUpstream(single_member_set) as upstream:
        rekeyd = start_rekeyd(upstream, settings={"limits": {"drain_timeout_ms": 3000}})
        big = {"ok": 1, "data": b"x" * 16_000_000}
        upstream.answer(lambda r: wire.op_msg(big, response_to=r.request_id))
        with RawClient(rekeyd.addresses[0]) as client:
            client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
            client.send(wire.op_msg(PING))
            client.end()
            got = 0
            while data := client.socket.recv(200_000):
                got += len(data)
                time.sleep(0.06)
            assert got > 16_000_000


def test_request_that_waits_for_a_key_while_pipeline_max_falls(valve, start_rekeyd, db_name):
    """
    When its key came, the pipeline had become too full for the request: it then waited for a
    place, was taken for one that waits for a key, and was never woken.
    """
    with valve.client() as direct:
        direct[db_name].plain.insert_one({})
    valve.shut()
    rekeyd = start_rekeyd(valve, [people_policy(db_name)])
    sleep = {"find": "plain", "filter": {"$where": "sleep(3000) || true"}, "$db": db_name}
    insert = {"insert": "people", "documents": [{"ssn": "1"}], "$db": db_name}
    with RawClient(rekeyd.addresses[0]) as client:
        send_requests(client, sleep, insert, PING)
        wait_until(lambda: valve.held > 0)
        time.sleep(0.3)
        rekeyd.reload({"limits": {"pipeline_max": 1}})
        rekeyd.wait_event("reloaded")
        valve.open.set()
        replies = [client.receive() for _ in range(3)]
    assert [reply.response_to for reply in replies] == [1, 2, 3]
    assert all(reply.document["ok"] == 1 for reply in replies)


def test_first_request_waits_for_a_key_while_its_member_moves(valve, start_rekeyd, db_name):
    """
    As long as nothing had gone on to the member, a session was led to another one under the request
    that waited; the request was then sent into a connection that was still being made.
    """
    valve.shut()
    rekeyd = start_rekeyd(valve, [people_policy(db_name)])
    members = rekeyd.config["upstream"]["members"]
    with RawClient(rekeyd.addresses[0]) as client, black_hole() as nowhere:
        insert = {"insert": "people", "documents": [{"ssn": "1"}], "$db": db_name}
        send_requests(client, insert)
        wait_until(lambda: valve.held > 0)
        rekeyd.reload({"upstream": {"members": [{**members[0], "address": nowhere}]}})
        rekeyd.wait_event("reloaded")
        time.sleep(0.3)
        valve.open.set()
        assert client.receive().document["ok"] == 1
        assert client.receive() is None


# TLS.


def tls_client(rekeyd, certificates, timeout_s=30):
    client = RawClient(rekeyd.addresses[0], timeout_s=timeout_s)
    client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
    context = ssl.create_default_context(cafile=certificates.ca_file)
    client.socket = context.wrap_socket(client.socket, server_hostname=HOST)
    return client


@pytest.fixture(scope="module")
def tls_mongod(certificates, tmp_path_factory):
    with Mongod(tmp_path_factory.mktemp("tls") / "mongod", certificates=certificates) as mongod:
        yield mongod


@pytest.mark.timeout(90)
@pytest.mark.parametrize("collection", ["people", "plain"])
def test_20_mb_both_ways_over_tls(tls_mongod, certificates, start_rekeyd, db_name, collection):
    rekeyd = start_rekeyd(tls_mongod, [people_policy(db_name)], listener_certificates=certificates)
    halves = [{"_id": i, "ssn": chr(97 + i) * 10_000_000} for i in range(2)]
    with tls_client(rekeyd, certificates) as client:
        insert = {"insert": collection, "$db": db_name}
        answer = client.command(insert, wire.sequence_section("documents", halves))
        assert (answer["n"], answer["ok"]) == (2, 1) and "writeErrors" not in answer
        for pause_s in (0, 0.05):  # the second time with a reader that is slow to begin
            for i in range(2):
                find = {"find": collection, "filter": {"_id": i}, "$db": db_name}
                client.send(wire.op_msg(find, request_id=i))
            time.sleep(pause_s * 20)
            for i in range(2):
                reply = client.receive()
                assert reply.response_to == i
                assert reply.document["cursor"]["firstBatch"] == [halves[i]]


@pytest.mark.timeout(90)
def test_slow_reader_and_pipeline_over_tls(tls_mongod, certificates, start_rekeyd, db_name):
    limits = {"buffer_high_bytes": 65536, "buffer_low_bytes": 4096, "pipeline_max": 16}
    rekeyd = start_rekeyd(
        tls_mongod,
        [people_policy(db_name)],
        settings={"limits": limits},
        listener_certificates=certificates,
    )
    with rekeyd.client() as app:
        app[db_name].people.insert_one({"_id": 1, "ssn": "x" * 100_000})
    find = {"find": "people", "filter": {}, "$db": db_name}
    with tls_client(rekeyd, certificates) as client:
        send_requests(client, *[find, PING] * 200)
        assert read_slowly(client, 400, pause_s=0.001) == list(range(1, 401))
