"""A sweep as a discrete-event simulation: what the planner, sweepers, shards and jobStatus do to
each other. Seconds throughout; random choices are seeded.

  planner    one for a job: cuts ranges one after the other, up to ranges_ahead of the sweepers,
             every poll interval, and when its own instance's sweepers run out of them
             (with the local transport other instances find new ranges by polling, too)
  sweepers   `threads` in each instance: claim a range, work through it in batches, and hold a
             batch up as long as the instance's gate does; then the last checkpoint
  shards     each serves so many batches at once as it has cores, first come, first served; a range
             lies on one of them, by chance
  jobStatus  one mongod, which all claims, checkpoints and inserts have to pass
  broker     one, which every range's messages have to pass; absent with the local transport
"""

import heapq
import random
from dataclasses import dataclass

BATCHES_PER_S = 4  # at a limited rate, as src/jobs/sweeper.c has it
NUDGE_S = 0.005  # until an instance whose sweepers ran out of ranges has looked again
BURST_S = 0.1  # as src/admission/gate.c has it
CHECKPOINT_S = 0.5  # as src/jobs/range_work.c has it


@dataclass(frozen=True)
class Costs:
    """As measured."""

    client_doc_s: float  # rekeyd's CPU for a document
    mongod_doc_s: float  # mongod's
    batch_s: float  # that a batch of a thread takes besides: waiting for journal and network
    range_s: float  # that a range takes besides: claim and last checkpoint, each waited for
    state_range_s: float  # mongod's CPU for a range's jobStatus operations, however short
    checkpoint_s: float  # and for each checkpoint, where a range lasts longer
    cut_s: float  # of the planner for a range, however small
    cut_doc_s: float  # and for each document in it
    message_s: float  # of the broker for a range's messages


@dataclass(frozen=True)
class Fleet:
    instances: int = 1
    shards: int = 1
    threads: int = 2
    cores: int = 2  # of an instance, of a shard, and of the mongod with jobStatus
    range_docs: int = 10_000
    batch_docs: int = 1000
    ranges_ahead: int = 64
    poll_s: float = 1.0
    max_rate: float = 0  # docs/s of an instance; 0: no limit
    broker: bool = False
    together: bool = False  # instances, shard, jobStatus and broker share the cores of one machine


class Server:
    """Serves so many at once, first come, first served."""

    def __init__(self, slots: int):
        self.free = [0.0] * slots
        self.busy = 0.0

    def serve(self, now: float, seconds: float) -> float:
        start = max(now, heapq.heappop(self.free))
        heapq.heappush(self.free, start + seconds)
        self.busy += seconds
        return start + seconds

    def utilisation(self, elapsed: float) -> float:
        return self.busy / (elapsed * len(self.free))


class Gate:
    """A token bucket that may go into debt."""

    def __init__(self, rate: float):
        self.rate, self.tokens, self.seen = rate, 0.0, 0.0

    def take(self, now: float, docs: int) -> float:
        """When the docs may be written."""
        if not self.rate:
            return now
        now = max(now, self.seen)
        self.tokens += self.rate * (now - self.seen)
        self.tokens = min(self.tokens, self.rate * BURST_S)
        wait = max(0.0, -self.tokens / self.rate)
        self.tokens += self.rate * wait - docs
        self.seen = now + wait
        return self.seen


