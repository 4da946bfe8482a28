"""
Thirteen facts of the wire protocol that a proxy easily gets wrong, in one test or two each. What
follows from them for an area (compression, limits, bad input, ...) stands in that area's file.
"""

import time
import uuid

import bson
import pytest
import wire
from bson import Int64
from bson.binary import Binary
from harness import SECRET, Rekeyd, is_envelope, key_id, policy
from harness.rekeyd import NEVER_REFRESHED
from pymongo import MongoClient
from tap import Tap
from wire import RawClient

DB = "wire_facts"
PING = {"ping": 1, "$db": "admin"}
HELLO = {"hello": 1, "$db": "admin"}
FIELDS = {"ssn": "random", "mail": "deterministic"}
POLICIES = [policy(f"{DB}.users", FIELDS)]
INSERT = {"insert": "users", "$db": DB}
FIND = {"find": "users", "filter": {}, "sort": {"_id": 1}, "$db": DB}
REFUSED = {"find": "users", "filter": {"ssn": {"$gt": "a"}}, "$db": DB}


@pytest.fixture(scope="module")
def tap(single_member_set):
    """Between rekeyd and its member."""
    with Tap(single_member_set.addresses[0], single_member_set) as tap:
        yield tap


@pytest.fixture(scope="module")
def rekeyd(tap, single_member_set, tmp_path_factory):
    rekeyd = Rekeyd(single_member_set, POLICIES, directory=tmp_path_factory.mktemp("facts"))
    rekeyd.config["upstream"]["members"][0]["connect"] = tap.addresses[0]
    rekeyd.write_config()
    with rekeyd:
        yield rekeyd


@pytest.fixture
def stored(single_member_set, tap):
    """The database, directly; empty, and with nothing seen by the tap yet."""
    with single_member_set.client() as client:
        client.drop_database(DB)
        tap.forget()
        yield client[DB]
        client.drop_database(DB)


@pytest.fixture
def client(rekeyd):
    with RawClient(rekeyd.addresses[0], timeout_s=20) as client:
        yield client
    rekeyd.check()
    assert SECRET not in rekeyd.logs()


@pytest.fixture
def direct(single_member_set):
    with RawClient(single_member_set.addresses[0], timeout_s=20) as client:
        yield client


@pytest.fixture(scope="module")
def scripted(upstream, tmp_path_factory):
    """A rekeyd in front of upstream."""
    with Rekeyd(upstream, POLICIES, directory=tmp_path_factory.mktemp("scripted")) as rekeyd:
        yield rekeyd


def person(i, **more) -> dict:
    return {"_id": i, "ssn": f"{SECRET} {i}", "mail": f"{SECRET}@{i}", **more}


def documents(*several) -> bytes:
    return wire.sequence_section("documents", several)


def check_stored(stored, count):
    found = list(stored.users.find())
    assert len(found) == count
    assert all(is_envelope(d["ssn"]) and is_envelope(d["mail"]) for d in found)


# 1. Sections of kind 1 may come before the body; their identifiers are unique within a message.


def test_01_sections_may_come_before_the_body(client, stored, tap):
    assert client.command(INSERT, documents(person(1)))["n"] == 1
    client.send(wire.op_msg(documents(person(2)), wire.body_section(INSERT)))
    assert client.receive().document["n"] == 1
    update = [{"q": {"mail": f"{SECRET}@2"}, "u": {"$set": {"ssn": f"{SECRET} new"}}}]
    body = wire.body_section({"update": "users", "$db": DB})
    client.send(wire.op_msg(wire.sequence_section("updates", update), body))
    assert client.receive().document["nModified"] == 1
    check_stored(stored, 2)
    assert not [m for m in tap.requests if SECRET.encode() in m.raw]
    found = client.command(FIND)["cursor"]["firstBatch"]
    assert found == [person(1), {**person(2), "ssn": f"{SECRET} new"}]


@pytest.mark.parametrize("name", ["users", "plain"])
@pytest.mark.parametrize("body_at", [0, 1, 2])
def test_01_bulk_write_has_two_sequences(client, direct, stored, tap, name, body_at):
    """mongod 6.0 does not know the command, and says so itself; what it sees of it is encrypted."""
    sections = [
        wire.sequence_section("ops", [{"insert": 0, "document": person(1)}]),
        wire.sequence_section("nsInfo", [{"ns": f"{DB}.{name}"}]),
    ]
    sections.insert(body_at, wire.body_section({"bulkWrite": 1, "$db": "admin"}))
    answers = []
    for one in (client, direct):
        one.send(wire.op_msg(*sections))
        answers.append(one.receive().document["code"])
    assert answers == [59, 59]
    assert (SECRET.encode() in tap.requests[-1].raw) == (name == "plain")
    assert stored.list_collection_names() == []


