"""The application: plain PyMongo. It knows neither Rekey nor any key, only a connection string.

It finds, updates and inserts survey responses by _id at a steady rate, compares every answer
that it reads with the one that it wrote, and on SIGTERM leaves a report: what it measured, and
the answers that are now to be expected where it changed them.

usage: app.py URI RESPONSES OPERATIONS_PER_S REPORT
"""

import json
import random
import signal
import sys
import threading
import time

import corpus
from pymongo import MongoClient

THREADS = 4


class Worker(threading.Thread):
    """Works on its own share of the responses, so that what it wrote last is what must be there."""

    def __init__(self, collection, share, responses, rate_per_s, stop):
        super().__init__(daemon=True)
        self.collection = collection
        self.share = share
        self.responses = responses
        self.interval_s = 1 / rate_per_s
        self.stop = stop
        self.random = random.Random(share)
        self.inserted = 0
        self.changed = {}  # number: the answer that this worker gave it
        self.samples = []  # (monotonic start, operation, seconds)
        self.mismatches = 0
        self.error = None

    def run(self):
        due = time.monotonic()
        try:
            while not self.stop.is_set():
                self.operate()
                due = max(due + self.interval_s, time.monotonic() - 1)
                self.stop.wait(max(0, due - time.monotonic()))
        except Exception as error:  # the report tells; a thread's trace would get lost
            self.error = f"{type(error).__name__}: {error}"

    def operate(self):
        dice = self.random.random()
        if dice < 0.7:
            self.find(self.pick())
        elif dice < 0.9:
            self.update(self.pick())
        else:
            self.insert()

    def pick(self) -> int:
        mine = self.responses // THREADS
        return self.share + THREADS * self.random.randrange(mine)

    def find(self, i):
        document = self.timed("find", self.collection.find_one, {"_id": corpus.identifier(i)})
        expected = corpus.response(i)
        expected["answer"] = self.changed.get(i, expected["answer"])
        if document is None or not same(document, expected):
            self.mismatches += 1

    def update(self, i):
        answer = f"{corpus.answer(i)} Changed my mind {len(self.changed)} times."
        change = {"$set": {"answer": answer}}
        self.timed("update", self.collection.update_one, {"_id": corpus.identifier(i)}, change)
        self.changed[i] = answer

    def insert(self):
        i = self.responses + self.share + THREADS * self.inserted
        self.timed("insert", self.collection.insert_one, corpus.response(i))
        self.inserted += 1
        self.changed[i] = corpus.answer(i)

    def timed(self, operation, function, *arguments):
        start = time.monotonic()
        result = function(*arguments)
        self.samples.append((start, operation, time.monotonic() - start))
        return result


def same(document, expected) -> bool:
    return all(document.get(k) == expected[k] for k in ("answer", "respondent", "questionId"))


def main():
    uri, responses, rate_per_s, report = sys.argv[1:]
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())

    client = MongoClient(uri)
    collection = client[corpus.DATABASE][corpus.COLLECTION]
    share_per_s = int(rate_per_s) / THREADS
    workers = [Worker(collection, s, int(responses), share_per_s, stop) for s in range(THREADS)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    client.close()

    with open(report, "w") as out:
        changed = {i: answer for worker in workers for i, answer in worker.changed.items()}
        samples = sorted(sample for worker in workers for sample in worker.samples)
        errors = [worker.error for worker in workers if worker.error]
        mismatches = sum(worker.mismatches for worker in workers)
        json.dump(
            {
                "changed": changed,
                "samples": samples,
                "errors": errors,
                "mismatches": mismatches,
                "inserted": sum(worker.inserted for worker in workers),
            },
            out,
        )


if __name__ == "__main__":
    main()
