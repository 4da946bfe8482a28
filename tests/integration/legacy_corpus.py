#!/usr/bin/env python3
"""Ciphertexts as applications wrote them before Rekey, made without any of Rekey's code.

    python legacy_corpus.py OUT.jsonl [--seed N]

Each line is one flat JSON object:

    cipher        "cbc" (AES-256-CBC, PKCS#7, iv in front) or "gcm" (nonce in front, tag behind)
    encoding      "binary" or "base64" (standard or URL-safe alphabet, padded or not)
    prefix_hex    the version bytes, may be empty
    key_hex       the key to read it with (for a wrong-key case: not the one it was written with)
    bson_type     of the plaintext: 2 (string) or 5 (binary)
    plaintext_hex what a reader must return; empty where valid is false
    value_hex     the stored bytes: raw, or the ASCII of the base64 text
    valid         false: a reader must refuse it
    what          what is special about the case

The same seed gives the same file. CBC authenticates nothing, so damage that happens to leave a
well-formed plaintext is not a case: the reader below decides, and the damage is made again.
"""

import argparse
import base64
import json
import random

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import padding
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

STRING, BINARY = 2, 5
LENGTHS = (0, 1, 15, 16, 17, 255, 4096)
PREFIXES = ((b"", LENGTHS), (b"v1", LENGTHS), (bytes(range(240, 256)), (17,)))
TEXT = "Zufriedenheit: sehr gut \u2013 \u00fcber 5 Jahre. \u20ac\u65e5\u672c\u8a9e\U0001f600 ok\n"


def text_of(rng, length):
    """Random UTF-8 of exactly this many bytes, some of them NUL."""
    out = b""
    while len(out) < length:
        char = rng.choice(TEXT + "\0").encode()
        out += char if len(out) + len(char) <= length else b"x"
    return out


def encrypt(cipher, key, plaintext, rng):
    if cipher == "gcm":
        nonce = rng.randbytes(12)
        return nonce + AESGCM(key).encrypt(nonce, plaintext, None)
    iv = rng.randbytes(16)
    padder = padding.PKCS7(128).padder()
    encryptor = Cipher(algorithms.AES(key), modes.CBC(iv)).encryptor()
    return iv + encryptor.update(padder.update(plaintext) + padder.finalize()) + encryptor.finalize()


def readable(cipher, key, raw, bson_type):
    """Would an honest reader get a plaintext out of raw?"""
    try:
        if cipher == "gcm":
            plaintext = AESGCM(key).decrypt(raw[:12], raw[12:], None)
        else:
            decryptor = Cipher(algorithms.AES(key), modes.CBC(raw[:16])).decryptor()
            unpadder = padding.PKCS7(128).unpadder()
            plaintext = decryptor.update(raw[16:]) + decryptor.finalize()
            plaintext = unpadder.update(plaintext) + unpadder.finalize()
        if bson_type == STRING:
            plaintext.decode("utf-8")
        return True
    except (InvalidTag, ValueError):
        return False


def encode(encoding, data, variant):
    if encoding == "binary":
        return data
    text = base64.urlsafe_b64encode(data) if variant % 2 else base64.b64encode(data)
    return text.rstrip(b"=") if variant // 2 % 2 else text


def flip(raw, rng):
    at = rng.randrange(len(raw) * 8)
    return bytes(b ^ (1 << at % 8) if i == at // 8 else b for i, b in enumerate(raw))


def damages(cipher, key, raw, bson_type, rng):
    """(what, key, raw) of ciphertexts that no reader may accept."""

    def until_unreadable(make):
        while True:
            bad_key, bad = make()
            if not readable(cipher, bad_key, bad, bson_type):
                return bad_key, bad

    yield "flipped bit", *until_unreadable(lambda: (key, flip(raw, rng)))
    yield "wrong key", *until_unreadable(lambda: (rng.randbytes(32), raw))
    yield "cut by a byte", key, raw[:-1]
    yield "cut below the shortest", key, raw[:11]
    yield "empty", key, b""


def case(cipher, encoding, prefix, key, bson_type, plaintext, value, valid, what):
    return {
        "cipher": cipher,
        "encoding": encoding,
        "prefix_hex": prefix.hex(),
        "key_hex": key.hex(),
        "bson_type": bson_type,
        "plaintext_hex": plaintext.hex(),
        "value_hex": value.hex(),
        "valid": valid,
        "what": what,
    }


def cases(rng):
    number = 0
    for cipher in ("cbc", "gcm"):
        for encoding in ("binary", "base64"):
            for prefix, lengths in PREFIXES:
                for length in lengths:
                    number += 1
                    bson_type = STRING if number % 2 else BINARY
                    key = rng.randbytes(32)
                    plaintext = text_of(rng, length) if bson_type == STRING else rng.randbytes(length)
                    raw = encrypt(cipher, key, plaintext, rng)

                    def row(key, data, valid, what, shown=prefix):
                        value = encode(encoding, data, number)
                        return case(cipher, encoding, shown, key, bson_type,
                                    plaintext if valid else b"", value, valid, what)

                    yield row(key, prefix + raw, True, f"{length} bytes")
                    if length not in (1, 16):
                        continue
                    for what, bad_key, bad in damages(cipher, key, raw, bson_type, rng):
                        yield row(bad_key, prefix + bad, False, what)
                    yield row(key, prefix + raw, False, "other version bytes", prefix[:-1] + b"\x7f")
            key = rng.randbytes(32)
            raw = encrypt(cipher, key, b"caf\xe9 au lait", rng)
            yield case(cipher, encoding, b"", key, STRING, b"", encode(encoding, raw, 0), False,
                       "plaintext is no UTF-8")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out")
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    with open(args.out, "w", encoding="ascii") as out:
        for line in cases(random.Random(args.seed)):
            out.write(json.dumps(line) + "\n")


if __name__ == "__main__":
    main()
