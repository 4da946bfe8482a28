"""The runner of PyMongo, for MongoClient and AsyncMongoClient alike: see tests/compat/README.md.

It is written once, as coroutines; what the driver returns is awaited where it can be. With the
synchronous driver a coroutine never suspends, so that it can be driven from any thread.
"""

import asyncio
import base64
import inspect
import io
import re
import sys
import time

import pymongo
from bson import json_util
from gridfs import AsyncGridFSBucket, GridFSBucket
from pymongo import AsyncMongoClient, CursorType, MongoClient, WriteConcern
from pymongo import operations as write_models
from pymongo.errors import (
    BulkWriteError,
    ConnectionFailure,
    OperationFailure,
    PyMongoError,
    WriteError,
)
from pymongo.read_concern import ReadConcern
from pymongo.read_preferences import (
    Nearest, Primary, PrimaryPreferred, Secondary, SecondaryPreferred,
)

ASYNC = sys.argv[1:] == ["async"]
CANONICAL = json_util.CANONICAL_JSON_OPTIONS
CURSOR_TYPES = {
    "tailable": CursorType.TAILABLE,
    "tailableAwait": CursorType.TAILABLE_AWAIT,
    "exhaust": CursorType.EXHAUST,
}
READ_PREFERENCES = {
    "primary": Primary,
    "primaryPreferred": PrimaryPreferred,
    "secondary": Secondary,
    "secondaryPreferred": SecondaryPreferred,
    "nearest": Nearest,
}
TAIL_S, STREAM_S = 1, 10


async def done(value):
    return await value if inspect.isawaitable(value) else value


def drive(coroutine):
    """Runs a coroutine that never suspends."""
    try:
        coroutine.send(None)
    except StopIteration as end:
        return end.value
    raise RuntimeError("the synchronous driver cannot wait")


def snake(name: str) -> str:
    return re.sub(r"[A-Z]", lambda upper: "_" + upper[0].lower(), name)


def snaked(args: dict, *without) -> dict:
    """Arguments under PyMongo's names."""
    args = {snake(name): value for name, value in args.items() if name not in without}
    if isinstance(args.get("sort"), dict):
        args["sort"] = list(args["sort"].items())
    if isinstance(args.get("hint"), dict):
        args["hint"] = list(args["hint"].items())
    if "cursor_type" in args:
        args["cursor_type"] = CURSOR_TYPES[args["cursor_type"]]
    if "return_document" in args:
        args["return_document"] = args["return_document"] == "after"
    return args


def read_preference(step):
    name = step.get("readPreference")
    return READ_PREFERENCES[name]() if name else None


def options_of(step) -> dict:
    """Preferences and concerns of a step or of startTransaction's arguments."""
    found = {}
    if "readPreference" in step:
        found["read_preference"] = read_preference(step)
    if "readConcern" in step:
        found["read_concern"] = ReadConcern(step["readConcern"])
    if "writeConcern" in step:
        concern = dict(step["writeConcern"])
        if "wtimeoutMS" in concern:
            concern["wtimeout"] = concern.pop("wtimeoutMS")
        found["write_concern"] = WriteConcern(**concern)
    return found


def error_of(failure) -> dict:
    error = {"kind": "client"}
    if isinstance(failure, BulkWriteError):
        details = failure.details
        error["kind"] = "bulk"
        error["writeErrors"] = [
            {"index": e["index"], "code": e["code"]} for e in details.get("writeErrors", ())
        ]
        if details.get("writeConcernErrors"):
            error["writeConcernError"] = {"code": details["writeConcernErrors"][0]["code"]}
    elif isinstance(failure, OperationFailure):
        error["kind"] = "write" if isinstance(failure, WriteError) else "command"
        error["code"] = failure.code
    elif isinstance(failure, ConnectionFailure):
        error["kind"] = "network"
    if isinstance(failure, PyMongoError):
        labels = sorted(failure._error_labels)
        if labels:
            error["labels"] = labels
    print(f"{type(failure).__name__}: {failure}", file=sys.stderr)
    return {"error": error}


