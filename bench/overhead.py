"""What a proxy in front of mongod costs: direct, HAProxy, and rekeyd with and without a policy.

A cell is an operation at a number of connections. Every round visits all cells, and in each cell
gives every target one short slice, all in random order; a target's ratio in a cell is taken
against HAProxy's slice of the same cell and round, so that what else the machine does hits both.
A cell's value is the median over the rounds, and the result is the worst cell's value. Each
target has collections of its own: a shared one stays warm for whoever comes second.

Prints a table, then one JSON line. docs/benchmarks.md says how to read them.
"""

import argparse
import json
import os
import random
import shutil
import statistics
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "integration"))

from harness import Process, ProcessError, Rekeyd, ReplicaSet, policy, rekey_binary  # noqa: E402
from harness.ports import HOST, free_port  # noqa: E402

DB = "bench"  # bench_loadgen's
OPS = ("find", "insert", "update")
CONNECTIONS = (1, 4, 16)
THREADS = 2  # of either proxy
BASE = "haproxy"
GOALS = {"passthrough": 0.95, "encrypted": 0.85}
PROTECTED_FIELDS = {"ssn": "deterministic", "phone": "random", "note": "random"}
ENVELOPE_SUBTYPE = 0x8E


class Haproxy(Process):
    """Debian's haproxy in TCP mode, with as many threads as rekeyd has workers."""

    def __init__(self, upstream_address: str):
        super().__init__("haproxy", None, free_port())
        self.upstream_address = upstream_address

    @property
    def address(self) -> str:
        return f"{HOST}:{self.port}"

    def argv(self) -> list:
        config = self.directory / "haproxy.cfg"
        config.write_text(
            f"global\n  nbthread {THREADS}\n  maxconn 4096\n"
            "defaults\n  mode tcp\n"
            "  timeout connect 5s\n  timeout client 1h\n  timeout server 1h\n"
            f"listen mongod\n  bind {self.address}\n  server mongod {self.upstream_address}\n"
        )
        binary = shutil.which("haproxy", path=f"{os.environ['PATH']}:/usr/sbin")
        if not binary:
            raise ProcessError("haproxy is not installed")
        return [binary, "-db", "-f", str(config)]


@dataclass(frozen=True)
class Target:
    name: str
    address: str
    proxy: Process = None

    @property
    def coll(self) -> str:
        """What find and update work on."""
        return self.name

    @property
    def inserts(self) -> str:
        """What insert fills, dropped after every round."""
        return f"{self.name}_inserts"


@dataclass(frozen=True)
class Plan:
    rounds: int
    slice_ms: int
    warmup_ms: int
    docs: int


def loadgen(target: Target, op: str, plan: Plan, connections: int = 1, seed: int = 0) -> str:
    coll = target.inserts if op == "insert" else target.coll
    argv = [rekey_binary("bench_loadgen"), "--target", target.address, "--op", op, "--coll", coll]
    argv += ["--connections", str(connections), "--docs", str(plan.docs), "--seed", str(seed)]
    argv += ["--duration-ms", str(plan.slice_ms), "--warmup-ms", str(plan.warmup_ms)]
    if target.proxy:
        argv += ["--proxy-pid", str(target.proxy.pid)]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=120, check=False)
    if done.returncode != 0:
        raise ProcessError(f"{target.name} failed: {done.stderr.strip()}")
    return done.stdout


def check_at_rest(db, target: Target):
    """The comparison is void unless the encrypted target's fields lie encrypted, and they alone."""
    encrypted = target.name == "encrypted"
    kind = "binData" if encrypted else "string"
    wrong = {"$or": [{field: {"$not": {"$type": kind}}} for field in PROTECTED_FIELDS]}
    for coll in (target.coll, target.inserts):
        if db[coll].find_one(wrong, {"_id": 1}):
            raise ProcessError(f"{DB}.{coll} has documents whose fields are not {kind}")
    sample = db[target.coll].find_one()
    if encrypted and any(sample[field].subtype != ENVELOPE_SUBTYPE for field in PROTECTED_FIELDS):
        raise ProcessError(f"{DB}.{target.coll} holds binaries that are not envelopes")


def measure(targets: list, plan: Plan, rng: random.Random, client) -> dict:
    """{(op, connections): {target name: [slice, one per round]}}"""
    cells = {(op, n): {t.name: [] for t in targets} for op in OPS for n in CONNECTIONS}
    for done in range(plan.rounds):
        for op, connections in rng.sample(list(cells), len(cells)):
            for target in rng.sample(targets, len(targets)):
                seed = rng.randrange(1 << 32)
                line = loadgen(target, op, plan, connections, seed)
                cells[op, connections][target.name].append(json.loads(line))
        # Every round starts from the same data and behind a checkpoint.
        for target in targets:
            check_at_rest(client[DB], target)
            client[DB][target.inserts].drop()
        client.admin.command("fsync")
        print(f"round {done + 1} of {plan.rounds}", file=sys.stderr, flush=True)
    return cells


