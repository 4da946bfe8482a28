"""Real processes for integration tests, benchmarks and the demo: mongod, rekeyd, rekeyctl."""

from .certs import Certificates
from .mongo import Mongod, ReplicaSet
from .process import Process, ProcessError, mongod_binary, rekey_binary
from .rekeyd import CtlError, Rekeyd, policy

__all__ = [
    "Certificates",
    "CtlError",
    "Mongod",
    "Process",
    "ProcessError",
    "Rekeyd",
    "ReplicaSet",
    "mongod_binary",
    "policy",
    "rekey_binary",
]
