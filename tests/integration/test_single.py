"""The single topology: one address in front of a replica set, a standalone or mongos."""

import socket
import time

import pytest
from pymongo import MongoClient, ReadPreference
from pymongo.errors import NotPrimaryError, OperationFailure, PyMongoError

from harness import is_envelope, policy
from harness.failover import write_through_failovers
from harness.ports import HOST, black_hole, free_port
from scripted_upstream import ScriptedUpstream
from wire import OP_MSG, OP_QUERY, RawClient, op_msg, op_reply

HELLO = {"hello": 1, "$db": "admin"}
PING = {"ping": 1, "$db": "admin"}


def client_of(address, options="", **more):
    return MongoClient(f"mongodb://{address}/{options}", serverSelectionTimeoutMS=20000, **more)


@pytest.mark.parametrize("options", ["", "?replicaSet=rs0", "?directConnection=true"])
def test_one_address_is_all_an_application_needs(replica_set, start_rekeyd, db_name, options):
    rekeyd = start_rekeyd(replica_set, single=["primary"])
    with client_of(rekeyd.addresses[0], options) as client:
        coll = client[db_name].c
        coll.insert_one({"_id": 1})
        with client.start_session() as session, session.start_transaction():
            coll.insert_one({"_id": 2}, session=session)
            coll.update_one({"_id": 1}, {"$set": {"a": 1}}, session=session)
        with coll.watch() as stream:
            coll.insert_one({"_id": 3})
            assert stream.next()["documentKey"] == {"_id": 3}
        assert sorted(d["_id"] for d in coll.find(batch_size=2)) == [1, 2, 3]
        told = client.admin.command("hello")
    assert told["hosts"] == [rekeyd.addresses[0]]
    assert told["me"] == told["primary"] == rekeyd.addresses[0]
    assert not {"passives", "arbiters"} & set(told)
    for kept in ("setName", "setVersion", "electionId", "topologyVersion"):
        assert kept in told


@pytest.mark.parametrize("read", ["secondary", "secondaryPreferred"])
def test_reads_from_a_secondary(replica_set, start_rekeyd, db_name, read):
    rekeyd = start_rekeyd(replica_set, single=[read])
    address = rekeyd.addresses[0]
    with replica_set.client(w=3) as direct:
        direct[db_name].c.insert_many([{"_id": i} for i in range(300)])
    for options in (f"?readPreference={read}&replicaSet=rs0", "?directConnection=true"):
        with client_of(address, options) as client:
            told = client.admin.command("hello", read_preference=ReadPreference.SECONDARY)
            assert told["secondary"] and told["hosts"] == [address] and told["me"] == address
            assert "primary" not in told
            # Several batches over a pool: all of its connections lead to one server.
            cursors = [client[db_name].c.find(batch_size=50) for _ in range(8)]
            for _ in range(300):
                for cursor in cursors:
                    cursor.next()


def test_a_secondary_listener_does_not_take_writes(replica_set, start_rekeyd, db_name):
    rekeyd = start_rekeyd(replica_set, single=["secondary"])
    with client_of(rekeyd.addresses[0], "?directConnection=true&retryWrites=false") as client:
        with pytest.raises(NotPrimaryError):
            client[db_name].c.insert_one({})


def test_secondary_waits_and_secondary_preferred_falls_back(single_member_set, start_rekeyd):
    rekeyd = start_rekeyd(
        single_member_set,
        single=["secondary", "secondaryPreferred"],
        settings={"limits": {"server_wait_timeout_ms": 500}},
    )
    with client_of(rekeyd.addresses[1], "?readPreference=secondaryPreferred") as client:
        assert client.admin.command("hello")["isWritablePrimary"]
    started = time.monotonic()
    with RawClient(rekeyd.addresses[0]) as raw:
        assert raw.receive_all() == b""
    assert time.monotonic() - started >= 0.4
    assert "server_wait_timeout_ms" in rekeyd.wait_event("upstream_unreachable")["reason"]


def test_standalone_behind_one_address(standalone, start_rekeyd, db_name):
    rekeyd = start_rekeyd(standalone, single=["primary"])
    with client_of(rekeyd.addresses[0]) as client:
        client[db_name].c.insert_one({"_id": 1})
        assert "setName" not in client.admin.command("hello")


