"""OP_COMPRESSED on either side: what is negotiated, what is on the wire, and that protection and
order are the same as without."""

import random
import time

import bson
import pytest
import wire
from harness import is_envelope, policy
from harness.rekeyd import NEVER_REFRESHED
from pymongo import MongoClient
from pymongo.cursor_shared import CursorType
from tap import Tap
from wire import RawClient

NAMES = ["snappy", "zlib", "zstd"]
NEVER_COMPRESSED = {"hello", "ismaster", "isMaster", "saslStart", "saslContinue"}
SECRET = "4111-plaintext-1111 "
PING = {"ping": 1, "$db": "admin"}


class Client(RawClient):
    """A raw connection that has said hello and compresses with the first of its compressors."""

    def __init__(self, address: str, *compressors: str):
        super().__init__(address)
        self.compressor = compressors[0] if compressors else None
        self.told = self.hello(*compressors).get("compression", [])

    def hello(self, *compressors: str) -> dict:
        return self.command({"hello": 1, "compression": list(compressors), "$db": "admin"})

    def pack(self, message: bytes) -> bytes:
        return wire.compressed(message, self.compressor)

    def ask(self, *sections, **options) -> wire.Message:
        """One compressed request, and the reply as it came."""
        self.send(self.pack(wire.op_msg(*sections, **options)))
        reply = self.receive()
        if reply is None:
            raise ConnectionError("closed instead of answering")
        return reply


class Setup:
    """rekeyd in front of a standalone mongod, with a tap between them."""

    def __init__(self, rekeyd, tap, db_name, direct):
        self.rekeyd, self.tap, self.db_name = rekeyd, tap, db_name
        self.stored = direct[db_name]

    def insert(self, collection, *documents) -> list:
        return [
            {"insert": collection, "$db": self.db_name},
            wire.sequence_section("documents", documents),
        ]

    def find(self, collection, filter_=None, **options) -> dict:
        return {"find": collection, "filter": filter_ or {}, "$db": self.db_name, **options}


@pytest.fixture
def compression(standalone, start_rekeyd, db_name):
    """compression(client=[...], upstream=[...]): a Setup with these settings."""
    taps, clients = [], []

    def start(**settings) -> Setup:
        taps.append(Tap(standalone.address, standalone))
        clients.append(standalone.client())
        fields = {"ssn": "random", "mail": "deterministic"}
        rekeyd = start_rekeyd(
            taps[-1], [policy(f"{db_name}.users", fields)], settings={"compression": settings}
        )
        return Setup(rekeyd, taps[-1], db_name, clients[-1])

    yield start
    for tap, client in zip(taps, clients):
        client.drop_database(db_name)
        client.close()
        tap.close()


def command_name(message: wire.Message) -> str:
    """Of a request; of a reply, its first field."""
    plain = message.plain
    if plain.opcode != wire.OP_MSG:
        return "isMaster"
    return next(iter(plain.body))


def compressors_of(messages) -> set:
    """What they were compressed with, None included, but for requests that never are."""
    return {m.compressor for m in messages if command_name(m) not in NEVER_COMPRESSED}


def replies_to(requests, replies) -> list:
    asked = {m.request_id for m in requests if command_name(m) not in NEVER_COMPRESSED}
    return [m for m in replies if m.response_to in asked]


def large() -> list:
    return [
        {"_id": i, "ssn": SECRET * 100, "mail": f"{i}@example.org", "note": "n" * 3000}
        for i in range(3)
    ]


def work(collection) -> None:
    """What an application does, with every command's answer checked."""
    documents = large()
    assert collection.insert_many(documents).inserted_ids == [0, 1, 2]
    assert list(collection.find().sort("_id")) == documents
    assert list(collection.find(batch_size=1).sort("_id")) == documents
    change = {"$set": {"ssn": "other " + SECRET * 10}}
    assert collection.update_one({"mail": "1@example.org"}, change).modified_count == 1
    assert collection.find_one({"mail": "1@example.org"})["ssn"] == "other " + SECRET * 10
    found = list(collection.aggregate([{"$match": {"mail": "2@example.org"}}]))
    assert found == documents[2:]
    assert sorted(collection.distinct("mail")) == [d["mail"] for d in documents]
    assert collection.delete_many({}).deleted_count == 3


