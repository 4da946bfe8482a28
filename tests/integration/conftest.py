"""Fixtures for integration tests: real servers, shared per pytest-xdist worker where that is safe.

A test that kills, suspends, steps down or hides members uses failing_set, which is restored after it, or
starts a ReplicaSet of its own; everyone else uses replica_set, single_member_set or standalone. Each has a
database of its own (fixture db_name).
"""

import os
import secrets

import pytest

from harness import (
    Certificates,
    Mongod,
    Process,
    Rekeyd,
    ReplicaSet,
    people_policy,
    protected,
)
from on_vault import shared_vault, start, vault
from scripted_upstream import upstream
from sweeping import fragile_set, start_swept, swept

__all__ = ["shared_vault", "start", "vault"]  # fixtures of a real Vault
__all__ += ["fragile_set", "start_swept", "swept"]  # of sweeps
__all__ += ["upstream"]  # that says what a test tells it to


@pytest.fixture(scope="session")
def servers_directory(tmp_path_factory):
    return tmp_path_factory.mktemp("servers")


@pytest.fixture(scope="session")
def replica_set(servers_directory):
    """Three members. Shared: leave it as you found it."""
    with ReplicaSet(3, servers_directory / "three") as servers:
        yield servers


@pytest.fixture(scope="session")
def shared_failing_set(servers_directory):
    with ReplicaSet(3, servers_directory / "failing") as servers:
        yield servers


@pytest.fixture
def failing_set(shared_failing_set):
    """Three members that may be killed, suspended, stepped down, removed and hidden."""
    yield shared_failing_set
    shared_failing_set.restore()


@pytest.fixture(scope="session")
def single_member_set(servers_directory):
    """One member, so with transactions and change streams, but quicker than three."""
    with ReplicaSet(1, servers_directory / "one") as servers:
        yield servers


@pytest.fixture(scope="session")
def standalone(servers_directory):
    with Mongod(servers_directory / "standalone") as server:
        yield server


@pytest.fixture(scope="session")
def certificates(servers_directory):
    return Certificates(servers_directory / "certificates")


@pytest.fixture
def db_name():
    return f"t{secrets.token_hex(5)}"


@pytest.fixture
def start_rekeyd(tmp_path):
    """start_rekeyd(upstream, policies, ...): a running Rekeyd that must end cleanly."""
    started = []

    def start(upstream, policies=(), **options):
        options.setdefault("name", f"rekeyd{len(started) or ''}")
        options.setdefault("directory", tmp_path / options["name"])
        rekeyd = Rekeyd(upstream, policies, **options)
        started.append(rekeyd)
        return rekeyd.start()

    yield start
    failures = []
    for rekeyd in started:
        try:
            rekeyd.finish()
        except Exception as failure:  # every rekeyd is ended before the first failure is told
            failures.append(failure)
    if failures:
        raise failures[0]


@pytest.fixture(scope="module")
def people_of_module(single_member_set, tmp_path_factory):
    directory = tmp_path_factory.mktemp("rekeyd")
    db_name = f"t{secrets.token_hex(5)}"
    with Rekeyd(single_member_set, [people_policy(db_name)], directory=directory) as rekeyd:
        with protected(rekeyd, db_name) as collection:
            yield collection


@pytest.fixture
def people(people_of_module):
    """Protected: an empty protected collection, its rekeyd shared by the module's tests."""
    people_of_module.empty()
    yield people_of_module
    people_of_module.rekeyd.check()


@pytest.fixture
def twins(request, people):
    """people with the module's PEOPLE, which lie unprotected in the other collection, too."""
    people.app.insert_many(request.module.PEOPLE)
    people.stored_plain.insert_many(request.module.PEOPLE)
    yield people
    people.stored_plain.drop()
    people.check()


@pytest.fixture
def own_people(single_member_set, start_rekeyd, db_name):
    """The same with a rekeyd and keys of its own, for tests that rotate or reconfigure."""
    rekeyd = start_rekeyd(single_member_set, [people_policy(db_name)])
    with protected(rekeyd, db_name) as collection:
        yield collection


# A skipped test is a test that did not run: in CI that is a failure.


def skips_fail() -> bool:
    return os.environ.get("CI") == "true"


def fail_instead_of_skip(report):
    if report.skipped and skips_fail():
        report.outcome = "failed"
        report.longrepr = f"skipped, which CI does not allow: {report.longrepr}"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    report = yield
    fail_instead_of_skip(report)
    if report.failed:
        for process in Process.everyone:
            report.sections.append((f"{process.name} {process.port or ''}", process.log_tail()))
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(collector):
    report = yield
    fail_instead_of_skip(report)
    return report
