"""Sequences from hypothesis for one rekeyd, whose keys are made here."""

from harness.legacy import LEGACY_KEYS
from hypothesis import HealthCheck, Phase, given, seed, settings

from .commands import sequences
from .pair import Pair
from .pool import Pool
from .shapes import SHAPES

# Of the Rekeyd and of the Protected that sequences run on.
REKEYD = {
    "settings": {"keys": {"refresh_interval_ms": 100}, "sweep": {"poll_interval_ms": 100}},
    "legacy_keys": LEGACY_KEYS,
}
PROTECTED = {"name": SHAPES[0].name, "fields": SHAPES[0].fields}


def explore(protected, number, count, jobs=0, shrink=False):
    """Runs `count` sequences, `jobs` of them with a rotation or a sweep, under one, two or three
    keys, all by the seed `number`. Returns what was counted; raises a Difference, or
    what made a sequence fail altogether, with them as `counted`."""
    plain_db = protected.direct_client[f"{protected.app_db.name}_plain"]
    for shape in SHAPES:
        plain_db.create_collection(shape.name)
    pools = [Pool(protected, 0)]
    for i in range(number % 3):
        protected.rotate()
        pools.append(Pool(protected, i + 1))
    pair = Pair(protected, plain_db, pools)
    try:
        run(pair, number, count - jobs, False, shrink)
        run(pair, number, jobs, True, shrink)
    except Exception as failure:
        failure.counted = pair.counted
        raise
    finally:
        protected.direct_client.drop_database(plain_db)
    return pair.counted


def run(pair, number, count, with_jobs, shrink):
    if count == 0:
        return

    @seed(number)
    @settings(
        max_examples=count,
        database=None,
        deadline=None,
        print_blob=False,
        report_multiple_bugs=False,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.generate, Phase.shrink] if shrink else [Phase.generate],
    )
    @given(steps=sequences(with_jobs=with_jobs))
    def sequence(steps):
        pair.run(steps)

    sequence()
