"""Applications that go on while a sweep runs, and how long their updates took."""

import random
import threading
import time

PAUSE_S = 0.002  # of a client between two updates


class Foreground:
    """Clients that update random documents of a collection; latencies: by what goes on meanwhile."""

    def __init__(self, rekeyd, db: str, name: str, docs: int, clients=2):
        self.latencies = {}
        self.meanwhile = None  # not counted
        self._stopping = threading.Event()
        words = (rekeyd, db, name, docs)
        self._threads = [threading.Thread(target=self._run, args=(seed, *words)) for seed in range(clients)]

    def __enter__(self):
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_):
        assert all(thread.is_alive() for thread in self._threads), "a client gave up"
        self._stopping.set()
        for thread in self._threads:
            thread.join()

    def _run(self, seed, rekeyd, db, name, docs):
        chance = random.Random(seed)
        with rekeyd.client() as client:
            ids = [document["_id"] for document in client[db][name].find({}, {"_id": 1})]
            assert len(ids) == docs, len(ids)
            while not self._stopping.is_set():
                began, meanwhile = time.perf_counter(), self.meanwhile
                client[db][name].update_one({"_id": chance.choice(ids)}, {"$inc": {"n": 1}})
                self.latencies.setdefault(meanwhile, []).append(time.perf_counter() - began)
                self._stopping.wait(PAUSE_S)

    def measure(self, meanwhile: str, seconds: float):
        self.meanwhile = meanwhile
        time.sleep(seconds)
        self.meanwhile = None

    def summary(self, meanwhile: str) -> dict:
        found = sorted(self.latencies[meanwhile])
        quantiles = {"p50": 0.5, "p99": 0.99, "p999": 0.999}
        ms = {name: round(found[int(len(found) * q)] * 1000, 2) for name, q in quantiles.items()}
        return {"updates": len(found), **{f"{name}_ms": value for name, value in ms.items()}}
