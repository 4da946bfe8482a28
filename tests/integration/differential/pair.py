"""Runs a sequence twice: on the protected collection through rekeyd, and on a plain one directly.

The protected side goes first. What Rekey refuses must have changed nothing, so the plain side
leaves it out: a whole command, or the statements of a batch that writeErrors tells. Everything
else has to come out the same, byte by byte.
"""

from collections import Counter

import bson
from bson import SON
from bson.raw_bson import RawBSONDocument
from harness import SECRET
from harness.protected import RAW, is_envelope
from pymongo.errors import OperationFailure

from .pool import is_legacy
from .shapes import BY_NAME, SHAPES, fields_of

REFUSALS = {
    20, 115, 10334, 31007, 31041, 31054, 31146, 51015, 51092, 51094, 51102, 51118, 51149, 51150,
    51158, 51160, 51161, 51204, 6890100,
}  # fmt: skip
STATEMENT_REFUSALS = REFUSALS | {52, 57}
# Statements that every server refuses.
IMPOSSIBLE = {
    "insert": ("documents", {"_id": []}),
    "update": ("updates", {"q": {}, "u": {"$refused": {"a": 1}}}),
    "delete": ("deletes", {"q": {"$refused": 1}, "limit": 1}),
}


class Difference(AssertionError):
    """What an application could have told Rekey from mongod by."""