@pytest.mark.parametrize("name", ["users", "plain"])
def test_01_identifiers_are_unique(client, stored, name):
    body = wire.body_section({**INSERT, "insert": name})
    client.send(wire.op_msg(body, documents(person(1)), documents(person(2))))
    reply = client.receive()
    assert reply is None or reply.document["ok"] == 0
    assert stored.list_collection_names() == []


# 2. In an exhaust stream each reply answers the reply before it. An awaitable hello streams, too.


def follow(client, request: bytes):
    """The replies of an exhaust stream."""
    client.send(request)
    expected, more = wire.HEADER.unpack_from(request)[1], True
    while more:
        reply = client.receive()
        assert reply.response_to == expected
        expected, more = reply.request_id, bool(reply.flags & wire.MORE_TO_COME)
        yield reply


def test_02_exhaust_cursor(client, stored):
    people = [person(i) for i in range(11)]
    assert client.command(INSERT, documents(*people))["n"] == 11
    cursor = client.command({**FIND, "batchSize": 2})["cursor"]
    more = {"getMore": cursor["id"], "collection": "users", "batchSize": 2, "$db": DB}
    replies = list(follow(client, wire.op_msg(more, flags=wire.EXHAUST_ALLOWED)))
    assert len(replies) > 3
    batches = [reply.document["cursor"]["nextBatch"] for reply in replies]
    assert cursor["firstBatch"] + sum(batches, []) == people
    assert client.command(PING)["ok"] == 1


@pytest.mark.tsan
def test_02_awaitable_hello_is_not_idle(single_member_set, start_rekeyd):
    """Nothing comes for longer than limits.idle_timeout_ms; the rewriting goes on."""
    rekeyd = start_rekeyd(single_member_set, settings={"limits": {"idle_timeout_ms": 500}})
    with RawClient(rekeyd.addresses[0], timeout_s=20) as client:
        version = client.command(HELLO)["topologyVersion"]
        awaited = {**HELLO, "topologyVersion": version, "maxAwaitTimeMS": 1500}
        assert client.command(awaited)["me"] == rekeyd.addresses[0]
        stream = follow(client, wire.op_msg(awaited, flags=wire.EXHAUST_ALLOWED))
        for _ in range(3):
            hello = next(stream).document
            assert hello["hosts"] == rekeyd.addresses and hello["me"] == rekeyd.addresses[0]
            assert hello["topologyVersion"] == version
    with RawClient(rekeyd.addresses[0], timeout_s=20) as client:
        assert client.command(PING)["ok"] == 1
        assert client.receive() is None, "the timeout does not work at all"
    rekeyd.wait_event("session_idle")


# 3. A request with moreToCome gets no reply, not even an error.


def test_03_unacknowledged(client, rekeyd, stored, tap):
    """What has to be refused is dropped, counted and logged; the rest arrives, in order."""
    quiet = {"writeConcern": {"w": 0}, "$db": DB}
    push = {"q": {}, "u": {"$push": {"ssn": SECRET}}, "upsert": True}
    bad = [person(2), {"_id": 3, "mail": 1.5}, person(4)]
    client.send(
        b"".join(
            wire.op_msg(*sections, flags=wire.MORE_TO_COME)
            for sections in (
                ({"insert": "users", **quiet}, documents(person(1))),
                ({"update": "users", **quiet}, wire.sequence_section("updates", [push])),
                ({"insert": "users", "ordered": False, **quiet}, documents(*bad)),
                (FIND,),
                (REFUSED,),
            )
        )
        + wire.op_msg(PING, request_id=77)
    )
    assert client.receive().response_to == 77
    check_stored(stored, 3)
    assert not [m for m in tap.requests if SECRET.encode() in m.raw]
    rekeyd.wait_event("unacknowledged_request_dropped", count=2)
    assert rekeyd.wait_event("unacknowledged_statements_dropped")["statements"] == 1


# 4. A message may carry a CRC-32C over all of it.


def crc32c(data: bytes) -> int:
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def summed(*sections, wrong=0) -> bytes:
    message = wire.op_msg(*sections, b"\0\0\0\0", flags=wire.CHECKSUM_PRESENT)[:-4]
    return message + (crc32c(message) ^ wrong).to_bytes(4, "little")


