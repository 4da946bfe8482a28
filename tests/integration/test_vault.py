"""The vault provider on a real Vault server: log in, keys, and outages that nobody notices."""

import base64
import concurrent.futures
import contextlib
import itertools
import random
import secrets
import time

import legacy_corpus
import pytest
from bson.binary import Binary
from pymongo.errors import OperationFailure

from harness import (
    KEK,
    Certificates,
    CtlError,
    Rekeyd,
    VaultError,
    is_envelope,
    people_policy,
)
from harness.memory import occurrences
from harness.ports import free_port
from harness.protected import person
from harness.waiting import wait_until
from on_vault import (
    audit,
    left_to_sweep,
    message_of,
    registry,
    settings_of,
    vault_state,
    write_and_read,
)

DATA_KEY = f"transit/datakey/plaintext/{KEK}"
DECRYPT = f"transit/decrypt/{KEK}"
LOGIN = "auth/approle/login"


# The main job.


def test_data_keys_come_from_vault(vault, start):
    made, opened = vault.requests(DATA_KEY), vault.requests(DECRYPT)
    people = start(vault)
    write_and_read(people, person(1))
    write_and_read(people, person(2))
    assert (vault.requests(DATA_KEY), vault.requests(DECRYPT)) == (made + 1, opened + 1)
    (key,) = registry(people).find()
    assert key["kek"] == f"transit/{KEK}:v1"
    assert b"vault:v1:" in key["wrapped"]


@pytest.mark.tsan
def test_rotation_loads_one_more_key(vault, start):
    people = start(vault)
    write_and_read(people, person(1))
    opened = vault.requests(DECRYPT)
    assert people.rekeyd.ctl("keys", "rotate") == {"keyId": 2}
    people.wait_for_key(2)
    write_and_read(people, person(2))
    assert people.app.find_one({"_id": 1}) == person(1)
    assert vault.requests(DECRYPT) == opened + 1


def test_rewrap_after_a_rotation_of_the_kek(vault, start, start_rekeyd, single_member_set):
    people = start(vault)
    write_and_read(people, person(1))
    people.rekeyd.ctl("keys", "rotate")
    before = people.app.find_one({"_id": 1})
    stored = people.stored.find_one({"_id": 1})
    vault.rotate_kek()
    assert people.rekeyd.ctl("keys", "rewrap") == {"rewrapped": 2}
    assert people.rekeyd.ctl("keys", "rewrap") == {"rewrapped": 0}
    versions = {key["kek"].rsplit(":v")[1] for key in registry(people).find()}
    assert versions != {"1"} and len(versions) == 1
    vault.configure_kek(min_decryption_version=int(versions.pop()))
    # A fresh process has nothing cached: it needs the rewrapped keys.
    second = people.rekeyd.sibling()
    with second, second.client() as client:
        assert client[people.app.database.name].people.find_one({"_id": 1}) == before
    assert people.stored.find_one({"_id": 1}) == stored
    actions = [event["action"] for event in audit(people).find({"result": "ok"})]
    assert actions.count("key.rewrap") == 2


def test_a_moved_wrapped_key_is_refused(vault, start):
    """Whoever can write the registry must not bring an old key back under a new id."""
    people = start(vault)
    write_and_read(people, person(1))
    people.rekeyd.ctl("keys", "rotate")
    people.wait_for_key(2)
    first = registry(people).find_one({"_id": 1})
    registry(people).update_one({"_id": 2}, {"$set": {"wrapped": first["wrapped"]}})
    second = people.rekeyd.sibling()
    with second, second.client() as client:
        with pytest.raises(OperationFailure) as failure:
            client[people.app.database.name].people.insert_one(person(3))
    assert "data key 2: the wrapped key is another one's" in message_of(failure)


# Keys from before Rekey.


def write_legacy(people, key: bytes):
    """A value as the application encrypted it by itself."""
    raw = legacy_corpus.encrypt("gcm", key, b"from before", random.Random(7))
    people.stored.insert_one({"_id": "old", "answer": Binary(raw)})


