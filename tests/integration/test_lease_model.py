"""
The in-memory server of the lease model (tests/unit/jobs/lease_model) against a real one: the
commands of its runs are sent again, in their order and at the time they had, and every reply, and
every document at the end, has to be the same, byte for byte but for what a server makes up itself:
generated ids, $currentDate, and the words of errors.
"""

import os
import subprocess
from collections import Counter

import bson
import pytest
from bson import SON, ObjectId
from bson.codec_options import CodecOptions
from harness.process import rekey_binary

RUNS = 25
OPTIONS = CodecOptions(document_class=SON)
SERVER_TIMES = ("startedAt", "completedAt", "resolvedAt", "offeredAt")


@pytest.fixture(scope="module")
def dump(tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "commands.bson"
    model = rekey_binary("jobs_test_lease_model")
    environment = {**os.environ, "LEASE_MODEL_DUMP": str(path), "LEASE_MODEL_RUNS": str(RUNS)}
    subprocess.run([model], env=environment, check=True, timeout=60, stderr=subprocess.PIPE)
    return bson.decode_all(path.read_bytes(), OPTIONS)


def at(value, now):
    """A command at another time than the server's own."""
    if isinstance(value, SON):
        return SON((k, at(v, now)) for k, v in value.items())
    if isinstance(value, list):
        return [at(v, now) for v in value]
    return now if value == "$$NOW" else value


def plain(value, key=None):
    """Without what a server makes up."""
    if isinstance(value, SON):
        return SON((k, plain(v, k)) for k, v in value.items() if k != "errmsg")
    if isinstance(value, list):
        return [plain(v) for v in value]
    if key in SERVER_TIMES and value is not None:
        return "a time"
    return value


def without_generated_ids(document):
    generated = isinstance(document.get("_id"), ObjectId)
    return SON((k, "an id" if generated and k == "_id" else v) for k, v in document.items())


def comparable(reply, command):
    """Of a reply, what the model says, too."""
    name = next(iter(command))
    reply = plain(reply)
    if name == "createIndexes":
        return bson.encode(SON(ok=reply["ok"]))
    if reply["ok"] == 0:
        return bson.encode(SON(ok=0.0, code=reply["code"]))
    for unsaid in ("$clusterTime", "operationTime", "electionId", "opTime"):
        reply.pop(unsaid, None)
    if "writeErrors" in reply:
        reply["writeErrors"] = [SON(index=e["index"], code=e["code"]) for e in reply["writeErrors"]]
    if command[name] == "deadLetters" and "upserted" in reply:
        reply["upserted"] = [without_generated_ids(entry) for entry in reply["upserted"]]
    if "cursor" in reply:
        batch = [bson.encode(document) for document in reply["cursor"]["firstBatch"]]
        batch = batch if "sort" in command else sorted(batch)
        reply["cursor"] = SON(firstBatch=batch, id=reply["cursor"]["id"])
    return bson.encode(SON(sorted(reply.items())))


@pytest.mark.timeout(120)
def test_the_model_answers_as_mongod_does(dump, single_member_set, db_name):
    commands = Counter()
    with single_member_set.client() as client:
        databases = {db: client.get_database(f"{db_name}_{db}", OPTIONS) for db in ("app", "state")}
        run = 0
        for entry in dump:
            if entry["run"] != run:
                run = entry["run"]
                for database in databases.values():
                    client.drop_database(database.name)
            database = databases[entry["db"]]
            if "collection" in entry:
                check_collection(database, entry)
                continue
            check_command(database, entry)
            commands[next(iter(entry["command"]))] += 1
        for database in databases.values():
            client.drop_database(database.name)
    assert run == RUNS
    assert sum(commands.values()) > 2000
    for name in ("find", "count", "insert", "update", "delete", "findAndModify", "createIndexes"):
        assert commands[name] > 0, name


def check_command(database, entry):
    command = at(entry["command"], entry["now"])
    # What is committed at once may be read and written without waiting for it.
    read_concern = command.pop("readConcern", None)
    command.pop("writeConcern", None)
    reply = database.command(SON(command), check=False, codec_options=OPTIONS)
    said = comparable(entry["reply"], command)
    assert comparable(reply, command) == said, (command, entry["reply"], reply)
    if read_concern:
        command["readConcern"] = read_concern
        assert database.command(command, check=False)["ok"] == 1, command


def check_collection(database, entry):
    def documents(found):
        found = [plain(document) for document in found]
        if entry["collection"] == "deadLetters":
            found = [without_generated_ids(document) for document in found]
        return sorted(bson.encode(document) for document in found)

    stored = list(database[entry["collection"]].find())
    assert documents(stored) == documents(entry["documents"]), entry["collection"]
