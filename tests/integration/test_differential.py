"""Random sequences of commands on protected collections through rekeyd and on plain ones without
it: an application must not be able to tell them apart, and nothing may lie in the clear. More of
them, and a short sequence for each difference: ./dev bench differential."""

import pytest
from differential import PROTECTED, REKEYD, explore, policies
from harness import protected

SEQUENCES = 40


@pytest.fixture
def app(single_member_set, start_rekeyd, db_name):
    rekeyd = start_rekeyd(single_member_set, policies(db_name), **REKEYD)
    with protected(rekeyd, db_name, **PROTECTED) as collection:
        yield collection


@pytest.mark.parametrize("seed", range(3))
def test_sequences(app, seed):
    counted = explore(app, seed, SEQUENCES)
    assert counted["sequences"] >= SEQUENCES
    executed = counted["touching"] - counted["refused"]
    assert executed > counted["touching"] * 2 / 3, counted
    assert counted["with results"] > counted["touching"] / 4, counted


def test_rotations_and_sweeps_in_the_middle(app):
    counted = explore(app, 3, 6, jobs=6)
    assert counted["rotations"] + counted["sweeps"] >= 6
