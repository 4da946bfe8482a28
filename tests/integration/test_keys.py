"""Keys: the registry in MongoDB, rekeyctl's key commands, and how rekeyd follows both."""

import concurrent.futures
import json
import subprocess
import time

import pytest
from bson import Binary
from pymongo.errors import OperationFailure

from harness import Rekeyd, ReplicaSet, policy, rekey_binary
from harness.rekeyd import NEVER_REFRESHED

ENVELOPE_SUBTYPE = 0x8E

DOCUMENT_FIELDS = {"_id", "state", "kek", "wrapped", "createdAt", "activatedAt"}

# rekeyctl's exit codes.
OK, FAILED, USAGE, STATE, UNREACHABLE = range(5)


@pytest.fixture(params=["single_member_set", "standalone"])
def configured(request, tmp_path):
    """A configuration over a replica set or a standalone mongod; rekeyd is not started."""
    return Rekeyd(request.getfixturevalue(request.param), directory=tmp_path / "rekeyd")


@pytest.fixture
def state(configured):
    with state_of(configured) as db:
        yield db


class state_of:
    """The state database of a rekeyd, past the proxy."""

    def __init__(self, rekeyd):
        self.client = rekeyd.upstream.client()
        self.db = self.client[rekeyd.config["upstream"]["state_db"]]

    def __enter__(self):
        return self.db

    def __exit__(self, *_):
        self.client.drop_database(self.db.name)
        self.client.close()


def states(rekeyd) -> dict:
    return {key["id"]: key["state"] for key in rekeyd.ctl("keys", "list")["keys"]}


def key_id_of(value) -> int:
    """The key id in the header of an envelope."""
    assert isinstance(value, Binary) and value.subtype == ENVELOPE_SUBTYPE
    return int.from_bytes(value[8:12], "big")


# The registry, through rekeyctl.


def test_rotations(configured, state):
    assert configured.ctl("keys", "list") == {"keys": []}
    assert "keys rotate" in configured.ctl_text("keys", "list")
    for expected in (1, 2, 3):
        assert configured.ctl("keys", "rotate") == {"keyId": expected}
    assert states(configured) == {1: "retiring", 2: "retiring", 3: "current"}

    documents = list(state.keys.find(sort=[("_id", 1)]))
    assert [d["state"] for d in documents] == ["retiring", "retiring", "current"]
    assert all(set(d) == DOCUMENT_FIELDS for d in documents)
    assert all(len(d["wrapped"]) == 48 and d["kek"] == "main" for d in documents)
    assert len({bytes(d["wrapped"]) for d in documents}) == 3

    lines = configured.ctl_text("keys", "list").splitlines()
    assert lines[0].split() == ["ID", "NAME", "STATE", "KEK", "CREATED", "ACTIVATED"]
    assert [line.split()[:3] for line in lines[1:]] == [
        ["1", "default", "retiring"],
        ["2", "default", "retiring"],
        ["3", "default", "current"],
    ]


def test_every_rotation_is_audited(configured, state):
    configured.ctl("keys", "rotate")
    started, ended = state.audit.find(sort=[("at", 1), ("_id", 1)])
    assert (started["result"], ended["result"]) == ("started", "ok")
    for event in (started, ended):
        assert event["action"] == "key.rotate" and event["keyId"] == 1
        assert event["actor"] and event["host"] and event["pid"] > 0 and event["at"]


def test_concurrent_rotations(configured, state):
    """Each wins an id of its own or is refused; never do two share one, never is none current."""
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        jobs = [pool.submit(configured.ctl, "keys", "rotate", check=False) for _ in range(8)]
        results = [job.result() for job in jobs]
    assert {r.returncode for r in results} <= {OK, STATE}
    won = sorted(json.loads(r.stdout)["keyId"] for r in results if r.returncode == OK)
    assert won == list(range(1, len(won) + 1)) and won
    refused = [r.stderr for r in results if r.returncode == STATE]
    lost = [text for text in refused if "another rotation" in text]  # in the race for an id
    assert len(lost) == len([text for text in refused if "is pending still" not in text])
    after = states(configured)
    assert after.pop(won[-1]) == "current"
    assert set(after.values()) <= {"retiring"} and set(after) == set(won[:-1])
    rotated = {"action": "key.rotate"}
    assert state.audit.count_documents({**rotated, "result": "ok"}) == len(won)
    assert state.audit.count_documents({**rotated, "result": "failed"}) == len(lost)


