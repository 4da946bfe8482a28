"""What a key in Vault costs: values per second in both modes, and what a find-by-_id waits for.

  transit    bench_vault_values has a real Vault encrypt and decrypt 64-byte values in batches,
             through the provider that rekeyd uses;
  envelope   bench_crypto: one thread seals and opens 64-byte values under a data key at hand;
  latency    finds by _id of 1 KB documents with three protected fields, one connection, through a
             rekeyd of each mode and of a collection without a policy, in slices that take turns.
             added_p99_us is the median over the rounds of the difference to the unprotected one.
Vault, mongod, rekeyd and the load share the machine. Prints a table, then one JSON line.
"""

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "integration"))

from harness import KEK, Rekeyd, ReplicaSet, Vault, policy, rekey_binary  # noqa: E402

DB = "bench"  # bench_loadgen's
FIELDS = {"ssn": "random", "phone": "random", "note": "random"}
GOAL_TRANSIT, GOAL_ENVELOPE = 20_000, 1_000_000
MODES = ("envelope", "transit")


def main():
    args = arguments()
    with (
        tempfile.TemporaryDirectory() as directory,
        Vault() as vault,
        ReplicaSet(1, cache_gb=1) as servers,
        rekeyd_of(servers, vault, directory, "envelope") as envelope,
        rekeyd_of(servers, vault, directory, "transit") as transit,
    ):
        vault.api("DELETE", "sys/audit/file")  # its log is the tests' affair, and costs a third
        values = throughput(transit, args)
        targets = {
            "none": (envelope.addresses[0], "plain"),
            "envelope": (envelope.addresses[0], "envelope"),
            "transit": (transit.addresses[0], "transit"),
        }
        rounds = latency(targets, args)
    report(values, rounds, args)


def rekeyd_of(servers, vault, directory, mode) -> Rekeyd:
    settings = vault.settings(Path(directory) / mode, mode=mode)
    settings["upstream"] = {"state_db": f"rekey_{mode}"}
    return Rekeyd(servers, [policy(f"{DB}.{mode}", FIELDS)], settings)


def last_json(argv) -> dict:
    done = subprocess.run([str(a) for a in argv], stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def throughput(rekeyd, args) -> dict:
    key = f"transit/{KEK}:v1"
    return {
        "transit": last_json(
            [rekey_binary("bench_vault_values"), rekeyd.config_path, key, args.seconds]
        ),
        "envelope": last_json([rekey_binary("bench_crypto")]),
    }


def loadgen(address, coll, op, args, seed=0) -> str:
    argv = [rekey_binary("bench_loadgen"), "--target", address, "--op", op, "--coll", coll]
    argv += ["--docs", args.docs, "--connections", 1, "--seed", seed]
    argv += ["--duration-ms", args.slice_ms, "--warmup-ms", 200]
    run = subprocess.run([str(a) for a in argv], stdout=subprocess.PIPE, text=True, check=True)
    return run.stdout


def latency(targets: dict, args) -> dict:
    for address, coll in targets.values():
        loadgen(address, coll, "load", args)
    rng = random.Random(args.seed)
    rounds = {name: [] for name in targets}
    for number in range(args.rounds):
        for name in rng.sample(list(targets), len(targets)):
            address, coll = targets[name]
            rounds[name].append(json.loads(loadgen(address, coll, "find", args, number)))
    return rounds


def added(rounds: dict, mode: str, quantile: str) -> float:
    pairs = zip(rounds[mode], rounds["none"])
    return round(statistics.median(m[quantile] - n[quantile] for m, n in pairs))


def report(values: dict, rounds: dict, args):
    head = ("find by _id", "ops/s", "p50 us", "p99 us", "p50 added", "p99 added")
    print("{:<14}{:>8}{:>9}{:>9}{:>11}{:>11}".format(*head))
    for name, slices in rounds.items():
        figures = ("ops_per_s", "p50_us", "p99_us")
        middle = {k: statistics.median(s[k] for s in slices) for k in figures}
        print(
            f"{name:<14}{middle['ops_per_s']:>8.0f}{middle['p50_us']:>9.0f}{middle['p99_us']:>9.0f}"
            f"{added(rounds, name, 'p50_us'):>11}{added(rounds, name, 'p99_us'):>11}"
        )
    crypto = values["envelope"]
    result = {
        "bench": "vault",
        "transit_values_per_s": round(min(values["transit"].values())),
        "transit_seal_per_s": values["transit"]["seal_per_s"],
        "transit_open_per_s": values["transit"]["open_per_s"],
        "envelope_values_per_s": round(min(v for k, v in crypto.items() if k.endswith("_per_s"))),
        "added_p99_us": {mode: added(rounds, mode, "p99_us") for mode in MODES},
        "added_p50_us": {mode: added(rounds, mode, "p50_us") for mode in MODES},
        "rounds": args.rounds,
        "cores": os.cpu_count(),
    }
    for name, goal in (("transit", GOAL_TRANSIT), ("envelope", GOAL_ENVELOPE)):
        got = result[f"{name}_values_per_s"]
        print(f"{name}: {got} values/s, goal {goal}: {'met' if got >= goal else 'MISSED'}")
    print(json.dumps(result))


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--slice-ms", type=int, default=1500)
    parser.add_argument("--seconds", type=int, default=5, help="of either throughput")
    parser.add_argument("--docs", type=int, default=5000)
    parser.add_argument("--seed", type=int, default=1)
    return parser.parse_args()


if __name__ == "__main__":
    main()
