"""
The command bulkWrite of MongoDB 8.0. The server is a mongod of an older release behind a script
that answers as 8.0 does: each op is carried out on mongod as the single statement that it is.
"""

import threading

import bson
import pytest
import wire
from bson import SON
from harness import SECRET, Rekeyd, is_envelope, people_policy, policy
from pymongo import DeleteMany, DeleteOne, InsertOne, ReplaceOne, UpdateMany, UpdateOne
from pymongo.errors import ClientBulkWriteException
from scripted_upstream import ScriptedUpstream
from wire import RawClient

DB = "bulk_write_command"
PEOPLE, OTHERS, PLAIN = NAMESPACES = [f"{DB}.{name}" for name in ("people", "others", "plain")]
NS_INFO = [{"ns": ns} for ns in NAMESPACES]
COMMAND = {"bulkWrite": 1, "$db": "admin"}
CURSOR_ID = 77
WIRE_VERSION = 25


class EightZero:
    """What the script answers. seen: every bulkWrite that arrived."""

    def __init__(self, mongod):
        self.address, self.client = mongod.addresses[0], mongod.client()
        self.connections = threading.local()
        self.opened, self.seen, self.rest = [], [], []

    def __call__(self, request) -> bytes:
        if request.opcode == wire.OP_MSG:
            name = next(iter(request.command))
            if name == "bulkWrite":
                self.seen.append(request)
                return self.answer(request, self.bulk_write(request.command))
            if name == "getMore" and request.command["collection"] == "$cmd.bulkWrite":
                return self.answer(request, self.get_more(request.command))
        reply = self.forward(request)
        if b"maxWireVersion" not in reply.raw:
            return reply.raw
        hello = reply.document | {"maxWireVersion": WIRE_VERSION}
        hello.pop("topologyVersion", None)  # or the driver would want a stream of hellos
        if reply.opcode == wire.OP_REPLY:
            return wire.op_reply(hello, response_to=reply.response_to)
        return self.answer(request, hello)

    @staticmethod
    def answer(request, document) -> bytes:
        return wire.op_msg(document, response_to=request.request_id)

    def forward(self, request):
        """Each of rekeyd's connections has its own to mongod."""
        if not hasattr(self.connections, "mongod"):
            self.connections.mongod = RawClient(self.address, timeout_s=20)
            self.opened.append(self.connections.mongod)
        self.connections.mongod.send(request.raw)
        return self.connections.mongod.receive()

    def bulk_write(self, command) -> dict:
        results, counts = [], dict.fromkeys(
            ["nErrors", "nInserted", "nMatched", "nModified", "nUpserted", "nDeleted"], 0
        )
        for idx, op in enumerate(command["ops"]):
            kind = next(iter(op))
            db, _, coll = command["nsInfo"][op[kind]]["ns"].partition(".")
            result = self.statement(self.client[db], coll, kind, op, command)
            results.append({"ok": float("code" not in result), "idx": idx} | result)
            if "code" in result:
                counts["nErrors"] += 1
                if command.get("ordered", True):
                    break
            elif "upserted" in result:
                counts["nUpserted"] += 1
            else:
                counts["nModified"] += result.get("nModified", 0)
                names = {"insert": "nInserted", "update": "nMatched", "delete": "nDeleted"}
                counts[names[kind]] += result["n"]
        if command.get("errorsOnly"):
            results = [result for result in results if not result["ok"]]
        size = command.get("cursor", {}).get("batchSize", len(results))
        self.rest = results[size:]
        cursor = {"id": bson.Int64(CURSOR_ID if self.rest else 0), "firstBatch": results[:size]}
        return {"cursor": cursor | {"ns": "admin.$cmd.bulkWrite"}} | counts | {"ok": 1.0}

    def get_more(self, command) -> dict:
        assert command["getMore"] == CURSOR_ID
        batch, self.rest = self.rest, []
        cursor = {"id": bson.Int64(0), "nextBatch": batch, "ns": "admin.$cmd.bulkWrite"}
        return {"cursor": cursor, "ok": 1.0}

    @staticmethod
    def statement(db, coll, kind, op, command) -> dict:
        names = ("upsert", "arrayFilters", "hint", "collation", "sort")
        rest = {name: op[name] for name in names if name in op}
        let = {"let": command["let"]} if "let" in command else {}
        if kind == "insert":
            made = SON(insert=coll, documents=[op["document"]])
        elif kind == "delete":
            limit = 0 if op.get("multi") else 1
            made = SON(delete=coll, deletes=[{"q": op["filter"], "limit": limit, **rest}], **let)
        else:
            constants = {"c": op["constants"]} if "constants" in op else {}
            update = {"q": op["filter"], "u": op["updateMods"], "multi": op.get("multi", False)}
            made = SON(update=coll, updates=[update | rest | constants], **let)
        reply = db.command(made, check=False)
        if reply["ok"] == 0:
            return {"code": reply["code"], "errmsg": reply["errmsg"], "n": 0}
        if "writeErrors" in reply:
            error = reply["writeErrors"][0]
            return {name: error[name] for name in error if name != "index"} | {"n": 0}
        upserted = {"upserted": reply["upserted"][0]} if "upserted" in reply else {}
        return {name: reply[name] for name in ("n", "nModified") if name in reply} | upserted

    def close(self):
        for connection in self.opened:
            connection.close()
        self.client.close()