# client, upstream, and what is then used on each side by a client that offers NAMES[i] first.
SIDES = {
    "both": (NAMES, NAMES, lambda mine: (mine, mine)),
    "upstream none": (NAMES, [], lambda mine: (mine, None)),
    "client none": ([], NAMES, lambda mine: (None, None)),
    "neither": ([], [], lambda mine: (None, None)),
}


@pytest.mark.tsan
@pytest.mark.parametrize("sides", SIDES.values(), ids=SIDES)
@pytest.mark.parametrize("mine", NAMES)
def test_driver(compression, mine, sides):
    client_setting, upstream_setting, expected = sides
    setup = compression(client=client_setting, upstream=upstream_setting)
    with Tap(setup.rekeyd.addresses[0]) as front:
        with MongoClient(front.uri, compressors=mine) as client:
            work(client[setup.db_name].users)
            work(client[setup.db_name].plain)
        used = expected(mine)
        for tap, wanted in ((front, used[0]), (setup.tap, used[1])):
            assert compressors_of(tap.requests) == {wanted}
            replies = replies_to(tap.requests, tap.replies)
            # Short ones of Rekey's own are not worth it: compression.message_bytes_min.
            assert compressors_of(m for m in replies if len(m.plain.raw) > 2000) == {wanted}


def test_stored_encrypted(compression):
    setup = compression()
    with setup.rekeyd.client(compressors="zstd") as client:
        client[setup.db_name].users.insert_many(large())
    for document in setup.stored.users.find():
        assert is_envelope(document["ssn"]) and is_envelope(document["mail"])
    assert not any(SECRET.encode() in m.plain.raw for m in setup.tap.requests)


@pytest.mark.tsan
@pytest.mark.parametrize("mine,theirs", [("zlib", "snappy"), ("snappy", "zstd"), ("zstd", "zlib")])
def test_one_compressor_into_another(compression, mine, theirs):
    setup = compression(client=[mine], upstream=[theirs])
    with Client(setup.rekeyd.addresses[0], mine, theirs) as client:
        assert client.told == [mine]
        for collection in ("users", "plain"):
            setup.tap.forget()
            assert client.ask(*setup.insert(collection, *large())).plain.document["n"] == 3
            found = client.ask(setup.find(collection, sort={"_id": 1}))
            assert found.compressor == mine
            assert found.plain.document["cursor"]["firstBatch"] == large()
            assert compressors_of(setup.tap.requests) == {theirs}
            assert compressors_of(setup.tap.replies) == {theirs}


def test_what_no_policy_concerns_goes_on_as_it_came(compression):
    """Byte for byte, in both directions: no second compression, not even an unpacked reply."""
    setup = compression()
    for name in NAMES:
        with Client(setup.rekeyd.addresses[0], name) as client:
            for command in (setup.insert("plain", {"_id": name, "n": "n" * 3000}), [PING]):
                setup.tap.forget()
                request = client.pack(wire.op_msg(*command))
                client.send(request)
                reply = client.receive()
                assert [m.raw for m in setup.tap.requests] == [request]
                assert [m.raw for m in setup.tap.replies] == [reply.raw]
                assert reply.compressor == name


# Negotiation.

OFFERS = {
    "nothing": ([], [], []),
    "one": (["zlib"], ["zlib"], ["zlib"]),
    "the client's order": (["zstd", "zlib", "snappy"],) * 3,
    "unknown ones": (["lz4", "zstd", "noop"], ["zstd"], ["zstd"]),
    "only unknown ones": (["lz4"], [], []),
    "twice": (["zlib", "zlib"], ["zlib"], ["zlib"]),
}


def with_offer(document: dict, names: list) -> dict:
    if "$query" in document:
        return {**document, "$query": with_offer(document["$query"], names)}
    return {**document, "compression": names}


