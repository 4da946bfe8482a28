"""A migration with MongoDB's client-side field level encryption, from one data key to another.

What rewrap_many_data_key cannot do: it wraps the data key anew and leaves it as it is. So every
value is decrypted and encrypted explicitly, through libmongocrypt with a local KMS provider,
between a cursor and bulk writes as in cursor.py. Data keys are at hand after the first document.
"""

import cursor
import migrating
from bson.binary import Binary, UuidRepresentation
from bson.codec_options import CodecOptions
from pymongo import UpdateOne
from pymongo.encryption import Algorithm, ClientEncryption

KEY_VAULT = "encryption.__keyVault"


def client_encryption(client, master_key: bytes) -> ClientEncryption:
    providers = {"local": {"key": master_key}}
    codec = CodecOptions(uuid_representation=UuidRepresentation.STANDARD)
    return ClientEncryption(providers, KEY_VAULT, client, codec)


def migrate(coll, config, filter) -> int:
    field = config["field"]
    random = Algorithm.AEAD_AES_256_CBC_HMAC_SHA_512_Random
    new_key = Binary(bytes.fromhex(config["new_key_id"]), 4)
    master_key = bytes.fromhex(config["master_key"])
    docs, updates = 0, []
    found = coll.find(filter, {field: 1}, batch_size=migrating.BATCH).hint([("_id", 1)])
    with client_encryption(coll.database.client, master_key) as encryption:
        for doc in found:
            text = encryption.decrypt(doc[field])
            sealed = encryption.encrypt(text, random, key_id=new_key)
            updates.append(UpdateOne({"_id": doc["_id"]}, {"$set": {field: sealed}}))
            if len(updates) == migrating.BATCH:
                docs += cursor.write(coll, updates)
                updates = []
        return docs + cursor.write(coll, updates)


if __name__ == "__main__":
    migrating.run(migrate)
