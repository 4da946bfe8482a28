#!/usr/bin/env python3
"""Every scenario with every driver: directly and through rekeyd must give the same. README.md."""

import argparse
import json
import os
import queue
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests" / "compat"))

from matrix import explained, runner, scenarios, tools  # noqa: E402
from matrix.run import Run  # noqa: E402
from matrix.targets import TARGETS, VARIANTS, Fleet  # noqa: E402


def arguments():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runner", action="append", choices=runner.names(), help="default: all")
    parser.add_argument("--scenario", action="append", default=[], metavar="GLOB", help="ids")
    parser.add_argument("--variant", action="append", choices=list(VARIANTS), help="default: all")
    parser.add_argument("--target", action="append", choices=TARGETS[1:], help="default: all")
    parser.add_argument("--quick", action="store_true", help="the plain variant only")
    parser.add_argument("--jobs", type=int, default=2, help="drivers at once, each with servers")
    parser.add_argument("--show", action="store_true", help="print every result")
    parser.add_argument("--logs", type=Path, help="keep the logs of servers and runners there")
    parser.add_argument("--report", type=Path, help="default: docs/compatibility.md, after a whole run")
    return parser.parse_args()


def main():
    args = arguments()
    started = time.monotonic()
    variants = args.variant or (["plain"] if args.quick else list(VARIANTS))
    runners = args.runner or runner.names()
    lacking = tools.missing(runners)
    if lacking:
        print("This machine cannot run every driver (--runner chooses):", *lacking, sep="\n", file=sys.stderr)
        return 2
    chosen = scenarios.load(args.scenario)
    cache = Path(os.environ.get("COMPAT_CACHE") or Path(tempfile.gettempdir()) / "rekey-compat")
    cache = cache.resolve()
    run = Run(chosen, ["direct", *(args.target or TARGETS[1:])], explained.load(), args.show)
    with log_directory(args.logs) as directory:
        ready = prepare(run, runners, cache)
        for kind in dict.fromkeys(VARIANTS[v].kind for v in variants):
            of_kind = [v for v in variants if VARIANTS[v].kind == kind]
            work = [(variant, name) for name in ready for variant in of_kind]
            do(run, work, kind, cache, Path(directory), args.jobs)
    whole = not (args.runner or args.scenario or args.variant or args.target or args.quick)
    if whole:
        run.check_explained()
        args.report = args.report or ROOT / "docs" / "compatibility.md"
    if args.report:
        args.report.write_text(run.report())
    print(f"{time.monotonic() - started:.0f} s", file=sys.stderr)
    print(json.dumps(run.summary()))
    return 1 if run.failed else 0


@contextmanager
def log_directory(wanted):
    if wanted:
        wanted.mkdir(parents=True, exist_ok=True)
        yield wanted.resolve()
    else:
        with tempfile.TemporaryDirectory(prefix="rekey-compat.") as directory:
            yield directory


def prepare(run, names, cache) -> list:
    cache.mkdir(parents=True, exist_ok=True)
    ready = []
    for name in names:
        try:
            runner.prepare(name, cache)
            ready.append(name)
        except runner.RunnerError as failure:
            run.broken(str(failure))
    return ready


def do(run, work, kind, cache, directory, jobs):
    """Every item of work, with its own servers for each that is done at once."""
    fleets, idle = [], queue.Queue()
    try:
        # Processes are started from the main thread: they are tied to its life.
        for i in range(min(jobs, len(work))):
            fleets.append(Fleet(kind, directory / f"{kind}{i}"))
            idle.put(fleets[-1])

        def one(item):
            fleet = idle.get()
            try:
                variant, name = item
                log = directory / f"{name}.{variant}.log"
                run.driver(fleet, variant, runner.Runner(name, cache, log))
            finally:
                idle.put(fleet)

        with ThreadPoolExecutor(max(len(fleets), 1)) as pool:
            list(pool.map(one, work))
    finally:
        for fleet in fleets:
            fleet.close()


if __name__ == "__main__":
    sys.exit(main())