def test_names(configured, state):
    """Each name has versions of its own; ids are unique over all of them."""
    for name, expected in [("default", 1), ("people", 2), ("people", 3), ("people:acme", 4)]:
        assert configured.ctl("keys", "rotate", name) == {"keyId": expected}
    assert configured.ctl("keys", "rotate") == {"keyId": 5}
    listed = {key["id"]: (key["name"], key["state"]) for key in configured.ctl("keys", "list")["keys"]}
    assert listed == {
        1: ("default", "retiring"),
        2: ("people", "retiring"),
        3: ("people", "current"),
        4: ("people:acme", "current"),
        5: ("default", "current"),
    }
    assert "name" not in state.keys.find_one({"_id": 5})
    for wrong in ["", "a b", ":acme", "people:", "x" * 65, "people:" + "x" * 300, "é"]:
        result = configured.ctl("keys", "rotate", wrong, check=False)
        assert result.returncode == USAGE and "is no name for a key" in result.stderr


def test_concurrent_rotations_of_several_names(configured, state):
    """Names do not disturb each other: whoever loses an id to another name takes the next."""
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        jobs = [pool.submit(configured.ctl, "keys", "rotate", f"name{i}") for i in range(8)]
        won = sorted(job.result()["keyId"] for job in jobs)
    assert won == list(range(1, 9))
    assert set(states(configured).values()) == {"current"}


def test_rotation_cut_short_between_its_writes(configured, state):
    """A crash leaves two "current" documents: the higher one is meant, and the next tidies up."""
    configured.ctl("keys", "rotate")
    configured.ctl("keys", "rotate")
    state.keys.update_many({}, {"$set": {"state": "current"}})
    assert states(configured) == {1: "retiring", 2: "current"}
    configured.ctl("keys", "rotate")
    assert [d["state"] for d in state.keys.find(sort=[("_id", 1)])] == [
        "retiring",
        "retiring",
        "current",
    ]


def test_strange_documents_in_the_registry(configured, state):
    """What is no key of ours is no reason to fail, and never a key to write under."""
    configured.ctl("keys", "rotate")
    state.keys.insert_many(
        [
            {"_id": "readme"},
            {"_id": -1, "state": "current"},
            {"_id": 0, "state": "current"},
            {"_id": 1.5, "state": "current"},
            {"_id": 2**32, "state": "current"},
            {"_id": {"a": 1}, "state": "current"},
            {"_id": 7, "state": "from a later version", "wrapped": Binary(b"x" * 5000)},
            {"_id": 8, "state": 1, "kek": 2, "wrapped": 3, "createdAt": 4, "activatedAt": 5},
            {"_id": 9, "kek": "k" * 4000},
        ]
    )
    assert states(configured) == {1: "current", 7: "retiring", 8: "retiring", 9: "retiring"}
    assert configured.ctl("keys", "rotate") == {"keyId": 10}


def test_ids_end(configured, state):
    state.keys.insert_one({"_id": 2**32 - 1, "state": "current"})
    result = configured.ctl("keys", "rotate", check=False)
    assert result.returncode == FAILED and "exhausted" in result.stderr


def test_rotation_survives_a_failover(tmp_path):
    """The key is majority-written before anyone hears of it."""
    with ReplicaSet(3, tmp_path / "servers") as servers:
        configured = Rekeyd(servers, directory=tmp_path / "rekeyd")
        configured.ctl("keys", "rotate")
        servers.primary().kill()
        servers.wait_writable()
        assert states(configured) == {1: "current"}
        configured.ctl("keys", "rotate")
        assert states(configured) == {1: "retiring", 2: "current"}


