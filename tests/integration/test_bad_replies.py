"""What an upstream may send that no mongod does: each ends in an error or a closed connection,
rekeyd goes on, and no half-read plaintext gets out."""

import os
import random
import struct

import bson
import pytest
import wire
from bson.binary import Binary
from harness import Rekeyd, policy
from wire import RawClient

DB = "bad_replies"
MARKER = "4111-plaintext-1111"
SUBTYPE = 0x8E
MAGIC = b"RK\xe1\x1e"
KEY_ID, FIELD_ID = 8, 12  # offsets in an envelope
PROTECTED = {"find": "users", "filter": {}, "$db": DB}
UNPROTECTED = {"find": "plain", "filter": {}, "$db": DB}


@pytest.fixture(scope="module")
def rekeyd(upstream, tmp_path_factory):
    policies = [policy(f"{DB}.users", {"ssn": "random"})]
    with Rekeyd(upstream, policies, directory=tmp_path_factory.mktemp("bad-replies")) as rekeyd:
        yield rekeyd


@pytest.fixture(scope="module")
def envelope(rekeyd, upstream) -> bytes:
    """MARKER as rekeyd encrypts it, caught on its way to the disk."""
    caught = []

    def catch(request):
        caught.append(request.raw)
        return answer_to(request, {"n": 1, "ok": 1})

    upstream.answer(catch)
    with RawClient(rekeyd.addresses[0]) as client:
        documents = wire.sequence_section("documents", [{"_id": 1, "ssn": MARKER}])
        assert client.command({"insert": "users", "$db": DB}, documents)["ok"] == 1
    (raw,) = caught
    assert MARKER.encode() not in raw
    start = raw.index(bytes([SUBTYPE]) + MAGIC) - 4
    (length,) = struct.unpack_from("<i", raw, start)
    return raw[start + 5 : start + 5 + length]


@pytest.fixture(autouse=True)
def goes_on(rekeyd, upstream, envelope):
    """After every test: rekeyd is well and decrypts the next client's good reply."""
    yield
    rekeyd.check()
    assert rekeyd.alive
    upstream.answer(lambda request: found(request, {"ssn": Binary(envelope, SUBTYPE)}))
    with RawClient(rekeyd.addresses[0]) as client:
        assert client.command(PROTECTED)["cursor"]["firstBatch"] == [{"ssn": MARKER}]
    assert MARKER not in rekeyd.logs()


def answer_to(request, document, **header) -> bytes:
    header.setdefault("response_to", request.request_id)
    return wire.op_msg(wire.body_section(document), **header)


def find_reply(document) -> bytes:
    """The BSON of a find's reply with this document, which may be broken."""
    batch = wire.element(0x03, "0", wire.encoded(document))
    cursor = wire.raw_document(
        wire.element(0x12, "id", bytes(8)),
        wire.element(0x02, "ns", struct.pack("<i", 18) + b"bad_replies.users\0"),
        wire.element(0x04, "firstBatch", wire.raw_document(batch)),
    )
    ok = wire.element(0x01, "ok", struct.pack("<d", 1))
    return wire.raw_document(wire.element(0x03, "cursor", cursor), ok)


def found(request, document, **header) -> bytes:
    return answer_to(request, find_reply(document), **header)


def ask(rekeyd, command: dict) -> bytes:
    """Sends a command; everything that came back until the connection closed."""
    with RawClient(rekeyd.addresses[0]) as client:
        client.send(wire.op_msg(command))
        client.end()
        return client.receive_all()


def ask_for_one(rekeyd, command: dict):
    """Sends a command; its reply, or None when the connection was closed instead."""
    with RawClient(rekeyd.addresses[0]) as client:
        client.send(wire.op_msg(command))
        return client.receive()


def refused(reply) -> bool:
    return reply is None or reply.document["ok"] == 0


def envelope_field(envelope: bytes) -> bytes:
    head = struct.pack("<iB", len(envelope), SUBTYPE)
    return wire.element(0x05, "ssn", head + envelope)