def test_load_balancer_mode_is_refused_with_the_reason(replica_set, start_rekeyd):
    for single in (None, ["primary"]):
        rekeyd = start_rekeyd(replica_set, single=single)
        with client_of(rekeyd.addresses[0], "?loadBalanced=true") as client:
            with pytest.raises(OperationFailure, match="does not serve load balancer mode") as told:
                client.admin.command("ping")
        assert told.value.code == 72


@pytest.mark.timeout(120)
def test_a_connection_is_held_until_there_is_a_primary(start_rekeyd, failing_set):
    """No primary at first: the hello that is sent meanwhile is answered once there is one."""
    limits = {"server_wait_timeout_ms": 60000}
    rekeyd = start_rekeyd(failing_set, single=["primary"], settings={"limits": limits})
    rekeyd.wait_event("topology_changed")
    primary = failing_set.primary()
    others = failing_set.secondaries()
    for member in others:
        member.suspend()
    primary.kill()
    with RawClient(rekeyd.addresses[0], timeout_s=60) as raw:
        raw.send(op_msg(HELLO))
        for member in others:
            member.resume()
        reply = raw.receive()
    assert reply is not None and reply.document["isWritablePrimary"]


@pytest.mark.timeout(120)
@pytest.mark.tsan
def test_clients_leave_the_former_primary(start_rekeyd, failing_set, db_name):
    rekeyd = start_rekeyd(failing_set, single=["primary"])
    with RawClient(rekeyd.addresses[0], timeout_s=30) as idle:
        assert idle.command(HELLO)["isWritablePrimary"]
        with client_of(rekeyd.addresses[0]) as client:
            client[db_name].c.insert_one({"_id": 0})
            failing_set.step_down()
            for i in range(1, 30):
                client[db_name].c.insert_one({"_id": i})
            assert client[db_name].c.count_documents({}) == 30
        assert idle.receive() is None


class Router:
    """As much of a mongos as a driver needs in order to say hello and ping."""

    def __init__(self, control):
        self.upstream = ScriptedUpstream(control)
        self.address = self.upstream.addresses[0]
        self.pings = 0
        self.upstream.answer(self.answer)

    def answer(self, request):
        hello = {
            "isWritablePrimary": True,
            "ismaster": True,
            "msg": "isdbgrid",
            "maxBsonObjectSize": 16777216,
            "maxMessageSizeBytes": 48000000,
            "maxWriteBatchSize": 100000,
            "localTime": 0,
            "logicalSessionTimeoutMinutes": 30,
            "maxWireVersion": 17,
            "minWireVersion": 0,
            "ok": 1.0,
        }
        if request.opcode == OP_QUERY:
            return op_reply(hello, response_to=request.request_id)
        assert request.opcode == OP_MSG
        command = next(iter(request.body))
        if command == "ping":
            self.pings += 1
        reply = hello if command in ("hello", "ismaster", "isMaster") else {"ok": 1.0}
        return op_msg(reply, response_to=request.request_id)


class Routers:
    """The upstream that rekeyd is told of."""

    set_name = certificates = None

    def __init__(self, routers):
        self.addresses = [router.address for router in routers]
        self.uri = f"mongodb://{','.join(self.addresses)}/"


def test_several_mongos_share_no_client_and_replace_each_other(standalone, start_rekeyd):
    routers = [Router(standalone), Router(standalone)]
    rekeyd = start_rekeyd(Routers(routers), single=["primary"])
    deadline = time.monotonic() + 20
    while rekeyd.wait_event("topology_changed")["routers"] < 2:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    with client_of(rekeyd.addresses[0]) as client:
        told = client.admin.command("hello")
        assert told["msg"] == "isdbgrid" and "hosts" not in told and "me" not in told
        for _ in range(20):
            client.admin.command("ping")
        used, spare = sorted(routers, key=lambda router: -router.pings)
        assert (used.pings, spare.pings) == (20, 0), "one client host has one mongos"
        used.upstream.close()
        deadline = time.monotonic() + 30
        while spare.pings < 5:
            assert time.monotonic() < deadline, "nobody went to the other mongos"
            try:
                client.admin.command("ping")
            except PyMongoError:  # what a mongos that dies means to a command that is not retried
                time.sleep(0.1)
    spare.upstream.close()


