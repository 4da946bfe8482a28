"""./dev demo, small: what a visitor sees first has to hold on every build."""

import os
import re
import subprocess
import sys

import pytest
from harness.process import ROOT

PROMISE = re.compile(
    r"demo: ok docs=(\d+) swept=(\d+) rate=\d+/s old_key_left=0 plaintext_mismatches=0"
)


@pytest.mark.timeout(120)
def test_demo_keeps_its_promise():
    words = ["demo/demo.py", "--docs", "3000", "--rate", "50", "--baseline", "2"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "tests" / "integration")}
    result = subprocess.run(
        [sys.executable, *words], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    promise = PROMISE.fullmatch(result.stdout.splitlines()[-1])
    assert promise and result.returncode == 0, result.stdout + result.stderr
    documents, swept = (int(number) for number in promise.groups())
    assert documents >= swept >= 3000
