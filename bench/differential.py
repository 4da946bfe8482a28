"""Random sequences of commands on protected collections through a real rekeyd and on plain ones
directly: an application must not be able to tell them apart.

Sequences run in groups with a fresh rekeyd and keys of their own; each group has a seed, so that
it can be repeated. The first difference of a group is shrunk and printed. The last line is JSON.
"""

import argparse
import collections
import json
import os
import sys
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path

from pymongo import MongoClient

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "integration"))

from differential import PROTECTED, REKEYD, explore, policies  # noqa: E402
from harness import Rekeyd, ReplicaSet, protected  # noqa: E402

DB = "differential"


def main():
    args = arguments()
    started = time.monotonic()
    counted, found = collections.Counter(), []
    groups = range(args.seed, args.seed + -(-args.sequences // args.group))
    with ReplicaSet(1) as servers, ProcessPoolExecutor(args.processes) as processes:
        upstream = Servers(servers)
        jobs = [processes.submit(run_group, upstream, number, args) for number in groups]
        for job in as_completed(jobs):
            number, counts, difference = job.result()
            counted.update(counts)
            if difference:
                found.append(number)
                print(f"seed {number}: {difference}", flush=True)
            elif args.verbose:
                print(f"seed {number}: {counts['sequences']} the same", flush=True)
    for name, count in sorted(counted.items()):
        print(f"{name:<40}{count:10,d}")
    result = {
        "bench": "differential",
        "seed": args.seed,
        **{name: counted[name] for name in ("sequences", "commands", "rotations", "sweeps")},
        "touching_protected": counted["touching"],
        "refused_share": round(counted["refused"] / max(counted["touching"], 1), 3),
        "with_results_share": round(counted["with results"] / max(counted["touching"], 1), 3),
        "differences": len(found),
        "seeds_with_differences": sorted(found),
        "seconds": round(time.monotonic() - started),
        "cores": os.cpu_count(),
    }
    print(json.dumps(result))
    sys.exit(1 if found else 0)


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sequences", type=int, default=20_000)
    parser.add_argument("--group", type=int, default=250, help="sequences of one rekeyd")
    parser.add_argument("--seed", type=int, default=1, help="of the first group")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--jobs", type=int, default=4, help="rotations or sweeps in each group")
    parser.add_argument("--no-shrink", action="store_true", help="show differences as found")
    parser.add_argument("--verbose", action="store_true", help="show groups without a difference")
    return parser.parse_args()


class Servers:
    """The replica set that the main process started, as Rekeyd wants it."""

    certificates = None

    def __init__(self, servers):
        self.addresses, self.set_name = servers.addresses, servers.set_name
        self.uri = servers.uri

    def uri_for(self, addresses, *_):
        return f"mongodb://{','.join(addresses)}/?replicaSet={self.set_name}"

    def client(self, **options):
        return MongoClient(self.uri, **options)


def run_group(servers, number, args):
    """(number, counts, the first difference or None)"""
    db_name = f"{DB}{number}"
    with Rekeyd(servers, policies(db_name), **REKEYD) as rekeyd:
        with protected(rekeyd, db_name, **PROTECTED) as app:
            try:
                counted = explore(app, number, args.group, args.jobs, shrink=not args.no_shrink)
            except Exception as failure:  # whatever it is, it is a difference
                if not hasattr(failure, "counted"):
                    raise
                sequence = "\n".join(getattr(failure, "__notes__", ()))
                return number, failure.counted, f"{failure!r}\n{failure}\n{sequence}"
            return number, counted, None


if __name__ == "__main__":
    main()