def summarise(slices: list, base: list) -> dict:
    """One target in one cell: medians over the rounds, CPU over all of them."""
    ratios = [s["ops_per_s"] / b["ops_per_s"] for s, b in zip(slices, base)]
    low, middle, high = statistics.quantiles(ratios, n=4, method="inclusive")
    summary = {
        key: statistics.median(s[key] for s in slices) for key in ("ops_per_s", "p50_us", "p99_us")
    }
    summary["cpu_us_per_op"] = sum(s["proxy_cpu_us"] for s in slices) / sum(
        s["ops"] for s in slices
    )
    summary["vs_haproxy"], summary["quartiles"] = middle, (low, high)
    return {
        key: [round(v, 4) for v in value] if isinstance(value, tuple) else round(value, 4)
        for key, value in summary.items()
    }


def print_table(rows: list):
    print(
        f"{'operation':<10}{'conns':>5}  {'target':<12}{'ops/s':>8}{'p50 us':>9}{'p99 us':>9}"
        f"{'CPU us/op':>11}{'vs HAProxy':>12}  quartiles"
    )
    for row in rows:
        cpu = f"{row['cpu_us_per_op']:.1f}" if row["proxied"] else "-"
        low, high = row["quartiles"]
        print(
            f"{row['op']:<10}{row['connections']:>5}  {row['target']:<12}{row['ops_per_s']:>8.0f}"
            f"{row['p50_us']:>9.0f}{row['p99_us']:>9.0f}{cpu:>11}{row['vs_haproxy']:>12.3f}"
            f"  {low:.3f} to {high:.3f}"
        )


def report(targets: list, plan: Plan, seed: int, cells: dict):
    rows = []
    for (op, connections), by_target in cells.items():
        for target in targets:
            row = {"op": op, "connections": connections, "target": target.name}
            row["proxied"] = target.proxy is not None
            row.update(summarise(by_target[target.name], by_target[BASE]))
            rows.append(row)
    print_table(rows)
    result = {"bench": "overhead", "rounds": plan.rounds, "slice_ms": plan.slice_ms, "seed": seed}
    for target in targets:
        if target.name in ("direct", BASE):
            continue
        worst = min(row["vs_haproxy"] for row in rows if row["target"] == target.name)
        result[f"{target.name}_vs_haproxy"] = worst
        goal = GOALS.get(target.name)
        if goal:
            verdict = "met" if worst >= goal else "MISSED"
            print(f"{target.name}: worst cell {worst:.3f} of HAProxy, goal {goal}: {verdict}")
    result["cells"] = rows
    print(json.dumps(result))


def run(plan: Plan, seed: int, control: bool):
    rng = random.Random(seed)
    with ReplicaSet(1, cache_gb=1) as upstream:
        mongod = upstream.members[0]
        namespaces = [f"{DB}.encrypted", f"{DB}.encrypted_inserts"]
        policies = [policy(ns, PROTECTED_FIELDS) for ns in namespaces]
        settings = {"limits": {"workers": THREADS}}
        with (
            Haproxy(mongod.address) as haproxy,
            Haproxy(mongod.address) as second,
            Rekeyd(upstream, policies, settings) as rekeyd,
            upstream.client() as client,
        ):
            listen = rekeyd.addresses[0]
            targets = [
                Target("direct", mongod.address),
                Target(BASE, haproxy.address, haproxy),
                Target("passthrough", listen, rekeyd),
                Target("encrypted", listen, rekeyd),
            ]
            if control:
                targets.append(Target("control", second.address, second))
            for target in targets:
                loadgen(target, "load", plan)
            report(targets, plan, seed, measure(targets, plan, rng, client))


def main():
    summary = __doc__.split("\n")[0]
    parser = argparse.ArgumentParser(prog="./dev bench overhead", description=summary)
    parser.add_argument("--quick", action="store_true", help="about 90 s, rough")
    parser.add_argument("--rounds", type=int, help="default 8, quick 3")
    parser.add_argument("--slice-ms", type=int, help="measured time of a slice")
    parser.add_argument("--seed", type=int, default=None, help="of the random order")
    parser.add_argument(
        "--control", action="store_true", help="add a second HAProxy: the ratio that means nothing"
    )
    args = parser.parse_args()
    rounds, slice_ms = (3, 500) if args.quick else (8, 1400)
    plan = Plan(args.rounds or rounds, args.slice_ms or slice_ms, 200, 20000)
    seed = args.seed if args.seed is not None else random.randrange(1 << 32)
    try:
        run(plan, seed, args.control)
    except ProcessError as error:
        sys.exit(f"overhead: {error}")


if __name__ == "__main__":
    main()