def has_good_checksum(message) -> bool:
    assert message.flags & wire.CHECKSUM_PRESENT
    return crc32c(message.raw[:-4]) == int.from_bytes(message.raw[-4:], "little")


def test_04_crc32c_of_the_test():
    assert crc32c(b"123456789") == 0xE3069283  # RFC 3720, B.4 has the polynomial


def test_04_checksum_of_rewritten_messages_is_stripped(client, stored, tap):
    client.send(summed(INSERT, documents(person(1))))
    assert client.receive().document["n"] == 1
    assert not tap.requests[-1].flags & wire.CHECKSUM_PRESENT
    check_stored(stored, 1)
    client.send(summed(FIND))
    reply = client.receive()
    assert has_good_checksum(tap.requests[-1]) and has_good_checksum(tap.replies[-1])
    assert not reply.flags & wire.CHECKSUM_PRESENT
    assert reply.document["cursor"]["firstBatch"] == [person(1)]
    client.send(summed({**HELLO, "compression": ["unknown"]}))
    assert client.receive().document["ok"] == 1
    assert not tap.requests[-1].flags & wire.CHECKSUM_PRESENT


def test_04_checksum_of_what_passes_is_kept(client, stored, tap):
    message = summed({**INSERT, "insert": "plain"}, documents({"_id": 1}))
    client.send(message)
    reply = client.receive()
    assert tap.requests[-1].raw == message and tap.replies[-1].raw == reply.raw
    assert reply.flags & wire.CHECKSUM_PRESENT
    assert crc32c(reply.raw[:-4]) == int.from_bytes(reply.raw[-4:], "little")


@pytest.mark.parametrize("name", ["users", "plain"])
@pytest.mark.parametrize("tail", [b"", b"\0", b"\0\0\0\0", b"abcd"])
def test_04_wrong_checksum(client, stored, name, tail):
    body = wire.body_section({**INSERT, "insert": name})
    sections = body + documents(person(1)) + tail
    client.send(wire.op_msg(sections, flags=wire.CHECKSUM_PRESENT))
    reply = client.receive()
    assert reply is None or reply.body["ok"] == 0
    assert stored.list_collection_names() == []


def test_04_wrong_checksum_of_a_reply(scripted, upstream):
    document = {"ok": 1, "cursor": {"id": Int64(0), "ns": f"{DB}.users", "firstBatch": []}}
    for wrong, closed in ((0, False), (1, True)):
        message = summed(document, wrong=wrong)

        def script(request):
            """The checksum covers the header, so the ids have to be in it."""
            head = message[:8] + request.request_id.to_bytes(4, "little") + message[12:-4]
            return head + (crc32c(head) ^ wrong).to_bytes(4, "little")

        upstream.answer(script)
        with RawClient(scripted.addresses[0]) as client:
            client.send(wire.op_msg(FIND))
            assert (client.receive() is None) == closed


# 5. Limits; ciphertext is longer than plaintext.


def test_05_limits_leave_room_for_ciphertext(client, direct, stored):
    told, real = client.command(HELLO), direct.command(HELLO)
    limits = ("maxBsonObjectSize", "maxMessageSizeBytes", "maxWriteBatchSize")
    assert [real[limit] for limit in limits] == [16_777_216, 48_000_000, 100_000]
    assert [told[limit] for limit in limits] == [16_777_216, 33_554_432, 2_000]
    # The document that outgrows the limit is one statement's error.
    full = person(2, pad=b"")
    full["pad"] = bytes(16_777_216 - len(bson.encode(full)))
    reply = client.command({**INSERT, "ordered": False}, documents(person(1), full, person(3)))
    assert reply["n"] == 2
    assert [(e["index"], e["code"]) for e in reply["writeErrors"]] == [(1, 2)]
    check_stored(stored, 2)


# 6. hello and authentication are never compressed, everything else may be.


