"""Waiting for what another process does."""

import time


def wait_until(condition, timeout_s=20):
    """By default it says so before a test's own timeout, of 30 seconds, ends it."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.05)
