"""Sweeps over RabbitMQ: instances share a job, and nothing that happens to the broker or to them loses
a range or repeats one."""

import json
import re
import socket
from contextlib import suppress

import pytest

from harness import Certificates, RabbitMq, admin_settings
from harness.process import Process, ProcessError
from harness.rabbitmq import DELIVERY_LIMIT, PASSWORD
from harness.waiting import wait_until
from tap import Tap

pytestmark = pytest.mark.timeout(240)  # brokers start slowly on a busy machine
RANGE_DOCS = 20


@pytest.fixture(scope="module")
def shared_broker(tmp_path_factory):
    directory = tmp_path_factory.mktemp("rabbitmq")
    with RabbitMq(directory, certificates=Certificates(directory / "ca")) as broker:
        yield broker


@pytest.fixture
def broker(shared_broker):
    yield shared_broker
    if not shared_broker.alive:
        shared_broker.start()


@pytest.fixture
def start_over(start_swept, single_member_set, broker, tmp_path):
    """start_over(rate, **amqp settings): a Swept whose ranges go over the broker."""

    def start(rate=0, tls=False, ca_file=None, sweep=None, **changes):
        settings = {**broker.settings(tmp_path, tls=tls, **changes), **admin_settings()}
        if ca_file is not None:
            settings["amqp"]["tls"]["ca_file"] = ca_file
        settings["sweep"].update({"range_docs": RANGE_DOCS, "batch_docs": 10, "max_rate": rate})
        settings["sweep"].update(sweep or {})
        return start_swept(single_member_set, settings)

    return start


class Pushing(Tap):
    """In front of a broker: the limit of a consumer's deliveries is gone from basic.qos, so that all
    that lies in the queues is sent at once."""

    _QOS = re.compile(rb"(\x01\0\x01\0\0\0\x0b\0\x3c\0\x0a\0{4})..", re.DOTALL)

    @classmethod
    def _relay(cls, source, target, seen):
        with suppress(OSError):
            while chunk := source.recv(1 << 16):
                target.sendall(cls._QOS.sub(rb"\1\0\0", chunk))
        with suppress(OSError):
            target.shutdown(socket.SHUT_RDWR)


def queue(swept, name) -> str:
    return f"{swept.rekeyd.config['amqp']['prefix']}.{name}"


def connected(rekeyd):
    wait_until(lambda: value(rekeyd, "rekey_amqp_connected") == 2, 60)


def complete(swept, timeout_s=120):
    swept.wait(lambda: swept.job()["state"] == "complete", timeout_s)


def value(rekeyd, name, **labels) -> float:
    family = name.removesuffix("_total")
    found = [
        sample.value
        for sample in rekeyd.admin.families()[family].samples
        if labels.items() <= sample.labels.items()
    ]
    return sum(found)


def check_every_range_once(swept, documents):
    ranges = swept.ranges()
    assert {r["state"] for r in ranges} == {"done"}
    assert {r["epoch"] for r in ranges} == {1}, "a range was worked on twice"
    assert sum(r["scanned"] for r in ranges) == documents
    assert sum(r["swept"] for r in ranges) == documents
    assert swept.keys_used() == {2}


def finished(swept) -> dict:
    return {r["seq"]: (r["epoch"], r["finishedAt"]) for r in swept.ranges() if r["isComplete"]}