LEGACY = {"cipher": "aes-256-gcm", "encoding": "binary", "key": "old", "type": "string"}
FIELDS = {"answer": {"algorithm": "random", "legacy": [LEGACY]}, "ssn": "deterministic"}


@pytest.mark.parametrize("spelling", [bytes.hex, lambda key: base64.b64encode(key).decode()])
@pytest.mark.parametrize("version", [1, 2])
def test_legacy_keys_from_kv(vault, start, spelling, version):
    key = secrets.token_bytes(32)
    keep = vault.keep if version == 2 else vault.keep_in_version_1
    path = keep("dek", material=spelling(key))
    legacy = [{"name": "old", "path": path, "field": "material"}]
    people = start(vault, fields=FIELDS, legacy=legacy)
    write_legacy(people, key)
    assert people.app.find_one({"_id": "old"}) == {"_id": "old", "answer": "from before"}
    people.app.insert_one({"_id": 1, "ssn": "one"})
    people.rekeyd.ctl("start", people.namespace, "--wait")
    assert is_envelope(people.stored.find_one({"_id": "old"})["answer"])
    assert people.app.find_one({"_id": "old"}) == {"_id": "old", "answer": "from before"}


@pytest.mark.parametrize("content", ["", "abc", "g" * 64, "A" * 43 + "=" + "A"])
def test_legacy_key_that_is_none(vault, start, content):
    path = vault.keep("odd", key=content)
    people = start(vault, fields=FIELDS, legacy=[{"name": "old", "path": path}])
    people.stored.insert_one({"_id": 1, "ssn": "x"})
    with pytest.raises(OperationFailure, match="the field key of the legacy key old is neither"):
        people.app.insert_one({"_id": 2, "ssn": "one"})


def test_legacy_key_that_is_not_there(vault, start):
    legacy = [{"name": "old", "path": "secret/data/nowhere"}]
    people = start(vault, fields=FIELDS, legacy=legacy)
    with pytest.raises(OperationFailure, match="vault: secret/data/nowhere: .*404"):
        people.app.insert_one({"_id": 2, "ssn": "one"})


# Outages.


@pytest.mark.tsan
def test_sealed_vault_is_not_noticed(vault, start):
    people = start(vault)
    write_and_read(people, person(1))
    assert people.rekeyd.admin.value("rekey_vault_state", state="available") == 1
    vault.seal()
    assert people.rekeyd.wait_event("vault_unavailable")["reason"] == "sealed"
    assert vault_state(people) == "sealed"
    assert people.rekeyd.admin.ready()[0] == 200
    write_and_read(people, person(2))
    with pytest.raises(CtlError) as failure:
        people.rekeyd.ctl("keys", "rotate")
    assert "sealed" in message_of(failure)
    vault.unseal()
    people.rekeyd.wait_event("vault_available", 2)
    assert vault_state(people) == "available"
    assert people.rekeyd.ctl("keys", "rotate") == {"keyId": 2}
    people.wait_for_key(2)
    write_and_read(people, person(3))


@pytest.mark.tsan
def test_killed_vault_is_not_noticed(vault, start):
    people = start(vault)
    write_and_read(people, person(1))
    vault.kill()
    people.rekeyd.wait_event("vault_unavailable")
    assert vault_state(people) == "unreachable"
    write_and_read(people, person(2))
    with pytest.raises(CtlError) as failure:
        people.rekeyd.ctl("keys", "rotate")
    assert "keys.vault" in message_of(failure) or "vault: " in message_of(failure)
    vault.start()
    people.rekeyd.wait_event("vault_available", 2)
    assert vault_state(people) == "available"
    assert people.rekeyd.ctl("keys", "rotate") == {"keyId": 2}
    people.wait_for_key(2)
    write_and_read(people, person(3))