BAD_FRAMES = {
    "length zero": lambda q, d: found(q, d, length=0),
    "length 15": lambda q, d: found(q, d, length=15),
    "length negative": lambda q, d: found(q, d, length=-1),
    "length one over the limit": lambda q, d: found(q, d, length=wire.MESSAGE_BYTES_MAX + 1),
    "length INT32_MAX": lambda q, d: found(q, d, length=wire.INT32_MAX),
    "length less than is sent": lambda q, d: found(q, d, length=40),
    "length more than is sent": lambda q, d: found(q, d, length=4000),
    "length of the limit": lambda q, d: found(q, d, length=wire.MESSAGE_BYTES_MAX),
    "header only": lambda q, d: found(q, d, length=16),
    "cut in the length": lambda q, d: found(q, d)[:3],
    "cut in the header": lambda q, d: found(q, d)[:12],
    "cut in the flags": lambda q, d: found(q, d)[:18],
    "cut in the body": lambda q, d: found(q, d)[:-1],
    "nothing": lambda q, d: b"",
    "answer to another request": lambda q, d: found(q, d, response_to=q.request_id + 1),
    "answer to none": lambda q, d: found(q, d, response_to=0),
    "opcode unknown": lambda q, d: wire.frame(
        found(q, d)[16:], 4242, response_to=q.request_id
    ),
    "opcode of a request": lambda q, d: wire.op_query(
        "bad_replies.users", d, response_to=q.request_id
    ),
    "compressed": lambda q, d: wire.frame(
        struct.pack("<iiB", wire.OP_MSG, 100, 2) + bytes(60),
        wire.OP_COMPRESSED,
        response_to=q.request_id,
    ),
}


@pytest.mark.tsan
@pytest.mark.parametrize("make", BAD_FRAMES.values(), ids=BAD_FRAMES)
@pytest.mark.parametrize("command", [PROTECTED, UNPROTECTED], ids=["protected", "unprotected"])
def test_bad_frame(rekeyd, upstream, envelope, command, make):
    document = {"ssn": Binary(envelope, SUBTYPE)}
    upstream.answer(lambda request: make(request, document), hang_up=True)
    data = ask(rekeyd, command)
    assert MARKER.encode() not in data
    if command is PROTECTED:
        assert all(map(refused, wire.messages(data)))


ODD_SECTIONS = {
    "no sections": lambda body: [],
    "two bodies": lambda body: [body, body],
    "unknown kind": lambda body: [body, b"\2"],
    "no body": lambda body: [wire.sequence_section("documents", [])],
    "sequence size lies": lambda body: [body, wire.sequence_section("x", [], size=4000)],
    "sequence cut short": lambda body: [body, b"\1\0"],
}


@pytest.mark.parametrize("make", ODD_SECTIONS.values(), ids=ODD_SECTIONS)
def test_odd_sections(rekeyd, upstream, envelope, make):
    body = wire.body_section(find_reply({"ssn": Binary(envelope, SUBTYPE)}))
    upstream.answer(lambda request: wire.op_msg(*make(body), response_to=request.request_id))
    assert refused(ask_for_one(rekeyd, PROTECTED))


@pytest.mark.parametrize("flags", [1, 4, 1 << 15])
def test_bad_flags(rekeyd, upstream, envelope, flags):
    """A checksum that is none, and bits that change what follows in a way nobody knows."""
    document = {"ssn": Binary(envelope, SUBTYPE)}
    upstream.answer(lambda request: found(request, document, flags=flags))
    assert refused(ask_for_one(rekeyd, PROTECTED))


@pytest.mark.tsan
@pytest.mark.parametrize("broken", wire.broken_documents().keys())
def test_invalid_bson_behind_an_envelope(rekeyd, upstream, envelope, broken):
    document = wire.broken_documents(envelope_field(envelope))[broken]
    upstream.answer(lambda request: found(request, document))
    assert refused(ask_for_one(rekeyd, PROTECTED))


@pytest.mark.parametrize("broken", wire.broken_documents().keys())
def test_invalid_bson_of_an_unprotected_namespace_passes(rekeyd, upstream, broken):
    """Bytes that concern no policy are not even looked at."""
    sent = []

    def script(request):
        sent.append(found(request, wire.broken_documents()[broken]))
        return sent[0]

    upstream.answer(script)
    assert [ask_for_one(rekeyd, UNPROTECTED).raw] == sent


@pytest.mark.parametrize("depth", [150, 190, 195, 200, 250, 256, 300, 20000])
def test_deep_nesting(rekeyd, upstream, envelope, depth):
    document = wire.nested(depth, wire.raw_document(envelope_field(envelope)))
    upstream.answer(lambda request: found(request, document))
    reply = ask_for_one(rekeyd, PROTECTED)
    decrypted = reply is not None and MARKER.encode() in reply.raw
    assert decrypted != refused(reply)
    if depth < 195:
        assert decrypted
    if depth > 255:
        assert not decrypted


def changed(envelope: bytes, position: int) -> bytes:
    return envelope[:position] + bytes([envelope[position] ^ 1]) + envelope[position + 1 :]


