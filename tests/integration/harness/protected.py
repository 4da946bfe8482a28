"""A protected collection from both sides: as the application sees it through rekeyd, and as it
lies on the server. What is secret in a test holds SECRET, and nothing else does."""

import time
from contextlib import contextmanager

from bson.binary import Binary
from bson.codec_options import CodecOptions
from bson.raw_bson import RawBSONDocument

from .rekeyd import policy

SECRET = "s3cr3t"
ENVELOPE_SUBTYPE = 0x8E
ENVELOPE_MAGIC = b"RK\xe1\x1e"
RAW = CodecOptions(document_class=RawBSONDocument)

FIELDS = {
    "answer": "random",
    "ssn": "deterministic",
    "contact.phone": "random",
    "contact.mail": "deterministic",
}


def is_envelope(value) -> bool:
    if not isinstance(value, Binary) or value.subtype != ENVELOPE_SUBTYPE:
        return False
    return value.startswith(ENVELOPE_MAGIC)


def key_id(value) -> int:
    """The key id in the header of an envelope."""
    assert is_envelope(value), f"{value!r} is no envelope"
    return int.from_bytes(value[8:12], "big")


def values_at(value, path: str) -> list:
    """What stands at a dotted path, through sub-documents and arrays."""
    if isinstance(value, list):
        return [found for item in value for found in values_at(item, path)]
    if not isinstance(value, dict):
        return []
    name, _, rest = path.partition(".")
    if name not in value:
        return []
    return values_at(value[name], rest) if rest else [value[name]]


def person(i, **extra):
    """A document with a secret at every protected path."""
    return {
        "_id": i,
        "name": f"name {i}",
        "answer": f"{SECRET} answer {i}",
        "ssn": f"{SECRET} ssn {i}",
        "contact": [
            {"kind": "home", "phone": f"{SECRET} phone {i}", "mail": f"{SECRET} mail {i}"},
            {"kind": "work", "phone": None, "mail": f"{SECRET} work {i}"},
        ],
        "size": i,
        **extra,
    }


class Protected:
    """
    app: the collection through rekeyd. stored: the same one, directly. plain and stored_plain: an
    unprotected collection of the same database. The databases are app_db and stored_db, and state
    is rekeyd's own.
    """

    def __init__(self, rekeyd, app, direct, db_name, name="people", fields=None):
        self.rekeyd, self.fields = rekeyd, fields or FIELDS
        self.app_client, self.direct_client = app, direct
        self.app_db, self.stored_db = app[db_name], direct[db_name]
        self.app, self.stored = self.app_db[name], self.stored_db[name]
        self.plain, self.stored_plain = self.app_db.plain, self.stored_db.plain
        self.state = direct[rekeyd.config["upstream"]["state_db"]]
        self.namespace = self.app.full_name

    def empty(self):
        self.stored.drop()
        self.stored_plain.drop()

    def check(self) -> list:
        """Nothing secret is stored or logged in the clear; what is stored is returned."""
        for name in self.stored_db.list_collection_names():
            for raw in self.stored_db[name].with_options(RAW).find():
                assert SECRET.encode() not in raw.raw, f"plaintext in {name}: {dict(raw)}"
        assert SECRET not in self.rekeyd.logs(), "plaintext in the log"
        documents = list(self.stored.find().sort("_id"))
        for document in documents:
            for path in self.fields:
                for value in values_at(document, path):
                    assert value is None or is_envelope(value), f"{path}: {value!r}"
        return documents

    def seen(self, **query) -> list:
        return list(self.app.find(query).sort("_id"))

    def wait_for_key(self, wanted: int, timeout_s=10):
        """Returns once rekeyd writes under this key."""
        deadline = time.monotonic() + timeout_s
        path = next(iter(self.fields))
        while True:
            self.app.replace_one({"_id": "probe"}, {path: "x"}, upsert=True)
            found = key_id(self.stored.find_one({"_id": "probe"})[path])
            if found == wanted:
                break
            assert time.monotonic() < deadline, f"rekeyd still writes under key {found}"
            time.sleep(0.05)
        self.stored.delete_one({"_id": "probe"})

    def rotate(self) -> int:
        new = self.rekeyd.ctl("keys", "rotate")["keyId"]
        self.wait_for_key(new)
        return new


@contextmanager
def protected(rekeyd, db_name, **options):
    """Protected over a running rekeyd."""
    with rekeyd.client() as app, rekeyd.upstream.client() as direct:
        yield Protected(rekeyd, app, direct, db_name, **options)
        direct.drop_database(db_name)


def people_policy(db_name: str, fields=None) -> dict:
    return policy(f"{db_name}.people", fields or FIELDS)
