"""Keys, tokens and secret_ids: where they are, and where they must not be."""

import base64
import os
import resource
import signal
from contextlib import contextmanager
from pathlib import Path

import pytest
from harness import KEK, people_policy, protected
from harness.derived import derived_keys
from harness.memory import occurrences
from harness.protected import person
from scripted_vault import ScriptedVault

RELEASE = Path(os.environ.get("REKEY_BUILD", "build/release")).name == "release"


@pytest.fixture
def in_front(vault):
    """Sees the tokens that come."""
    with ScriptedVault(vault) as scripted:
        yield scripted


@pytest.fixture(params=["file", "environment"])
def people(request, single_member_set, start_rekeyd, in_front, vault, tmp_path, db_name):
    """In use for a while; where its secret_id comes from."""
    settings = vault.settings(tmp_path / "secrets", addresses=[in_front.address])
    settings["keys"].update(refresh_interval_ms=100, negative_cache_ms=200)
    secret_id = (tmp_path / "secrets" / "secret_id").read_text().strip()
    environment = {}
    if request.param == "environment":
        del settings["keys"]["vault"]["secret_id_file"]
        settings["keys"]["vault"]["secret_id_env"] = "TEST_SECRET_ID"
        environment = {"TEST_SECRET_ID": secret_id}
    rekeyd = start_rekeyd(
        single_member_set, [people_policy(db_name)], settings=settings, environment=environment
    )
    with protected(rekeyd, db_name) as people:
        people.secret_id = secret_id
        people.app.insert_many(person(i) for i in range(20))
        people.rotate()
        people.app.insert_one(person("new"))
        assert people.app.find_one({"ssn": person(1)["ssn"]})["_id"] == 1
        assert people.app.count_documents({}) == 21
        yield people


@contextmanager
def unlimited_cores():
    soft, hard = resource.getrlimit(resource.RLIMIT_CORE)
    assert hard != 0, "the tests need RLIMIT_CORE"
    resource.setrlimit(resource.RLIMIT_CORE, (hard, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_CORE, (soft, hard))


def used_keys(people, vault) -> dict:
    """What envelopes are encrypted with, by key and algorithm: in use, so in memory by right."""
    derived = {id: derived_keys(root) for id, root in roots(people, vault).items()}
    return {f"{id} {name}": key for id, keys in derived.items() for name, key in keys.items()}


def roots(people, vault) -> dict:
    """The data keys, by id."""
    found = {}
    for key in people.state["keys"].find():
        text = bytes(key["wrapped"])[16:].decode()
        answer = vault.api("POST", f"transit/decrypt/{KEK}", {"ciphertext": text})
        found[key["_id"]] = base64.b64decode(answer["data"]["plaintext"])
    return found


def encoded(secrets: dict) -> dict:
    return {
        f"{name} in {how}": encode(secret)
        for name, secret in secrets.items()
        for how, encode in (("base64", base64.b64encode), ("hex", lambda s: s.hex().encode()))
    }


@pytest.mark.parametrize("people", ["file"], indirect=True)  # sanitizers copy the environment
def test_a_core_would_hold_no_secret(people, vault, in_front):
    """Not even what is in memory by right: there it lies in OpenSSL's secure heap."""
    token = next(token for _, token in in_front.requests if token)  # those of rekeyctl come later
    kept = {**used_keys(people, vault), "token": token.encode()}
    never = {f"data key {id}": root for id, root in roots(people, vault).items()}
    never["secret_id"] = people.secret_id.encode()
    hidden = {**kept, **never, **encoded({**kept, **never})}
    # The searches must be able to find: these are in memory, and so is that in the core.
    assert set(occurrences(people.rekeyd.pid, kept)) == set(kept)
    by_right = {"role_id": people.rekeyd.config["keys"]["vault"]["role_id"].encode()}
    assert occurrences(people.rekeyd.pid, {**hidden, **by_right}, dumped=True) == ["role_id"]


def test_processes_of_others_see_no_secret(people, in_front):
    """Command line and environment are open to every process of the user, logs to more."""
    told = people.rekeyd.logs().encode()
    for name in ("cmdline", "environ"):
        told += Path(f"/proc/{people.rekeyd.pid}/{name}").read_bytes()
    assert b"PATH=" in told
    assert people.secret_id.encode() not in told and b"hvs." not in told


@pytest.mark.parametrize("people", ["file"], indirect=True)
def test_whether_a_crash_leaves_a_core(people):
    """Of a release build nothing. Debug builds may, where REKEY_ALLOW_CORE says so."""
    _, allowed = resource.getrlimit(resource.RLIMIT_CORE)
    people.rekeyd.terminate()
    with unlimited_cores():
        people.rekeyd.start()
    limit = resource.prlimit(people.rekeyd.pid, resource.RLIMIT_CORE)
    os.kill(people.rekeyd.pid, signal.SIGABRT)
    ended = os.waitid(os.P_PID, people.rekeyd.pid, os.WEXITED | os.WNOWAIT)
    people.rekeyd.start()
    assert ended.si_status == signal.SIGABRT
    # Sanitizers leave the soft limit at 0.
    assert limit == (0, 0) if RELEASE else limit[1] == allowed
    assert not RELEASE or ended.si_code == os.CLD_KILLED  # not CLD_DUMPED