def test_a_secondary_reading_uri_still_reads_the_primary(tmp_path, replica_set):
    configured = Rekeyd(replica_set, directory=tmp_path / "rekeyd")
    configured.config["upstream"]["uri"] += "&readPreference=secondary"
    configured.write_config()
    with state_of(configured):
        for expected in range(1, 6):
            assert configured.ctl("keys", "rotate") == {"keyId": expected}
            assert states(configured)[expected] == "current"


# rekeyctl's frame.


def test_unreachable_server(tmp_path, single_member_set):
    configured = Rekeyd(single_member_set, directory=tmp_path / "rekeyd")
    configured.config["upstream"]["uri"] = (
        "mongodb://app:s3cr3t-word@127.0.0.1:1/?serverSelectionTimeoutMS=300"
    )
    configured.write_config()
    for words in (["keys", "list"], ["keys", "rotate"]):
        result = configured.ctl(*words, check=False)
        assert result.returncode == UNREACHABLE
        assert "cannot reach mongod" in result.stderr and "s3cr3t" not in result.stderr
        assert result.stdout == ""


@pytest.mark.parametrize("login", ["app:s3cr3t%25t41l@", "app:s3cr3t@t41l@", "app:s3cr3t/t41l@"])
def test_password_in_no_message(tmp_path, single_member_set, login):
    """Wrong or badly escaped: the message says what is the matter without quoting it."""
    configured = Rekeyd(single_member_set, directory=tmp_path / "rekeyd")
    address = single_member_set.addresses[0]
    configured.config["upstream"]["uri"] = (
        f"mongodb://{login}{address}/?serverSelectionTimeoutMS=300"
    )
    configured.write_config()
    result = configured.ctl("keys", "list", check=False)
    assert result.returncode in (FAILED, UNREACHABLE)
    assert result.stderr and "s3cr3t" not in result.stderr and "t41l" not in result.stderr


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["keys"],
        ["keys", "nothing"],
        ["nothing"],
        ["--nothing", "keys", "list"],
        ["keys", "list", "more"],
        ["keys", "rotate", "now"],
        ["-c"],
    ],
)
def test_usage(tmp_path, words):
    result = subprocess.run(
        [rekey_binary("rekeyctl"), *words], capture_output=True, text=True, cwd=tmp_path
    )
    configuration_missing = words[:2] in (["keys", "list"], ["keys", "rotate"])
    assert result.returncode == USAGE
    assert result.stdout == ""
    assert ("configuration" if configuration_missing else "rekeyctl --help") in result.stderr


def test_help_names_every_exit_code_and_command(tmp_path):
    def shown(*words):
        argv = [rekey_binary("rekeyctl"), *words]
        return subprocess.run(
            argv, capture_output=True, text=True, check=True, cwd=tmp_path
        ).stdout

    text = shown("--help")
    for expected in ("keys init", "keys list", "keys rotate", "config check", "exit codes"):
        assert expected in text
    assert "usage: rekeyctl" in shown("keys", "rotate", "--help")
    assert shown("--version").startswith("rekeyctl ")


def test_configuration_is_found(tmp_path, configured, state):
    """By option, by environment, in the working directory."""
    argv = [rekey_binary("rekeyctl"), "--json", "keys", "list"]
    text = configured.config_path.read_text()
    (tmp_path / "rekey.yaml").write_text(text)
    found = subprocess.run(argv, capture_output=True, text=True, cwd=tmp_path)
    assert json.loads(found.stdout) == {"keys": []}
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    named = subprocess.run(
        argv,
        capture_output=True,
        text=True,
        cwd=elsewhere,
        env={**configured.environment(), "REKEY_CONFIG": str(configured.config_path)},
    )
    assert json.loads(named.stdout) == {"keys": []}


