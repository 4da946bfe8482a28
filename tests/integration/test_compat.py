"""The scenarios of the driver compatibility matrix with PyMongo: directly and through rekeyd with
policies they must give the same. ./dev compat has the other drivers, rekeyd without policies, TLS,
authentication and compression."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "compat"))

from matrix import explained, runner, scenarios, tools  # noqa: E402
from matrix.run import Run  # noqa: E402
from matrix.targets import Fleet  # noqa: E402

# Where an asynchronous client does something else on the wire, or at other times.
ASYNC = ["change-streams", "concurrency", "cursors", "retries", "sessions", "transactions"]
WORK = [("pymongo", theme) for theme in scenarios.themes()] + [("pymongo-async", t) for t in ASYNC]


@pytest.fixture(scope="module")
def fleet(tmp_path_factory):
    servers = Fleet("plain", tmp_path_factory.mktemp("compat"))
    yield servers
    servers.close()


@pytest.mark.timeout(120)  # a theme is many scenarios
@pytest.mark.parametrize("driver, theme", WORK)
def test_same_as_mongod(fleet, tmp_path, driver, theme):
    run = Run(scenarios.load([f"{theme}/*"]), ["direct", "policy"], explained.load())
    run.driver(fleet, "plain", runner.Runner(driver, tmp_path, tmp_path / "runner.log"))
    assert not run.failed, "\n".join(run.messages)


def test_a_difference_is_one():
    """The comparison can fail: what is not the same is not passed over."""
    from matrix import compare

    assert compare.same({"ok": {"a": 1, "b": 2}}, {"ok": {"a": 1, "b": 2}})
    assert not compare.same({"ok": {"a": 1, "b": 2}}, {"ok": {"b": 2, "a": 1}})
    assert not compare.same({"ok": {"$numberInt": "1"}}, {"ok": {"$numberLong": "1"}})
    (scenario,) = scenarios.load(["crud/insert-duplicate"])
    assert compare.unexpected(scenario, [{"ok": None}, {"ok": None}])
    assert not compare.unexpected(scenario, [{"error": {"code": 11000}}, {"ok": None}])


def test_missing_tools_are_named(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    missing = "\n".join(tools.missing(runner.names()))
    for name in ("Go", "Node.js", "npm", "JDK", "Maven", "Rust", "C compiler", "libmongoc", "OpenSSL"):
        assert f" needs {name} " in missing
    assert tools.missing(["pymongo", "pymongo-async"]) == []
    (tmp_path / "go").write_text("#!/bin/sh\necho go version go1.9.7 linux/amd64\n")
    (tmp_path / "go").chmod(0o755)
    (old,) = tools.missing(["go"])
    assert "1.25 or later, has 1.9.7; get it: " in old
    (tmp_path / "go").write_text("#!/bin/sh\necho go version go1.30 linux/amd64\n")
    assert tools.missing(["go"]) == []
