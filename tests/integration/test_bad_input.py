"""What a client may send that no driver does: each ends in an error or a closed connection, rekeyd
goes on, and nothing of it reaches the disk."""

import itertools
import os
import random
import struct

import bson
import pytest
import wire
from harness import Rekeyd, policy
from wire import RawClient

DB = "bad_input"
MARKER = "4111-plaintext-1111"
GOOD_FIELDS = (wire.element(0x10, "n", b"\1\0\0\0"), wire.string("ssn", MARKER))
INSERT = {"insert": "users", "$db": DB}
ids = itertools.count(1)


@pytest.fixture(scope="module")
def rekeyd(single_member_set, tmp_path_factory):
    policies = [policy(f"{DB}.users", {"ssn": "random", "mail": "deterministic"})]
    directory = tmp_path_factory.mktemp("bad-input")
    with Rekeyd(single_member_set, policies, directory=directory) as rekeyd:
        yield rekeyd


@pytest.fixture
def direct(single_member_set):
    with single_member_set.client() as client:
        yield client[DB].users


@pytest.fixture(autouse=True)
def goes_on(rekeyd, direct):
    """After every test: rekeyd is well, serves the next client, and stored no plaintext."""
    yield
    rekeyd.check()
    assert rekeyd.alive
    with RawClient(rekeyd.addresses[0]) as client:
        document = {"_id": next(ids), "ssn": MARKER}
        assert client.command(INSERT, wire.sequence_section("documents", [document]))["n"] == 1
        found = client.command({"find": "users", "filter": {"_id": document["_id"]}, "$db": DB})
        assert found["cursor"]["firstBatch"] == [document]
    assert direct.find_one({"ssn": {"$type": "string"}}) is None
    assert MARKER not in rekeyd.logs()


def talk(rekeyd, data: bytes) -> list:
    """Sends data and an end, returns the messages that came back before the connection closed."""
    with RawClient(rekeyd.addresses[0]) as client:
        client.send(data)
        client.end()
        return wire.messages(client.receive_all())


def is_error(message) -> bool:
    document = message.document
    return not document.get("ok") or "writeErrors" in document


def insert(document, collection="users", **options) -> bytes:
    command = {**INSERT, "insert": collection}
    return wire.op_msg(command, wire.sequence_section("documents", [document]), **options)


def document(**fields) -> dict:
    return {"_id": next(ids), "ssn": MARKER, **fields}


BAD_LENGTHS = {
    "zero": 0,
    "15": 15,
    "negative": -1,
    "lowest": -(2**31),
    "one over the limit": wire.MESSAGE_BYTES_MAX + 1,
    "INT32_MAX": wire.INT32_MAX,
    "more than is sent": 4000,
    "less than is sent": 40,
    "only the header": 16,
}


@pytest.mark.tsan
@pytest.mark.parametrize("length", BAD_LENGTHS.values(), ids=BAD_LENGTHS)
@pytest.mark.parametrize("collection", ["users", "unprotected"])
def test_lying_message_length(rekeyd, collection, length):
    assert all(map(is_error, talk(rekeyd, insert(document(), collection, length=length))))


@pytest.mark.parametrize("kept", [1, 3, 4, 15, 16, 19, 20, 21, 40, -1])
def test_truncated_message(rekeyd, direct, kept):
    whole = document()
    assert talk(rekeyd, insert(whole)[:kept]) == []
    assert direct.find_one({"_id": whole["_id"]}) is None


def test_message_that_arrives_byte_by_byte(rekeyd):
    """The opposite of bad: it must work."""
    with RawClient(rekeyd.addresses[0]) as client:
        for byte in insert(document()):
            client.send(bytes([byte]))
        assert client.receive().document["n"] == 1


def odd_sections() -> dict:
    users = wire.sequence_section
    body, one = wire.body_section(INSERT), [{"_id": next(ids), "ssn": MARKER}]
    good = users("documents", one)
    return {
        "no sections": [],
        "no body": [good],
        "two bodies": [body, body, good],
        "unknown kind": [body, b"\2" + good[1:]],
        "sequence size too long": [body, users("documents", one, size=4000)],
        "sequence size too short": [body, users("documents", one, size=12)],
        "sequence size 4": [body, users("documents", one, size=4)],
        "sequence size negative": [body, users("documents", one, size=-1)],
        "sequence cut short": [body, good[:4]],
        "identifier without end": [body, b"\1" + struct.pack("<i", 13) + b"documents"],
        "identifier twice": [body, good, good],
        "17 sequences": [body, good] + [users(f"s{i}", []) for i in range(17)],
        "unknown sequence": [body, users("dokuments", one)],
        "documents in body and sequence": [wire.body_section({**INSERT, "documents": one}), good],
        "nothing in the sequence": [body, users("documents", [])],
    }