BAD_ENVELOPES = {
    "magic only": lambda e: MAGIC,
    "header only": lambda e: e[:20],
    "cut in the header": lambda e: e[:13],
    "last byte missing": lambda e: e[:-1],
    "one byte more": lambda e: e + b"\0",
    "unknown version": lambda e: e[:4] + b"\x63" + e[5:],
    "unknown algorithm": lambda e: e[:5] + b"\x63" + e[6:],
    "the other algorithm": lambda e: e[:5] + b"\2" + e[6:],
    "other BSON type": lambda e: e[:6] + b"\x10" + e[7:],
    "unknown BSON type": lambda e: e[:6] + b"\x42" + e[7:],
    "unknown flags": lambda e: e[:7] + b"\xff" + e[8:],
    "key 0": lambda e: e[:KEY_ID] + bytes(4) + e[KEY_ID + 4 :],
    "other field": lambda e: changed(e, FIELD_ID),
    "other time": lambda e: changed(e, 16),
    "other nonce": lambda e: changed(e, 20),
    "other ciphertext": lambda e: changed(e, 44),
    "other tag": lambda e: changed(e, len(e) - 1),
}


@pytest.mark.tsan
@pytest.mark.parametrize("make", BAD_ENVELOPES.values(), ids=BAD_ENVELOPES)
def test_bad_envelope(rekeyd, upstream, envelope, make):
    """An error that names the namespace and the path, in place of the data."""
    document = {"ssn": Binary(make(envelope), SUBTYPE)}
    upstream.answer(lambda request: found(request, document))
    error = ask_for_one(rekeyd, PROTECTED).document
    assert error["ok"] == 0
    assert f"{DB}.users" in error["errmsg"] and "ssn" in error["errmsg"]


@pytest.mark.parametrize("key_id", [4242, 2**32 - 1])
def test_unknown_key(rekeyd, upstream, envelope, key_id):
    """Told in the place of the value."""
    other = envelope[:KEY_ID] + struct.pack(">I", key_id) + envelope[KEY_ID + 4 :]
    upstream.answer(lambda request: found(request, {"ssn": Binary(other, SUBTYPE), "n": 1}))
    body = ask_for_one(rekeyd, PROTECTED).document
    told = {"rekeyError": "key missing", "keyId": key_id}
    assert body["cursor"]["firstBatch"] == [{"ssn": told, "n": 1}]


NO_ENVELOPES = {
    "other subtype": lambda e: Binary(e, 0),
    "other magic": lambda e: Binary(b"RK\0\0" + e[4:], SUBTYPE),
    "magic cut short": lambda e: Binary(MAGIC[:3], SUBTYPE),
    "empty": lambda e: Binary(b"", SUBTYPE),
    "mark inside a binary": lambda e: Binary(b"x" + bytes([SUBTYPE]) + e, 0),
}


@pytest.mark.parametrize("make", NO_ENVELOPES.values(), ids=NO_ENVELOPES)
def test_what_only_looks_like_an_envelope_passes(rekeyd, upstream, envelope, make):
    document = {"ssn": make(envelope), "other": MARKER}
    upstream.answer(lambda request: found(request, document))
    assert find_reply(document) == bytes(ask_for_one(rekeyd, PROTECTED).body.raw)


@pytest.mark.parametrize(
    "greeting", [b"HTTP/1.1 400 Bad Request\r\n\r\n", bytes(64), wire.op_msg({"ok": 1})]
)
def test_upstream_that_speaks_first(rekeyd, upstream, greeting):
    upstream.answer(lambda request: b"", greeting=greeting)
    assert ask(rekeyd, PROTECTED) == b""


@pytest.mark.parametrize("command", [PROTECTED, UNPROTECTED], ids=["protected", "unprotected"])
def test_two_replies_to_one_request(rekeyd, upstream, command):
    one = {"_id": 1}
    upstream.answer(lambda request: found(request, one) + found(request, one))
    assert len(wire.messages(ask(rekeyd, command))) <= 1


def test_stream_of_replies_that_nobody_asked_for(rekeyd, upstream, envelope):
    """moreToCome without exhaustAllowed: whatever gets through is a decrypted reply."""
    document = {"ssn": Binary(envelope, SUBTYPE)}
    upstream.answer(
        lambda request: found(request, document, request_id=5, flags=wire.MORE_TO_COME)
        + found(request, document, request_id=6, response_to=5, flags=wire.MORE_TO_COME)
        + found(request, document, request_id=7, response_to=5),
        hang_up=True,
    )
    for message in wire.messages(ask(rekeyd, PROTECTED)):
        assert message.document["cursor"]["firstBatch"] == [{"ssn": MARKER}]


