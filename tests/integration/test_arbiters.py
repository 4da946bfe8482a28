"""A replica set of two members with data and an arbiter, in both topologies."""

import pytest
from pymongo import MongoClient, ReadPreference

from harness import ReplicaSet, people_policy, protected
from harness.protected import person


@pytest.fixture(scope="module")
def arbitrated(tmp_path_factory):
    with ReplicaSet(3, tmp_path_factory.mktemp("arbitrated"), arbiters=1) as servers:
        yield servers


def test_mirrored(arbitrated, start_rekeyd, db_name):
    rekeyd = start_rekeyd(arbitrated, [people_policy(db_name)])
    host, port = rekeyd.addresses[2].split(":")
    with protected(rekeyd, db_name) as people:
        people.app.insert_one(person(1))
        assert people.app_client.arbiters == {(host, int(port))}
        arbitrated.step_down()
        people.app.insert_one(person(2))
        people.check()
    with MongoClient(host, int(port), directConnection=True) as arbiter:
        hello = arbiter.admin.command("hello")
    assert hello["arbiterOnly"] and hello["me"] == rekeyd.addresses[2]
    assert hello["arbiters"] == [rekeyd.addresses[2]]
    assert sorted(hello["hosts"]) == sorted(rekeyd.addresses[:2])


def test_single_never_leads_to_an_arbiter(arbitrated, start_rekeyd, db_name):
    reads = ["primary", "secondary", "secondaryPreferred"]
    rekeyd = start_rekeyd(arbitrated, [people_policy(db_name)], single=reads)
    with protected(rekeyd, db_name) as people:
        people.app.insert_one(person(1))
        people.check()
    assert rekeyd.events("topology_changed")[-1]["arbiters"] == 1
    for address in rekeyd.addresses:
        host, port = address.split(":")
        with MongoClient(host, int(port), directConnection=True) as client:
            hello = client.admin.command("hello")
            assert "arbiterOnly" not in hello and "arbiters" not in hello
            nearest = ReadPreference.SECONDARY_PREFERRED
            client.get_database(db_name, read_preference=nearest).plain.find_one()
