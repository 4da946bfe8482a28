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
    done = subprocess.run(argv, capture_output=True, text=True, timeout=timeout_s)
    print(done.stdout, done.stderr)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


@pytest.mark.timeout(150)
def test_the_checks_find_what_is_planted(tmp_path):
    chaos(tmp_path, "--self-test", timeout_s=140)


@pytest.mark.timeout(400)
def test_two_minutes_of_chaos_lose_nothing(tmp_path):
    said = chaos(tmp_path, "--quick", "--seed", str(SEED), timeout_s=380)
    result = json.loads(said.splitlines()[-1])
    assert result["faults"] >= 30 and result["writes"] > 800 and result["sweeps"] > 0
