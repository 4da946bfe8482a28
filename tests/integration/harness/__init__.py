"""Real processes for integration tests, benchmarks and the demo: mongod, Vault, RabbitMQ, rekeyd,
rekeyctl."""

from .admin import Admin, admin_settings
from .certs import Certificates
from .faultproxy import FaultProxy
from .mongo import Mongod, ReplicaSet
from .process import Process, ProcessError, mongod_binary, rekey_binary
from .protected import SECRET, Protected, is_envelope, key_id, people_policy, protected, values_at
from .rabbitmq import RabbitMq
from .rekeyd import CtlError, Rekeyd, policy
from .vault import KEK, Vault, VaultError, vault_binary

__all__ = [
    "Admin",
    "admin_settings",
    "Certificates",
    "CtlError",
    "FaultProxy",
    "KEK",
    "Mongod",
    "Process",
    "ProcessError",
    "Protected",
    "RabbitMq",
    "Rekeyd",
    "ReplicaSet",
    "SECRET",
    "is_envelope",
    "key_id",
    "mongod_binary",
    "people_policy",
    "policy",
    "protected",
    "rekey_binary",
    "values_at",
    "Vault",
    "VaultError",
    "vault_binary",
]
