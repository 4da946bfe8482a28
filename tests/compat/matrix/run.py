"""Runs scenarios and keeps the counts: what was the same, explained, different."""

import json
import sys
import threading
import time
from collections import Counter, defaultdict

from pymongo.errors import PyMongoError

from . import compare
from .report import markdown
from .runner import RunnerError
from .targets import VARIANTS


class Run:
    def __init__(self, scenarios, targets, explained, show=False):
        self.scenarios, self.targets, self.explained = scenarios, targets, explained
        self.show = show
        self.drivers = {}  # name -> version
        self.counts = defaultdict(Counter)  # (driver, variant) -> same, explained, different
        self.unsupported = set()  # (driver, op)
        self.problems = 0
        self.messages = []  # of everything that is wrong
        self.lock = threading.Lock()

    def driver(self, fleet, variant: str, runner):
        """All scenarios of one driver in one variant; ends the runner."""
        started = time.monotonic()
        try:
            who = runner.describe()
            self.drivers[who["driver"]] = who["version"]
            compressors = who["compressors"] if variant == "compression" else []
            self.look_at_compressors(fleet, compressors)
            for i, scenario in enumerate(self.scenarios):
                if scenario.needs == "secondaries" and VARIANTS[variant].topology == "single":
                    continue
                options = dict(scenario.uri)
                if compressors:
                    options["compressors"] = compressors[i % len(compressors)]
                self.scenario(fleet, variant, runner, who["driver"], scenario, options)
            counts = ", ".join(f"{n} {what}" for what, n in self.counts[who["driver"], variant].items())
            self.say(f"{who['driver']}, {variant}: {counts} ({time.monotonic() - started:.0f} s)")
        except RunnerError as failure:
            self.broken(str(failure))
        finally:
            runner.close()

    def look_at_compressors(self, fleet, compressors):
        """A driver that is told of no compressor sends plain messages, and nothing would differ."""
        for target in self.targets:
            for compressor in compressors:
                if not fleet.compresses(target, compressor):
                    self.broken(f"{target}: {compressor} is not negotiated")

    def scenario(self, fleet, variant, runner, driver, scenario, options):
        where = f"{driver}, {variant}, {scenario.id}"
        wanted = None
        for target in self.targets:
            try:
                results = self.results(fleet, variant, runner, scenario, target, options)
            except (RunnerError, PyMongoError) as failure:
                self.count(driver, variant, "different", f"{where}, {target}: {failure}")
                if target == "direct":
                    return
                continue
            if self.show:
                self.say(f"{where}, {target}: {json.dumps(results)}")
            if target == "direct":
                wanted = results
                self.look_at_direct(where, driver, scenario, results)
                continue
            found = fleet.plaintext() if target == "policy" else []
            if found:
                message = f"{where}, {target}: plaintext on the server: {', '.join(found)}"
                self.count(driver, variant, "different", message)
            else:
                self.compare(f"{where}, {target}", driver, variant, scenario, target, wanted, results)

    def results(self, fleet, variant, runner, scenario, target, options) -> list:
        topology = VARIANTS[variant].topology
        fleet.set_up(scenario, target, topology)
        try:
            answer = runner.ask(scenario.request(fleet.uri(target, topology, options)))
        finally:
            if "configureFailPoint" in scenario.text:
                fleet.clear_fail_points()
        normaliser = compare.Normaliser(scenario, fleet.hosts(target, topology))
        return normaliser.results(answer["results"])

    def look_at_direct(self, where, driver, scenario, results):
        for problem in compare.unexpected(scenario, results):
            self.broken(f"{where}, direct: {problem}")
        for step, result in zip(scenario.steps, results):
            if "unsupported" in result:
                self.unsupported.add((driver, step["op"]))

    def compare(self, where, driver, variant, scenario, target, wanted, results):
        outcome, messages = "same", []
        for i, (direct, through) in enumerate(zip(wanted, results)):
            if compare.same(direct, through):
                continue
            entry = self.entry(scenario.id, target, i, direct, through)
            if entry:
                outcome = "explained" if outcome == "same" else outcome
                continue
            outcome = "different"
            messages.append(
                f"{where}, step {i} ({scenario.steps[i]['op']})\n"
                f"    direct:  {json.dumps(direct)}\n    through: {json.dumps(through)}"
            )
        if len(wanted) != len(results):
            outcome = "different"
            messages.append(f"{where}: {len(results)} results instead of {len(wanted)}")
        self.count(driver, variant, outcome, "\n".join(messages))

    def entry(self, scenario, target, step, direct, through):
        for entry in self.explained:
            if entry.covers(scenario, target, step, direct, through):
                entry.used += 1
                return entry
        return None

    def count(self, driver, variant, outcome, message=""):
        with self.lock:
            self.counts[driver, variant][outcome] += 1
        if message:
            self.wrong(f"DIFFERENT {message}")

    def broken(self, message):
        """Not a difference, but nothing that a run may pass with."""
        with self.lock:
            self.problems += 1
        self.wrong(f"BROKEN {message}")

    def wrong(self, message):
        self.messages.append(message)
        self.say(message)

    def say(self, message):
        print(message, file=sys.stderr, flush=True)

    def check_explained(self):
        for entry in self.explained:
            if not entry.used:
                self.broken(f"explained.yaml: {entry.scenario} is not needed")

    def total(self, outcome) -> int:
        return sum(counts[outcome] for counts in self.counts.values())

    @property
    def failed(self) -> bool:
        compared = self.total("same") + self.total("explained")
        return bool(self.problems or self.total("different") or not compared)

    def summary(self) -> dict:
        return {
            "drivers": len(self.drivers),
            "scenarios": len(self.scenarios),
            "same": self.total("same"),
            "explained": sum(1 for entry in self.explained if entry.used),
            "different": self.total("different") + self.problems,
        }

    def report(self) -> str:
        return markdown(self)