@pytest.mark.tsan
def test_a_rotation_that_an_instance_missed_is_made_up_for(vault, start):
    """It was silent until the others went on without it, and then Vault was sealed."""
    people = start(vault, keys={"instance_lease_ms": 1000})
    write_and_read(people, person(1))
    people.rekeyd.suspend()
    people.rekeyd.ctl("keys", "rotate")
    vault.seal()
    people.rekeyd.resume()
    people.rekeyd.wait_event("key_unwrap_failed")
    assert people.app.find_one({"_id": 1}) == person(1)
    with pytest.raises(OperationFailure, match="no unsealed server answers|Vault is sealed"):
        people.app.insert_one(person(2))
    vault.unseal()
    people.rekeyd.wait_event("key_loaded", 2)
    people.wait_for_key(2)
    write_and_read(people, person(2))


@pytest.mark.tsan
def test_the_sweep_pauses_while_vault_is_sealed(vault, start):
    people = start(vault, others={"sweep": {"max_rate": 200, "batch_docs": 10}})
    people.app.insert_many([person(i) for i in range(600)])
    people.rotate()
    people.rekeyd.ctl("start", people.namespace)
    wait_until(lambda: left_to_sweep(people) < 550)
    vault.seal()
    people.rekeyd.wait_event("vault_unavailable")
    admin = people.rekeyd.admin
    assert admin.value("rekey_sweep_throttled", by="provider") == 1
    assert admin.value("rekey_sweep_rate_limit") == 0
    time.sleep(0.5)  # for batches that are under way
    before = left_to_sweep(people)
    time.sleep(1)
    assert left_to_sweep(people) == before > 0
    write_and_read(people, person("while sealed"))
    vault.unseal()
    wait_until(lambda: left_to_sweep(people) == 0)
    assert admin.value("rekey_sweep_throttled", by="provider") == 0
    assert admin.value("rekey_sweep_rate_limit") == 200


@pytest.mark.tsan
def test_reload_leaves_the_connection_to_vault_alone(vault, start):
    """The settings that the client was started with were freed by the second reload."""
    people = start(vault)
    write_and_read(people, person(1))
    for i in range(1, 3):
        people.rekeyd.reload({"log": {"event_lines_per_s": i}})
        people.rekeyd.wait_event("reloaded", i)
    vault.revoke_tokens()
    people.rotate()
    write_and_read(people, person(2))


# Tokens.


def test_revoked_token_logs_in_again(vault, start):
    people = start(vault)
    write_and_read(people, person(1))
    vault.revoke_tokens()
    people.rekeyd.ctl("keys", "rotate")
    people.wait_for_key(2)
    write_and_read(people, person(2))
    assert len(people.rekeyd.events("vault_token_refused")) == 1
    assert len(people.rekeyd.events("vault_login")) == 2
    admin = people.rekeyd.admin
    assert admin.value("rekey_vault_tokens_refused_total") == 1
    assert admin.value("rekey_vault_logins_total", result="ok") == 2
    assert admin.value("rekey_vault_attempts_total", result="403") == 1
    assert 3000 < admin.value("rekey_vault_token_lease_seconds") <= 3600


@pytest.mark.tsan
def test_leases_are_renewed_and_tokens_replaced_before_they_end(vault, start):
    vault.configure_role(token_ttl="3s", token_max_ttl="6s")
    people = start(vault)
    people.rekeyd.wait_event("vault_token_renewed", timeout_s=20)
    people.rekeyd.wait_event("vault_login", 2, timeout_s=20)
    assert not people.rekeyd.events("vault_token_refused")
    admin = people.rekeyd.admin
    assert admin.value("rekey_vault_renewals_total", result="ok") >= 1
    assert admin.value("rekey_vault_logins_total", result="ok") >= 2
    assert 0 < admin.value("rekey_vault_token_lease_seconds") <= 3
    write_and_read(people, person(1))


