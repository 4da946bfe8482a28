"""Waiting for what another process does."""

import itertools
import time


def wait_until(condition, timeout_s=20):
    deadline = time.monotonic() + timeout_s
    for wait in itertools.repeat(0.05):
        if condition():
            return
        assert time.monotonic() < deadline
        time.sleep(wait)
