"""Fixtures and helpers of the tests that run rekeyd on a real Vault server."""

import pytest

from harness import Vault, admin_settings, people_policy, protected
from harness.protected import key_id

TRANSIT_FIELDS = {"answer": "random", "ssn": "random", "contact.phone": "random"}
FLAG_REMOTE = 1  # of an envelope whose value Vault itself encrypted
# An outage lasts until a test ends it; nobody is to wait for the defaults meanwhile.
QUICK = {"retry_timeout_ms": 3000, "request_timeout_ms": 2000, "connect_timeout_ms": 1000}


@pytest.fixture(scope="module")
def shared_vault(tmp_path_factory):
    with Vault(tmp_path_factory.mktemp("vault")) as vault:
        yield vault


@pytest.fixture
def vault(shared_vault):
    """Unsealed, with the usual role and policy, whatever the last test did to it."""
    yield shared_vault
    if not shared_vault.alive:
        shared_vault.start()
    shared_vault.unseal()
    shared_vault.configure_role()
    shared_vault.api("PUT", "sys/policies/acl/rekey", {"policy": shared_vault.policy})
    shared_vault.configure_kek(min_decryption_version=1, min_encryption_version=0)


def settings_of(vault, directory, keys=None, changes=None):
    settings = vault.settings(directory / "secrets", **{**QUICK, **(changes or {})})
    quick = {"refresh_interval_ms": 100, "negative_cache_ms": 200}
    settings["keys"].update({**quick, **(keys or {})})
    return settings


@pytest.fixture
def start(single_member_set, start_rekeyd, tmp_path, db_name):
    """start(vault, **vault settings): rekeyd with a protected collection people."""
    opened = []

    def start(vault, environment=None, keys=None, others=None, fields=None, **changes):
        settings = {**settings_of(vault, tmp_path, keys, changes), **admin_settings()}
        settings.update(others or {})
        policies = [people_policy(db_name, fields)]
        rekeyd = start_rekeyd(
            single_member_set, policies, settings=settings, environment=environment
        )
        collection = protected(rekeyd, db_name, fields=fields)
        opened.append(collection)
        return collection.__enter__()

    yield start
    for collection in opened:
        collection.__exit__(None, None, None)


def write_and_read(people, document):
    people.app.insert_one(document)
    assert people.app.find_one({"_id": document["_id"]}) == document
    people.check()


def vault_state(people) -> str:
    """As the metric says it: exactly one state is the present one."""
    samples = people.rekeyd.admin.families()["rekey_vault_state"].samples
    (now,) = [sample.labels["state"] for sample in samples if sample.value == 1]
    return now


def registry(people):
    return people.state["keys"]


def audit(people):
    return people.state["audit"]


def flags(value) -> int:
    """Of an envelope."""
    return value[7]


def left_to_sweep(people) -> int:
    return sum(key_id(document["ssn"]) == 1 for document in people.stored.find({}, {"ssn": 1}))


def message_of(failure) -> str:
    return str(failure.value)