@pytest.fixture(scope="module")
def script(single_member_set):
    script = EightZero(single_member_set)
    yield script
    script.close()


@pytest.fixture(scope="module")
def rekeyd(single_member_set, script, tmp_path_factory):
    policies = [people_policy(DB), policy(OTHERS, {"mail": "deterministic"})]
    with ScriptedUpstream(single_member_set) as upstream:
        upstream.answer(script)
        rekeyd = Rekeyd(single_member_set, policies, directory=tmp_path_factory.mktemp("bulk"))
        rekeyd.config["upstream"]["members"][0]["connect"] = upstream.addresses[0]
        rekeyd.write_config()
        with rekeyd:
            yield rekeyd


@pytest.fixture
def app(rekeyd):
    with rekeyd.client() as client:
        yield client


@pytest.fixture(autouse=True)
def stored(rekeyd, script):
    """The database as it lies on mongod, empty."""
    script.client.drop_database(DB)
    script.seen.clear()
    yield script.client[DB]
    script.client.drop_database(DB)
    rekeyd.check()


def as_arrays(ops, infos=NS_INFO, **more) -> bytes:
    return wire.op_msg(COMMAND | {"ops": ops, "nsInfo": infos} | more)


def as_sequences(ops, infos=NS_INFO, **more) -> bytes:
    """The ops come before the body, when nothing is known of the namespaces yet."""
    ops = wire.sequence_section("ops", ops)
    return wire.op_msg(ops, COMMAND | more, wire.sequence_section("nsInfo", infos))


FORMS = pytest.mark.parametrize("form", [as_arrays, as_sequences])


def ask(rekeyd, message: bytes) -> dict:
    with RawClient(rekeyd.addresses[0], timeout_s=20) as client:
        client.send(message)
        return client.receive().document


def results_of(reply) -> list:
    assert reply["ok"] == 1, reply
    return reply["cursor"]["firstBatch"]


def check_no_secret_arrived(script):
    assert script.seen
    assert all(SECRET.encode() not in request.raw for request in script.seen)


OPS = [
    {"insert": 0, "document": {"_id": 1, "ssn": f"{SECRET} 1", "answer": SECRET}},
    {"insert": 1, "document": {"_id": 1, "mail": f"{SECRET} 1", "ssn": "not protected there"}},
    {"insert": 2, "document": {"_id": 1, "ssn": "nor there"}},
    {"update": 0, "filter": {"ssn": f"{SECRET} 1"}, "updateMods": {"$set": {"answer": f"{SECRET}!"}}},
    {"update": 0, "filter": {"_id": 1}, "multi": True, "updateMods": [{"$set": {"size": 7}}]},
    {"update": 1, "filter": {"mail": f"{SECRET} 2"}, "updateMods": {"$set": {"a": 1}},
     "upsert": True},
    {"update": 2, "filter": {"ssn": "nor there"}, "updateMods": {"ssn": "plain"}},
    {"update": 0, "filter": {"_id": 1},
     "updateMods": {"$push": {"contact": {"kind": "x", "phone": SECRET}}}},
    {"update": 0, "filter": {"_id": 1}, "arrayFilters": [{"c.kind": "x"}],
     "updateMods": {"$set": {"contact.$[c].mail": f"{SECRET} mail"}}},
    {"delete": 1, "filter": {"mail": f"{SECRET} 1"}},
]


