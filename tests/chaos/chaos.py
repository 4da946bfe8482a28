"""Everything fails, all the time, and nothing may be lost.

A replica set, three rekeyd instances, two of them over RabbitMQ, a real Vault; eight writers on the
documents that one sweep after the other moves to new keys; and a schedule of faults, made from a seed and
printed before it happens. When the writers have ended the last sweep begins, while faults go on; then
everything is healed, that sweep ends, and it is checked that
  lost          no acknowledged write is missing, and no deletion
  mismatches    every plaintext is right, through every instance, and was so on the way
  old_key_left  nothing lies under another key than the last, by `rekeyctl verify` and by a scan of
                our own
  counts        every range's counters add up, the ranges of every job cover everything once, and those
                of the last have counted every document once
  dead_letters  no record was given up: there was nothing wrong with any
  repeated      no range was touched once it was done, by a change stream on jobStatus
  threads_died  none of our own threads ended before it was told to
  leaked        no instance leaves memory behind, where a sanitizer looks
The last line is JSON. --self-test instead plants one of each and shows that it is found.
"""

import argparse
import json
import shutil
import signal
import sys
import tempfile
import threading
import time
import traceback
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parent), str(Path(__file__).resolve().parents[1] / "integration")]

import checker  # noqa: E402
from harness.process import ProcessError  # noqa: E402
from harness.rekeyd import SANITIZER_EXIT  # noqa: E402

from faults import Runner  # noqa: E402
from fleet import COLL, DB, FIELDS, NAMESPACE, Fleet  # noqa: E402
from schedule import make_schedule  # noqa: E402
from sweeps import Sweeps  # noqa: E402
from writers import start_writers, stop_writers  # noqa: E402

SECONDS, QUICK_SECONDS = 840, 60
LAST_S, LAST_MOST_S = 15, 90  # of faults while the last sweep is under way; and with what is before it
FAULTS_MIN = 300  # in a whole run
SHOWN = 20  # of each kind of problem
BEGAN = time.monotonic()


def main():
    args = arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that what was started is ended
    threading.excepthook = note_death
    directory = Path(args.directory or tempfile.mkdtemp(prefix="rekey-chaos-"))
    if args.self_test:
        from self_test import run_self_test

        ok = run_self_test(directory, say, died)
    else:
        ok = run(args, directory)
    if ok and not args.directory:
        shutil.rmtree(directory, ignore_errors=True)
    elif not ok:
        say(f"logs are in {directory}")
    sys.exit(0 if ok else 1)


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="two minutes instead of fifteen")
    parser.add_argument("--seed", type=int, default=int(time.time()), help="of a run to be repeated")
    parser.add_argument("--seconds", type=float, help="of faults; the rest comes on top")
    parser.add_argument("--transport", choices=["local", "amqp"], default="amqp")
    parser.add_argument("--directory", help="for logs and data; kept")
    parser.add_argument("--self-test", action="store_true", help="show that the checks find what is wrong")
    return parser.parse_args()


died = []  # tracebacks of threads that did not end as they should


def note_death(args):
    trace = "".join(traceback.format_exception(args.exc_type, args.exc_value, args.exc_traceback))
    died.append(f"{args.thread.name if args.thread else '?'}: {trace}")
    say(f"a thread died: {died[-1]}")


def say(text):
    print(f"[{time.monotonic() - BEGAN:6.1f}] {text}", flush=True)


def run(args, directory) -> bool:
    seconds = args.seconds or (QUICK_SECONDS if args.quick else SECONDS)
    with Fleet(directory, transport=args.transport) as fleet:
        schedule = make_schedule(args.seed, seconds + LAST_MOST_S, fleet)
        print(f"seed {args.seed}: {len(schedule)} faults in at most {seconds + LAST_MOST_S:.0f} s")
        print("\n".join(map(str, schedule)), flush=True)
        history = checker.History(fleet)
        history.start()
        writers = start_writers(fleet, args.seed)
        fill(writers)
        say("the sweeps and the faults begin")
        sweeps = Sweeps(fleet)
        runner = Runner(fleet, schedule, say)
        sweeps.start()
        runner.start()
        over = time.monotonic() + seconds
        while time.monotonic() < over:
            fleet.serve_main(1)
        last_faults = end_under_faults(fleet, writers, sweeps, runner)
        last_s = sweeps.last_s()
        runner.ending.set()  # what is late is left out, and not counted
        while runner.running():
            fleet.serve_main(1)
        say(f"{sum(runner.counts.values())} faults done, {len(sweeps.ended)} sweeps; healing")
        restarted = heal(fleet)
        result = finish(fleet, writers, sweeps, history)
    faults = dict(sorted(runner.counts.items()))
    result = {
        "chaos": "quick" if args.quick else "full",
        "seed": args.seed,
        "transport": args.transport,
        "seconds": round(seconds),
        "last_sweep_under_faults_s": last_s,
        "last_sweep_faults": last_faults,
        "faults": sum(faults.values()),
        "faults_by_kind": faults,
        **result,
        "members_restarted": restarted,
        "faults_that_failed": len(runner.failures),
    }
    clean = ("lost", "mismatches", "old_key_left", "counts_wrong", "repeated", "crashed")
    clean += ("dead_letters", "links_unused", "faults_that_failed", "threads_died", "leaked")
    result["ok"] = last_faults > 0 and not any(result[name] for name in clean)
    if not args.quick and not args.seconds:
        result["ok"] = result["ok"] and result["faults"] >= FAULTS_MIN
    print(json.dumps(result), flush=True)
    return result["ok"]