def test_secret_id_that_ended(vault, start, tmp_path):
    """What is cached serves on; the login fails with the reason, and works with a new secret_id."""
    vault.configure_role(token_ttl="4s")
    people = start(vault)
    write_and_read(people, person(1))
    vault.forget_secret_ids()
    vault.revoke_tokens()
    with pytest.raises(CtlError) as failure:
        people.rekeyd.ctl("keys", "rotate")
    assert "auth/approle/login: invalid" in message_of(failure)
    write_and_read(people, person(2))
    people.rekeyd.wait_event("vault_renewal_failed")
    assert "auth/approle/login: invalid" in people.rekeyd.wait_event("vault_login_failed")["reason"]
    admin = people.rekeyd.admin
    assert admin.value("rekey_vault_renewals_total", result="failed") >= 1
    admin.wait_value(0, "rekey_vault_token_lease_seconds")
    time.sleep(2)  # a role with five failed logins would be locked out, for the new secret_id as well
    assert admin.value("rekey_vault_logins_total", result="failed") == 1
    write_and_read(people, person("without a token"))
    (tmp_path / "secrets" / "secret_id").write_text(vault.secret_id())
    people.rekeyd.ctl("keys", "rotate")
    people.wait_for_key(2)
    assert admin.value("rekey_vault_token_lease_seconds") > 0
    write_and_read(people, person(3))


def test_secret_id_from_the_environment(vault, start):
    secret = {"TEST_SECRET_ID": vault.secret_id()}
    people = start(vault, environment=secret, secret_id_file=None, secret_id_env="TEST_SECRET_ID")
    write_and_read(people, person(1))


def test_token_from_a_file(vault, start, tmp_path):
    path = tmp_path / "token"
    path.touch(0o600)
    path.write_text(vault.token(ttl="3s", explicit_max_ttl="5s"))
    people = start(vault, auth="token_file", token_file=str(path), role_id=None, secret_id_file=None)
    write_and_read(people, person(1))
    people.rekeyd.wait_event("vault_token_renewed", timeout_s=20)
    path.write_text(vault.token(ttl="1h"))
    people.rekeyd.wait_event("vault_login", 2, timeout_s=20)
    assert people.rekeyd.events("vault_login")[-1]["lease_s"] > 3000


# What Vault refuses.


def test_policy_without_a_right(vault, start):
    people = start(vault)
    write_and_read(people, person(1))
    forbidden = vault.policy.replace(DATA_KEY, "transit/datakey/plaintext/other")
    vault.api("PUT", "sys/policies/acl/rekey", {"policy": forbidden})
    with pytest.raises(CtlError) as failure:
        people.rekeyd.ctl("keys", "rotate")
    assert f"{DATA_KEY}: " in message_of(failure) and "permission denied" in message_of(failure)
    assert "must allow update" in message_of(failure)
    assert audit(people).find_one({"action": "key.rotate", "result": "failed"})
    write_and_read(people, person(2))


def test_a_missing_right_does_not_make_tokens(vault, start):
    """Loading the key is tried again and again; a new token would not help it."""
    people = start(vault)
    write_and_read(people, person(1))
    people.rekeyd.stop()
    forbidden = vault.policy.replace(DECRYPT, "transit/decrypt/other")
    vault.api("PUT", "sys/policies/acl/rekey", {"policy": forbidden})
    tried, logins = vault.requests(DECRYPT), vault.requests(LOGIN)
    people.rekeyd.start()
    wait_until(lambda: vault.requests(DECRYPT) >= tried + 8)
    assert vault.requests(LOGIN) == logins + 2  # the first, and one to be sure
    vault.api("PUT", "sys/policies/acl/rekey", {"policy": vault.policy})
    people.rekeyd.wait_event("key_loaded", 2)
    write_and_read(people, person(2))


