"""How a sweep grows past this machine: a simulation fed with what this machine measures.

  1. measures  what documents, batches and ranges cost a real rekeyd and mongod, what cutting a
               range costs the planner, and what a range's messages cost a real RabbitMQ;
  2. checks    the simulation against real runs of one, two and four instances: each held to so many
               documents a second that two cores are not what bounds them, which checks how they
               share; and as fast as they can, once also over a real RabbitMQ, which checks what
               was measured;
  3. shows     time and number of jobStatus documents for 18 billion records on 1 to 64 shards.
What is checked is 2: how instances share ranges, claims, gates and the planner, and what they cost
one mongod beside which they run. That a shard, its
disk and a fleet's network do as well as this machine's loopback is assumed (docs/benchmarks.md).
Prints tables, then one JSON line with the largest error of 2.
"""

import argparse
import json
import os
import secrets
import statistics
import sys
import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pika
from bson import encode

BENCH = Path(__file__).resolve().parent
sys.path.insert(0, str(BENCH.parent / "tests" / "integration"))

from harness import Rekeyd, ReplicaSet, admin_settings, policy  # noqa: E402
from harness.rabbitmq import RabbitMq  # noqa: E402
from harness.rekeyd import merge  # noqa: E402
from workload import Cost, DB, KINDS, LEGACY, fill, run_sweep  # noqa: E402
from workload.documents import legacy  # noqa: E402
from workload.model import Costs, Fleet, bound, simulate, steady_rate  # noqa: E402
from workload.sweeping import cpu_s, job_of  # noqa: E402

RECORDS = 18_000_000_000
WEEK_S = 7 * 86400
POLL_S = 0.2  # in real runs: they are short
FEW, MANY = 10_000, 100  # documents in a range: of few ranges, and of many
WARM_UP_S = 2  # of instances: keys, indexes
ERROR_MAX = 0.15
MESSAGES_PER_RANGE = 3  # published, delivered, acknowledged
SIMULATED_RANGES = 60  # for each thread, and at least 2,000: the rate is steady by then


def main():
    args = arguments()
    key = secrets.token_bytes(32)
    with ReplicaSet(1, cache_gb=1) as servers, servers.client() as client:
        site = Site(servers, client, key)
        costs, state = measure(site, args)
        checks = [
            check(site, costs, args.check_docs, n, size, args.max_rate)
            for size in (500, 100)
            for n in (1, 2, 4)
        ]
        checks += [check(site, costs, args.docs, n, 500) for n in (1, 2, 4)]
        if not args.no_broker:
            checks.append(check(site, costs, args.docs, 2, 500, broker=True))
    rows = list(grow(costs, state, args))
    report(costs, state, checks, rows, args)


@dataclass(frozen=True)
class Run:
    cost: Cost
    ranges: list  # documents of jobStatus
    operations: int  # on jobStatus


class Site:
    """One mongod, and collections of small documents on it."""

    def __init__(self, servers, client, key):
        self.servers, self.client, self.key, self.number = servers, client, key, 0

    def sweep(self, docs, instances=1, broker=False, **sweep):
        """By new instances."""
        self.number += 1
        name = f"scale{self.number}"
        fill(self.client, name, docs, KINDS["small"], lambda text: legacy(self.key, text))
        field = {"algorithm": "random", "legacy": [LEGACY]}
        settings = {"sweep": {"poll_interval_ms": int(POLL_S * 1000), **sweep}}
        with ExitStack() as stack:
            if broker:
                directory = stack.enter_context(tempfile.TemporaryDirectory())
                merge(settings, stack.enter_context(RabbitMq()).settings(directory))
                merge(settings, admin_settings())
            policies = [policy(f"{DB}.*", {"answer": field})]
            first = Rekeyd(self.servers, policies, settings, legacy_keys={"old": self.key})
            fleet = [stack.enter_context(first)]
            for n in range(1, instances):
                fleet.append(stack.enter_context(first.sibling(f"rekeyd{n + 1}")))
            for each in fleet if broker else ():
                for connection in ("publish", "consume"):
                    each.admin.wait_value(1, "rekey_amqp_connected", 60, connection=connection)
            time.sleep(WARM_UP_S)
            before = self.state_operations(first)
            cost = run_sweep(self.client, self.servers, fleet, name, docs)
            operations = self.state_operations(first) - before
            _, ranges = job_of(self.client, first, name)
            for each in fleet if broker else ():
                assert each.admin.value("rekey_amqp_delivered_total", kind="range") > 0
        self.client[DB].drop_collection(name)
        return Run(cost, ranges, operations)

    def state_operations(self, rekeyd) -> int:
        totals = self.client.admin.command("top")["totals"]
        found = totals.get(f"{rekeyd.config['upstream']['state_db']}.jobStatus")
        return found["total"]["count"] if found else 0