ODD_SECTIONS = odd_sections()


@pytest.mark.parametrize("sections", ODD_SECTIONS.values(), ids=ODD_SECTIONS)
def test_odd_sections(rekeyd, sections):
    assert all(map(is_error, talk(rekeyd, wire.op_msg(*sections))))


@pytest.mark.parametrize("flag", [1 << bit for bit in range(2, 16)])
def test_unknown_required_flag(rekeyd, flag):
    assert all(map(is_error, talk(rekeyd, insert(document(), flags=flag))))


@pytest.mark.tsan
@pytest.mark.parametrize("broken", wire.broken_documents().keys())
@pytest.mark.parametrize("where", ["sequence", "body", "$set", "filter"])
def test_invalid_bson(rekeyd, where, broken):
    bad = wire.broken_documents(*GOOD_FIELDS)[broken]
    one = wire.raw_document(wire.element(0x03, "0", bad))
    update = wire.element(0x03, "u", wire.raw_document(wire.element(0x03, "$set", bad)))
    message = {
        "sequence": lambda: insert(bad),
        "body": lambda: wire.op_msg(command("insert", wire.element(0x04, "documents", one))),
        "$set": lambda: wire.op_msg(
            wire.body_section({"update": "users", "$db": DB}),
            wire.sequence_section(
                "updates", [wire.raw_document(wire.element(0x03, "q", bson.encode({})), update)]
            ),
        ),
        "filter": lambda: wire.op_msg(command("find", wire.element(0x03, "filter", bad))),
    }[where]()
    assert all(map(is_error, talk(rekeyd, message)))


def command(name: str, *elements: bytes) -> bytes:
    """A body section with elements that may be broken in front of $db."""
    first, last = wire.string(name, "users"), wire.string("$db", DB)
    return wire.body_section(wire.raw_document(first, *elements, last))


@pytest.mark.parametrize("depth", [150, 200, 201, 255, 256, 300, 5000])
@pytest.mark.parametrize("where", ["unprotected", "protected", "filter"])
def test_deep_nesting(rekeyd, where, depth):
    """An answer may be yes or no; that nothing protected is stored is checked after every test."""
    deep = wire.nested(depth, bson.encode({"b": 1}))
    if where == "filter":
        replies = talk(rekeyd, wire.op_msg(command("find", wire.element(0x03, "filter", deep))))
    else:
        key = "ssn" if where == "protected" else "other"
        fields = (wire.element(0x10, "_id", struct.pack("<i", next(ids))), *GOOD_FIELDS[:1])
        replies = talk(rekeyd, insert(wire.raw_document(*fields, wire.element(0x03, key, deep))))
    if depth >= 256:
        assert all(map(is_error, replies))


@pytest.mark.parametrize(
    "fields",
    [
        {"insert": "users"},
        {"insert": "users", "$db": 7},
        {"insert": "users", "$db": ""},
        {"insert": "users", "$db": DB + "\0x"},
        {"insert": "users", "$db": "x" * 300},
        {"insert": 7, "$db": DB},
        {"insert": "", "$db": DB},
        {"insert": "u" * 400, "$db": DB},
        {"insert": ["users"], "$db": DB},
        {"$db": DB, "insert": "users"},
        {"insert": "users", "$db": DB, "documents": MARKER},
        {"insert": "users", "$db": DB, "documents": [MARKER]},
        {"insert": "users", "$db": DB, "documents": {"0": 5}},
        {"": "users", "$db": DB},
        {},
    ],
    ids=str,
)
def test_malformed_command(rekeyd, fields):
    sections = [] if "documents" in fields else [wire.sequence_section("documents", [document()])]
    assert all(map(is_error, talk(rekeyd, wire.op_msg(fields, *sections))))


