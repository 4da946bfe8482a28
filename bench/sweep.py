"""How fast a sweep is: beside plain bulk updates, beside what people do today, and as it grows.

  compare     in turns, on collections of 400-byte documents that nobody wrote to before:
              raw     bench_bulk_update sets the field to binaries of the envelope's size by _id,
                      unordered, majority write concern, two threads: the same bytes written,
                      nothing read, decrypted, encrypted or compared;
      raw in tx  the same, a transaction for each batch, as the sweep does it;
              sweep   a real rekeyd: reads, decrypts, encrypts, writes on condition;
              cursor  bench/migrators/cursor.py, with one process and with two;
              csfle   bench/migrators/csfle.py, likewise.
  large       sweep of 4 KB documents.
  ten_fields  sweep of documents with ten protected fields.
  members     sweep of a three-member set.
  transit     sweep to a key that never leaves a real Vault.
  rabbitmq    one instance, and two with half its threads each that share ranges over a real broker.
  felt        updates of the swept collection by applications, in turns: without a sweep (twice, which
              shows the noise), beside one by compare-and-swap, and beside one with transactions.
  growth      memory of rekeyd, and cost per document, from 100,000 to 2 million documents.
Prints a table as it goes and the goals at the end, then one JSON line; exits with 1 when a goal is
missed. "CPU us" is processor time per document, of the program that migrates and of mongod.
"""

import argparse
import json
import os
import secrets
import statistics
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path

from pymongo.encryption import Algorithm

BENCH = Path(__file__).resolve().parent
sys.path[:0] = [str(BENCH.parent / "tests" / "integration"), str(BENCH / "migrators")]

import csfle  # noqa: E402
from harness import RabbitMq, Rekeyd, ReplicaSet, Vault, admin_settings, policy, rekey_binary  # noqa: E402
from harness.waiting import wait_until  # noqa: E402
from workload import DB, KINDS, LEGACY, Cost, fill, run_sweep  # noqa: E402
from workload.documents import legacy, plaintext  # noqa: E402
from workload.foreground import Foreground  # noqa: E402
from workload.sweeping import cpu_s, peak_memory_kb  # noqa: E402

ENVELOPE_OVERHEAD = 20 + 24 + 16  # header, nonce, tag
GOALS = {
    "sweep_docs_per_s": (">=", 29_761),  # 18 billion records in a week
    "ratio_to_raw": (">=", 0.75),
    "times_the_better_migrator": (">=", 3),
    "part_of_its_client_cpu": ("<=", 1 / 8),
    "two_on_amqp_to_one_local": (">=", 0.9),
    "memory_mb": ("<=", 256),
    "growth_client_us": ("<=", 1.1),
    "growth_mongod_us": ("<=", 1.1),
    "growth_time": ("<=", 1.1),
}


def main():
    args = arguments()
    bench = Bench(args)
    for name in args.parts:
        PARTS[name](bench)
    sys.exit(0 if bench.report() else 1)