BAD_HELLOS = {
    "hosts is a number": {"ok": 1, "hosts": 1},
    "hosts of numbers": {"ok": 1, "hosts": [1, None, {"a": 1}]},
    "unknown members": {"ok": 1, "hosts": ["a:1"], "primary": "a:1", "me": 7, "setName": "s"},
    "empty": {},
    "error": {"ok": 0, "code": 1, "errmsg": "no"},
}


@pytest.mark.parametrize("hello", BAD_HELLOS.values(), ids=BAD_HELLOS)
def test_odd_hello(rekeyd, upstream, hello):
    """An address behind the proxy never gets to the client."""
    upstream.answer(lambda request: answer_to(request, hello))
    reply = ask_for_one(rekeyd, {"hello": 1, "$db": "admin"})
    assert reply is None or b"a:1" not in reply.raw


BEHIND = {"ok": 1, "setName": "s", "hosts": ["a:1"], "primary": "a:1", "me": "a:1"}
ODD_HELLO_FIELDS = {
    "speculativeAuthenticate": [5, [1], {"payload": 7}, {"done": "x", "payload": b"v=1"}],
    "topologyVersion": [5, {"counter": "x"}],
    "maxMessageSizeBytes": ["x", -1, 1.5, 2**40],
    "maxWriteBatchSize": [None, 0, "1000"],
    "saslSupportedMechs": [5, [5]],
    "isWritablePrimary": ["yes", 1.0],
    "connectionId": ["x"],
    "serviceId": [bson.ObjectId()],
    "setName": [7],
    "other": [bson.decode(wire.nested(90, bson.encode({})))],
}


@pytest.mark.parametrize("opcode", ["OP_MSG", "OP_QUERY"])
@pytest.mark.parametrize("field", ODD_HELLO_FIELDS)
def test_odd_fields_of_hello(rekeyd, upstream, field, opcode):
    """They are the client's to judge, and do not spoil what is replaced."""
    for value in ODD_HELLO_FIELDS[field]:
        hello = {**BEHIND, field: value}
        if opcode == "OP_MSG":
            upstream.answer(lambda request: answer_to(request, hello))
            request = wire.op_msg({"hello": 1, "$db": "admin"})
        else:
            payload = struct.pack("<iqii", 8, 0, 0, 1) + bson.encode(hello)
            upstream.answer(
                lambda request: wire.frame(payload, wire.OP_REPLY, response_to=request.request_id)
            )
            request = wire.op_query("admin.$cmd", {"isMaster": 1})
        with RawClient(rekeyd.addresses[0]) as client:
            client.send(request)
            reply = client.receive()
        told = {**hello, "hosts": [], "me": rekeyd.addresses[0]}
        del told["primary"]
        if value == 2**40:
            told[field] = 33_554_432
        assert reply.document == told


@pytest.mark.parametrize("names", [["snappy"], ["noop"], ["zlib", 5], 5, ["x" * 1000] * 50], ids=str)
def test_compressors_that_nobody_offered(rekeyd, upstream, names):
    """The member may say what it likes: requests to it are compressed with what was offered."""
    asked = []

    def script(request):
        asked.append(request)
        return answer_to(request, {"ok": 1, "compression": names})

    upstream.answer(script)
    with RawClient(rekeyd.addresses[0]) as client:
        told = client.command({"hello": 1, "compression": ["zlib"], "$db": "admin"})
        assert told["compression"] == ["zlib"]
        message = wire.op_msg({**PROTECTED, "comment": "x" * 3000})
        client.send(wire.compressed(message, "zlib"))
        assert client.receive().compressor in (None, "zlib")
    assert asked[-1].compressor in ((None, "zlib") if "zlib" in str(names) else (None,))


SASL_REPLIES = {
    "nothing": {},
    "payload a number": {"conversationId": 1, "done": False, "payload": 5, "ok": 1},
    "done a text": {"conversationId": 1, "done": "no", "payload": b"r=a", "ok": 1},
    "conversation a document": {"conversationId": {"a": 1}, "done": False, "payload": b"", "ok": 1},
    "ok a text": {"ok": "yes"},
    "error": {"ok": 0, "code": 18, "errmsg": "Authentication failed.", "errorLabels": ["New"]},
    "5 MB": {"conversationId": 1, "done": False, "payload": bytes(5_000_000), "ok": 1},
    **{f"invalid BSON: {why}": data for why, data in wire.broken_documents().items()},
}