class Pair:
    """Two databases, one after the other sequence."""

    def __init__(self, protected, plain_db, pools):
        """pools: documents to begin with, by the key that they are stored under."""
        self.protected, self.pools = protected, pools
        self.sides = (protected.app_db, plain_db)
        self.counted = Counter()

    def run(self, steps):
        self.sessions = None
        self.order_matters = True
        self.counted["sequences"] += 1
        self.used = [step[1] for step in steps if step[0] == "seed"]
        self.never_encrypted = Counter()
        for db in self.sides:
            for name in self.used:
                db.command("delete", name, deletes=[{"q": {}, "limit": 0}])
        try:
            for step in steps:
                getattr(self, f"run_{step[0]}")(*step[1:])
        finally:
            self.run_abort()
        for name in self.used:
            self.compare_collection(BY_NAME[name])

    # Steps.

    def run_seed(self, collection, chosen):
        stored, plain = [], []
        for id, (index, key) in enumerate(chosen):
            pool = self.pools[key % len(self.pools)]
            document = pool.documents[collection][index]
            plain.append({**document.plain, "_id": id})
            stored.append({**document.stored, "_id": id})
            self.never_encrypted[collection] += document.never_encrypted
        if chosen:
            self.sides[1][collection].insert_many(plain)
            self.protected.stored_db[collection].insert_many(stored)

    def run_begin(self):
        if self.sessions is None:
            self.sessions = [db.client.start_session() for db in self.sides]
            for db, session in zip(self.sides, self.sessions):
                # Before the first command of a transaction, which may be refused, mongod does not
                # know of it.
                session.start_transaction()
                db.command("find", self.used[0], limit=1, singleBatch=True, session=session)

    def end(self, how):
        sessions, self.sessions = self.sessions, None
        outcomes = []
        for session in sessions or ():
            with session:
                try:
                    outcomes.append(getattr(session, how)())
                except OperationFailure as failure:
                    outcomes.append(failure.code)
        self.same(*(outcomes or (None, None)), how)

    def run_commit(self):
        self.end("commit_transaction")

    def run_abort(self):
        self.end("abort_transaction")

    def run_rotate(self, _):
        self.run_commit()
        self.protected.rotate()
        self.counted["rotations"] += 1

    def run_sweep(self, collection):
        self.run_commit()
        namespace = f"{self.protected.app_db.name}.{collection}"
        self.protected.rekeyd.ctl("start", namespace, "--wait")
        self.counted["sweeps"] += 1

    def run_command(self, collection, command, touched):
        name = next(iter(command))
        self.counted["commands"] += 1
        self.counted["touching"] += touched
        seen = self.outcome(0, command)
        if self.refused(seen):
            self.counted["refused"] += touched
            self.counted[f"refused {name} {seen['code']}"] += 1
            return
        lost = self.refused_statements(seen, collection)
        wanted = self.outcome(1, without(command, lost))
        if seen.get("upserted") or "upserted" in seen.get("lastErrorObject", {}):
            # What an upsert takes from an equality that may stand for several ciphertexts comes
            # last.
            self.order_matters = False
        if touched and seen.get("nModified", 0) > wanted.get("nModified", 0):
            wanted["nModified"] = seen["nModified"]  # the same value in a new ciphertext
        message = seen.get("message", "")
        self.same(self.comparable(seen, lost), self.comparable(wanted, lost), (command, message))
        self.counted["mongod's errors"] += "code" in wanted
        self.counted["with results"] += touched and has_results(wanted)

    # Outcomes.

    def outcome(self, side, command) -> dict:
        db = self.sides[side]
        session = self.sessions[side] if self.sessions else None
        try:
            reply = dict(db.command(SON(command), codec_options=RAW, session=session))
        except OperationFailure as failure:
            return {"code": failure.code, "message": failure.details["errmsg"]}
        if "cursor" in reply:
            reply["batches"] = self.batches(db, reply["cursor"], command, session)
            last = list(command.get("pipeline", [{}])[-1])
            if last in (["$group"], ["$sortByCount"]):
                documents = [document for batch in reply["batches"] for document in batch]
                reply["batches"] = [sorted(documents, key=self.bytes)]
        return reply

    def batches(self, db, cursor, command, session) -> list:
        name = next(iter(command.values()))
        size = command.get("batchSize") or command.get("cursor", {}).get("batchSize") or 2
        batches = [list(cursor["firstBatch"])]
        while cursor["id"]:
            more = SON([("getMore", cursor["id"]), ("collection", name), ("batchSize", size)])
            self.counted["commands"] += db is self.sides[0]
            try:
                cursor = db.command(more, codec_options=RAW, session=session)["cursor"]
            except OperationFailure as failure:
                batches.append([{"code": failure.code}])
                break
            batches.append(list(cursor["nextBatch"]))
        return batches

    def refused(self, outcome) -> bool:
        """Whether a whole command was refused, with the namespace that it is about."""
        if outcome.get("code") not in STATEMENT_REFUSALS:
            return False
        namespaces = [f"{self.sides[0].name}.{shape.name}" for shape in SHAPES]
        return outcome["message"].startswith(
            tuple(f"{namespace}{sign} " for namespace in namespaces for sign in ":,")
        )

    def refused_statements(self, reply, collection) -> list:
        namespace = f"{self.sides[0].name}.{collection}"
        refused = [
            error["index"]
            for error in reply.get("writeErrors", ())
            if error["code"] in STATEMENT_REFUSALS and namespace in error["errmsg"]
        ]
        self.counted["refused statements"] += len(refused)
        return refused

    def comparable(self, outcome, lost):
        if "code" in outcome:
            return outcome["code"]
        if "batches" in outcome:
            return [[self.bytes(item) for item in batch] for batch in outcome["batches"]]
        kept = {}
        for field in ("n", "nModified", "values", "value", "lastErrorObject"):
            if field in outcome:
                kept[field] = self.bytes({"": outcome[field]})
        kept["upserted"] = [self.bytes(item) for item in outcome.get("upserted", ())]
        kept["writeErrors"] = [
            (error["index"], None if error["index"] in lost else error["code"])
            for error in outcome.get("writeErrors", ())
        ]
        return kept

    def bytes(self, document) -> bytes:
        raw = document.raw if isinstance(document, RawBSONDocument) else bson.encode(document)
        return raw if self.order_matters else bson.encode(sorted_keys(bson.decode(raw)))

    def same(self, seen, wanted, what):
        if seen != wanted:
            raise Difference(f"{what}\nthrough Rekey: {shown(seen)}\ndirectly:      {shown(wanted)}")

    def compare_collection(self, shape):
        seen, wanted = (
            [self.bytes(d) for d in db[shape.name].with_options(RAW).find().sort("_id", 1)]
            for db in self.sides
        )
        self.same(seen, wanted, f"documents of {shape.name}")
        self.check_stored(shape)

    def check_stored(self, shape):
        never_encrypted = 0
        for stored in self.protected.stored_db[shape.name].with_options(RAW).find():
            if SECRET.encode() in stored.raw and not self.never_encrypted[shape.name]:
                raise Difference(f"stored in the clear: {dict(stored)}")
            for field, path, parent, key in fields_of(shape.tree, bson.decode(stored.raw)):
                value = parent[key]
                if value is None or is_envelope(value) or field.legacy and is_legacy(value):
                    continue
                if not field.accept_plaintext:
                    raise Difference(f"stored in the clear at {path}: {value!r}")
                never_encrypted += 1
        if never_encrypted > self.never_encrypted[shape.name]:
            raise Difference(f"{never_encrypted} values of {shape.name} are stored in the clear")


def has_results(reply: dict) -> bool:
    if "batches" in reply:
        return any(reply["batches"])
    return bool(reply.get("n") or reply.get("values") or reply.get("value"))


def without(command, lost):
    """The command with statements that every server refuses in the place of the lost ones."""
    if not lost:
        return command
    field, impossible = IMPOSSIBLE[next(iter(command))]
    statements = [impossible if i in lost else s for i, s in enumerate(command[field])]
    return SON([*command.items(), (field, statements)])


def sorted_keys(value):
    if isinstance(value, dict):
        return SON((key, sorted_keys(value[key])) for key in sorted(value))
    if isinstance(value, list):
        return [sorted_keys(item) for item in value]
    return value


def shown(value):
    if isinstance(value, bytes):
        return bson.decode(value)
    if isinstance(value, list):
        return [shown(item) for item in value]
    if isinstance(value, dict):
        return {key: shown(item) for key, item in value.items()}
    return value
