"""./dev chaos in short: whether its checks can fail."""

import subprocess
import sys

import pytest
from harness.process import ROOT

CHAOS = ROOT / "tests" / "chaos" / "chaos.py"


def chaos(tmp_path, *words, timeout_s) -> str:
    argv = [sys.executable, str(CHAOS), "--directory", str(tmp_path / "chaos"), *words]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=timeout_s)
    print(done.stdout, done.stderr)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


@pytest.mark.timeout(150)
def test_the_checks_find_what_is_planted(tmp_path):
    chaos(tmp_path, "--self-test", timeout_s=140)