def written(result) -> dict:
    if not result.acknowledged:
        return {"acknowledged": False}
    counts = {"matchedCount": result.matched_count, "modifiedCount": result.modified_count}
    if result.upserted_id is not None:
        counts["upsertedId"] = result.upserted_id
    return counts


def write_request(request: dict):
    (name, args), = request.items()
    return getattr(write_models, name[0].upper() + name[1:])(**snaked(args))


class Scenario:
    """One request: its client, and the cursors and sessions that it opened by name."""

    def __init__(self, clients: dict, request: dict):
        self.clients, self.uri, self.db_name = clients, request["uri"], request["db"]
        self.cursors, self.sessions, self.tokens = {}, {}, {}
        self.tailable = set()

    def client(self):
        if self.uri not in self.clients:
            driver = AsyncMongoClient if ASYNC else MongoClient
            self.clients[self.uri] = driver(self.uri)
        return self.clients[self.uri]

    def db(self, step):
        return self.client().get_database(self.db_name, **options_of(step))

    def coll(self, step):
        db = self.client()[self.db_name]
        return db.get_collection(step.get("coll", "people"), **options_of(step))

    def session(self, step) -> dict:
        return {"session": self.sessions[step["session"]]} if "session" in step else {}

    async def step(self, step: dict):
        try:
            return {"ok": await self.operation(step)}
        except Exception as failure:  # whatever it is, it is this step's result
            return error_of(failure)

    async def operation(self, step: dict):
        args = dict(step.get("args", {}))
        if "session" in args:
            step = {**step, "session": args["session"]}
        named = getattr(self, "op_" + snake(step["op"]), None)
        if named is None:
            raise NotImplementedError(step["op"])
        return await named(step, args)

    async def finish(self):
        for cursor in self.cursors.values():
            await done(cursor.close())
        for session in self.sessions.values():
            await done(session.end_session())

    # Reads.

    async def op_find(self, step, args):
        return await done(self.find(step, args).to_list())

    def find(self, step, args):
        allowed = args.pop("allowDiskUse", None)
        max_await_ms = args.pop("maxAwaitTimeMS", None)
        if "maxTimeMS" in args:
            args["max_time_ms"] = args.pop("maxTimeMS")
        cursor = self.coll(step).find(**snaked(args), **self.session(step))
        if allowed is not None:
            cursor = cursor.allow_disk_use(allowed)
        return cursor if max_await_ms is None else cursor.max_await_time_ms(max_await_ms)

    async def op_find_one(self, step, args):
        found = self.find(step, {**args, "limit": -1})
        return next(iter(await done(found.to_list())), None)

    async def op_count_documents(self, step, args):
        return await done(self.coll(step).count_documents(**snaked(args), **self.session(step)))

    async def op_estimated_document_count(self, step, _args):
        return await done(self.coll(step).estimated_document_count())

    async def op_distinct(self, step, args):
        key = args.pop("fieldName")
        return await done(self.coll(step).distinct(key, **snaked(args), **self.session(step)))

    async def op_aggregate(self, step, args):
        return await done((await self.aggregate(self.coll(step), step, args)).to_list())

    async def aggregate(self, on, step, args):
        pipeline = args.pop("pipeline")
        # These go into the command as they are.
        return await done(on.aggregate(pipeline, **args, **self.session(step)))

    async def op_aggregate_database(self, step, args):
        return await done((await self.aggregate(self.db(step), step, args)).to_list())

    # Writes.

    async def op_insert_one(self, step, args):
        result = await done(self.coll(step).insert_one(args["document"], **self.session(step)))
        return {"insertedId": result.inserted_id} if result.acknowledged else written(result)

    async def op_insert_many(self, step, args):
        result = await done(self.coll(step).insert_many(**args, **self.session(step)))
        if not result.acknowledged:
            return written(result)
        return {"insertedCount": len(result.inserted_ids)}

    async def update(self, step, args):
        method = getattr(self.coll(step), snake(step["op"]))
        return written(await done(method(**snaked(args), **self.session(step))))

    op_update_one = op_update_many = op_replace_one = update

    async def delete(self, step, args):
        method = getattr(self.coll(step), snake(step["op"]))
        result = await done(method(**snaked(args), **self.session(step)))
        return {"deletedCount": result.deleted_count} if result.acknowledged else written(result)

    op_delete_one = op_delete_many = delete

    async def find_and_modify(self, step, args):
        method = getattr(self.coll(step), snake(step["op"]))
        return await done(method(**snaked(args), **self.session(step)))

    op_find_one_and_update = op_find_one_and_replace = op_find_one_and_delete = find_and_modify

    async def op_bulk_write(self, step, args):
        requests = [write_request(request) for request in args.pop("requests")]
        result = await done(self.coll(step).bulk_write(requests, **args, **self.session(step)))
        if not result.acknowledged:
            return {"acknowledged": False}
        return {
            "insertedCount": result.inserted_count,
            "matchedCount": result.matched_count,
            "modifiedCount": result.modified_count,
            "deletedCount": result.deleted_count,
            "upsertedCount": result.upserted_count,
            "upsertedIds": {str(i): _id for i, _id in sorted(result.upserted_ids.items())},
        }

    # Collections, databases, the client.

    async def op_create_index(self, step, args):
        keys = list(args.pop("keys").items())
        return await done(self.coll(step).create_index(keys, **args, **self.session(step)))

    async def op_list_indexes(self, step, _args):
        listed = await done(self.coll(step).list_indexes(**self.session(step)))
        return await done(listed.to_list())

    async def op_drop_index(self, step, args):
        await done(self.coll(step).drop_index(args["name"], **self.session(step)))

    async def op_drop(self, step, _args):
        await done(self.coll(step).drop(**self.session(step)))

    async def op_rename(self, step, args):
        await done(self.coll(step).rename(args["to"], **self.session(step)))

    async def op_run_command(self, step, args):
        return await self.command(self.db(step), step, args)

    async def op_admin_command(self, step, args):
        return await self.command(self.client().admin, step, args)

    async def command(self, db, step, args):
        options = {"read_preference": read_preference(step)} if "readPreference" in step else {}
        return await done(db.command(args["command"], **options, **self.session(step)))

    async def op_list_collections(self, step, args):
        db, session = self.db(step), self.session(step)
        return sorted(await done(db.list_collection_names(filter=args.get("filter"), **session)))

    async def op_create_collection(self, step, args):
        await done(self.db(step).create_collection(args.pop("name"), **args, **self.session(step)))

    async def op_ping(self, _step, _args):
        await done(self.client().admin.command("ping"))

    async def op_close(self, _step, _args):
        if self.uri in self.clients:
            await done(self.clients.pop(self.uri).close())

    async def op_sleep(self, _step, args):
        if ASYNC:
            await asyncio.sleep(args["ms"] / 1000)
        else:
            time.sleep(args["ms"] / 1000)

    async def op_concurrently(self, _step, args):
        self.client()
        if ASYNC:
            running = [self.step(step) for step in args["steps"]]
        else:
            running = [asyncio.to_thread(drive, self.step(step)) for step in args["steps"]]
        return await asyncio.gather(*running)

    # Cursors and change streams.

    async def op_open_find(self, step, args):
        name = args.pop("as")
        if args.get("cursorType", "").startswith("tailable"):
            self.tailable.add(name)
        self.cursors[name] = self.find(step, args)

    async def op_open_aggregate(self, step, args):
        name = args.pop("as")
        self.cursors[name] = await self.aggregate(self.coll(step), step, args)

    async def op_watch(self, step, args):
        name, place = args.pop("as"), args.pop("on", "collection")
        on = {"collection": self.coll, "database": self.db}.get(place, lambda _: self.client())
        if "resumeFrom" in args:
            args["resume_after"] = self.tokens[args.pop("resumeFrom")]
        if "maxAwaitTimeMS" in args:
            args["max_await_time_ms"] = args.pop("maxAwaitTimeMS")
        watching = on(step).watch(**snaked(args), **self.session(step))
        self.cursors[name] = await done(watching)

    async def op_next(self, _step, args):
        name = args["cursor"]
        cursor = self.cursors[name]
        if not hasattr(cursor, "resume_token"):
            return await self.next_of_cursor(cursor, name in self.tailable)
        deadline = time.monotonic() + STREAM_S
        while cursor.alive and time.monotonic() < deadline:
            event = await done(cursor.try_next())
            if event is not None:
                self.tokens[name] = event["_id"]
                return event
        return None

    async def next_of_cursor(self, cursor, tailable):
        deadline = time.monotonic() + TAIL_S
        while True:
            try:
                return await done(cursor.next())
            except (StopIteration, StopAsyncIteration):
                if not tailable or not cursor.alive or time.monotonic() > deadline:
                    return None
                await self.op_sleep(None, {"ms": 20})

    async def op_close_cursor(self, _step, args):
        await done(self.cursors.pop(args["cursor"]).close())

    # Sessions.

    async def op_start_session(self, _step, args):
        options = snaked(args, "as")
        self.sessions[args["as"]] = self.client().start_session(**options)

    async def op_start_transaction(self, step, args):
        await done(self.sessions[step["session"]].start_transaction(**options_of(args)))

    async def op_commit_transaction(self, step, _args):
        await done(self.sessions[step["session"]].commit_transaction())

    async def op_abort_transaction(self, step, _args):
        await done(self.sessions[step["session"]].abort_transaction())

    async def op_end_session(self, step, _args):
        await done(self.sessions.pop(step["session"]).end_session())

    async def op_with_transaction(self, step, args):
        async def attempt(_session):
            return [
                {"ok": await self.operation({"session": step["session"], **inner})}
                for inner in args["steps"]
            ]

        session = self.sessions[step["session"]]
        if ASYNC:
            return await session.with_transaction(attempt)
        return session.with_transaction(lambda s: drive(attempt(s)))

    # GridFS.

    def bucket(self, step):
        return (AsyncGridFSBucket if ASYNC else GridFSBucket)(self.db(step))

    async def op_gridfs_upload(self, step, args):
        source = base64.b64decode(args["dataBase64"])
        options = {"chunk_size_bytes": args["chunkSizeBytes"]} if "chunkSizeBytes" in args else {}
        bucket, session = self.bucket(step), self.session(step)
        await done(bucket.upload_from_stream_with_id(
            args["id"], args["filename"], source, **options, **session))

    async def op_gridfs_download(self, step, args):
        into = io.BytesIO()
        bucket, session = self.bucket(step), self.session(step)
        await done(bucket.download_to_stream(args["id"], into, **session))
        return base64.b64encode(into.getvalue()).decode()

    async def op_gridfs_delete(self, step, args):
        await done(self.bucket(step).delete(args["id"], **self.session(step)))


def describe() -> dict:
    name = "PyMongo (async)" if ASYNC else "PyMongo"
    compressors = ["snappy", "zlib", "zstd"]
    return {"driver": name, "version": pymongo.version, "compressors": compressors}


async def main():
    clients = {}
    lines = asyncio.get_running_loop()
    while line := await lines.run_in_executor(None, sys.stdin.readline):
        request = json_util.loads(line, json_options=CANONICAL)
        if "describe" in request:
            answer = describe()
        else:
            scenario = Scenario(clients, request)
            results = [await scenario.step(step) for step in request["steps"]]
            await scenario.finish()
            answer = {"id": request["id"], "results": results}
        print(json_util.dumps(answer, json_options=CANONICAL), flush=True)
    for client in clients.values():
        await done(client.close())


asyncio.run(main())