def test_second_db_does_not_hide_the_first(rekeyd, direct):
    """Where two readers of one message could differ about the namespace."""
    one = document()
    documents = wire.sequence_section("documents", [one])
    doubled = [("$db", DB), ("$db", "elsewhere"), ("insert", "users"), ("insert", "plain")]
    for fields in itertools.permutations(doubled, 3):
        if fields[0][0] == "insert":
            body = wire.raw_document(*(wire.string(*field) for field in fields))
            talk(rekeyd, wire.op_msg(wire.body_section(body), documents))
    assert direct.find_one({"_id": one["_id"], "ssn": MARKER}) is None


def older_opcodes() -> dict:
    namespace = f"{DB}.users".encode() + b"\0"
    one = bson.encode({"_id": next(ids), "ssn": MARKER})
    flags, none = struct.pack("<i", 0), bson.encode({})
    with_one = {**INSERT, "documents": [bson.decode(one)]}
    return {
        "OP_INSERT": wire.frame(flags + namespace + one, wire.OP_INSERT),
        "OP_UPDATE": wire.frame(flags + namespace + flags + none + one, wire.OP_UPDATE),
        "OP_DELETE": wire.frame(flags + namespace + flags + none, wire.OP_DELETE),
        "OP_QUERY": wire.op_query(f"{DB}.users", {}),
        "OP_QUERY $cmd insert": wire.op_query(f"{DB}.$cmd", with_one),
        "OP_QUERY without end": wire.frame(flags + b"bad_input.users", wire.OP_QUERY),
        "OP_QUERY cut short": wire.op_query("admin.$cmd", {"isMaster": 1})[:-4],
        "OP_QUERY of invalid BSON": wire.op_query("admin.$cmd", b"\x20\0\0\0\x02x\0\0"),
        "OP_GET_MORE": wire.frame(flags + namespace + bytes(12), wire.OP_GET_MORE),
        "OP_KILL_CURSORS": wire.frame(flags + b"\1\0\0\0" + bytes(8), wire.OP_KILL_CURSORS),
        "OP_REPLY": wire.frame(bytes(20) + one, wire.OP_REPLY),
        "OP_COMPRESSED": wire.frame(
            struct.pack("<iiB", wire.OP_MSG, 50, 2) + one, wire.OP_COMPRESSED
        ),
        "unknown": wire.frame(b"\0" * 40, 4242),
        "negative": wire.frame(b"\0" * 40, -1),
    }


OLDER_OPCODES = older_opcodes()


@pytest.mark.parametrize("message", OLDER_OPCODES.values(), ids=OLDER_OPCODES)
def test_other_opcodes(rekeyd, message):
    assert all(map(is_error, talk(rekeyd, message)))


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
        bytes.fromhex("16030100c8010000c40303") + bytes(200),
        b"\0" * 4096,
        b"\xff" * 4096,
        b"",
    ],
    ids=["HTTP", "TLS", "zeros", "ones", "nothing"],
)
def test_another_protocol(rekeyd, data):
    assert talk(rekeyd, data) == []


def test_mutated_messages(rekeyd):
    """Bytes of good commands changed at random: whatever comes of it, rekeyd goes on."""
    seed = int(os.environ.get("REKEY_SEED", random.randrange(1 << 32)))
    print(f"REKEY_SEED={seed}")
    rng = random.Random(seed)
    change = {"q": {"_id": 1}, "u": {"$set": {"ssn": "x", "other.path": [1, {"a": None}]}}}
    good = [
        insert({"_id": 1, "ssn": "x", "mail": {"a": [1, 2.5, True]}}),
        wire.op_msg(
            {"update": "users", "$db": DB}, wire.sequence_section("updates", [change, change])
        ),
        wire.op_msg({"find": "users", "filter": {"mail": {"$in": ["a", "b"]}}, "$db": DB}),
        wire.op_query("admin.$cmd", {"isMaster": 1, "client": {"application": {"name": "x"}}}),
    ]
    for _ in range(200):
        message = bytearray(rng.choice(good))
        for _ in range(rng.randint(1, 4)):
            # The length stays as it is in most: a wrong one ends the matter at once.
            position = rng.randrange(4 if rng.random() < 0.9 else 0, len(message))
            message[position] = rng.choice((0, 1, 0x7F, 0x80, 0xFF, rng.randrange(256)))
        talk(rekeyd, bytes(message))
