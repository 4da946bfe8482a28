"""docs/operations.md says what each line of the log means."""

import re

from harness.process import ROOT

CALL = re.compile(r"\brk_log\((?P<level>[^,]+),\s*(?P<event>[^,]+),")


def logged() -> dict:
    """event: where. Those at level debug are for whoever reads the source as well."""
    found = {}
    for path in [*(ROOT / "src").rglob("*.c"), *(ROOT / "proxy").rglob("*.c")]:
        for call in CALL.finditer(path.read_text()):
            if "DEBUG" not in call["level"]:
                found |= {event: path.name for event in re.findall(r'"(\w+)"', call["event"])}
    return found


def test_every_event_is_documented():
    text = (ROOT / "docs" / "operations.md").read_text()
    documented = set(re.findall(r"`(\w+)`", text.split("## Log events", 1)[1].split("\n## ", 1)[0]))
    events = logged()
    assert len(events) > 80, "they are not found any more"
    assert not {event: where for event, where in events.items() if event not in documented}