def test_policy_without_the_right_to_decrypt(vault, start):
    """A key that rekeyd itself may not load waits until it may."""
    people = start(vault)
    write_and_read(people, person(1))
    forbidden = vault.policy.replace(DECRYPT, "transit/decrypt/other")
    vault.api("PUT", "sys/policies/acl/rekey", {"policy": forbidden})
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        rotated = pool.submit(people.rekeyd.ctl, "keys", "rotate")
        reason = people.rekeyd.wait_event("key_unwrap_failed")["reason"]
        assert f"{DECRYPT}: " in reason and "permission denied" in reason
        admin = people.rekeyd.admin
        assert admin.value("rekey_key_loads_total", result="failed") >= 1
        assert admin.value("rekey_vault_requests_total", outcome="refused") >= 1
        assert admin.value("rekey_vault_attempts_total", result="403") >= 2
        assert admin.value("rekey_keys", state="pending") == 1
        assert admin.value("rekey_current_key_id", key="default") == 1
        write_and_read(people, person(2))
        vault.api("PUT", "sys/policies/acl/rekey", {"policy": vault.policy})
        rotated.result()
    people.wait_for_key(2)
    admin.wait_value(2, "rekey_current_key_id", key="default")
    assert admin.value("rekey_key_loads_total", result="ok") == 2
    write_and_read(people, person(3))


def test_a_misspelt_key_makes_no_key(vault, start):
    with pytest.raises(OperationFailure) as failure:
        write_and_read(start(vault, key="rekex"), person(1))
    assert "transit/datakey/plaintext/rekex" in message_of(failure)
    with pytest.raises(VaultError, match="404"):
        vault.api("GET", "transit/keys/rekex")


def test_kek_version_that_may_no_longer_decrypt(vault, start):
    people = start(vault)
    write_and_read(people, person(1))
    vault.rotate_kek()
    version = vault.kek_version()
    vault.configure_kek(min_decryption_version=version)
    write_and_read(people, person(2))  # cached
    second = people.rekeyd.sibling()
    with second, second.client() as client:
        with pytest.raises(OperationFailure) as failure:
            client[people.app.database.name].people.find_one({"_id": 1})
        assert "disallowed by policy" in message_of(failure)
        assert "data key 1" in message_of(failure)
        assert "disallowed by policy" in second.wait_event("key_unwrap_failed")["reason"]
        assert second.admin.value("rekey_keys_missing") == 1
        assert second.admin.value("rekey_key_loads_total", result="failed") >= 1
        assert second.admin.value("rekey_vault_attempts_total", result="400") >= 1
        assert second.admin.ready() == (503, ["keys"])
    assert people.rekeyd.admin.value("rekey_keys_missing") == 0


def test_rate_limit_is_waited_out(vault, start):
    people = start(vault, retry_timeout_ms=20000)
    write_and_read(people, person(1))
    quota = {"path": "transit/", "rate": 1, "interval": "2s"}
    vault.api("POST", "sys/quotas/rate-limit/slow", quota)
    try:
        for id in range(2, 6):
            assert people.rekeyd.ctl("keys", "rotate") == {"keyId": id}
        people.wait_for_key(5)
        write_and_read(people, person(2))
        assert people.rekeyd.wait_event("vault_request_delayed")["status"] == 429
        assert people.rekeyd.admin.value("rekey_vault_attempts_total", result="429") >= 1
    finally:
        vault.api("DELETE", "sys/quotas/rate-limit/slow")


# Addresses and TLS.


@pytest.mark.tsan
def test_another_address_takes_over(vault, start):
    dead = f"https://127.0.0.1:{free_port()}"
    people = start(vault, addresses=[dead, vault.address])
    write_and_read(people, person(1))
    assert people.rekeyd.events("vault_available")[0]["address"] == vault.address
    assert people.rekeyd.events("vault_address_changed")
    admin = people.rekeyd.admin
    assert admin.value("rekey_vault_address_changes_total") >= 1
    assert admin.value("rekey_vault_attempts_total", result="unreachable") >= 1


def refused_start(upstream, vault, directory, **changes) -> str:
    settings = settings_of(vault, directory, None, changes)
    rekeyd = Rekeyd(upstream, [people_policy("any")], settings, directory / "refused")
    try:
        status, said = rekeyd.run()
    finally:
        rekeyd.finish()
    assert status == 1
    return said


def test_wrong_authority(single_member_set, vault, tmp_path):
    other = Certificates(tmp_path / "other", "Another CA")
    said = refused_start(single_member_set, vault, tmp_path, ca_file=other.ca_file)
    assert "vault: auth/approle/login: TLS failed: " in said