def end_under_faults(fleet, writers, sweeps, runner) -> int:
    """The last sweep is on documents that nobody writes any more, and faults go on beside it and after
    it. Returns how many were done while it was under way."""
    for writer in writers:
        writer.stopping.set()
    over = time.monotonic() + LAST_MOST_S
    while any(writer.is_alive() for writer in writers) and time.monotonic() < over:
        fleet.serve_main(1)
    stop_writers(writers)
    sweeps.begin_last()
    say("the writers have ended; the last sweep is next")
    while time.monotonic() < over and not sweeps.last_began:
        fleet.serve_main(1)
    before = beside = runner.done()
    over = min(over, time.monotonic() + LAST_S)
    while time.monotonic() < over:
        fleet.serve_main(1)
        if not sweeps.last_ended:
            beside = runner.done()
    return beside - before


def fill(writers):
    """Until there is something to sweep."""
    deadline = time.monotonic() + 60
    while sum(writer.acknowledged for writer in writers) < 800:
        assert time.monotonic() < deadline, "the writers do not get on"
        time.sleep(0.1)


def heal(fleet) -> int:
    """Returns how many members of the set had to be restarted to come back: mongod 6.0 may wait for a
    wall clock that was ahead while it rolled back."""
    fleet.proxy.heal_all()
    for name in fleet.clocks:
        fleet.shift_clock(name, 0)
    for process in [*fleet.servers.members, *fleet.instances]:
        if process.alive:
            process.resume()
        fleet.keep_alive(process)
    for instance in fleet.instances:
        instance.reload({"sweep": {"max_rate": 0}})
    if fleet.vault:
        fleet.vault.unseal()
    if fleet.broker:
        fleet.keep_alive(fleet.broker)
        fleet.broker.alarm(False)
    fleet.servers.wait_writable(60)
    stuck = 0
    for _ in range(3):
        try:
            fleet.servers.wait_secondaries(60)
            break
        except ProcessError:
            stuck += restart_stuck(fleet)
    return stuck


def restart_stuck(fleet) -> int:
    with fleet.direct() as client:
        states = client.admin.command("replSetGetStatus")["members"]
    stuck = [fleet.servers.members[m["_id"]] for m in states if m["stateStr"] not in ("PRIMARY", "SECONDARY")]
    for member in stuck:
        say(f"{member.name} does not come back by itself: it is restarted")
        member.kill()
        fleet.keep_alive(member)
    return len(stuck)


def finish(fleet, writers, sweeps, history) -> dict:
    key = sweeps.finish()
    say(f"the last sweep has ended, at key {key}")
    problems = check_all(fleet, writers, key, sweeps.last_ids())
    if fleet.broker and not sweeps.delivered:
        problems["counts_wrong"].append("the broker delivered no range")
    opened = {name: counts[1] for name, counts in fleet.proxy.links().items()}
    problems["links_unused"] = [name for name in fleet.links if not opened.get(name)]
    history.finish()
    problems["repeated"] = history.repeated
    problems["crashed"], problems["leaked"] = end_instances(fleet)
    problems["threads_died"] = died
    for kind, found in problems.items():
        for problem in found[:SHOWN]:
            say(f"{kind}: {problem}")
    errors = sum((writer.errors for writer in writers), start=type(writers[0].errors)())
    return {
        "writes": sum(writer.acknowledged for writer in writers),
        "writes_unsure": sum(writer.unsure for writer in writers),
        "reads": sum(writer.reads for writer in writers),
        "client_errors": dict(errors.most_common()),
        "sweeps": len(sweeps.ended),
        "jobs_failed": sweeps.failed,
        "ranges": len(history.done),
        "range_changes": history.changes,
        "keys": key,
        "delivered_ranges": sweeps.delivered,
        **{kind: len(found) for kind, found in problems.items()},
    }


def check_all(fleet, writers, key: int, last_jobs: set) -> dict:
    ledger = {}
    mismatches = [wrong for writer in writers for wrong in writer.broken]
    lost = []
    for writer in writers:
        ledger.update(writer.ledger)
    for number in range(len(fleet.instances)):
        with fleet.app_client(number, serverSelectionTimeoutMS=30000) as client:
            missing, wrong = checker.check_documents(ledger, list(client[DB][COLL].find()))
        lost.extend(missing)
        mismatches.extend(wrong)
    with fleet.direct() as client:
        old = checker.check_envelopes(list(client[DB][COLL].find()), FIELDS, key)
        state = client[fleet.state_db()]
        counts = checker.check_jobs(state)
        counts += checker.check_totals(state, last_jobs, client[DB][COLL].count_documents({}))
        letters = [f"{d['docId']!r}: {d['reason']}" for d in state.deadLetters.find({"resolved": False})]
    verified = fleet.control.ctl("verify", NAMESPACE, "--deep", check=False, timeout_s=300)
    if verified.returncode != 0:
        old.append(f"rekeyctl verify: {verified.returncode} {verified.stdout[-600:]} {verified.stderr}")
    return {"lost": lost, "mismatches": mismatches, "old_key_left": old, "counts_wrong": counts, "dead_letters": letters}


def end_instances(fleet):
    """(crashes, leaks): SIGTERM must drain; sanitizers tell of processes that ended before, too."""
    crashed, leaked = [], []
    for instance in fleet.instances:
        status = instance.stop(60)
        if status not in (0, SANITIZER_EXIT):
            crashed.append(f"{instance.name} exited with {status} on SIGTERM")
        for path in sorted(instance.directory.glob(f"{instance.name}.sanitizer.*")):
            report = path.read_text(errors="replace")
            (leaked if "ERROR: LeakSanitizer" in report else crashed).append(report)
    return crashed, leaked


if __name__ == "__main__":
    main()