def test_config_check(configured, tmp_path):
    assert configured.ctl("config", "check")["ok"] is True
    broken = tmp_path / "broken.yaml"
    broken.write_text("upstream:\n  uri: mongodb://127.0.0.1/\n  nothing: 1\n")
    result = configured.ctl("config", "check", broken, check=False)
    assert result.returncode == FAILED
    assert f"{broken}:3" in result.stderr and "nothing" in result.stderr


def test_keys_init(configured, tmp_path):
    made = tmp_path / "made.keyring"
    assert configured.ctl("keys", "init", made) == {"path": str(made)}
    assert made.stat().st_mode & 0o7777 == 0o600
    before = made.read_bytes()
    again = configured.ctl("keys", "init", made, check=False)
    assert again.returncode == STATE and made.read_bytes() == before
    # Without a file: the one of the configuration, which is there already.
    assert configured.ctl("keys", "init", check=False).returncode == STATE
    configured.keyring.unlink()
    configured.ctl("keys", "init")
    configured.ctl("keys", "rotate")


@pytest.mark.parametrize(
    "spoil, says",
    [
        (lambda path: path.chmod(0o644), "chmod 600"),
        (lambda path: path.unlink(), "No such file"),
        (lambda path: path.write_text("kek main nothex\n"), ":1:"),
    ],
)
def test_bad_keyring(configured, state, spoil, says):
    spoil(configured.keyring)
    result = configured.ctl("keys", "rotate", check=False)
    assert result.returncode == FAILED and says in result.stderr
    assert state.keys.count_documents({}) == 0


# rekeyd.

FIELD = {"ssn": "random", "mail": "deterministic"}


@pytest.fixture
def people(db_name):
    return [policy(f"{db_name}.people", FIELD)]


@pytest.mark.tsan
def test_rotation_reaches_every_rekeyd(start_rekeyd, single_member_set, people, db_name):
    """A second rekeyd picks a rotation up without a restart; old values stay readable by all."""
    first = start_rekeyd(single_member_set, people)
    second = first.sibling()
    with second, first.client() as one, second.client() as two, state_of(first) as state:
        raw = state.client[db_name].people
        for rekeyd in (first, second):
            rekeyd.wait_event("key_loaded")
        assert states(first) == {1: "current"}  # made by whoever came first
        one[db_name].people.insert_one({"_id": 1, "ssn": "a", "mail": "m"})
        first.ctl("keys", "rotate")
        for rekeyd in (first, second):
            rekeyd.wait_event("current_key_changed", count=2)
        for i, client in ((2, one), (3, two)):
            client[db_name].people.insert_one({"_id": i, "ssn": "b", "mail": "m"})
        keys = {d["_id"]: (key_id_of(d["ssn"]), key_id_of(d["mail"])) for d in raw.find()}
        assert keys == {1: (1, 1), 2: (2, 2), 3: (2, 2)}
        for client in (one, two):
            found = {d["_id"]: d["ssn"] for d in client[db_name].people.find()}
            assert found == {1: "a", 2: "b", 3: "b"}


@pytest.mark.tsan
def test_unknown_key_is_fetched_on_demand(start_rekeyd, single_member_set, people, db_name):
    """The second rekeyd never refreshes, and reads a value under a key it has not seen."""
    first = start_rekeyd(single_member_set, people)
    second = first.sibling()
    second.config["keys"].update(NEVER_REFRESHED)
    second.write_config()
    with second, first.client() as one, second.client() as two, state_of(first):
        two[db_name].people.insert_one({"_id": 1, "ssn": "a"})
        first.ctl("keys", "rotate")
        first.wait_event("current_key_changed", count=2)
        one[db_name].people.insert_one({"_id": 2, "ssn": "b"})
        assert [d["ssn"] for d in two[db_name].people.find(sort=[("_id", 1)])] == ["a", "b"]


