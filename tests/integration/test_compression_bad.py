"""Compressed messages as no driver and no mongod sends them: a clear log line, a closed session,
and everyone else goes on. And large ones, which must pass."""

import struct

import bson
import pytest
import wire
from harness import Rekeyd, policy
from wire import RawClient

NAMES = ["snappy", "zlib", "zstd"]
DB = "bad_compression"
MARKER = "4111-plaintext-1111"
PROTECTED = {"find": "users", "filter": {}, "$db": DB}
UNPROTECTED = {"find": "plain", "filter": {}, "$db": DB}
PING = {"ping": 1, "$db": "admin"}
HELLO = {"hello": 1, "compression": NAMES, "$db": "admin"}


def bomb(name: str, mib: int) -> bytes:
    return wire.COMPRESSORS[name][1](bytes(mib << 20))


def nested(message: bytes, name: str) -> bytes:
    return wire.compressed(wire.compressed(message, name), name)


def content(message: bytes, name: str) -> bytes:
    return wire.COMPRESSORS[name][1](message[wire.HEADER.size :])


# What is wrong with a message (m) in a compressor (c), and what the log says of it.
LIES = "not what its head declares"
OUTSIDE = "declared size is outside the limits"
BAD = {
    "one byte more": (lambda m, c: wire.compressed(m, c, size=len(m) - 15), LIES),
    "one byte less": (lambda m, c: wire.compressed(m, c, size=len(m) - 17), LIES),
    "far more": (lambda m, c: wire.compressed(m, c, size=40_000_000), LIES),
    "nothing": (lambda m, c: wire.compressed(m, c, size=0), LIES),
    "negative": (lambda m, c: wire.compressed(m, c, size=-1), OUTSIDE),
    "lowest": (lambda m, c: wire.compressed(m, c, size=-(2**31)), OUTSIDE),
    "highest": (lambda m, c: wire.compressed(m, c, size=2**31 - 1), OUTSIDE),
    "over the limit": (lambda m, c: wire.compressed(m, c, size=47_999_985), OUTSIDE),
    "bomb": (lambda m, c: wire.compressed(m, c, content=bomb(c, 100)), LIES),
    "cut short": (lambda m, c: wire.compressed(m, c, content=content(m, c)[:-3]), LIES),
    "empty": (lambda m, c: wire.compressed(m, c, content=b""), LIES),
    "trailing": (lambda m, c: wire.compressed(m, c, content=content(m, c) + b"xxxx"), LIES),
    "noise": (lambda m, c: wire.compressed(m, c, content=b"\xa5" * 40), LIES),
    "unknown id": (lambda m, c: wire.compressed(m, c, id=4), "unknown compressor"),
    "id 255": (lambda m, c: wire.compressed(m, c, id=255), "unknown compressor"),
    "nested": (nested, "inside a compressed message"),
    "only a header": (lambda m, c: wire.frame(b"", wire.OP_COMPRESSED), "shorter than its head"),
    "half a head": (
        lambda m, c: wire.frame(struct.pack("<i", wire.OP_MSG), wire.OP_COMPRESSED),
        "shorter than its head",
    ),
}


def start(upstream, directory):
    policies = [policy(f"{DB}.users", {"ssn": "random"})]
    return Rekeyd(upstream, policies, directory=directory)


@pytest.fixture(scope="module")
def rekeyd(single_member_set, tmp_path_factory):
    with start(single_member_set, tmp_path_factory.mktemp("real")) as rekeyd:
        yield rekeyd


@pytest.fixture(scope="module")
def rekeyd_of_script(upstream, tmp_path_factory):
    with start(upstream, tmp_path_factory.mktemp("scripted")) as rekeyd:
        yield rekeyd


def connect(rekeyd) -> RawClient:
    client = RawClient(rekeyd.addresses[0], timeout_s=20)
    assert client.command(HELLO)["compression"] == NAMES
    return client


def ask(client, name, *sections, **options) -> dict:
    client.send(wire.compressed(wire.op_msg(*sections, **options), name))
    return client.receive().plain.document