class Bench:
    def __init__(self, args):
        self.args = args
        self.key = secrets.token_bytes(32)
        self.number = 0
        self.costs = {}  # of each kind of run, in order
        self.result = {"bench": "sweep", "quick": args.quick, "cores": os.cpu_count()}
        self.result |= {key: getattr(args, key) for key in ("docs", "rounds", "threads", "batch")}
        head = ("", "docs/s", "client CPU us", "mongod CPU us")
        print("{:<14}{:>10}{:>16}{:>16}".format(*head), flush=True)

    @contextmanager
    def instance(self, servers, kind="answers", settings=None, legacy_keys=True):
        settings = settings or {}
        sweep = {"threads": self.args.threads, "batch_docs": self.args.batch}
        sweep |= settings.get("sweep", {})
        field = {"algorithm": "random", "legacy": [LEGACY]}
        policies = [policy(f"{DB}.*", {path: field for path in KINDS[kind].fields})]
        keys = {"old": self.key} if legacy_keys else {}
        with Rekeyd(servers, policies, settings | {"sweep": sweep}, legacy_keys=keys) as r:
            yield r

    def fill(self, client, docs, kind="answers", encrypt=None) -> str:
        """A new collection's name."""
        self.number += 1
        name = f"{kind}{self.number}"
        fill(client, name, docs, KINDS[kind], encrypt or (lambda text: legacy(self.key, text)))
        return name

    def note(self, what: str, cost: Cost, name=None):
        self.costs.setdefault(name or what, []).append(cost)
        figures = (cost.docs_per_s, cost.client_us, cost.mongod_us)
        print("{:<14}{:>10,.0f}{:>16.1f}{:>16.1f}".format(what, *figures), flush=True)

    def sweep(self, what, client, servers, instances, docs, kind="answers") -> Cost:
        name = self.fill(client, docs, kind)
        cost = run_sweep(client, servers, instances, name, docs)
        client[DB].drop_collection(name)
        self.note(what, cost)
        return cost

    def median(self, name: str, figure: str) -> float:
        return statistics.median(getattr(cost, figure) for cost in self.costs[name])

    def summary(self, name: str) -> dict:
        figures = {"docs_per_s": 0, "client_us": 1, "mongod_us": 1}
        return {key: round(self.median(name, key), digits) for key, digits in figures.items()}

    def report(self):
        goals = {name: goal for name, goal in GOALS.items() if name in self.result}
        missed = []
        for name, (relation, wanted) in goals.items():
            got = self.result[name]
            met = got >= wanted if relation == ">=" else got <= wanted
            missed += [] if met else [name]
            print(f"{name}: {got:,} (goal: {relation} {wanted:,}) {'met' if met else 'MISSED'}")
        self.result |= {"missed": missed, "ok": not missed}
        print(json.dumps(self.result))
        return not missed


# ---- compare -------------------------------------------------------------------------------


def compare(bench):
    args = bench.args
    with (
        ReplicaSet(1, cache_gb=args.cache_gb) as servers,
        bench.instance(servers, settings=admin_settings()) as rekeyd,
        servers.client() as client,
    ):
        key_ids = csfle_keys(client)
        for _ in range(args.rounds):
            raw(bench, client, servers)
            raw(bench, client, servers, "transactions")
            bench.sweep("sweep", client, servers, [rekeyd], args.docs)
            for processes in (1, 2):
                cursor_migrator(bench, client, servers, processes)
                csfle_migrator(bench, client, servers, processes, key_ids)
        given_up = rekeyd.admin.value("rekey_sweep_transactions_given_up_total")
    assert given_up == 0, f"{given_up} batches were written document by document"
    migrators = [name for name in bench.costs if name.startswith(("cursor", "csfle"))]
    best = max(migrators, key=lambda name: bench.median(name, "docs_per_s"))
    plain = max(
        (name for name in migrators if name.endswith(" x 1")),
        key=lambda name: bench.median(name, "docs_per_s"),
    )

    def compared(name, figure, digits):
        return round(bench.median("sweep", figure) / bench.median(name, figure), digits)

    def ratio_to(name):
        pairs = zip(bench.costs[name], bench.costs["sweep"])
        return round(statistics.median(s.docs_per_s / r.docs_per_s for r, s in pairs), 3)

    bench.result |= {
        "sweep_docs_per_s": bench.summary("sweep")["docs_per_s"],
        "ratio_to_raw": ratio_to("raw"),
        "ratio_to_raw_in_transactions": ratio_to("raw in tx"),
        "better_migrator": best,
        "times_the_better_migrator": compared(best, "docs_per_s", 2),
        "part_of_its_client_cpu": compared(best, "client_us", 4),
        "times_the_better_of_one_process": compared(plain, "docs_per_s", 2),
        "compared": {name: bench.summary(name) for name in bench.costs},
    }