class Sweep:
    """simulate() is how it is run."""

    def __init__(self, costs: Costs, fleet: Fleet, docs: int, seed: int):
        self.costs, self.fleet, self.left_to_cut = costs, fleet, docs
        self.rng = random.Random(seed)
        self.shards = [Server(fleet.cores) for _ in range(fleet.shards)]
        self.instances = [Server(fleet.cores) for _ in range(fleet.instances)]
        self.gates = [Gate(fleet.max_rate) for _ in range(fleet.instances)]
        self.state = Server(fleet.cores)
        self.broker = Server(1)
        if fleet.together:
            self.shards, self.instances = [self.state], [self.state] * fleet.instances
            self.broker = self.state
        self.planner = Server(1)
        self.pending, self.waiting, self.events = [], [], []
        self.cut, self.order, self.checkpoints = 0, 0, 0
        self.planning = False
        self.done, self.finished = [], 0.0

    def at(self, when: float, what, *words):
        self.order += 1
        heapq.heappush(self.events, (when, self.order, what, words))

    def run(self):
        for number in range(self.fleet.instances):
            # Instances look for jobs at times of their own.
            start = 0.0 if number == 0 else self.rng.uniform(0, self.fleet.poll_s)
            for _ in range(self.fleet.threads):
                self.at(start, self.claim, number, False)
        self.at(0.0, self.tick)
        while self.events:
            now, _, what, words = heapq.heappop(self.events)
            what(now, *words)

    def tick(self, now):
        self.plan(now)
        if self.left_to_cut > 0:
            self.at(now + self.fleet.poll_s, self.tick)

    def plan(self, now):
        if not self.planning:
            self.cut_next(now, self.fleet.ranges_ahead - len(self.pending))

    def cut_next(self, now, room):
        docs = min(self.fleet.range_docs, self.left_to_cut)
        self.planning = docs > 0 and room > 0
        if self.planning:
            self.left_to_cut -= docs
            cost = self.costs.cut_s + self.costs.cut_doc_s * docs
            self.at(self.planner.serve(now, cost), self.was_cut, docs, room)

    def was_cut(self, now, docs, room):
        self.cut += 1
        self.pending.append(docs)
        if self.fleet.broker:
            self.broker.serve(now, self.costs.message_s)
        while self.waiting and self.pending:
            self.take_range(now, self.waiting.pop(0))
        self.cut_next(now, room - 1)

    def claim(self, now, instance, worked):
        if self.pending:
            self.take_range(now, instance)
        elif instance == 0 or self.fleet.broker:
            self.waiting.append(instance)
            if worked and instance == 0:
                self.plan(now)
        elif self.left_to_cut > 0 or self.planning:
            # Nobody tells another instance of new ranges; it looks once more, then with every poll.
            self.at(now + (NUDGE_S if worked else self.fleet.poll_s), self.claim, instance, False)

    def take_range(self, now, instance):
        docs = self.pending.pop(0)
        claimed = self.state.serve(now, self.costs.state_range_s)
        if self.fleet.broker:
            claimed = max(claimed, self.broker.serve(now, 0.0))
        shard = self.rng.choice(self.shards)
        start = claimed + self.costs.range_s
        self.at(start, self.batch, instance, shard, docs, docs, start)

    def batch(self, now, instance, shard, left, docs, stored):
        fleet, costs = self.fleet, self.costs
        share = int(fleet.max_rate / BATCHES_PER_S) or fleet.batch_docs
        n = min(left, fleet.batch_docs, share) if fleet.max_rate else min(left, fleet.batch_docs)
        ready = self.instances[instance].serve(now, n * costs.client_doc_s)
        granted = self.gates[instance].take(ready, n)
        self.at(granted, self.written, instance, shard, n, left, docs, stored)

    def written(self, now, instance, shard, n, left, docs, stored):
        end = shard.serve(now, n * self.costs.mongod_doc_s) + self.costs.batch_s
        if left > n:
            if end - stored >= CHECKPOINT_S:
                self.checkpoints += 1
                end = stored = self.state.serve(end, self.costs.checkpoint_s)
            self.at(end, self.batch, instance, shard, left - n, docs, stored)
        else:
            self.at(end, self.complete, instance, docs)

    def complete(self, now, instance, docs):
        self.done.append((now, docs))
        self.finished = now
        self.claim(now, instance, True)


def simulate(costs: Costs, fleet: Fleet, docs: int, seed: int = 1) -> Sweep:
    sweep = Sweep(costs, fleet, docs, seed)
    sweep.run()
    assert sum(n for _, n in sweep.done) == docs
    return sweep


def steady_rate(sweep: Sweep) -> float:
    """Docs/s between a fifth and four fifths of the documents: without start and end."""
    total, seen, first, last = sum(n for _, n in sweep.done), 0, None, None
    counted = 0
    for when, docs in sweep.done:
        seen += docs
        if first is None:
            first = when if seen >= total * 0.2 else None
        elif seen <= total * 0.8:
            counted, last = counted + docs, when
    return counted / (last - first)


def bound(sweep: Sweep) -> str:
    """What was busiest."""
    elapsed, fleet = sweep.finished, sweep.fleet
    busy = {
        "shards": sum(s.utilisation(elapsed) for s in sweep.shards) / fleet.shards,
        "instances' CPU": sum(s.utilisation(elapsed) for s in sweep.instances) / fleet.instances,
        "planner": sweep.planner.utilisation(elapsed),
        "jobStatus": sweep.state.utilisation(elapsed),
        "broker": sweep.broker.utilisation(elapsed),
    }
    name, most = max(busy.items(), key=lambda item: item[1])
    if most < 0.8:
        ahead = fleet.ranges_ahead * fleet.range_docs / fleet.poll_s
        name = "ranges_ahead" if steady_rate(sweep) > 0.8 * ahead else "sweepers' threads"
    return f"{name} ({most:.0%})"