@pytest.mark.tsan
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("make,why", BAD.values(), ids=BAD)
def test_from_a_client(rekeyd, make, why, name):
    before = len(rekeyd.events("session_malformed"))
    with connect(rekeyd) as other, connect(rekeyd) as client:
        client.send(make(wire.op_msg(PING), name))
        assert client.receive() is None
        logged = rekeyd.wait_event("session_malformed", before + 1)["reason"]
        assert logged.startswith("client sent a compressed message") and why in logged
        assert ask(other, name, PING)["ok"] == 1
    rekeyd.check()


@pytest.mark.parametrize("name", NAMES)
def test_cut_off(rekeyd, name):
    """The connection ends within a compressed message."""
    message = wire.compressed(wire.op_msg(PING), name)
    for kept in (4, 16, 20, 24, 25, 26, len(message) - 1):
        with connect(rekeyd) as client:
            client.send(message[:kept])
            client.end()
            assert client.receive_all() == b""
    rekeyd.check()


def test_noop_cannot_be_negotiated(rekeyd):
    """mongod does not take it either."""
    message = wire.op_msg(PING)
    with connect(rekeyd) as client:
        client.send(wire.compressed(message, "zlib", content=message[16:], id=0))
        assert client.receive() is None


def test_head_alone_allocates_nothing(rekeyd):
    """The largest size there may be, declared by many and followed by nothing."""
    before = rekeyd.memory_kb()
    clients = [connect(rekeyd) for _ in range(30)]
    head = wire.compressed(wire.op_msg(PING), "zlib", size=47_000_000, length=40_000_000)[:25]
    for client in clients:
        client.send(head)
    with connect(rekeyd) as client:
        assert ask(client, "zlib", PING)["ok"] == 1
    grown = rekeyd.memory_kb() - before
    for client in clients:
        client.close()
    assert grown < 60 * 1024


# Checksums.


def crc32c(data: bytes) -> int:
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = (crc >> 1) ^ (0x82F63B78 & -(crc & 1))
    return crc ^ 0xFFFFFFFF


def with_checksum(message: bytes, wrong=0) -> bytes:
    flags = struct.unpack_from("<I", message, 16)[0] | wire.CHECKSUM_PRESENT
    head = struct.pack("<i", len(message) + 4) + message[4:16] + struct.pack("<I", flags)
    message = head + message[20:]
    return message + struct.pack("<I", crc32c(message) ^ wrong)


@pytest.mark.parametrize("name", NAMES)
def test_checksum_inside(rekeyd, name):
    documents = wire.sequence_section("documents", [{"ssn": MARKER}])
    message = wire.op_msg({"insert": "users", "$db": DB}, documents)
    with connect(rekeyd) as client:
        client.send(wire.compressed(with_checksum(message), name))
        assert client.receive().plain.document["n"] == 1
        client.send(wire.compressed(with_checksum(message, wrong=1), name))
        assert client.receive() is None
    assert "checksum" in rekeyd.wait_event("session_malformed")["reason"]


# Without a reply.


@pytest.mark.parametrize("name", NAMES)
def test_unacknowledged(rekeyd, single_member_set, name):
    collection = f"w0_{name}"
    with connect(rekeyd) as client, single_member_set.client() as direct:
        for i in range(50):
            documents = wire.sequence_section("documents", [{"_id": i, "ssn": MARKER * 100}])
            insert = {"insert": "users", "$db": DB, "writeConcern": {"w": 0}}
            if i % 2:
                insert["insert"] = collection
            message = wire.op_msg(insert, documents, flags=wire.MORE_TO_COME)
            client.send(wire.compressed(message, name))
        refused = {"update": "users", "$db": DB, "writeConcern": {"w": 0}}
        change = {"q": {}, "u": {"$push": {"ssn": MARKER}}}
        updates = wire.sequence_section("updates", [change])
        message = wire.op_msg(refused, updates, flags=wire.MORE_TO_COME)
        client.send(wire.compressed(message, name))
        assert ask(client, name, PING)["ok"] == 1
        rekeyd.wait_event("unacknowledged_request_dropped")
        assert direct[DB][collection].count_documents({}) == 25
        assert direct[DB].users.find_one({"ssn": {"$type": "string"}}) is None
        direct.drop_database(DB)


# Large messages.


