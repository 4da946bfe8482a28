"""Collections as applications wrote them before Rekey came."""

import os
import time
from dataclasses import dataclass

from bson import ObjectId, encode
from cryptography.hazmat.primitives import padding
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from pymongo import WriteConcern

DB = "bench"
CHUNK = 5000
VALUES = 4096  # different ones, used over and over: encrypting each would take longer than writing
LEGACY = {"cipher": "aes-256-cbc", "encoding": "binary", "key": "old", "type": "string"}


@dataclass(frozen=True)
class Kind:
    """size: of a document in bytes, roughly, before the sweep."""

    name: str
    size: int
    fields: tuple = ("answer",)

    def document(self, number: int, values: list) -> dict:
        document = {"_id": ObjectId(), "questionId": number % 50, "locale": "en_GB"}
        for offset, field in enumerate(self.fields):
            document[field] = values[(number + offset) % len(values)]
        return document

    def padding(self, values: list) -> dict:
        room = self.size - len(encode(self.document(0, values))) - len("comment") - 7
        return {"comment": "c" * room} if room > 0 else {}


KINDS = {
    kind.name: kind
    for kind in (
        Kind("answers", 400),
        Kind("small", 0),
        Kind("large", 4096),
        Kind("ten_fields", 0, tuple(f"answer{i}" for i in range(10))),
    )
}


def plaintext(number: int) -> str:
    return "the answer of respondent %9d" % number


def legacy(key: bytes, text: str) -> bytes:
    iv = os.urandom(16)
    padder = padding.PKCS7(128).padder()
    padded = padder.update(text.encode()) + padder.finalize()
    encryptor = Cipher(algorithms.AES(key), modes.CBC(iv)).encryptor()
    return iv + encryptor.update(padded) + encryptor.finalize()


def fill(client, name: str, docs: int, kind: Kind, encrypt):
    """encrypt: takes a text, returns what the application stored of it."""
    values = [encrypt(plaintext(i)) for i in range(min(VALUES, docs))]
    rest = kind.padding(values)
    coll = client[DB].get_collection(name, write_concern=WriteConcern(1))
    for start in range(0, docs, CHUNK):
        numbers = range(start, min(start + CHUNK, docs))
        coll.insert_many([kind.document(i, values) | rest for i in numbers], ordered=False)
    settle(client)


def settle(client):
    """What was loaded is on disk and majority-committed before a clock starts."""
    client.admin.command("fsync")
    time.sleep(1)