@pytest.mark.parametrize("offered,told,sent", OFFERS.values(), ids=OFFERS)
def test_offers(compression, offered, told, sent):
    setup = compression()
    hello = {"hello": 1, "compression": offered, "$db": "admin"}
    older = {"isMaster": 1, "compression": offered}
    wrapped = {"$query": older, "$readPreference": {"mode": "secondary"}}
    for document, message in (
        (hello, wire.op_msg(hello)),
        (older, wire.op_query("admin.$cmd", older)),
        (wrapped, wire.op_query("admin.$cmd", wrapped)),
    ):
        with RawClient(setup.rekeyd.addresses[0]) as client:
            setup.tap.forget()
            client.send(message)
            reply = client.receive()
            assert reply.document["ok"] == 1
            assert reply.document.get("compression", []) == told
            (request,) = setup.tap.requests
            before, after = bson.encode(document), bson.encode(with_offer(document, sent))
            assert request.payload == message[wire.HEADER.size :].replace(before, after)
            client.send(wire.compressed(wire.op_msg(PING), "zlib"))
            reply = client.receive()
            assert (reply is not None) == ("zlib" in told)


def test_a_later_hello_may_renegotiate(compression):
    """As mongod has it: without a list the former one is told, an empty one ends it."""
    setup = compression(client=["zlib", "zstd"], upstream=["zstd"])
    with Client(setup.rekeyd.addresses[0], "snappy", "zlib", "zstd") as client:
        assert client.told == ["zlib", "zstd"]
        assert client.command({"hello": 1, "$db": "admin"})["compression"] == ["zlib", "zstd"]
        assert client.hello("zstd")["compression"] == ["zstd"]
        assert client.command({"hello": 1, "compression": 5, "$db": "admin"})["code"] == 14
        client.compressor = "zstd"
        assert client.ask(PING).plain.document["ok"] == 1
        assert "compression" not in client.hello()
        assert "compression" not in client.command({"hello": 1, "$db": "admin"})
        assert setup.tap.replies[-1].document.get("compression", []) == []
        with pytest.raises(ConnectionError):
            client.ask(PING)
    assert "not negotiated" in setup.rekeyd.wait_event("session_malformed")["reason"]


def test_reload_counts_for_new_connections(compression):
    setup = compression()
    with Client(setup.rekeyd.addresses[0], "zlib") as before:
        setup.rekeyd.reload({"compression": {"client": ["snappy"], "upstream": []}})
        setup.rekeyd.wait_event("reloaded")
        deadline = time.monotonic() + 10
        while True:  # the workers are told one after the other
            with Client(setup.rekeyd.addresses[0], "zlib", "snappy") as after:
                if after.told == ["snappy"]:
                    break
            assert time.monotonic() < deadline
        assert before.ask(PING).plain.document["ok"] == 1
        assert before.hello("zstd", "zlib")["compression"] == ["zstd", "zlib"]


def test_compressed_hello_is_rewritten(single_member_set, start_rekeyd):
    """mongod takes it, so Rekey does; the addresses are the proxy's as ever."""
    rekeyd = start_rekeyd(single_member_set)
    with Client(rekeyd.addresses[0], "zlib") as client:
        for name in ("hello", "isMaster"):
            told = client.ask({name: 1, "$db": "admin"}).plain.document
            assert told["hosts"] == rekeyd.addresses and told["me"] == rekeyd.addresses[0]
            assert told["compression"] == ["zlib"]
        older = wire.op_query("admin.$cmd", {"isMaster": 1, "compression": ["zlib"]})
        client.send(client.pack(older))
        reply = client.receive().plain
        assert reply.opcode == wire.OP_REPLY
        assert reply.document["hosts"] == rekeyd.addresses


def test_compressed_login(replica_set, start_rekeyd):
    """What mongod says to a compressed saslStart reaches the client."""
    rekeyd = start_rekeyd(replica_set)
    start = {"saslStart": 1, "mechanism": "SCRAM-SHA-256", "payload": b"n,,n=a,r=b", "$db": "admin"}
    with Client(rekeyd.addresses[0], "zstd") as client, Client(replica_set.addresses[0]) as direct:
        reply = client.ask(start)
        assert reply.compressor == "zstd"
        assert reply.plain.document["code"] == direct.command(start)["code"]


# Order, streams, and messages that wait.