def cutting_s(ranges) -> float:
    """Time between the cuts of one range and the next, while the planner did nothing else."""
    times = sorted(each["creationTimeStamp"] for each in ranges)
    gaps = [(b - a).total_seconds() for a, b in zip(times, times[1:])]
    return statistics.median(gaps) if gaps else 0.0


def measure(site, args):
    """The model's costs, and what a range is in jobStatus."""
    kinds = {
        "whole": {"range_docs": FEW, "batch_docs": 1000},
        "batches": {"range_docs": FEW, "batch_docs": MANY},
        "ranges": {"range_docs": MANY, "batch_docs": MANY, "ranges_ahead": 1000},
    }
    runs = {kind: [] for kind in kinds}
    for _ in range(args.rounds):
        for kind, settings in kinds.items():
            runs[kind].append(site.sweep(args.docs, **settings))

    def middle(kind, figure):
        return statistics.median(figure(run) for run in runs[kind])

    def difference(more, less, figure, count):
        return max(0.0, (middle(more, figure) - middle(less, figure)) / count)

    def thread_s(run):
        return run.cost.seconds * Fleet.threads

    more_batches = args.docs / MANY - args.docs / 1000
    more_ranges = args.docs / MANY - args.docs / FEW
    cut_doc = difference("whole", "ranges", lambda run: cutting_s(run.ranges), FEW - MANY)
    last = runs["ranges"][-1]
    state = {
        "bytes": round(statistics.mean(len(encode(each)) for each in last.ranges)),
        "operations": round(last.operations / len(last.ranges), 1),
    }
    state_range_s = difference("ranges", "batches", lambda run: run.cost.mongod_s, more_ranges)
    costs = Costs(
        client_doc_s=middle("whole", lambda run: run.cost.client_s) / args.docs,
        mongod_doc_s=middle("whole", lambda run: run.cost.mongod_s) / args.docs,
        batch_s=difference("batches", "whole", thread_s, more_batches),
        range_s=difference("ranges", "batches", thread_s, more_ranges),
        state_range_s=state_range_s,
        checkpoint_s=state_range_s / state["operations"],
        cut_s=max(0.0, middle("ranges", lambda run: cutting_s(run.ranges)) - cut_doc * MANY),
        cut_doc_s=cut_doc,
        message_s=0.0 if args.no_broker else message_s(),
    )
    print(f"measured on {os.cpu_count()} cores, {args.rounds} rounds:")
    for name, value in vars(costs).items():
        print(f"  {name:<16}{value * 1e6:12.1f} us")
    print(f"  jobStatus: {state['bytes']} bytes and {state['operations']} operations a range")
    return costs, state


def message_s() -> float:
    """What the broker needs for one range's messages: published with confirmation to a quorum
    queue, delivered, acknowledged."""
    n = 2000
    with RabbitMq() as broker, broker.channel() as channel:
        channel.confirm_delivery()
        channel.queue_declare("scale", durable=True, arguments={"x-queue-type": "quorum"})
        body = os.urandom(300)
        persistent = pika.BasicProperties(delivery_mode=2)
        before, started = cpu_s([broker]), time.monotonic()
        for _ in range(n):
            channel.basic_publish("", "scale", body, persistent, mandatory=True)
        channel.basic_qos(prefetch_count=100)
        for method, _, _ in channel.consume("scale", inactivity_timeout=30):
            assert method is not None
            channel.basic_ack(method.delivery_tag)
            if method.delivery_tag == n:
                break
        elapsed, used = time.monotonic() - started, cpu_s([broker]) - before
        channel.cancel()
    print(f"broker: {n} ranges' messages in {elapsed:.1f} s, {used / n * 1e6:.0f} us CPU for each")
    return used / n