@pytest.mark.parametrize("instances", [pytest.param(2, marks=pytest.mark.tsan), 4])
def test_instances_share_a_job(start_over, broker, instances):
    swept = start_over(rate=400 // instances)
    others = [swept.rekeyd.sibling(name=f"other{n}") for n in range(1, instances)]
    everyone = [swept.rekeyd, *others]
    try:
        for other in others:
            other.start()
        for rekeyd in everyone:
            connected(rekeyd)
        swept.insert(range(800))
        swept.rotate()
        swept.start()
        complete(swept)
        check_every_range_once(swept, 800)
        ranges = swept.ranges()
        assert len({r["owner"] for r in ranges}) == instances
        assert all("offeredAt" in r for r in ranges)
        delivered = [value(r, "rekey_amqp_delivered_total", kind="range") for r in everyone]
        assert min(delivered) > 0 and sum(delivered) >= len(ranges)
        # One plans for all of them.
        assert sum(value(r, "rekey_amqp_plans") for r in everyone) == 1
        wait_until(lambda: broker.length(queue(swept, "work.cold")) == 0, 60)
        assert broker.length(queue(swept, "dead")) == 0
    finally:
        for other in others:
            other.finish()


def test_instances_join_and_leave(start_over):
    swept = start_over(rate=80)
    connected(swept.rekeyd)
    swept.insert(range(1200))
    swept.rotate()
    swept.start()
    swept.wait(lambda: swept.job()["rangesDone"] > 3)
    other = swept.rekeyd.sibling(name="other")
    with other.start():
        connected(other)
        done = swept.job()["rangesDone"]
        swept.wait(lambda: swept.job()["rangesDone"] > done + 5)
        before = finished(swept)
        swept.rekeyd.terminate()
        other.wait_event("amqp_planner", timeout_s=30)
        other.reload({"sweep": {"max_rate": 0}})
        wait_until(lambda: other.ctl("jobs")["jobs"][0]["state"] == "complete", 60)
        ranges = swept.ranges()
        assert len({r["owner"] for r in ranges}) == 2
        assert before.items() <= finished(swept).items()
        assert sum(r["scanned"] for r in ranges) == 1200
    swept.rekeyd.start()
    assert swept.keys_used() == {2}


def test_what_a_killed_instance_held_is_delivered_again(start_over):
    swept = start_over(rate=150)
    other = swept.rekeyd.sibling(name="other")
    with other.start():
        for rekeyd in (swept.rekeyd, other):
            connected(rekeyd)
        swept.insert(range(1000))
        swept.rotate()
        swept.start()
        swept.wait(lambda: swept.job()["rangesDone"] > 5)
        before = finished(swept)
        other.kill9()
        swept.rekeyd.reload({"sweep": {"max_rate": 0}})
        complete(swept)
        ranges = swept.ranges()
        assert before.items() <= finished(swept).items()
        assert sum(r["scanned"] for r in ranges) == 1000
        assert sum(r["swept"] + r["alreadyCurrent"] for r in ranges) == 1000
        assert swept.keys_used() == {2}


def test_a_broker_that_dies_costs_no_time_and_one_that_is_wiped_nothing_else(start_over, broker):
    swept = start_over(rate=200)
    connected(swept.rekeyd)
    swept.insert(range(1600))
    swept.rotate()
    swept.start()
    swept.wait(lambda: swept.job()["rangesDone"] > 3)
    broker.kill()
    swept.rekeyd.wait_event("amqp_lost", count=2, timeout_s=30)
    done = swept.job()["rangesDone"]
    swept.wait(lambda: swept.job()["rangesDone"] > done + 5)
    restart_meanwhile_paused(swept, broker)
    broker.wipe()
    restart_meanwhile_paused(swept, broker)
    assert broker.consumers(queue(swept, "plan")) == 1
    before = finished(swept)
    swept.rekeyd.reload({"sweep": {"max_rate": 0}})
    complete(swept)
    # Pausing gave ranges back with their checkpoint: those have a second epoch.
    assert before.items() <= finished(swept).items()
    ranges = swept.ranges()
    assert sum(r["scanned"] for r in ranges) == sum(r["swept"] for r in ranges) == 1600
    assert swept.keys_used() == {2}


def restart_meanwhile_paused(swept, broker):
    """However long it takes, the job is not done by then; afterwards ranges come from the broker."""
    swept.rekeyd.reload({"sweep": {"pause": True, "max_rate": 50}})
    broker.start()
    wait_until(lambda: value(swept.rekeyd, "rekey_amqp_connected") == 2, 30)
    before = value(swept.rekeyd, "rekey_amqp_delivered_total", kind="range")
    swept.rekeyd.reload({"sweep": {"pause": False}})
    wait_until(
        lambda: value(swept.rekeyd, "rekey_amqp_delivered_total", kind="range") > before, 30
    )


def test_lost_messages_are_sent_again(start_over, broker):
    swept = start_over(rate=100)
    connected(swept.rekeyd)
    swept.insert(range(1000))
    swept.rotate()
    swept.start()
    cold = queue(swept, "work.cold")
    wait_until(lambda: broker.length(cold) > 10, 60)
    lost = [r["_id"] for r in swept.state.jobStatus.find({"state": "pending"})]
    broker.purge(cold)
    offered = max(r["offeredAt"] for r in swept.ranges() if "offeredAt" in r)
    wait_until(
        lambda: swept.state.jobStatus.count_documents(
            {"_id": {"$in": lost}, "offeredAt": {"$gt": offered}}
        )
        > 0,
        60,
    )
    swept.rekeyd.reload({"sweep": {"max_rate": 0}})
    complete(swept)
    check_every_range_once(swept, 1000)


def test_a_broker_without_memory_holds_nothing_up(start_over, broker):
    swept = start_over(rate=60)
    connected(swept.rekeyd)
    swept.insert(range(800))
    swept.rotate()
    swept.start()
    swept.wait(lambda: swept.job()["rangesDone"] > 3)
    broker.alarm(True)
    try:
        # The broker blocks a connection when it publishes next.
        swept.rekeyd.wait_event("amqp_blocked", timeout_s=30)
        assert value(swept.rekeyd, "rekey_amqp_blocked") == 1
        done = swept.job()["rangesDone"]
        swept.wait(lambda: swept.job()["rangesDone"] > done + 2)
    finally:
        broker.alarm(False)
    swept.rekeyd.wait_event("amqp_unblocked", timeout_s=30)
    swept.rekeyd.reload({"sweep": {"max_rate": 0}})
    complete(swept)
    check_every_range_once(swept, 800)


def test_a_broker_that_hangs_holds_nothing_up(start_over, broker):
    """Stopped in the middle of a sweep; its heartbeats would be missed two minutes later only."""
    swept = start_over(rate=100, heartbeat_s=60, confirm_timeout_ms=500)
    connected(swept.rekeyd)
    swept.insert(range(1000))
    swept.rotate()
    swept.start()
    swept.wait(lambda: swept.job()["rangesDone"] > 3)
    broker.suspend()
    try:
        swept.rekeyd.wait_event("amqp_stalled", timeout_s=30)
        swept.rekeyd.reload({"sweep": {"max_rate": 0}})
        complete(swept, 60)
        assert value(swept.rekeyd, "rekey_amqp_stalled") == 1
    finally:
        broker.resume()
    check_every_range_once(swept, 1000)
    swept.rekeyd.wait_event("amqp_resumed", timeout_s=60)
    connected(swept.rekeyd)
    # And ranges come from the broker again.
    before = value(swept.rekeyd, "rekey_amqp_delivered_total", kind="range")
    swept.rotate()
    assert swept.sweep()["state"] == "complete"
    assert value(swept.rekeyd, "rekey_amqp_delivered_total", kind="range") > before
    assert swept.keys_used() == {3}


def test_a_queue_without_a_majority_holds_nothing_up(start_over, broker):
    """All but this queue works, and who does not publish to it cannot know."""
    swept = start_over(rate=50, confirm_timeout_ms=300)
    cold = queue(swept, "work.cold")
    other = swept.rekeyd.sibling(name="other")
    with other.start():
        everyone = [swept.rekeyd, other]
        for rekeyd in everyone:
            connected(rekeyd)
        swept.insert(range(2400))
        swept.rotate()
        swept.start()
        swept.wait(lambda: swept.job()["rangesDone"] > 3)
        broker.hang(cold, True)
        try:
            wait_until(lambda: [r for r in everyone if r.events("amqp_stalled")], 60)
            before = finished(swept)

            def owners() -> list:
                done = [r for r in swept.ranges() if r["isComplete"] and r["seq"] not in before]
                return [sum(r["owner"] == who for r in done) for who in {r["owner"] for r in done}]

            # More than had been delivered to each before.
            wait_until(lambda: len(owners()) == 2 and min(owners()) > 8, 60)
            # The planner tries another connection now and then.
            wait_until(lambda: [e for r in everyone for e in r.events("amqp_lost")], 60)
            lost = {e["error"] for r in everyone for e in r.events("amqp_lost")}
            assert "the broker does not confirm what it is sent" in lost
        finally:
            broker.hang(cold, False)
        for rekeyd in everyone:
            rekeyd.reload({"sweep": {"max_rate": 0}})
        complete(swept)
        wait_until(lambda: not any(value(r, "rekey_amqp_stalled") for r in everyone), 60)
    check_every_range_once(swept, 2400)


def test_a_job_that_the_fleet_cannot_fill_comes_first(start_over):
    """It may have more ranges at once than there are threads, so nothing of lesser priority is begun
    while there are any."""
    few = {"threads": 1, "ranges_ahead": 2}
    swept = start_over(rate=60, sweep=few, refeed_interval_ms=600_000)
    connected(swept.rekeyd)
    for name in ("high", "low"):
        swept.app.database[name].insert_many({"_id": i, "answer": f"x{i}"} for i in range(200))
    swept.rotate()
    high = f"{swept.stored_db.name}.high"
    swept.rekeyd.ctl("start", high, "--priority", "10", "--concurrency", "50")
    swept.rekeyd.ctl("start", f"{swept.stored_db.name}.low")
    swept.wait(lambda: {j["state"] for j in swept.rekeyd.ctl("jobs")["jobs"]} == {"complete"})
    done = swept.state.jobStatus.find().sort("finishedAt")
    order = [r["collectionName"].split(".")[1] for r in done]
    assert order == ["high"] * 10 + ["low"] * 10
    assert value(swept.rekeyd, "rekey_amqp_delivered_total", kind="range") == 20


def test_a_job_that_the_planner_knows_nothing_of(start_over):
    """Its namespace is in the policies of other instances only."""
    swept = start_over()
    other = swept.rekeyd.sibling(name="other")
    other.config["policies"][0]["namespace"] = "elsewhere.*"
    other.write_config()
    with other.start():
        connected(other)
        swept.rekeyd.reload({"sweep": {"pause": True}})
        other.wait_event("amqp_planner", timeout_s=60)
        swept.rekeyd.reload({"sweep": {"pause": False}})
        connected(swept.rekeyd)
        swept.insert(range(400))
        swept.rotate()
        swept.start()
        complete(swept, 60)
        assert value(other, "rekey_amqp_plans") == 1
        assert value(other, "rekey_amqp_delivered_total", kind="range") > 0
    check_every_range_once(swept, 400)


def test_a_broker_that_sends_more_than_was_asked_for_is_left(start_over, broker):
    with Pushing(broker.address) as pushing:
        swept = start_over(rate=100, sweep={"threads": 1}, prefetch=1, addresses=pushing.addresses)
        connected(swept.rekeyd)
        swept.insert(range(1000))
        swept.rotate()
        swept.start()
        for count in (1, 2):
            error = swept.rekeyd.wait_event("amqp_lost", count=count, timeout_s=60)["error"]
            assert error == "the broker sends more than it was asked for"
        swept.rekeyd.reload({"sweep": {"max_rate": 0}})
        complete(swept)
        assert sum(r["scanned"] for r in swept.ranges()) == 1000
        assert swept.keys_used() == {2}


def test_garbage_goes_to_the_dead_letters(start_over, broker):
    swept = start_over()
    connected(swept.rekeyd)
    garbage = [b"", b"{}", b"\x05\x00\x00\x00\x00", b"\xff" * 100, b"SECRET" * 1000]
    for body in garbage:
        for name in ("work.cold", "work.hot", "plan"):
            broker.publish(queue(swept, name), body)
    wait_until(lambda: broker.length(queue(swept, "dead")) == 3 * len(garbage), 60)
    assert {body for _, body in broker.peek(queue(swept, "dead"))} == set(garbage)
    assert value(swept.rekeyd, "rekey_amqp_refused_total") == 3 * len(garbage)
    assert len(swept.rekeyd.events("amqp_message_refused")) == 3 * len(garbage)
    assert "SECRET" not in swept.rekeyd.logs()
    # And the next message is taken as ever.
    swept.insert(range(100))
    swept.rotate()
    assert swept.sweep()["state"] == "complete"
    check_every_range_once(swept, 100)


def test_a_message_that_kills_is_given_up_but_not_its_range(start_over, broker):
    """Whoever takes it dies, until the delivery limit is reached."""
    swept = start_over(rate=50, sweep={"threads": 1}, prefetch=1)
    connected(swept.rekeyd)
    swept.insert(range(600))
    swept.rotate()
    swept.start()
    cold, dead = queue(swept, "work.cold"), queue(swept, "dead")
    wait_until(lambda: broker.length(cold) > 10, 60)
    swept.rekeyd.kill9()
    wait_until(lambda: broker.consumers(cold) == 0, 60)
    for _ in range(DELIVERY_LIMIT + 1):
        with broker.channel() as channel:
            assert channel.basic_get(cold)[0] is not None
    wait_until(lambda: broker.length(dead) >= 1, 60)
    headers = broker.peek(dead)[0][0].headers
    assert headers["x-death"][0]["reason"] == "delivery_limit"
    swept.rekeyd.start()
    swept.rekeyd.reload({"sweep": {"max_rate": 0}})
    complete(swept)
    ranges = swept.ranges()
    assert sum(r["scanned"] for r in ranges) == 600
    assert swept.keys_used() == {2}


def test_a_paused_instance_gives_its_place_away(start_over):
    """And the messages that it was sent ahead: nothing is offered again."""
    swept = start_over(rate=200, refeed_interval_ms=600_000)
    other = swept.rekeyd.sibling(name="other")
    with other.start():
        for rekeyd in (swept.rekeyd, other):
            connected(rekeyd)
        wait_until(lambda: swept.rekeyd.events("amqp_planner") + other.events("amqp_planner"), 60)
        planner, second = swept.rekeyd, other
        if other.events("amqp_planner"):
            planner, second = other, swept.rekeyd
        swept.insert(range(600))
        swept.rotate()
        swept.start()
        swept.wait(lambda: swept.job()["rangesDone"] > 3)
        planner.reload({"sweep": {"pause": True}})
        second.wait_event("amqp_planner", timeout_s=30)
        complete(swept)
        check = {r["seq"]: r["state"] for r in swept.ranges()}
        assert set(check.values()) == {"done"}
        assert value(planner, "rekey_amqp_plans") == 0


def test_threads_that_are_added_get_messages(start_over):
    """amqp.prefetch is for each thread, also of those that were not there when rekeyd started."""
    swept = start_over(
        rate=20, sweep={"threads": 1}, prefetch=1, refeed_interval_ms=600_000
    )
    connected(swept.rekeyd)
    swept.insert(range(600))
    swept.rotate()
    swept.start()
    swept.wait(lambda: swept.job()["rangesDone"] > 0)

    def running() -> int:
        return swept.state.jobStatus.count_documents({"state": "running"})

    assert running() <= 1
    swept.rekeyd.ctl("throttle", "set", "threads=8")
    swept.wait(lambda: running() >= 6)
    swept.rekeyd.ctl("throttle", "set", "max_rate=0")
    complete(swept)
    assert sum(r["scanned"] for r in swept.ranges()) == 600
    assert swept.keys_used() == {2}


def test_ranges_beyond_a_jobs_concurrency_come_again_soon(start_over, broker):
    """However often: they do not end in the queues of what has failed."""
    swept = start_over(rate=100, refeed_interval_ms=600_000)
    connected(swept.rekeyd)
    swept.insert(range(400))
    swept.rotate()
    swept.rekeyd.ctl("start", swept.namespace, "--concurrency", "1")
    waited = 0
    while swept.job()["state"] != "complete":
        waited += broker.length(queue(swept, "retry.1s"))
        for name in ("retry.10s", "retry.60s"):
            assert broker.length(queue(swept, name)) == 0
    assert waited > 0
    check_every_range_once(swept, 400)


def test_what_cannot_be_put_off_goes_back(start_over, broker):
    """The broker takes no copy for a retry queue. Nothing is offered again, so the messages
    themselves must stay."""
    swept = start_over(rate=100, refeed_interval_ms=600_000)
    connected(swept.rekeyd)
    prefix = swept.rekeyd.config["amqp"]["prefix"]
    refusing = {"max-length": 0, "overflow": "reject-publish"}
    for name, of, definition in (
        ("refusing", "retry", refusing),
        ("patient", "work", {"delivery-limit": 100_000}),
    ):
        pattern = rf"^{prefix}\.{of}\..*$"
        words = ["--apply-to", "queues", "--priority", 1, name, pattern, json.dumps(definition)]
        broker.ctl("set_policy", *words)
    swept.insert(range(200))
    swept.rotate()
    swept.rekeyd.ctl("start", swept.namespace, "--concurrency", "1")
    complete(swept, 60)
    check_every_range_once(swept, 200)
    assert value(swept.rekeyd, "rekey_amqp_ended_total", end="returned") > 0


def test_a_broker_that_comes_up_too_late_is_ended(tmp_path):
    """with RabbitMq(): who cannot enter does not leave either."""

    class TooSlow(RabbitMq):
        def start(self, timeout_s=0):
            return super().start(timeout_s)

    slow = TooSlow(tmp_path)
    with pytest.raises(ProcessError, match="does not accept"), slow:
        pass
    assert not slow.alive and not slow.mapper.alive
    assert slow not in Process.everyone


@pytest.fixture
def impatient_broker(broker):
    """consumer_timeout is two seconds."""

    def set_to(timeout_ms, tick_ms):
        for name, value in (("consumer_timeout", timeout_ms), ("channel_tick_interval", tick_ms)):
            broker.ctl("eval", f"application:set_env(rabbit, {name}, {value}).")

    set_to(2000, 500)
    yield broker
    set_to(1_800_000, 60_000)


def test_a_range_that_takes_longer_than_the_broker_waits(start_over, impatient_broker):
    """docs/operations.md: the connection is lost, and the range goes on."""
    swept = start_over(rate=2, sweep={"threads": 1, "batch_docs": 2}, refeed_interval_ms=600_000)
    connected(swept.rekeyd)
    swept.insert(range(100))
    swept.rotate()
    swept.start()
    error = swept.rekeyd.wait_event("amqp_lost", timeout_s=60)["error"]
    assert "PRECONDITION_FAILED" in error and "timeout" in error
    assert swept.job()["rangesRunning"] == 1
    swept.rekeyd.reload({"sweep": {"max_rate": 0}})
    complete(swept)
    check_every_range_once(swept, 100)


def sweep_without_broker(swept):
    swept.insert(range(100))
    swept.rotate()
    assert swept.sweep()["state"] == "complete"
    check_every_range_once(swept, 100)
    assert swept.rekeyd.admin.get("/readyz")[0] == 200
    assert value(swept.rekeyd, "rekey_amqp_connected") == 0
    assert PASSWORD not in swept.rekeyd.logs()


def test_a_wrong_password_is_told(start_over, tmp_path):
    wrong = tmp_path / "wrong"
    wrong.touch(0o600)
    wrong.write_text("wr0ng-passw0rd\n")
    swept = start_over(password_file=str(wrong))
    error = swept.rekeyd.wait_event("amqp_unreachable")["error"]
    assert "403" in error and "ACCESS_REFUSED" in error
    sweep_without_broker(swept)
    assert "wr0ng" not in swept.rekeyd.logs()
    # Whoever corrects it need not restart anything.
    wrong.write_text(PASSWORD + "\n")
    connected(swept.rekeyd)


def test_tls(start_over):
    swept = start_over(tls=True)
    connected(swept.rekeyd)
    swept.insert(range(100))
    swept.rotate()
    assert swept.sweep()["state"] == "complete"
    check_every_range_once(swept, 100)
    assert value(swept.rekeyd, "rekey_amqp_delivered_total", kind="range") >= 5


def test_tls_of_another_authority_is_refused(start_over, tmp_path):
    other = Certificates(tmp_path / "other").ca_file
    swept = start_over(tls=True, ca_file=other)
    error = swept.rekeyd.wait_event("amqp_unreachable")["error"]
    assert error == "connecting: the certificate is refused: certificate signature failure"
    sweep_without_broker(swept)


def test_tls_of_another_host_is_refused(start_over, broker):
    swept = start_over(tls=True, addresses=[f"127.1:{broker.tls_port}"])
    error = swept.rekeyd.wait_event("amqp_unreachable")["error"]
    assert error == "connecting: the certificate is refused: hostname mismatch"
    sweep_without_broker(swept)
