"""A migration as it is usually written: a cursor, the application's cryptography, bulk writes.

Values that are AES-256-CBC (16 bytes IV, ciphertext) become AES-256-GCM (a byte for the key's
version, 12 bytes nonce, ciphertext, tag). It reads two fields of each document, in order of _id;
writes 1,000 updates at a time, unordered, to the majority; and names the document by _id alone:
what an application changes between read and write is lost, which a sweep does not do. Documents are
decoded as dicts: with two fields in them RawBSONDocument is slower.
"""

import os

import migrating
from bson import Binary
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from pymongo import UpdateOne

VERSION = b"\x02"


def migrate(coll, config, filter) -> int:
    field = config["field"]
    old = algorithms.AES(bytes.fromhex(config["old_key"]))
    new = AESGCM(bytes.fromhex(config["new_key"]))
    docs, updates = 0, []
    found = coll.find(filter, {field: 1}, batch_size=migrating.BATCH).hint([("_id", 1)])
    for doc in found:
        value = doc[field]
        decryptor = Cipher(old, modes.CBC(value[:16])).decryptor()
        text = decryptor.update(value[16:]) + decryptor.finalize()
        text = text[: -text[-1]]  # PKCS 7
        nonce = os.urandom(12)
        sealed = Binary(VERSION + nonce + new.encrypt(nonce, text, VERSION))
        updates.append(UpdateOne({"_id": doc["_id"]}, {"$set": {field: sealed}}))
        if len(updates) == migrating.BATCH:
            docs += write(coll, updates)
            updates = []
    return docs + write(coll, updates)


def write(coll, updates) -> int:
    return coll.bulk_write(updates, ordered=False).matched_count if updates else 0


if __name__ == "__main__":
    migrating.run(migrate)
