"""What both migrators share: slices of a collection, one process for each, and what they used.

A migrator is a program that takes JSON on its standard input, {"uri", "db", "coll", "field",
"processes"} and its keys in hexadecimal, and prints {"docs", "seconds", "cpu_s"}. The clock starts
when every process has its interpreter, modules and connection: none of that is counted, neither as
time nor as CPU.
"""

import json
import multiprocessing
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from threading import BrokenBarrierError

from pymongo import MongoClient, WriteConcern

BATCH = 1000
READY_TIMEOUT_S = 60  # a process that was killed tells nobody

_ready = None  # where all wait for each other


def run(migrate):
    """migrate(coll, config, filter): replaces the field in what the filter finds, and returns the
    number of documents."""
    config = json.load(sys.stdin)
    context = multiprocessing.get_context("spawn")  # clients do not survive a fork
    slices = slices_of(config)
    ready = context.Barrier(len(slices) + 1)
    with ProcessPoolExecutor(len(slices), context, share, (ready,)) as pool:
        working = [pool.submit(work, migrate, config, each) for each in slices]
        try:
            ready.wait(READY_TIMEOUT_S)
        except BrokenBarrierError:
            raise first_cause(working) from None
        started = time.monotonic()
        done = [each.result() for each in working]
        seconds = time.monotonic() - started
    docs, cpu = map(sum, zip(*done))
    print(json.dumps({"docs": docs, "seconds": seconds, "cpu_s": cpu}))


def first_cause(working):
    """Why the processes did not all get ready."""
    failures = [failure for each in working if (failure := each.exception())]
    failures.sort(key=lambda failure: isinstance(failure, BrokenBarrierError))
    return failures[0]


def share(barrier):
    """In each process."""
    global _ready
    _ready = barrier


def slices_of(config) -> list:
    """Filters that cut the collection into equal parts by _id."""
    with MongoClient(config["uri"]) as client:
        coll = client[config["db"]][config["coll"]]
        docs, parts = coll.estimated_document_count(), config["processes"]
        bounds = [
            coll.find({}, {"_id": 1}).sort("_id", 1).skip(docs * part // parts).limit(1)[0]["_id"]
            for part in range(1, parts)
        ]
    filters = []
    for low, high in zip([None, *bounds], [*bounds, None]):
        ends = {"$gte": low, "$lt": high}
        limits = {operator: end for operator, end in ends.items() if end is not None}
        filters.append({"_id": limits} if limits else {})
    return filters


def work(migrate, config, filter):
    try:
        with MongoClient(config["uri"]) as client:
            coll = client[config["db"]].get_collection(
                config["coll"], write_concern=WriteConcern("majority")
            )
            client.admin.command("ping")
            _ready.wait(READY_TIMEOUT_S)
            used = time.process_time()
            docs = migrate(coll, config, filter)
            return docs, time.process_time() - used
    except BaseException:
        _ready.abort()
        raise
