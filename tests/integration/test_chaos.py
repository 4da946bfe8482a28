"""./dev chaos in short: whether its checks can fail, and two minutes of it."""

import json
import subprocess
import sys

import pytest
from harness.process import ROOT

CHAOS = ROOT / "tests" / "chaos" / "chaos.py"
SEED = 7


def chaos(tmp_path, *words, timeout_s) -> str:
    argv = [sys.executable, str(CHAOS), "--directory", str(tmp_path / "chaos"), *words]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as running:
        try:
            said, _ = running.communicate(timeout=timeout_s)
        finally:
            end(running)
    print(said)
    assert running.returncode == 0, said[-6000:]
    return said


def end(running):
    """SIGTERM has it end what it started."""
    if running.poll() is None:
        running.terminate()
        try:
            running.communicate(timeout=30)
        except subprocess.TimeoutExpired:
            running.kill()


@pytest.mark.timeout(150)
def test_the_checks_find_what_is_planted(tmp_path):
    chaos(tmp_path, "--self-test", timeout_s=140)


@pytest.mark.timeout(440)
def test_two_minutes_of_chaos_lose_nothing(tmp_path):
    said = chaos(tmp_path, "--quick", "--seed", str(SEED), timeout_s=400)
    result = json.loads(said.splitlines()[-1])
    assert result["faults"] >= 30 and result["writes"] > 800 and result["sweeps"] > 0
    assert {"kill_broker", "wipe_broker"} & set(result["faults_by_kind"])
    assert result["delivered_ranges"] > 0