@FORMS
def test_every_kind_of_op(rekeyd, app, script, stored, form):
    reply = ask(rekeyd, form(OPS))
    results = results_of(reply)
    assert [result["ok"] for result in results] == [1.0] * len(OPS)
    assert [result["idx"] for result in results] == list(range(len(OPS)))
    assert [result["n"] for result in results] == [1] * len(OPS)
    assert (reply["nInserted"], reply["nMatched"], reply["nUpserted"], reply["nDeleted"]) == (
        3, 5, 1, 1)
    check_no_secret_arrived(script)
    assert app[DB].people.find_one({"ssn": f"{SECRET} 1"}) == {
        "_id": 1, "ssn": f"{SECRET} 1", "answer": f"{SECRET}!", "size": 7,
        "contact": [{"kind": "x", "phone": SECRET, "mail": f"{SECRET} mail"}],
    }
    (other,) = app[DB].others.find({}, {"_id": 0})
    assert other == {"mail": f"{SECRET} 2", "a": 1}
    assert stored.plain.find_one() == {"_id": 1, "ssn": "plain"}
    person = stored.people.find_one()
    for value in (person["ssn"], person["answer"], person["contact"][0]["phone"]):
        assert is_envelope(value)
    assert is_envelope(stored.others.find_one()["mail"])


FAILING = [
    {"insert": 2, "document": {"_id": 1, "ssn": 1.5}},
    {"insert": 0, "document": {"_id": 1, "ssn": 1.5}},
    {"update": 0, "filter": {}, "updateMods": {"$set": {"ssn": [SECRET]}}, "upsert": True},
    {"delete": 0, "filter": {"ssn": 1.5}, "multi": True},
    {"insert": 2, "document": {"_id": 1}},
    {"insert": 0, "document": {"_id": 2, "ssn": SECRET}},
]


@FORMS
@pytest.mark.parametrize("errors_only", [False, True])
def test_statements_that_fail_alone(rekeyd, app, script, stored, form, errors_only):
    reply = ask(rekeyd, form(FAILING, ordered=False, errorsOnly=errors_only))
    results = results_of(reply)
    errors = {result["idx"]: result for result in results if not result["ok"]}
    assert [result["idx"] for result in results] == ([1, 2, 3, 4] if errors_only else [*range(6)])
    assert {idx: error["code"] for idx, error in errors.items()} == {
        1: 31041, 2: 31041, 3: 31041, 4: 11000}
    for idx in (1, 2, 3):
        assert PEOPLE in errors[idx]["errmsg"] and SECRET not in errors[idx]["errmsg"]
        assert set(errors[idx]) <= {"ok", "idx", "code", "errmsg", "n", "nModified"}
    assert (reply["nErrors"], reply["nInserted"]) == (4, 2)
    check_no_secret_arrived(script)
    assert list(app[DB].people.find()) == [{"_id": 2, "ssn": SECRET}]
    assert list(stored.plain.find()) == [{"_id": 1, "ssn": 1.5}]


@FORMS
def test_an_ordered_command_ends_there(rekeyd, stored, form):
    results = results_of(ask(rekeyd, form(FAILING)))
    assert [(result["idx"], result["ok"]) for result in results] == [(0, 1.0), (1, 0.0)]
    assert results[1]["code"] == 31041 and "double" in results[1]["errmsg"]
    assert stored.people.count_documents({}) == 0


REFUSED = [
    ({"delete": 0, "filter": {"ssn": {"$gt": SECRET}}}, 51118),
    ({"update": 0, "filter": {}, "updateMods": {"$inc": {"answer": 1}}}, 51150),
    ({"update": 0, "filter": {}, "updateMods": [{"$set": {"a": "$ssn"}}]}, 31146),
    ({"insert": 0, "document": {"ssn": SECRET}, "novel": 1}, 9),
    ({"upsert": 0, "document": {"ssn": SECRET}}, 9),
    ({"insert": 3, "document": {"ssn": SECRET}}, 2),
]


@FORMS
@pytest.mark.parametrize("op,code", REFUSED)
def test_mistakes_refuse_the_whole_command(rekeyd, script, stored, form, op, code):
    reply = ask(rekeyd, form([{"insert": 2, "document": {"_id": 1}}, op]))
    assert (reply["ok"], reply["code"]) == (0, code), reply
    assert SECRET not in reply["errmsg"]
    assert script.seen == [] and stored.list_collection_names() == []


def test_what_others_store_is_not_looked_at(rekeyd, script):
    message = as_arrays([{"insert": 0, "document": {"_id": 1, "ssn": 1.5}}], [{"ns": PLAIN}])
    assert results_of(ask(rekeyd, message)) == [{"ok": 1.0, "idx": 0, "n": 1}]
    assert script.seen[0].payload == message[wire.HEADER.size:]