@pytest.mark.parametrize("name", ["snappy", "zlib", "zstd"])
def test_06_hello_and_sasl_are_never_compressed(rekeyd, stored, tap, name):
    """A driver that logs in, on either side of rekeyd."""
    stored.command("createUser", "someone", pwd="secret", roles=["readWrite"])
    plain = ("hello", "saslContinue")  # saslStart comes inside hello
    options = {"username": "someone", "password": "secret", "authSource": DB, "compressors": name}
    try:
        with Tap(rekeyd.addresses[0]) as near:
            with MongoClient(near.addresses[0], directConnection=True, **options) as client:
                client[DB].users.insert_one(person(1, pad="x" * 2000))
                assert client[DB].users.find_one() == person(1, pad="x" * 2000)
            for side in (near, tap):
                used = {}
                for message in side.requests:
                    if message.plain.opcode == wire.OP_MSG:
                        command = next(iter(message.plain.body))
                        used.setdefault(command, set()).add(message.compressor)
                assert {command: used.get(command) for command in (*plain, "insert", "find")} == {
                    **{command: {None} for command in plain}, "insert": {name}, "find": {name}
                }
    finally:
        stored.command("dropUser", "someone")


# 7. Old drivers begin with OP_QUERY and want OP_REPLY; fields that nobody knows pass on.


def test_07_answered_in_kind(client, rekeyd, tap, stored):
    asked = {"isMaster": 1, "helloOk": True, "backpressure": True, "unknown": {"deep": [1]}}
    for message, opcode in (
        (wire.op_query("admin.$cmd", asked), wire.OP_REPLY),
        (wire.op_msg({**asked, "$db": "admin"}), wire.OP_MSG),
    ):
        client.send(message)
        reply = client.receive()
        assert reply.opcode == opcode and tap.requests[-1].raw == message
        assert reply.document["helloOk"] is True
        assert reply.document["hosts"] == rekeyd.addresses


def test_07_speculative_authentication_passes(client, tap, stored):
    stored.command("createUser", "early", pwd="secret", roles=["readWrite"])
    first = {"saslStart": 1, "mechanism": "SCRAM-SHA-256", "payload": b"n,,n=early,r=abcdef", "db": DB}
    for hello in (HELLO, {**HELLO, "saslSupportedMechs": f"{DB}.early"}):
        told = client.command({**hello, "speculativeAuthenticate": first})
        assert told["speculativeAuthenticate"]["payload"].startswith(b"r=abcdef")
        assert told["speculativeAuthenticate"] == tap.replies[-1].document["speculativeAuthenticate"]
    assert "SCRAM-SHA-256" in told["saslSupportedMechs"]
    stored.command("dropUser", "early")


def test_07_unknown_fields_of_a_reply_pass(scripted, upstream):
    told = {"helloOk": True, "new": {"a": [1, None]}, "hosts": ["behind:1"], "connectionId": 7, "ok": 1}
    upstream.answer(
        lambda request: wire.op_msg(told, response_to=request.request_id)
        if request.opcode == wire.OP_MSG
        else wire.frame(
            bytes(16) + b"\1\0\0\0" + bson.encode(told), wire.OP_REPLY, response_to=request.request_id
        )
    )
    for message in (wire.op_msg(HELLO), wire.op_query("admin.$cmd", {"isMaster": 1})):
        with RawClient(scripted.addresses[0]) as client:
            client.send(message)
            assert client.receive().document == {**told, "hosts": []}


@pytest.mark.parametrize("yes", [True, 1, 1.0, Int64(1)], ids=repr)
def test_07_flags_of_any_type(client, stored, yes):
    """An upsert that was overlooked would store the plaintext of its equality."""
    change = {"findAndModify": "users", "query": {"mail": f"{SECRET}@2"}, "$db": DB}
    update = {"update": {"$set": {"a": 2}}, "upsert": yes, "new": yes}
    assert client.command({**change, **update})["value"]["mail"] == f"{SECRET}@2"
    assert is_envelope(stored.users.find_one()["mail"])
    assert client.command({**change, "remove": yes})["value"]["a"] == 2


# 8. The metadata of a client may be sent once.


@pytest.mark.parametrize("first", ["OP_MSG", "OP_QUERY"])
def test_08_client_metadata_once(client, tap, stored, first):
    metadata = {
        "application": {"name": "facts"},
        "driver": {"name": "raw", "version": "1"},
        "os": {"type": "Linux"},
    }
    if first == "OP_QUERY":
        client.send(wire.op_query("admin.$cmd", {"isMaster": 1, "client": metadata}))
        assert client.receive().document["ok"] == 1
    else:
        assert client.command({**HELLO, "client": metadata})["ok"] == 1
    (operation,) = [
        o
        for o in client.command({"currentOp": 1, "$ownOps": False, "$db": "admin"})["inprog"]
        if o.get("appName") == "facts"
    ]
    assert operation["clientMetadata"] == metadata
    assert client.command(HELLO)["ok"] == 1  # nor does rekeyd send any of its own
    other = {**metadata, "application": {"name": "other"}}
    assert client.command({**HELLO, "client": other})["code"] == 186
    assert client.command(PING)["ok"] == 1