def check(site, costs, docs, instances, range_docs, max_rate=0, broker=False):
    """A real run beside a simulated one, and beside what that would be if all costs were twice as large:
    without a limit the error has to show it."""
    settings = {"range_docs": range_docs, "batch_docs": min(1000, range_docs), "max_rate": max_rate}
    real = site.sweep(docs, instances, broker, **settings)
    here = {"together": True, "cores": os.cpu_count(), "poll_s": POLL_S, "broker": broker}
    fleet = Fleet(instances, **here, **settings)

    def simulated(costs):
        runs = [simulate(costs, fleet, docs, seed) for seed in range(1, 6)]
        return runs[0].cut, statistics.median(run.finished for run in runs)

    cut, model_s = simulated(costs)
    _, doubled_s = simulated(Costs(**{name: 2 * cost for name, cost in vars(costs).items()}))
    owners = {each["owner"] for each in real.ranges}
    # The last range is open-ended; when all before it are full, it is empty.
    assert len(real.ranges) - cut in (0, 1), (len(real.ranges), cut)
    return {
        "instances": instances,
        "worked": len(owners),
        "range_docs": range_docs,
        "ranges": len(real.ranges),
        "limit": max_rate,
        "broker": "yes" if broker else "no",
        "real_s": round(real.cost.seconds, 2),
        "model_s": round(model_s, 2),
        "error": round(model_s / real.cost.seconds - 1, 3),
        "error_doubled": round(doubled_s / real.cost.seconds - 1, 3),
    }


def grow(costs, state, args):
    fleets = [(s, i, 10_000) for s in (1, 4, 16, 64) for i in (1, 4, 16, 64)]
    fleets += [(64, 64, size) for size in (5_000, 20_000)]
    for shards, instances, range_docs in fleets:
        fleet = Fleet(
            instances,
            shards,
            range_docs=range_docs,
            ranges_ahead=args.ranges_ahead,
            broker=not args.no_broker,
        )
        simulated = max(2000, SIMULATED_RANGES * instances * fleet.threads)
        sweep = simulate(costs, fleet, simulated * range_docs, args.seed)
        rate = steady_rate(sweep)
        ranges = -(-RECORDS // range_docs)
        yield {
            "shards": shards,
            "instances": instances,
            "range_docs": range_docs,
            "docs_per_s": round(rate),
            "days": round(RECORDS / rate / 86400, 2),
            "ranges": ranges,
            "job_status_gb": round(ranges * state["bytes"] / 1e9, 2),
            "job_status_ops_per_s": round(
                rate / range_docs * state["operations"] + sweep.checkpoints / sweep.finished, 1
            ),
            "messages_per_s": 0
            if args.no_broker
            else round(rate / range_docs * MESSAGES_PER_RANGE, 1),
            "bound": bound(sweep),
        }


def table(rows):
    lines = [list(rows[0])]
    lines += [[v if isinstance(v, str) else f"{v:,}" for v in row.values()] for row in rows]
    widths = [max(map(len, column)) for column in zip(*lines)]
    for line in lines:
        print("  ".join(f"{cell:>{width}}" for cell, width in zip(line, widths)))


def report(costs, state, checks, rows, args):
    print("\nthe model beside real runs:")
    table(checks)
    print(f"\n{RECORDS:,} records, extrapolated:")
    table(rows)
    error = max(abs(each["error"]) for each in checks)
    can_fail = all(abs(c["error_doubled"]) > ERROR_MAX for c in checks if not c["limit"])
    week = [row for row in rows if row["days"] <= 7]
    result = {
        "bench": "scale",
        "cores": os.cpu_count(),
        "seed": args.seed,
        "costs_us": {name: round(value * 1e6, 2) for name, value in vars(costs).items()},
        "job_status": state,
        "checks": checks,
        "model_error": error,
        "model_error_max": ERROR_MAX,
        "least_for_a_week": {k: week[0][k] for k in ("shards", "instances")} if week else None,
        "extrapolated": rows,
        "check_can_fail": can_fail,
        "ok": error <= ERROR_MAX and can_fail and all(c["worked"] == c["instances"] for c in checks),
    }
    print(json.dumps(result))
    sys.exit(0 if result["ok"] else 1)


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--docs", type=int, default=60_000, help="of an unlimited run")
    parser.add_argument("--rounds", type=int, default=2, help="of those")
    parser.add_argument("--check-docs", type=int, default=15_000, help="of a limited run that checks")
    parser.add_argument("--max-rate", type=int, default=500, help="docs/s of an instance in those")
    parser.add_argument("--ranges-ahead", type=int, default=64, help="as in sweep.ranges_ahead")
    parser.add_argument("--no-broker", action="store_true", help="the local transport")
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    if args.docs % (FEW * Fleet.threads):
        parser.error(f"--docs: a multiple of {FEW * Fleet.threads}, so that no thread idles")
    return args


if __name__ == "__main__":
    main()