def test_key_that_nobody_has(start_rekeyd, single_member_set, people, db_name):
    """Values under it say so in their place; everything else goes on."""
    rekeyd = start_rekeyd(single_member_set, people)
    with rekeyd.client() as client, state_of(rekeyd) as state:
        raw = state.client[db_name].people
        client[db_name].people.insert_one({"_id": 1, "ssn": "a"})
        stored = raw.find_one()["ssn"]
        lost = stored[:8] + (77).to_bytes(4, "big") + stored[12:]
        raw.insert_one({"_id": 2, "ssn": Binary(lost, ENVELOPE_SUBTYPE)})
        seen = [d["ssn"] for d in client[db_name].people.find(sort=[("_id", 1)])]
        assert seen == ["a", {"rekeyError": "key missing", "keyId": 77}]


def test_one_bad_key_does_not_hinder_others(start_rekeyd, single_member_set, people, db_name):
    rekeyd = start_rekeyd(single_member_set, people)
    with rekeyd.client() as client, state_of(rekeyd) as state:
        client[db_name].people.insert_one({"_id": 1, "ssn": "a"})
        rekeyd.ctl("keys", "rotate")
        rekeyd.wait_event("current_key_changed", count=2)
        client[db_name].people.insert_one({"_id": 2, "ssn": "b"})
        state.keys.update_one({"_id": 1}, {"$set": {"kek": "gone"}})
        restarted = rekeyd.sibling()
        with restarted, restarted.client() as again:
            restarted.wait_event("key_unwrap_failed")
            assert again[db_name].people.find_one({"_id": 2})["ssn"] == "b"
            with pytest.raises(Exception, match="gone|key 1"):
                again[db_name].people.find_one({"_id": 1})
            again[db_name].people.insert_one({"_id": 3, "ssn": "c"})
            assert len(restarted.events("key_unwrap_failed")) == 1  # once, not once a refresh


def counted(collection, query):
    try:
        return collection.count_documents(query)
    except OperationFailure as failure:
        return failure


def test_equality_needs_every_key(start_rekeyd, single_member_set, people, db_name):
    """Values under a key that does not unwrap were not found, and counted as different."""
    settings = {"keys": {"negative_cache_ms": 200}}
    rekeyd = start_rekeyd(single_member_set, people, settings=settings)
    with rekeyd.client() as client, state_of(rekeyd) as state:
        app = client[db_name].people
        app.insert_one({"_id": 1, "mail": "m"})
        rekeyd.ctl("keys", "rotate")
        rekeyd.wait_event("current_key_changed", count=2)
        good = state.keys.find_one_and_update({"_id": 1}, {"$set": {"kek": "gone"}})
        restarted = rekeyd.sibling()
        with restarted, restarted.client() as again:
            restarted.wait_event("key_unwrap_failed")
            blind = again[db_name].people
            for use in (
                lambda: blind.count_documents({"mail": "m"}),
                lambda: blind.delete_many({"mail": {"$ne": "m"}}),
                lambda: blind.update_one({"mail": "m"}, {"$set": {"n": 1}}, upsert=True),
                lambda: list(blind.aggregate([{"$match": {"$expr": {"$eq": ["$mail", "m"]}}}])),
                lambda: list(blind.aggregate([{"$sortByCount": "$mail"}])),
            ):
                with pytest.raises(Exception, match="could not be loaded|several keys"):
                    use()
            blind.insert_one({"_id": 2, "mail": "m"})
            assert blind.find_one({"_id": 2, "mail": {"$ne": None}})["mail"] == "m"
            state.keys.replace_one({"_id": 1}, good)
            restarted.wait_event("key_loaded", count=2)
            deadline = time.monotonic() + 10
            while (seen := counted(blind, {"mail": "m"})) != 2:
                assert time.monotonic() < deadline, seen
                time.sleep(0.05)


