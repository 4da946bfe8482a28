"""Values in legacy formats with a fixed iv, as an application would have left them: FORMATS for a
policy, KEY (LEGACY_KEYS for rekeyd) to read them with, stored_forms of a text."""

import base64

from bson import Binary
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.padding import PKCS7

KEY = bytes(range(32))
LEGACY_KEYS = {"old": KEY}
IV, NONCE = b"\x07" * 16, b"\x09" * 12
FORMATS = [
    {"cipher": "aes-256-cbc", "encoding": "base64", "key": "old", "iv_hex": IV.hex(),
     "iv_implied": True, "version_hex": "01"},
    {"cipher": "aes-256-gcm", "encoding": "binary", "key": "old", "iv_hex": NONCE.hex()},
]


def cbc(text):
    padder = PKCS7(128).padder()
    padded = padder.update(text.encode()) + padder.finalize()
    encryptor = Cipher(algorithms.AES(KEY), modes.CBC(IV)).encryptor()
    return b"\x01" + encryptor.update(padded) + encryptor.finalize()


def gcm(text):
    return Binary(NONCE + AESGCM(KEY).encrypt(NONCE, text.encode(), None))


def stored_forms(text, formats=FORMATS):
    """The same value in every form that an application may have left."""
    raw = cbc(text)
    standard, url_safe = base64.b64encode(raw).decode(), base64.urlsafe_b64encode(raw).decode()
    base64_forms = [standard, standard.rstrip("="), url_safe, url_safe.rstrip("=")]
    forms = (base64_forms, [gcm(text)])
    return [form for i, each in enumerate(forms) if FORMATS[i] in formats for form in each]
