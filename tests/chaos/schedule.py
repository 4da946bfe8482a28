"""What goes wrong when: the same for the same seed and fleet, and printed before it happens.

Tracks run side by side; within one, a fault begins when the one before is over. So at most one
instance is dead or suspended at a time, and at most one member: what is left can go on working,
and what it works on is what the dead ones come back to.
"""

import random
from dataclasses import dataclass, field


@dataclass
class Fault:
    at_s: float
    track: str
    kind: str
    hold_s: float
    what: dict = field(default_factory=dict)

    def __str__(self):
        what = " ".join(f"{key}={value}" for key, value in self.what.items())
        return f"{self.at_s:7.1f} s  {self.track:<9} {self.kind:<16} {self.hold_s:5.1f} s  {what}"


# kind: weight, shortest and longest hold in seconds
INSTANCES = {"sigkill": (4, 0, 4), "sigstop": (3, 3.5, 6), "sigterm": (1, 0, 2), "sighup": (2, 0, 0)}
MEMBERS = {"step_down": (4, 2, 4), "kill_member": (3, 0, 4), "disk_errors": (2, 1, 4)}
DISK = {"disk_full": (2, 1, 3)}
NET = {
    "cut": (3, 0, 2),
    "blackhole": (2, 1, 6),
    "drop": (3, 1, 5),
    "half_open": (3, 1, 4),
    "delay": (2, 2, 6),
    "throttle": (1, 2, 5),
}
ISOLATION = {"isolate_member": (2, 3, 7)}
CLOCK = {"clock_jump": (1, 2, 6)}
CONTROL = {"pause_job": (2, 1, 4), "rotate_early": (1, 0, 0)}
VAULT = {"seal_vault": (1, 1, 6)}
BROKER = {"kill_broker": (2, 0, 4), "wipe_broker": (1, 0, 2), "alarm_broker": (1, 1, 4)}


def tracks_of(fleet) -> dict:
    """Name to (faults, mean pause between two)."""
    tracks = {
        "instances": (INSTANCES, 3),
        "members": ({**MEMBERS, **(DISK if fleet.mounted else {})}, 7),
        "clients": (NET, 3),
        "storage": ({**NET, **ISOLATION}, 3),
        "clocks": (CLOCK, 10),
        "control": (CONTROL, 14),
    }
    if fleet.vault:
        tracks["vault"] = (VAULT, 14)
    if fleet.transport == "amqp":
        tracks["broker"] = (BROKER, 12)
    return tracks


def make_schedule(seed: int, seconds: float, fleet) -> list:
    faults = []
    for track, (kinds, pause_s) in tracks_of(fleet).items():
        chance = random.Random(f"{seed} {track}")
        at = chance.uniform(0, pause_s)
        while at < seconds:
            kind = chance.choices(list(kinds), [weight for weight, _, _ in kinds.values()])[0]
            hold = chance.uniform(*kinds[kind][1:])
            what = details(kind, track, chance, fleet)
            faults.append(Fault(round(at, 1), track, kind, round(hold, 1), what))
            at += hold + chance.expovariate(1 / pause_s)
    return sorted(faults, key=lambda fault: fault.at_s)


def details(kind: str, track: str, chance: random.Random, fleet) -> dict:
    links = [name for name in fleet.links if ("-mongod" in name) == (track == "storage")]
    if kind in INSTANCES:
        return {"instance": chance.randrange(len(fleet.instances))}
    if kind == "kill_member":
        return {"primary": chance.random() < 0.6}
    if kind == "disk_errors":
        return {"collection": chance.choice(["people", "jobStatus", "jobs"])}
    if kind == "isolate_member":
        return {"primary": chance.random() < 0.7, "how": chance.choice(["blackhole", "drop", "cut"])}
    if kind == "delay":
        delay = chance.choice([20, 80, 300])
        return {"link": chance.choice(links), "delay_ms": delay, "jitter_ms": delay // 2}
    if kind == "throttle":
        rate = chance.choice([2_000, 20_000, 100_000])
        return {"link": chance.choice(links), "bytes_per_s": rate}
    if kind in NET:
        return {"link": chance.choice(links)}
    if kind == "clock_jump":
        clock = chance.choice(sorted(fleet.clocks))
        # mongod 6.0 itself waits for its former time when it rolls back meanwhile.
        far = 60 if clock.startswith("mongod") else 600
        return {"clock": clock, "seconds": chance.choice([-30, -5, 2, 5, 20, far])}
    return {}