def test_current_key_that_does_not_unwrap(start_rekeyd, single_member_set, people, db_name):
    """No falling back to the former key: writes fail, reads go on, repair is noticed."""
    rekeyd = start_rekeyd(single_member_set, people, settings={"keys": {"negative_cache_ms": 200}})
    with rekeyd.client(retryWrites=False) as client, state_of(rekeyd) as state:
        client[db_name].people.insert_one({"_id": 1, "ssn": "a"})
        good = state.keys.find_one({"_id": 1})
        state.keys.insert_one({**good, "_id": 2, "kek": "elsewhere"})
        rekeyd.wait_event("key_unwrap_failed")
        rekeyd.wait_event("current_key_changed", count=2)
        with pytest.raises(Exception, match="elsewhere"):
            client[db_name].people.insert_one({"_id": 2, "ssn": "b"})
        assert client[db_name].people.find_one({"_id": 1})["ssn"] == "a"
        assert state.client[db_name].people.count_documents({}) == 1
        state.keys.delete_one({"_id": 2})
        rekeyd.wait_event("current_key_changed", count=3)
        client[db_name].people.insert_one({"_id": 2, "ssn": "b"})


def test_emptied_registry(start_rekeyd, single_member_set, people, db_name):
    """Keys in memory serve on, and no fresh key takes an id that data was written under."""
    rekeyd = start_rekeyd(single_member_set, people)
    with rekeyd.client() as client, state_of(rekeyd) as state:
        client[db_name].people.insert_one({"_id": 1, "ssn": "a"})
        saved = list(state.keys.find())
        state.keys.drop()
        event = rekeyd.wait_event("key_registry_unavailable")
        assert "empty" in event["reason"]
        client[db_name].people.insert_one({"_id": 2, "ssn": "b"})
        assert [d["ssn"] for d in client[db_name].people.find(sort=[("_id", 1)])] == ["a", "b"]
        assert state.keys.count_documents({}) == 0
        state.keys.insert_many(saved)
        rekeyd.wait_event("key_registry_available")
        assert len(rekeyd.events("key_registry_unavailable")) == 1


def test_no_key_and_none_to_be_made(start_rekeyd, single_member_set, people, db_name):
    rekeyd = start_rekeyd(single_member_set, people, settings={"keys": {"create_first_key": False}})
    with rekeyd.client(retryWrites=False) as client, state_of(rekeyd) as state:
        with pytest.raises(Exception, match="keys rotate"):
            client[db_name].people.insert_one({"_id": 1, "ssn": "a"})
        assert state.keys.count_documents({}) == 0
        rekeyd.ctl("keys", "rotate")
        rekeyd.wait_event("key_loaded")
        client[db_name].people.insert_one({"_id": 1, "ssn": "a"})
        assert client[db_name].people.find_one()["ssn"] == "a"


def test_first_key_is_made_once(single_member_set, people, tmp_path):
    """Four instances start together on an empty registry: one key, which all of them use."""
    first = Rekeyd(single_member_set, people, directory=tmp_path / "rekeyd")
    everyone = [first] + [first.sibling(f"rekeyd{i}") for i in range(2, 5)]
    with state_of(first) as state:
        try:
            for rekeyd in everyone:
                rekeyd.spawn()
            for rekeyd in everyone:
                rekeyd.wait_ready()
                rekeyd.wait_event("key_loaded")
            assert [d["_id"] for d in state.keys.find()] == [1]
            for rekeyd in everyone:
                rekeyd.finish()
        finally:
            for rekeyd in everyone:
                rekeyd.close()


def test_no_key_in_any_log(start_rekeyd, single_member_set, people, db_name):
    rekeyd = start_rekeyd(single_member_set, people, settings={"log": {"level": "debug"}})
    kek = rekeyd.keyring.read_text().split()[2]
    with state_of(rekeyd) as state:
        with rekeyd.client() as client:
            client[db_name].people.insert_one({"_id": 1, "ssn": "a"})
        wrapped = bytes(state.keys.find_one()["wrapped"]).hex()
        rekeyd.terminate()
    logs = rekeyd.logs().lower()
    assert kek[:16] not in logs and wrapped[:16] not in logs
