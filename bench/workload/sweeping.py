"""One sweep by real instances, and what it took of whom."""

import os
from dataclasses import dataclass
from pathlib import Path

from .documents import DB

TICK_S = 1 / os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Cost:
    """Of one migration: client_s and mongod_s are CPU seconds, user and system."""

    docs: int
    seconds: float
    client_s: float
    mongod_s: float

    @property
    def docs_per_s(self) -> float:
        return self.docs / self.seconds

    @property
    def client_us(self) -> float:
        """CPU per document."""
        return self.client_s / self.docs * 1e6

    @property
    def mongod_us(self) -> float:
        return self.mongod_s / self.docs * 1e6


def cpu_s(processes) -> float:
    """CPU that running processes have used, all their threads."""
    total = 0
    for process in processes:
        text = Path(f"/proc/{process.pid}/stat").read_text()
        words = text.rpartition(")")[2].split()
        total += int(words[11]) + int(words[12])
    return total * TICK_S


def peak_memory_kb(process) -> int:
    """The most that was ever resident."""
    for line in Path(f"/proc/{process.pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1])
    raise process.error("no VmHWM")


def run_sweep(client, servers, instances: list, name: str, docs: int, timeout_s=1200) -> Cost:
    """Time runs from the start of the job to the end of the last range, both by mongod's clock;
    CPU from before the job was created to when it is done. Every document must have been rewritten,
    and nothing of the old key be left."""
    clients, mongods = cpu_s(instances), cpu_s(servers.members)
    instances[0].ctl("start", f"{DB}.{name}", "--wait", timeout_s=timeout_s)
    clients, mongods = cpu_s(instances) - clients, cpu_s(servers.members) - mongods
    job, ranges = job_of(client, instances[0], name)
    swept = sum(each["swept"] for each in ranges)
    assert swept == docs, f"{name}: {swept} of {docs} documents swept"
    verified = instances[0].ctl("verify", f"{DB}.{name}", timeout_s=timeout_s)
    assert verified["ok"], verified
    seconds = max(each["finishedAt"] for each in ranges) - job["startedAt"]
    return Cost(docs, seconds.total_seconds(), clients, mongods)


def job_of(client, rekeyd, name: str):
    state = client[rekeyd.config["upstream"]["state_db"]]
    job = state.jobs.find_one({"ns": f"{DB}.{name}"}, sort=[("_id", -1)])
    return job, list(state.jobStatus.find({"jobId": job["_id"]}))