@pytest.mark.parametrize("command", ["saslStart", "saslContinue"])
@pytest.mark.parametrize("document", SASL_REPLIES.values(), ids=SASL_REPLIES)
def test_odd_sasl_replies(rekeyd, upstream, envelope, command, document):
    """Byte for byte the client's to judge; an envelope in one is not opened; and the next command
    has its own reply."""
    sent = []

    def script(request):
        sent.append(answer_to(request, document))
        return sent[-1]

    upstream.answer(script)
    request = {command: 1, "mechanism": "SCRAM-SHA-256", "conversationId": 1, "payload": b"n,,n=a"}
    with RawClient(rekeyd.addresses[0]) as client:
        for _ in range(2):
            client.send(wire.op_msg({**request, "$db": "admin"}))
            assert client.receive().raw == sent[-1]
        document = {"ok": 1, "payload": Binary(envelope, SUBTYPE)}
        client.send(wire.op_msg({**request, "$db": "admin"}))
        assert client.receive().raw == sent[-1]


SASL_FRAMES = {
    "length zero": lambda q: answer_to(q, {"ok": 1}, length=0),
    "length one over the limit": lambda q: answer_to(q, {}, length=wire.MESSAGE_BYTES_MAX + 1),
    "cut in the body": lambda q: answer_to(q, {"ok": 1, "payload": b"x" * 100})[:-20],
    "answer to another request": lambda q: answer_to(q, {"ok": 1}, response_to=q.request_id + 1),
    "two replies": lambda q: answer_to(q, {"ok": 1}) * 2,
    "opcode of a request": lambda q: wire.op_query("a.$cmd", {}, response_to=q.request_id),
    "nothing": lambda q: b"",
}


@pytest.mark.parametrize("make", SASL_FRAMES.values(), ids=SASL_FRAMES)
def test_bad_frames_of_sasl_replies(rekeyd, upstream, make):
    """At most one whole reply, then the end."""
    upstream.answer(make, hang_up=True)
    assert len(wire.messages(ask(rekeyd, {"saslStart": 1, "payload": b"", "$db": "admin"}))) <= 1


@pytest.mark.parametrize("broken", wire.broken_documents().keys())
def test_hello_of_invalid_bson(rekeyd, upstream, broken):
    document = wire.broken_documents(wire.element(0x01, "ok", struct.pack("<d", 1)))[broken]
    upstream.answer(lambda request: answer_to(request, document))
    reply = ask_for_one(rekeyd, {"hello": 1, "$db": "admin"})
    assert reply is None or reply.raw.endswith(document)


OLD_REPLIES = {
    "cut short": lambda d: struct.pack("<iqii", 8, 0, 0, 1)[:10],
    "no document": lambda d: struct.pack("<iqii", 8, 0, 0, 1),
    "two documents": lambda d: struct.pack("<iqii", 8, 0, 0, 2) + d + d,
    "count negative": lambda d: struct.pack("<iqii", 8, 0, 0, -1) + d,
    "count of more": lambda d: struct.pack("<iqii", 8, 0, 0, 5) + d,
    "document cut short": lambda d: struct.pack("<iqii", 8, 0, 0, 1) + d[:-4],
}


@pytest.mark.parametrize("make", OLD_REPLIES.values(), ids=OLD_REPLIES)
def test_bad_op_reply(rekeyd, upstream, make):
    payload = make(bson.encode({"ok": 1, "hosts": ["behind:1"]}))
    upstream.answer(
        lambda request: wire.frame(payload, wire.OP_REPLY, response_to=request.request_id)
    )
    with RawClient(rekeyd.addresses[0]) as client:
        client.send(wire.op_query("admin.$cmd", {"isMaster": 1}))
        assert client.receive() is None


def test_upstream_that_hangs_up_at_once(rekeyd, upstream):
    upstream.answer(lambda request: b"", hang_up=True)
    assert ask(rekeyd, PROTECTED) == b""


def test_mutated_replies(rekeyd, upstream, envelope):
    """Bytes of a good reply changed at random: rekeyd goes on, and what it cannot read whole it
    does not decrypt in part."""
    seed = int(os.environ.get("REKEY_SEED", random.randrange(1 << 32)))
    print(f"REKEY_SEED={seed}")
    rng = random.Random(seed)
    document = {"_id": 1, "a": [1, {"b": "x"}], "ssn": Binary(envelope, SUBTYPE), "z": "end"}

    def script(request):
        reply = bytearray(found(request, document))
        for _ in range(rng.randint(1, 3)):
            position = rng.randrange(16, len(reply))
            reply[position] = rng.choice((0, 1, 0x7F, 0x80, 0xFF, rng.randrange(256)))
        return bytes(reply)

    upstream.answer(script, hang_up=True)
    for _ in range(200):
        ask(rekeyd, PROTECTED)