def raw(bench, client, servers, *how):
    name = bench.fill(client, bench.args.docs)
    value_bytes = ENVELOPE_OVERHEAD + 4 + len(plaintext(0)) + 1  # a BSON string's length and NUL
    words = [servers.uri, DB, name, "answer", value_bytes, 2, bench.args.batch, *how]
    before = cpu_s(servers.members)
    children = os.times()
    argv = [rekey_binary("bench_bulk_update"), *map(str, words)]
    done = subprocess.run(argv, capture_output=True, text=True, check=True)
    counted = json.loads(done.stdout)
    after = os.times()
    client_s = (after.children_user + after.children_system) - (
        children.children_user + children.children_system
    )
    mongod_s = cpu_s(servers.members) - before
    of_that_size = {"$expr": {"$eq": [{"$binarySize": "$answer"}, value_bytes]}}
    wrote = client[DB][name].count_documents(of_that_size)
    assert counted["docs"] == wrote == bench.args.docs, (counted, wrote)
    client[DB].drop_collection(name)
    bench.note("raw in tx" if how else "raw", Cost(counted["docs"], counted["seconds"], client_s, mongod_s))


def migrate(bench, client, servers, what, name, processes, keys):
    """Runs a program of bench/migrators on a collection and drops that."""
    config = {"uri": servers.uri, "db": DB, "coll": name, "field": "answer"}
    config |= {"processes": processes} | keys
    before = cpu_s(servers.members)
    argv = [sys.executable, str(BENCH / "migrators" / f"{what}.py")]
    done = subprocess.run(
        argv, input=json.dumps(config), stdout=subprocess.PIPE, text=True, check=True
    )
    mongod_s = cpu_s(servers.members) - before
    counted = json.loads(done.stdout)
    assert counted["docs"] == bench.args.migrator_docs, counted
    cost = Cost(counted["docs"], counted["seconds"], counted["cpu_s"], mongod_s)
    bench.note(f"{what} x {processes}", cost)


def cursor_migrator(bench, client, servers, processes):
    docs = bench.args.migrator_docs
    name = bench.fill(client, docs)
    keys = {"old_key": bench.key.hex(), "new_key": secrets.token_hex(32)}
    migrate(bench, client, servers, "cursor", name, processes, keys)
    coll = client[DB][name]
    newest = {"$expr": {"$eq": [{"$binarySize": "$answer"}, len(plaintext(0)) + 1 + 12 + 16]}}
    assert coll.count_documents(newest) == docs
    coll.drop()


def csfle_keys(client) -> dict:
    """A local KMS provider's master key, and two data keys under it."""
    master_key = secrets.token_bytes(96)
    with csfle.client_encryption(client, master_key) as encryption:
        old, new = (encryption.create_data_key("local") for _ in range(2))
    return {"master_key": master_key, "old": old, "new": new}


def csfle_migrator(bench, client, servers, processes, keys):
    random = Algorithm.AEAD_AES_256_CBC_HMAC_SHA_512_Random
    docs = bench.args.migrator_docs
    with csfle.client_encryption(client, keys["master_key"]) as encryption:
        name = bench.fill(
            client, docs, encrypt=lambda text: encryption.encrypt(text, random, key_id=keys["old"])
        )
        given = {"master_key": keys["master_key"].hex(), "new_key_id": keys["new"].hex()}
        migrate(bench, client, servers, "csfle", name, processes, given)
        # Subtype 6 begins with a byte for the algorithm, and the data key's id.
        values = client[DB][name].find({}, {"answer": 1})
        assert all(value["answer"][1:17] == bytes(keys["new"]) for value in values)
    client[DB].drop_collection(name)


# ---- variants ------------------------------------------------------------------------------


