"""What rekeyd keeps of a data key: the keys derived from it (include/rekey/crypto/data_key.h)."""

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.kdf.hkdf import HKDF


def derived_keys(root: bytes) -> dict:
    """By the algorithm's name. A search for them finds key schedules as well, which begin so."""

    def derive(info: bytes, length: int) -> bytes:
        return HKDF(hashes.SHA256(), length, salt=None, info=info).derive(root)

    siv = derive(b"rekey aes-256-siv v1", 64)
    return {"xaes": derive(b"rekey xaes-256-gcm v1", 32), "s2v": siv[:32], "ctr": siv[32:]}
