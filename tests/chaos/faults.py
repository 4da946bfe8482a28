"""How each kind of fault is done, and undone."""

import random
import shutil
import threading
import time
import traceback
from collections import Counter
from contextlib import suppress

from pymongo import MongoClient
from pymongo.errors import PyMongoError

from harness import VaultError
from harness.ports import HOST
from harness.rekeyd import SANITIZER_EXIT

from fleet import UNREACHABLE

OUT_OF_DISK_SPACE = 14031
WRITES = ["insert", "update", "findAndModify", "delete"]


class Runner:
    """A thread for each track. counts: the faults that were done, by kind."""

    def __init__(self, fleet, schedule, say):
        self.fleet, self.say = fleet, say
        self.counts = Counter()
        self.failures = []
        self.primary = None  # the member that was seen to be it last
        self.ending = threading.Event()
        self._lock = threading.Lock()
        self._began = time.monotonic()
        names = dict.fromkeys(fault.track for fault in schedule)
        self.threads = [
            threading.Thread(target=self._run, args=([f for f in schedule if f.track == name],), daemon=True)
            for name in names
        ]

    def start(self):
        self._began = time.monotonic()
        for thread in self.threads:
            thread.start()

    def done(self) -> int:
        with self._lock:
            return sum(self.counts.values())

    def running(self) -> bool:
        return any(thread.is_alive() for thread in self.threads)

    def _run(self, faults):
        for fault in faults:
            if self.ending.wait(max(0, self._began + fault.at_s - time.monotonic())):
                return
            try:
                done = DO[fault.kind](self, fault)
            except Exception:
                self.failures.append(f"{fault}: {traceback.format_exc()}")
                self.say(f"the fault itself failed: {self.failures[-1]}")
                continue
            if done is not False:
                with self._lock:
                    self.counts[fault.kind] += 1

    def hold(self, fault):
        self.ending.wait(fault.hold_s)

    # Instances.

    def instance(self, fault):
        instance = self.fleet.instances[fault.what["instance"]]
        assert instance.alive, f"{instance.name} died by itself: {instance.returncode}"
        return instance

    def sigkill(self, fault):
        instance = self.instance(fault)
        instance.kill()
        self.hold(fault)
        self.fleet.keep_alive(instance)

    def sigterm(self, fault):
        """As in a rolling upgrade; it has to end by itself, whatever else is going on."""
        instance = self.instance(fault)
        status = instance.stop(90)
        assert status in (0, SANITIZER_EXIT), f"{instance.name} exited with {status} on SIGTERM"
        self.hold(fault)
        self.fleet.keep_alive(instance)

    def sigstop(self, fault):
        instance = self.instance(fault)
        instance.suspend()
        self.hold(fault)
        instance.resume()

    def sighup(self, fault):
        """Another pace; the sweep goes on with it."""
        chance = random.Random(str(fault))
        sweep = {"max_rate": chance.choice([60, 100, 200]), "batch_docs": chance.choice([5, 25, 60])}
        self.instance(fault).reload({"sweep": sweep})

    # Members of the replica set.

    def step_down(self, fault):
        with self.fleet.direct(serverSelectionTimeoutMS=5000) as client:
            command = {"replSetStepDown": int(fault.hold_s) + 1, "force": True}
            command["secondaryCatchUpPeriodSecs"] = 0
            try:
                client.admin.command(command)
            except PyMongoError:
                return False  # there is no primary at present
        self.hold(fault)

    def kill_member(self, fault):
        self.revive()
        member = self.member(fault.what["primary"])
        member.kill()
        self.hold(fault)
        self.fleet.keep_alive(member)

    def disk_errors(self, fault):
        """mongod says that its disk is full, to writes of one collection."""
        coll = fault.what["collection"]
        db = "chaos" if coll == "people" else self.fleet.state_db()
        data = {"failCommands": WRITES, "namespace": f"{db}.{coll}", "errorCode": OUT_OF_DISK_SPACE}
        self.revive()
        member = self.member(True)
        done = self.fail_point(member, "alwaysOn", data=data)
        self.hold(fault)
        while not self.fail_point(member, "off") and member.alive:
            time.sleep(0.5)
        return done

    def fail_point(self, member, mode, **more) -> bool:
        try:
            with self.at(member) as client:
                client.admin.command("configureFailPoint", "failCommand", mode=mode, **more)
        except PyMongoError:
            return False  # it died of what was done to it before
        return True

    def disk_full(self, fault):
        """Really: a member whose disk has no byte left, until somebody makes room."""
        member = self.fleet.mounted
        filler = member.dbpath / "filler"
        with suppress(OSError), open(filler, "wb", buffering=0) as file:
            while file.write(bytes(1 << 20)):
                pass
        assert shutil.disk_usage(member.dbpath).free < 1 << 20
        self.hold(fault)
        filler.unlink()
        self.fleet.keep_alive(member)

    def revive(self):
        """A full disk may kill later than it was full. By the members' track alone, which kills."""
        for member in self.fleet.servers.members:
            self.fleet.keep_alive(member)

    def member(self, primary: bool):
        """The primary, or a secondary; the last that was primary when nobody is."""
        members = self.fleet.servers.members
        for member in (each for each in members if each.alive):
            with suppress(PyMongoError), self.at(member) as client:
                if client.admin.command("hello")["isWritablePrimary"]:
                    self.primary = member
        found = self.primary or members[0]
        return found if primary else next(m for m in members if m is not found)

    @staticmethod
    def at(member) -> MongoClient:
        """Past all faults of links."""
        return MongoClient(HOST, member.port, directConnection=True, timeoutMS=20000)

    # The network.

    def link_fault(self, fault):
        options = {key: value for key, value in fault.what.items() if key != "link"}
        self.fleet.proxy.set(fault.what["link"], fault.kind, **options)
        self.hold(fault)
        self.fleet.proxy.heal(fault.what["link"])

    def isolate_member(self, fault):
        """From everybody else, or from the other members alone."""
        member = self.member(fault.what["primary"])
        number = self.fleet.servers.members.index(member)
        links = [name for name in self.fleet.links if f"mongod{number}" in name]
        if random.Random(str(fault)).random() < 0.6:
            links = [name for name in links if name.startswith("mongod")]
        for link in links:
            self.fleet.proxy.set(link, fault.what["how"])
        self.hold(fault)
        for link in links:
            self.fleet.proxy.heal(link)

    # Clocks, keys, jobs.

    def clock_jump(self, fault):
        self.fleet.shift_clock(fault.what["clock"], fault.what["seconds"])
        self.hold(fault)
        self.fleet.shift_clock(fault.what["clock"], 0)

    def seal_vault(self, fault):
        with suppress(VaultError):
            self.fleet.vault.seal()
        self.hold(fault)
        self.fleet.vault.unseal()

    def kill_broker(self, fault):
        self.fleet.broker.kill()
        self.hold(fault)
        self.fleet.keep_alive(self.fleet.broker)

    def wipe_broker(self, fault):
        """Queues and messages are gone."""
        self.fleet.broker.wipe()
        self.hold(fault)
        self.fleet.keep_alive(self.fleet.broker)

    def alarm_broker(self, fault):
        """Who publishes is blocked."""
        self.fleet.broker.alarm(True)
        self.hold(fault)
        self.fleet.broker.alarm(False)

    def pause_job(self, fault):
        if self.fleet.try_ctl("pause", "all") != 0:
            return False
        self.hold(fault)
        while self.fleet.try_ctl("resume", "all") == UNREACHABLE and not self.ending.wait(0.5):
            pass

    def rotate_early(self, fault):
        """While a sweep is under way."""
        with self.fleet.rotating:
            return self.fleet.last_key is None and self.fleet.try_ctl("keys", "rotate") == 0


DO = {
    name: getattr(Runner, name)
    for name in (
        "sigkill sigterm sigstop sighup step_down kill_member disk_errors disk_full isolate_member clock_jump "
        "seal_vault kill_broker wipe_broker alarm_broker pause_job rotate_early"
    ).split()
}
DO.update(dict.fromkeys(("cut", "blackhole", "drop", "half_open", "delay", "throttle"), Runner.link_fault))