def variant(bench, what, kind="answers", members=1, docs=None):
    docs = docs or bench.args.docs
    with (
        ReplicaSet(members, cache_gb=bench.args.cache_gb) as servers,
        bench.instance(servers, kind) as rekeyd,
        servers.client() as client,
    ):
        for _ in range(bench.args.variant_rounds):
            bench.sweep(what, client, servers, [rekeyd], docs, kind)
    bench.result[what] = bench.summary(what)


def large(bench):
    variant(bench, "large", "large", docs=bench.args.docs // 4)


def ten_fields(bench):
    variant(bench, "ten_fields", "ten_fields", docs=bench.args.docs // 4)


def members(bench):
    variant(bench, "members", members=3, docs=bench.args.docs // 2)


def transit(bench):
    with (
        tempfile.TemporaryDirectory() as directory,
        Vault() as vault,
        ReplicaSet(1, cache_gb=bench.args.cache_gb) as servers,
        servers.client() as client,
    ):
        vault.api("DELETE", "sys/audit/file")  # its log is the tests' affair
        old = {"name": "old", "path": vault.keep("old", key=bench.key.hex()), "field": "key"}
        settings = vault.settings(directory, mode="transit", legacy=[old])
        with bench.instance(servers, settings=settings, legacy_keys=False) as rekeyd:
            for _ in range(bench.args.variant_rounds):
                bench.sweep("transit", client, servers, [rekeyd], bench.args.docs // 8)
    bench.result["transit"] = bench.summary("transit")


def rabbitmq(bench):
    """As many sweeper threads in either case."""
    with (
        tempfile.TemporaryDirectory() as directory,
        RabbitMq() as broker,
        ReplicaSet(1, cache_gb=bench.args.cache_gb) as servers,
        servers.client() as client,
    ):
        shared = broker.settings(directory) | admin_settings()
        shared["sweep"] |= {"threads": max(1, bench.args.threads // 2)}
        with (
            bench.instance(servers) as local,
            bench.instance(servers, settings=shared) as first,
            first.sibling("rekeyd2") as second,
        ):
            for each in (first, second):
                for connection in ("publish", "consume"):
                    each.admin.wait_value(1, "rekey_amqp_connected", 60, connection=connection)
            for _ in range(bench.args.variant_rounds):
                bench.sweep("local", client, servers, [local], bench.args.docs)
                before = delivered(first, second)
                bench.sweep("two on amqp", client, servers, [first, second], bench.args.docs)
                after = delivered(first, second)
                assert all(a > b for a, b in zip(after, before)), (before, after)
                state = client[first.config["upstream"]["state_db"]]
                job = state.jobs.find_one(sort=[("createdAt", -1)])
                owners = state.jobStatus.distinct("owner", {"jobId": job["_id"]})
                assert len(owners) == 2, owners
    pairs = zip(bench.costs["local"], bench.costs["two on amqp"])
    ratio = statistics.median(two.docs_per_s / one.docs_per_s for one, two in pairs)
    bench.result |= {
        "two_on_amqp_to_one_local": round(ratio, 3),
        "rabbitmq": {name: bench.summary(name) for name in ("local", "two on amqp")},
    }


def delivered(*instances) -> list:
    """Ranges that each has had from the broker."""
    return [each.admin.value("rekey_amqp_delivered_total", kind="range") for each in instances]


# ---- felt ----------------------------------------------------------------------------------

FELT_RATE = 3000  # documents a second that the sweep is held to
FELT_TURN_S = 8
FELT_TURNS = {"no sweep": None, "by document": False, "transactions": True, "no sweep again": None}


def felt(bench):
    docs = max(bench.args.docs // 2, FELT_RATE * (FELT_TURN_S + 5))
    settings = admin_settings() | {"sweep": {"max_rate": FELT_RATE, "guard": {"p99_limit_ms": 0}}}
    with (
        ReplicaSet(1, cache_gb=bench.args.cache_gb) as servers,
        bench.instance(servers, settings=settings) as rekeyd,
        servers.client() as client,
    ):
        name = bench.fill(client, docs)
        namespace = f"{DB}.{name}"
        rekeyd.ctl("start", namespace, "--wait", timeout_s=600)
        with Foreground(rekeyd, DB, name, docs) as applications:
            for _ in range(bench.args.variant_rounds):
                for what, transactions in FELT_TURNS.items():
                    rekeyd.ctl("keys", "rotate")
                    if transactions is None:
                        applications.measure(what, FELT_TURN_S)
                        continue
                    rekeyd.ctl("throttle", "set", f"transactions={str(transactions).lower()}")
                    rekeyd.ctl("start", namespace)
                    wait_until(lambda: rekeyd.ctl("jobs")["jobs"][0]["scanned"] > 0)
                    applications.measure(what, FELT_TURN_S)
                    assert rekeyd.ctl("jobs")["jobs"][0]["state"] == "running", "it is over already"
                    rekeyd.ctl("cancel", namespace)
        given_up = rekeyd.admin.value("rekey_sweep_transactions_given_up_total")
        bench.result["felt"] = {what: applications.summary(what) for what in FELT_TURNS}
        bench.result["felt"]["transactions"]["given_up"] = given_up
    for what in FELT_TURNS:
        print(what, bench.result["felt"][what], flush=True)


# ---- growth --------------------------------------------------------------------------------


def growth(bench):
    """Small documents, so that two million of them lie in mongod's cache as 100,000 do: what grows
    here is rekeyd's and jobStatus's affair, not that of the disk."""
    args = bench.args
    with (
        ReplicaSet(1, cache_gb=max(2, args.cache_gb)) as servers,
        bench.instance(servers, "small") as rekeyd,
        servers.client() as client,
    ):
        few = f"{args.growth_from:,}"
        many = f"{args.growth_to:,}"
        for _ in range(2):
            bench.sweep(few, client, servers, [rekeyd], args.growth_from, "small")
        bench.sweep(many, client, servers, [rekeyd], args.growth_to, "small")
        memory = peak_memory_kb(rekeyd)
        for _ in range(2):
            bench.sweep(few, client, servers, [rekeyd], args.growth_from, "small")

    def times(figure):
        return round(bench.median(many, figure) / bench.median(few, figure), 3)

    bench.result |= {
        "growth_docs": args.growth_to,
        "memory_mb": round(memory / 1024, 1),
        "growth_client_us": times("client_us"),
        "growth_mongod_us": times("mongod_us"),
        "growth_time": round(1 / times("docs_per_s"), 3),
        "growth": {name: bench.summary(name) for name in (few, many)},
    }


PARTS = {
    "compare": compare,
    "large": large,
    "ten_fields": ten_fields,
    "members": members,
    "transit": transit,
    "rabbitmq": rabbitmq,
    "felt": felt,
    "growth": growth,
}


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="3 minutes, rough")
    parser.add_argument("--only", action="append", choices=PARTS, help="this part; repeatable")
    parser.add_argument("--without", action="append", choices=PARTS, default=[])
    parser.add_argument("--docs", type=int, help="in each run (variants take a part of it)")
    parser.add_argument("--rounds", type=int, help="of compare")
    parser.add_argument("--threads", type=int, default=2, help="of the sweep")
    parser.add_argument("--batch", type=int, default=1000, help="documents in a bulk update")
    parser.add_argument("--cache-gb", type=float, default=1, help="of mongod (growth: at least 2)")
    args = parser.parse_args()
    args.docs = args.docs or (50_000 if args.quick else 200_000)
    args.rounds = args.rounds or (1 if args.quick else 3)
    args.migrator_docs = args.docs // 4
    args.variant_rounds = 1 if args.quick else 3
    args.growth_from = 50_000 if args.quick else 100_000
    args.growth_to = 200_000 if args.quick else 2_000_000
    args.parts = [p for p in args.only or PARTS if p not in args.without]
    return args


if __name__ == "__main__":
    main()