def test_results_are_decrypted(rekeyd, stored):
    """A duplicate key is told with the value that is there twice."""
    stored.people.create_index("ssn", unique=True)
    ops = [{"insert": 0, "document": {"_id": i, "ssn": SECRET}} for i in range(2)]
    _, error = results_of(ask(rekeyd, as_arrays(ops)))
    assert (error["idx"], error["code"], error["keyValue"]) == (1, 11000, {"ssn": SECRET})


def test_get_more(rekeyd, app, stored):
    stored.people.create_index("ssn", unique=True)
    ops = [{"insert": 0, "document": {"_id": i, "ssn": f"{SECRET} {i % 2}"}} for i in range(3)]
    with RawClient(rekeyd.addresses[0], timeout_s=20) as client:
        client.send(as_sequences(ops, cursor={"batchSize": 1}))
        cursor = client.receive().document["cursor"]
        assert cursor["firstBatch"] == [{"ok": 1.0, "idx": 0, "n": 1}]
        reply = client.command({"getMore": cursor["id"], "collection": "$cmd.bulkWrite",
                                "$db": "admin"})
    _, error = reply["cursor"]["nextBatch"]
    assert (error["idx"], error["keyValue"]) == (2, {"ssn": f"{SECRET} 0"})
    assert app[DB].people.count_documents({"ssn": {"$in": [f"{SECRET} 0", f"{SECRET} 1"]}}) == 2


def test_no_single_error_in_results_that_are_fetched_later(rekeyd, script, stored):
    reply = ask(rekeyd, as_arrays(FAILING, ordered=False, cursor={"batchSize": 1}))
    assert (reply["ok"], reply["code"]) == (0, 31041)
    assert script.seen == [] and stored.list_collection_names() == []


def models(ns):
    return [
        InsertOne({"_id": 1, "ssn": f"{SECRET} 1", "size": 1}, namespace=ns),
        InsertOne({"_id": 2, "ssn": f"{SECRET} 2", "size": 1}, namespace=ns),
        UpdateOne({"ssn": f"{SECRET} 1"}, {"$set": {"answer": SECRET}}, namespace=ns),
        UpdateMany({"size": 1}, {"$inc": {"size": 1}}, namespace=ns),
        UpdateOne({"ssn": f"{SECRET} 3", "_id": 3}, {"$set": {"size": 9}}, upsert=True,
                  namespace=ns),
        ReplaceOne({"ssn": f"{SECRET} 2"}, {"ssn": f"{SECRET} two"}, namespace=ns),
        DeleteOne({"ssn": f"{SECRET} none"}, namespace=ns),
        DeleteMany({"ssn": {"$in": [f"{SECRET} 1"]}}, namespace=ns),
    ]


def told(result):
    return (result.inserted_count, result.matched_count, result.modified_count,
            result.upserted_count, result.deleted_count, result.insert_results,
            result.update_results, result.delete_results)


def test_a_driver(app, script, stored):
    """MongoClient.bulk_write: the same results as without policies, and the same documents."""
    protected = app.bulk_write(models(PEOPLE), verbose_results=True)
    plain = app.bulk_write(models(PLAIN), verbose_results=True)
    assert str(told(protected)) == str(told(plain))
    assert list(app[DB].people.find(sort=[("_id", 1)])) == list(
        stored.plain.find(sort=[("_id", 1)]))
    assert SECRET.encode() not in script.seen[0].raw
    assert all(is_envelope(person["ssn"]) for person in stored.people.find())


def test_errors_in_a_driver(app):
    wrong = [InsertOne({"_id": i, "ssn": value}, namespace=PEOPLE)
             for i, value in enumerate([SECRET, 1.5, f"{SECRET} 2"])]
    with pytest.raises(ClientBulkWriteException) as failure:
        app.bulk_write(wrong, ordered=False)
    (error,) = failure.value.write_errors
    assert (error["idx"], error["code"]) == (1, 31041)
    assert failure.value.partial_result.inserted_count == 2


@FORMS
@pytest.mark.parametrize("to", NS_INFO, ids=NAMESPACES)
def test_a_server_without_the_command(single_member_set, start_rekeyd, form, to):
    """The one behind the script: its own answer, protected or not."""
    rekeyd = start_rekeyd(single_member_set, [people_policy(DB)])
    message = form([{"insert": 0, "document": {"_id": 1, "ssn": SECRET}}], [to])
    with RawClient(single_member_set.addresses[0]) as direct:
        direct.send(message)
        wanted = direct.receive().document
    reply = ask(rekeyd, message)
    assert (wanted["codeName"], wanted["code"]) == ("CommandNotFound", 59)
    for name in ("ok", "errmsg", "code", "codeName"):
        assert reply[name] == wanted[name]
