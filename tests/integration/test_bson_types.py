"""Every BSON type comes back byte for byte, types that cannot be encrypted are refused."""

import struct

import pytest
from bson.raw_bson import RawBSONDocument
from harness import is_envelope
from harness.protected import RAW
from pymongo.errors import BulkWriteError, OperationFailure
from wire import RawClient, element, op_msg, raw_document


def text(value: bytes) -> bytes:
    return struct.pack("<i", len(value) + 1) + value + b"\0"


def binary(subtype: int, value: bytes) -> bytes:
    return struct.pack("<iB", len(value), subtype) + value


DOCUMENT = raw_document(element(0x10, "n", b"\1\0\0\0"), element(0x02, "s", text(b"x")))
ARRAY = raw_document(element(0x02, "0", text(b"x")), element(0x03, "1", DOCUMENT))
CODE_WITH_SCOPE = struct.pack("<i", 4 + 6 + len(DOCUMENT)) + text(b"f") + DOCUMENT
OBJECT_ID = bytes(range(12))

# Type and value bytes, as in the BSON specification.
ANY_FIELD = {
    "string": (0x02, text(b"forty-two")),
    "empty string": (0x02, text(b"")),
    "string with NUL": (0x02, text(b"a\0b")),
    "string beyond the BMP": (0x02, text("\U0001f600 \u65e5\u672c".encode())),
    "long string": (0x02, text(b"x" * 100_000)),
    "binary": (0x05, binary(0, bytes(range(256)))),
    "empty binary": (0x05, binary(0, b"")),
    "old binary": (0x05, binary(2, struct.pack("<i", 3) + b"abc")),
    "uuid": (0x05, binary(4, bytes(16))),
    "csfle binary": (0x05, binary(6, b"\1" + bytes(60))),
    "user-defined binary": (0x05, binary(0x80, b"abc")),
    "binary of the envelope's subtype": (0x05, binary(0x8E, b"RK, but no envelope")),
    "objectId": (0x07, OBJECT_ID),
    "true": (0x08, b"\1"),
    "false": (0x08, b"\0"),
    "date": (0x09, struct.pack("<q", 1_700_000_000_123)),
    "date before 1970": (0x09, struct.pack("<q", -1)),
    "date out of Python's range": (0x09, struct.pack("<q", 2**62)),
    "javascript": (0x0D, text(b"function() {}")),
    "int32": (0x10, struct.pack("<i", -(2**31))),
    "timestamp": (0x11, struct.pack("<II", 1, 2)),
    "int64": (0x12, struct.pack("<q", 2**63 - 1)),
}
RANDOM_ONLY = {
    "double": (0x01, struct.pack("<d", 0.1)),
    "double -0.0": (0x01, struct.pack("<d", -0.0)),
    "NaN with a payload": (0x01, struct.pack("<Q", 0x7FF8_0000_DEAD_BEEF)),
    "document": (0x03, DOCUMENT),
    "empty document": (0x03, raw_document()),
    "array": (0x04, ARRAY),
    "empty array": (0x04, raw_document()),
    "regex": (0x0B, b"^a.*\0im\0"),
    "symbol": (0x0E, text(b"symbol")),
    "dbPointer": (0x0C, text(b"db.c") + OBJECT_ID),
    "javascriptWithScope": (0x0F, CODE_WITH_SCOPE),
    "decimal": (0x13, bytes.fromhex("01000000000000000000000000004030")),
}
NEVER = {"undefined": (0x06, b""), "minKey": (0xFF, b""), "maxKey": (0x7F, b"")}


def document_of(path: str, kind: int, value: bytes) -> RawBSONDocument:
    return RawBSONDocument(
        raw_document(element(0x10, "_id", b"\1\0\0\0"), element(kind, path, value))
    )


def round_trip(people, path, kind, value):
    document = document_of(path, kind, value)
    app, stored = people.app.with_options(RAW), people.stored.with_options(RAW)
    app.insert_one(document)
    assert app.find_one().raw == document.raw
    assert is_envelope(stored.find_one()[path])
    assert len(value) < 4 or value not in stored.find_one().raw
    people.empty()
    app.update_one({"_id": 1}, {"$set": RawBSONDocument(raw_document(element(kind, path, value)))},
                   upsert=True)
    assert app.find_one().raw == document.raw
    assert is_envelope(stored.find_one()[path])


@pytest.mark.parametrize("name", [*ANY_FIELD, *RANDOM_ONLY])
def test_random(people, name):
    round_trip(people, "answer", *{**ANY_FIELD, **RANDOM_ONLY}[name])


@pytest.mark.parametrize("name", ANY_FIELD)
def test_deterministic(people, name):
    round_trip(people, "ssn", *ANY_FIELD[name])
    kind, value = ANY_FIELD[name]
    query = RawBSONDocument(raw_document(element(kind, "ssn", value)))
    assert people.app.with_options(RAW).count_documents(query) == 1


@pytest.mark.parametrize("name", RANDOM_ONLY)
def test_deterministic_refuses(people, name):
    refused(people, "ssn", *RANDOM_ONLY[name])


@pytest.mark.parametrize("path", ["answer", "ssn"])
@pytest.mark.parametrize("name", NEVER)
def test_never_encryptable(people, name, path):
    refused(people, path, *NEVER[name])


def refused(people, path, kind, value):
    document = document_of(path, kind, value)
    app = people.app.with_options(RAW)
    with pytest.raises(BulkWriteError) as error:
        app.insert_many([{"_id": 7}, document], ordered=False)
    (entry,) = error.value.details["writeErrors"]
    assert (entry["index"], entry["code"]) == (1, 31041)
    assert people.stored.delete_many({}).deleted_count == 1
    for write in (
        lambda: app.insert_one(document),
        lambda: app.replace_one({}, document, upsert=True),
        lambda: app.update_one({"_id": 1}, {"$set": document}, upsert=True),
        lambda: app.find_one_and_replace({}, document, upsert=True),
    ):
        with pytest.raises(OperationFailure) as error:
            write()
        assert error.value.code == 31041
        assert people.namespace in str(error.value) and path in str(error.value)
    assert people.stored.count_documents({}) == 0


def test_null_stays_null(people):
    people.app.insert_one({"_id": 1, "answer": None, "ssn": None})
    assert people.stored.find_one() == {"_id": 1, "answer": None, "ssn": None}


def test_forged_envelopes_are_refused(people):
    """What claims to be ciphertext and is not would be plaintext on disk."""
    people.app.insert_one({"_id": 1, "answer": "genuine", "ssn": "genuine"})
    stored = people.stored.find_one()
    genuine = bytes(stored["answer"])
    forged = [
        b"RK\xe1\x1e" + b"plaintext" * 10,
        genuine[:-1] + bytes([genuine[-1] ^ 1]),
        bytes(stored["ssn"]),
    ]
    with RawClient(people.rekeyd.addresses[0]) as client:
        for value in forged:
            document = raw_document(element(0x05, "answer", binary(0x8E, value)))
            insert = {"insert": "people", "$db": people.app_db.name}
            client.send(op_msg({**insert, "documents": [RawBSONDocument(document)]}))
            reply = client.receive().document
            assert [e["code"] for e in reply["writeErrors"]] == [31041], reply
    assert people.stored.count_documents({}) == 1