@pytest.mark.tsan
def test_wrong_authority_while_running_degraded(vault, start, tmp_path):
    other = Certificates(tmp_path / "other", "Another CA")
    people = start(vault, keys={"start_degraded": True}, ca_file=other.ca_file)
    assert "TLS failed" in people.rekeyd.wait_event("vault_unavailable")["reason"]
    assert vault_state(people) == "unreachable"
    assert people.rekeyd.admin.value("rekey_vault_attempts_total", result="untrusted") >= 1
    assert people.rekeyd.admin.value("rekey_vault_logins_total", result="failed") >= 1


def test_start_without_vault(single_member_set, vault, tmp_path):
    dead = f"https://127.0.0.1:{free_port()}"
    said = refused_start(single_member_set, vault, tmp_path, addresses=[dead])
    assert "vault: auth/approle/login: " in said and "given up after 3000 ms" in said


@pytest.mark.tsan
def test_degraded_start_serves_what_needs_no_key(vault, start, tmp_path):
    vault.settings(tmp_path / "secrets")  # a secret_id, while Vault still answers
    vault.kill()
    people = start(vault, keys={"start_degraded": True})
    assert people.rekeyd.events("started_degraded")
    people.plain.insert_one({"_id": 1})
    assert people.plain.find_one() == {"_id": 1}
    with pytest.raises(OperationFailure):
        people.app.insert_one(person(1))
    admin = people.rekeyd.admin
    assert vault_state(people) == "unreachable"
    assert admin.value("rekey_key_wait_failures_total") >= 1
    assert admin.value("rekey_keys_loaded") == 0
    admin.wait_ready((200, []))  # as keys.start_degraded says
    vault.start()
    people.rekeyd.wait_event("vault_available")
    wait_until(lambda: people.rekeyd.events("key_loaded"))
    write_and_read(people, person(1))
    assert vault_state(people) == "available"
    assert admin.value("rekey_keys_loaded") == 1


# Secrets.


def test_no_secret_is_told(vault, start, tmp_path):
    people = start(vault)
    write_and_read(people, person(1))
    secret = (tmp_path / "secrets" / "secret_id").read_text().strip()
    told = people.rekeyd.logs()
    with open(f"/proc/{people.rekeyd.pid}/cmdline") as file:
        told += file.read()
    assert secret not in told and "hvs." not in told
    result = people.rekeyd.ctl("keys", "rotate", check=False)
    assert secret not in result.stdout + result.stderr


def test_data_keys_are_nowhere_in_memory(vault, start):
    """What is kept are keys derived from them; what Vault sent is cleansed in every buffer."""
    people = start(vault)
    write_and_read(people, person(1))
    people.rotate()
    wrapped = [bytes(key["wrapped"])[16:].decode() for key in registry(people).find()]
    hidden = {}
    for i, text in enumerate(wrapped):
        answer = vault.api("POST", DECRYPT, {"ciphertext": text})["data"]["plaintext"]
        hidden[f"base64 of {i}"] = answer.encode()
        hidden[f"key {i}"] = base64.b64decode(answer)
    # The search must be able to find: a login's token is in memory by right.
    assert occurrences(people.rekeyd.pid, {**hidden, "token": b"hvs."}) == ["token"]


# Many at once.


@pytest.mark.tsan
def test_every_instance_asks_vault_once_for_a_key(vault, start):
    people = start(vault)
    for i in range(1, 4):
        write_and_read(people, person(i))
        people.rotate()
    asked = vault.requests(DECRYPT)
    instances = [people.rekeyd.sibling(f"fresh{i}") for i in range(4)]
    name = people.app.database.name
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(stack.enter_context(i).client()) for i in instances]
        with concurrent.futures.ThreadPoolExecutor(100) as pool:
            wanted = itertools.product(range(1, 4), clients, range(84))
            found = pool.map(lambda w: w[1][name].people.find_one({"_id": w[0]}), wanted)
            assert sum(document is not None for document in found) == 1008
    assert vault.requests(DECRYPT) == asked + 4 * 4