@pytest.mark.tsan
def test_pipelined(compression):
    """Compressed or not, protected or not, answered by Rekey or mongod: in order, nothing lost."""
    setup = compression(client=NAMES, upstream=["zlib"])
    rng = random.Random(7)
    with Client(setup.rekeyd.addresses[0], *NAMES) as client:
        sent = []
        for i in range(60):
            collection = rng.choice(("users", "plain"))
            refused = {"find": "users", "filter": {"ssn": "x"}, "$db": setup.db_name}
            document = {"_id": i, "ssn": SECRET * rng.choice((1, 200)), "mail": "m"}
            sections = [refused] if i % 7 == 3 else setup.insert(collection, document)
            message = wire.op_msg(*sections)
            used = rng.choice((None, *NAMES))
            client.send(wire.compressed(message, used) if used else message)
            sent.append((wire.HEADER.unpack_from(message)[1], i % 7 == 3))
        for request_id, refused in sent:
            reply = client.receive()
            assert reply.response_to == request_id
            assert reply.plain.document["ok"] == (0 if refused else 1)
    counted = [setup.stored[name].count_documents({}) for name in ("users", "plain")]
    assert sum(counted) == sum(not refused for _, refused in sent)


@pytest.mark.parametrize("collection", ["users", "plain"])
@pytest.mark.parametrize("upstream", [NAMES, []], ids=["both", "upstream none"])
def test_exhaust(compression, collection, upstream):
    """Each reply's responseTo is the id of the one before; the ids are the outer header's."""
    setup = compression(upstream=upstream)
    documents = [{"_id": i, "ssn": SECRET * 20, "note": "n" * 2000} for i in range(9)]
    with Client(setup.rekeyd.addresses[0], "zstd") as client:
        client.ask(*setup.insert(collection, *documents))
        first = client.ask(setup.find(collection, sort={"_id": 1}, batchSize=2)).plain.document
        seen = first["cursor"]["firstBatch"]
        cursor = {"getMore": first["cursor"]["id"], "collection": collection, "batchSize": 2}
        message = wire.op_msg({**cursor, "$db": setup.db_name}, flags=wire.EXHAUST_ALLOWED)
        client.send(client.pack(message))
        expected, more = wire.HEADER.unpack_from(message)[1], True
        while more:
            reply = client.receive()
            assert reply.response_to == expected and reply.compressor == "zstd"
            expected, more = reply.request_id, bool(reply.plain.flags & wire.MORE_TO_COME)
            seen += reply.plain.body["cursor"]["nextBatch"]
        assert [dict(document) for document in seen] == documents
        assert client.ask(PING).plain.document["ok"] == 1


@pytest.mark.parametrize("name", NAMES)
def test_exhaust_of_a_driver(compression, name):
    setup = compression()
    with setup.rekeyd.client(compressors=name) as client:
        users = client[setup.db_name].users
        users.insert_many([{"_id": i, "ssn": SECRET} for i in range(500)])
        found = users.find(cursor_type=CursorType.EXHAUST, batch_size=50).sort("_id")
        assert [d["_id"] for d in found if d["ssn"] == SECRET] == list(range(500))


@pytest.mark.tsan
def test_held_for_a_key(compression):
    """A compressed message that waits for a key is unpacked again when it is there."""
    setup = compression()
    late = setup.rekeyd.sibling()
    late.config["keys"].update(NEVER_REFRESHED)
    late.write_config()
    with late, Client(late.addresses[0], "snappy") as reader:
        reader.ask(*setup.insert("users", {"_id": 0, "ssn": "a"}))
        setup.rekeyd.ctl("keys", "rotate")
        setup.rekeyd.wait_event("current_key_changed", count=2)
        with Client(setup.rekeyd.addresses[0], "zlib") as writer:
            writer.ask(*setup.insert("users", {"_id": 1, "ssn": SECRET * 200}))
        loaded = len(late.events("key_loaded"))
        reply = reader.ask(setup.find("users", {"_id": 1}))
        assert reply.compressor == "snappy"
        assert reply.plain.document["cursor"]["firstBatch"][0]["ssn"] == SECRET * 200
        late.wait_event("key_loaded", count=loaded + 1)