@pytest.mark.parametrize("name", NAMES)
def test_large_documents(rekeyd, single_member_set, name):
    """Close to what mongod takes, protected and not, in and out."""
    try:
        with rekeyd.client(compressors=name) as client:
            for collection in (client[DB].users, client[DB].plain):
                document = {"_id": 1, "ssn": "s" * 12_000_000, "note": "n" * 4_000_000}
                collection.insert_one(document)
                assert collection.find_one() == document
    finally:
        with single_member_set.client() as direct:
            direct.drop_database(DB)
    rekeyd.check()


@pytest.mark.tsan
def test_many_large_messages_in_one_read(single_member_set, start_rekeyd):
    """A few kilobytes that are 150 MB inside: they wait for mongod, and the session lives."""
    rekeyd = start_rekeyd(single_member_set, settings={"compression": {"upstream": []}})
    note = "n" * 15_000_000
    batch = b""
    for i in range(10):
        documents = wire.sequence_section("documents", [{"_id": i, "note": note}])
        insert = {"insert": "flood", "$db": DB, "writeConcern": {"w": 0}}
        message = wire.op_msg(insert, documents, flags=wire.MORE_TO_COME)
        batch += wire.compressed(message, "zstd")
    assert len(batch) < 128 * 1024
    with connect(rekeyd) as client, single_member_set.client() as direct:
        client.send(batch)
        assert ask(client, "zstd", PING)["ok"] == 1
        assert direct[DB].flood.count_documents({}) == 10
        direct.drop_database(DB)


# From an upstream.


def answer_to(request, document) -> bytes:
    return wire.op_msg(wire.body_section(document), response_to=request.request_id)


def batch_of(collection, *documents) -> dict:
    cursor = {"id": bson.Int64(0), "ns": f"{DB}.{collection}", "firstBatch": list(documents)}
    return {"cursor": cursor, "ok": 1.0}


def hello_reply(request) -> bytes:
    return answer_to(request, {"ok": 1.0, "maxWireVersion": 17, "compression": NAMES})


def scripted(upstream, reply):
    """hello is answered well, everything else by reply."""

    def script(request):
        said_hello = "hello" in request.plain.document
        return hello_reply(request) if said_hello else reply(request)

    upstream.answer(script)


@pytest.mark.tsan
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("make,why", BAD.values(), ids=BAD)
def test_from_an_upstream(rekeyd_of_script, upstream, make, why, name):
    rekeyd = rekeyd_of_script
    before = len(rekeyd.events("session_malformed"))

    def bad(request):
        message = make(answer_to(request, batch_of("users", {"n": MARKER})), name)
        head = wire.HEADER.unpack_from(message)
        return wire.frame(message[16:], head[3], head[1], request.request_id)

    scripted(upstream, lambda request: answer_to(request, {"ok": 1.0}))
    with connect(rekeyd) as other:
        scripted(upstream, bad)
        with connect(rekeyd) as client:
            client.send(wire.compressed(wire.op_msg(PROTECTED), name))
            assert client.receive() is None
        logged = rekeyd.wait_event("session_malformed", before + 1)["reason"]
        assert logged.startswith("upstream sent a compressed message") and why in logged
        assert ask(other, name, PING)["ok"] == 1
    assert MARKER not in rekeyd.logs()
    rekeyd.check()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("id_", [0, *(wire.COMPRESSORS[name][0] for name in NAMES)])
def test_member_answers_in_another_compressor(rekeyd_of_script, upstream, name, id_):
    """Whatever it takes, it is read: a plain client, or one of another compressor, is served."""
    pack = {0: bytes, **{i: pack for i, pack, _ in wire.COMPRESSORS.values()}}[id_]
    wanted = batch_of("users", {"_id": 1, "note": "n" * 5000})

    def other(request):
        message = answer_to(request, wanted)
        return wire.compressed(message, "zlib", content=pack(message[16:]), id=id_)

    scripted(upstream, other)
    with connect(rekeyd_of_script) as client:
        assert client.command({**HELLO, "compression": [name]})["compression"] == [name]
        for command in (PROTECTED, UNPROTECTED):
            client.send(wire.compressed(wire.op_msg(command), name))
            reply = client.receive()
            assert reply.compressor in (name, None)
            assert reply.plain.document == wanted
            assert client.command({**HELLO, "compression": []})["ok"] == 1
            client.send(wire.op_msg(command))
            reply = client.receive()
            assert reply.compressor is None and reply.document == wanted
            assert client.command({**HELLO, "compression": [name]})["ok"] == 1