# 9. Load balancer mode needs a service id.


@pytest.mark.parametrize("yes", [True, 1, 1.0], ids=repr)
@pytest.mark.parametrize("opcode", ["OP_MSG", "OP_QUERY"])
def test_09_load_balancer_mode_is_refused(client, tap, stored, yes, opcode):
    if opcode == "OP_QUERY":
        client.send(wire.op_query("admin.$cmd", {"isMaster": 1, "loadBalanced": yes}))
    else:
        client.send(wire.op_msg({**HELLO, "loadBalanced": yes}))
    refused = client.receive()
    assert refused.opcode == (wire.OP_REPLY if opcode == "OP_QUERY" else wire.OP_MSG)
    assert refused.document["ok"] == 0 and refused.document["code"] == 72
    assert "loadBalanced" in refused.document.get("errmsg", refused.document.get("$err"))
    assert tap.requests == []
    assert client.command({**HELLO, "loadBalanced": False})["ok"] == 1


# 10. What belongs to sessions passes untouched; nothing is retried here.


def test_10_session_fields_pass_untouched(client, tap, stored):
    stored.create_collection("users")
    time_of_set = client.command(HELLO)["$clusterTime"]
    within = {
        "lsid": {"id": Binary.from_uuid(uuid.uuid4())},
        "txnNumber": Int64(7),
        "$clusterTime": time_of_set,
        "autocommit": False,
    }
    started = {
        "startTransaction": True,
        "readConcern": {"level": "snapshot", "afterClusterTime": time_of_set["clusterTime"]},
    }
    for name in ("users", "plain"):
        tap.forget()
        commands = [
            {**INSERT, "insert": name, **within, **started},
            {**FIND, "find": name, **within},
            {"commitTransaction": 1, **within, "recoveryToken": {"recoveryShardId": "a"}, "$db": "admin"},
        ]
        for command, sections in zip(commands, ([documents(person(1))], [], [])):
            answer = client.command(command, *sections)
            assert answer["ok"] == 1, answer
            assert tap.requests[-1].body.raw == bson.encode(command)
            got = tap.replies[-1].document
            if "cursor" in got:
                assert answer["cursor"]["firstBatch"] == [person(1)]
                got["cursor"] = answer["cursor"]
            assert answer == got and {"$clusterTime", "operationTime"} <= set(answer)
        within["txnNumber"] = Int64(8)
    check_stored(stored, 1)


@pytest.mark.parametrize("command", [FIND, HELLO, PING], ids=["find", "hello", "ping"])
def test_10_errors_pass_untouched_and_are_not_retried(scripted, upstream, command):
    error = {
        "ok": 0.0,
        "code": 189,
        "codeName": "PrimarySteppedDown",
        "errmsg": "stepped down",
        "errorLabels": ["RetryableWriteError", "TransientTransactionError", "New"],
        "topologyVersion": {"processId": bson.ObjectId(), "counter": Int64(9)},
        "recoveryToken": {"shard": "a"},
        "operationTime": bson.Timestamp(1, 2),
    }
    asked = []

    def script(request):
        asked.append(request)
        return wire.op_msg(error, response_to=request.request_id)

    upstream.answer(script)
    with RawClient(scripted.addresses[0]) as client:
        assert client.command(command) == error
        assert client.command(PING) == error
    assert len(asked) == 2


# 11. Requests may be pipelined.


