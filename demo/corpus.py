"""Survey responses that anyone can compute again from their number, so that every answer can be
checked, and the encryption that the application used before it had Rekey."""

import os
import struct
from datetime import datetime, timedelta, timezone

from bson import Binary, ObjectId
from cryptography.hazmat.primitives import padding
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

DATABASE = "survey"
COLLECTION = "responses"
NAMESPACE = f"{DATABASE}.{COLLECTION}"

QUESTIONS_PER_INSTANCE = 25
LEGACY_KEY_NAME = "app-2019"
LEGACY_VERSION = b"\x01"

_START = datetime(2019, 3, 1, 8, tzinfo=timezone.utc)
_LOCALES = ("en-GB", "de-DE", "fr-FR", "es-ES", "pl-PL", "ja-JP", "pt-BR")
_NAMES = ("ada", "grace", "edsger", "barbara", "donald", "frances", "ken", "radia", "tony")
_FEELINGS = ("Very happy", "Mostly content", "Rather undecided", "Somewhat let down", "Quite angry")
_REASONS = (
    "the support team called back within the hour",
    "my doctor's letters keep arriving at the old address",
    "the salary bands were finally explained to us",
    "the night shifts leave no time for the children",
    "nothing has changed since the last survey",
    "the new office is closer to where I live",
    "the diagnosis came late, but the care was good",
)


def identifier(i: int) -> ObjectId:
    return ObjectId(struct.pack(">IQ", int(_START.timestamp()) + i, i))


def answer(i: int) -> str:
    return f"{_FEELINGS[i % 5]}: {_REASONS[i % 7]}. (response {i})"


def email(i: int) -> str:
    return f"{_NAMES[i % 9]}.{i // QUESTIONS_PER_INSTANCE}@example.org"


def response(i: int) -> dict:
    return {
        "_id": identifier(i),
        "instanceId": i // QUESTIONS_PER_INSTANCE,
        "questionId": i % QUESTIONS_PER_INSTANCE,
        "date": _START + timedelta(seconds=37 * i),
        "locale": _LOCALES[i % 7],
        "respondent": {"email": email(i), "country": _LOCALES[i % 7][-2:]},
        "answer": answer(i),
    }


def legacy_response(i: int, key: bytes) -> dict:
    """The same response as the application itself stored it until now."""
    document = response(i)
    document["answer"] = legacy_encrypt(document["answer"], key)
    document["respondent"]["email"] = legacy_encrypt(document["respondent"]["email"], key)
    return document


def legacy_encrypt(text: str, key: bytes) -> Binary:
    """A version byte, a random iv, AES-256-CBC with PKCS#7 padding."""
    iv = os.urandom(16)
    padder = padding.PKCS7(128).padder()
    padded = padder.update(text.encode()) + padder.finalize()
    encryptor = Cipher(algorithms.AES(key), modes.CBC(iv)).encryptor()
    return Binary(LEGACY_VERSION + iv + encryptor.update(padded) + encryptor.finalize())