@pytest.fixture
def two_routers(standalone, start_rekeyd):
    """
    Two mongos, of which monitoring sees both all the time: rekeyd, the one that this host's
    connections are led to, and the one that is their second choice.
    """
    routers = [Router(standalone), Router(standalone)]
    rekeyd = start_rekeyd(
        Routers(routers),
        single=["primary"],
        settings={
            "upstream": {"resolve_interval_ms": 200},
            "limits": {"connect_timeout_ms": 1000, "server_wait_timeout_ms": 20000},
        },
    )
    deadline = time.monotonic() + 20
    while rekeyd.wait_event("topology_changed")["routers"] < 2:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    with RawClient(rekeyd.addresses[0]) as client:
        client.command(PING)
    yield rekeyd, *sorted(routers, key=lambda router: -router.pings)
    for router in routers:
        router.upstream.close()


def test_a_client_of_the_second_choice_stays_with_it(two_routers):
    """Each look at the servers was taken for a change, and moved whom the first choice refused."""
    rekeyd, first, second = two_routers
    first.upstream.stop_listening()
    with RawClient(rekeyd.addresses[0]) as client:
        client.command(PING)
        assert second.pings == 1
        time.sleep(1.5)  # several looks
        client.command(PING)
    assert second.pings == 2


def test_the_second_choice_is_tried_when_the_first_does_not_answer(two_routers):
    rekeyd, first, second = two_routers
    first.upstream.stop_listening()
    with black_hole(first.address), RawClient(rekeyd.addresses[0], timeout_s=20) as client:
        client.command(PING)
    assert second.pings == 1


def test_a_held_connection_tries_again(two_routers):
    """Nothing of the topology changes meanwhile: monitoring sees all servers all the time."""
    rekeyd, first, second = two_routers
    first.upstream.stop_listening()
    second.upstream.stop_listening()
    with RawClient(rekeyd.addresses[0], timeout_s=20) as client:
        client.send(op_msg(PING))
        time.sleep(0.5)
        second.upstream.listen_again()
        assert client.receive().document["ok"] == 1
    assert second.pings == 1


def test_listeners_come_and_go_by_sighup(replica_set, start_rekeyd, db_name):
    rekeyd = start_rekeyd(replica_set, single=["primary"])
    first = rekeyd.addresses[0]
    added = f"{HOST}:{free_port()}"
    upstream = rekeyd.config["upstream"]
    with RawClient(first, timeout_s=30) as raw:
        assert raw.command(HELLO)["me"] == first
        rekeyd.reload({"upstream": {"listeners": [*upstream["listeners"], {"listen": added}]}})
        rekeyd.wait_event("reloaded")
        with client_of(added) as client:
            client[db_name].c.insert_one({})
        rekeyd.reload({"upstream": {"listeners": [{"listen": added}]}})
        rekeyd.wait_event("reloaded", 2)
        assert raw.receive() is None, "the session of a removed listener stays"
    deadline = time.monotonic() + 10
    while True:
        try:
            socket.create_connection(first.split(":"), timeout=1).close()
        except OSError:
            break
        assert time.monotonic() < deadline, "a removed listener still accepts"
        time.sleep(0.05)


def test_keys_sweep_and_rekeyctl_work_in_single(replica_set, start_rekeyd, db_name):
    rekeyd = start_rekeyd(
        replica_set, [policy(f"{db_name}.c", {"a": "deterministic"})], single=["primary"]
    )
    with client_of(rekeyd.addresses[0]) as client, replica_set.client() as direct:
        client[db_name].c.insert_many([{"_id": i, "a": f"v{i}"} for i in range(100)])
        assert is_envelope(direct[db_name].c.find_one({"_id": 1})["a"])
        assert client[db_name].c.find_one({"a": "v1"})["_id"] == 1
        rekeyd.ctl("keys", "rotate")
        rekeyd.ctl("start", f"{db_name}.c", "--wait")
        rekeyd.ctl("verify", f"{db_name}.c")
        assert client[db_name].c.find_one({"a": "v7"})["_id"] == 7


@pytest.mark.timeout(240)
def test_no_write_is_lost_or_doubled_through_failovers(start_rekeyd, failing_set):
    """./dev bench failover does it twenty times."""
    mirror = start_rekeyd(failing_set)
    single = start_rekeyd(failing_set, single=["primary"])
    ways = {
        "direct": failing_set.uri,
        "mirror": mirror.uri,
        "single": f"mongodb://{single.addresses[0]}/",
    }
    result = write_through_failovers(failing_set, ways, clients=4, step_downs=4, kill_every=4)
    assert result["acknowledged"] > 0
    assert (result["lost"], result["duplicated"]) == (0, 0)
    allowed = len(result["errors"]["direct"])
    for way in ("mirror", "single"):
        assert len(result["errors"][way]) <= allowed, result["errors"][way]