@pytest.mark.tsan
def test_11_pipelined_requests_are_answered_in_order(single_member_set, start_rekeyd, db_name):
    """Those that wait for a key, those answered by rekeyd, and those that just pass."""
    policies = [policy(f"{db_name}.users", FIELDS)]
    rekeyd = start_rekeyd(single_member_set, policies, settings={"keys": NEVER_REFRESHED})
    insert, find = ({**command, "$db": db_name} for command in (INSERT, FIND))
    with RawClient(rekeyd.addresses[0], timeout_s=25) as client:
        assert client.command(insert, documents(person(0)))["n"] == 1
        rekeyd.ctl("keys", "rotate")
        with rekeyd.sibling() as other, RawClient(other.addresses[0]) as writer:
            assert writer.command(insert, documents(person(1)))["n"] == 1
        with single_member_set.client() as direct:
            stored = direct[db_name].users.find_one({"_id": 1})
            assert key_id(stored["ssn"]) == 2
        asked = [
            (wire.op_msg({**find, "filter": {"_id": 1}}), lambda d: d["cursor"]["firstBatch"]),
            (wire.op_msg({**REFUSED, "$db": db_name}), lambda d: d["code"]),
            (wire.op_msg(HELLO), lambda d: d["hosts"]),
            (wire.op_msg(insert, documents(person(2))), lambda d: d["n"]),
            (wire.op_msg({**find, "find": "plain"}), lambda d: d["cursor"]["firstBatch"]),
            (wire.op_query("admin.$cmd", {"isMaster": 1}), lambda d: d["hosts"]),
            *[(wire.op_msg(PING), lambda d: d["ok"])] * 300,
            (wire.op_msg({**find, "filter": {"_id": 2}}), lambda d: d["cursor"]["firstBatch"]),
        ]
        client.send(b"".join(message for message, _ in asked))
        answers = []
        for message, look in asked:
            reply = client.receive()
            assert reply.response_to == wire.HEADER.unpack_from(message)[1]
            answers.append(look(reply.document))
    hosts = rekeyd.addresses
    assert answers == [[person(1)], 51118, hosts, 1, [], hosts, *[1] * 300, [person(2)]]
    assert len(rekeyd.events("key_loaded")) == 2, "nothing had to wait for a key"


# 12. MONGODB-X509 cannot pass a TLS connection that ends here.


@pytest.mark.parametrize(
    "command",
    [
        {"authenticate": 1, "mechanism": "MONGODB-X509", "user": "CN=app"},
        {"saslStart": 1, "mechanism": "MONGODB-X509", "payload": b""},
        {"hello": 1, "speculativeAuthenticate": {"authenticate": 1, "mechanism": "MONGODB-X509"}},
    ],
    ids=lambda command: next(iter(command)),
)
def test_12_x509_never_reaches_the_member(client, tap, stored, command):
    """There it would make every client the user of rekeyd's own certificate."""
    for message in (
        wire.op_msg({**command, "$db": "$external"}),
        wire.op_query("$external.$cmd", command),
    ):
        client.send(message)
        refused = client.receive().document
        assert (refused["ok"], refused["code"]) == (0, 18)
        assert "SCRAM" in refused.get("errmsg", refused.get("$err"))
    assert tap.requests == []
    assert client.command(PING)["ok"] == 1


# 13. messageLength is whatever the peer says.


def test_13_huge_length_of_requests_allocates_nothing(rekeyd, stored):
    """The largest allowed length, announced by many and followed by nothing."""
    message = wire.op_msg(INSERT, documents(person(1)), length=wire.MESSAGE_BYTES_MAX)
    before = rekeyd.memory_kb()
    clients = [RawClient(rekeyd.addresses[0]) for _ in range(50)]
    for client in clients:
        client.send(message)
    with RawClient(rekeyd.addresses[0]) as last:
        assert last.command(PING)["ok"] == 1
    grown = rekeyd.memory_kb() - before
    for client in clients:
        client.close()
    assert grown < 50 * 1024
    assert stored.list_collection_names() == []


def test_13_huge_length_of_replies_allocates_nothing(scripted, upstream):
    sent = []

    def script(request):
        sent.append(request)
        return wire.op_msg({"ok": 1}, response_to=request.request_id, length=wire.MESSAGE_BYTES_MAX)

    upstream.answer(script)
    before = scripted.memory_kb()
    clients = [RawClient(scripted.addresses[0]) for _ in range(50)]
    for client in clients:
        client.send(wire.op_msg(FIND))
    deadline = time.monotonic() + 10
    while len(sent) < 50:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    with RawClient(scripted.addresses[0]) as last:
        last.send(wire.op_msg(FIND))
        last.socket.settimeout(0.5)
        with pytest.raises(TimeoutError):
            last.receive()
    grown = scripted.memory_kb() - before
    for client in clients:
        client.close()
    assert grown < 50 * 1024


@pytest.mark.parametrize("length", [0, 15, -1, -(2**31), 48_000_001, wire.INT32_MAX])
def test_13_lengths_outside_the_limits_end_the_connection(client, rekeyd, upstream, scripted, length):
    client.send(wire.op_msg(PING, length=length))
    assert client.receive() is None
    upstream.answer(
        lambda request: wire.op_msg({"ok": 1}, response_to=request.request_id, length=length)
    )
    with RawClient(scripted.addresses[0]) as other:
        other.send(wire.op_msg(PING))
        assert other.receive() is None
    assert "length" in scripted.wait_event("session_malformed")["reason"]
