"""explained.yaml: differences that are right. Each entry says exactly what Rekey gives instead, so
that nothing else can hide behind it."""

import fnmatch
from dataclasses import dataclass
from pathlib import Path

import yaml

from . import compare

PATH = Path(__file__).resolve().parents[1] / "explained.yaml"
ENTRIES_MAX = 10


@dataclass
class Entry:
    """
    Where: scenario (a pattern), target (policy, unless it says otherwise) and steps, counted from 0
    (any, where it names none). What: codes, one of which the error that Rekey gives has, or keys, the
    only ones below which the results may differ.
    """

    scenario: str
    reason: str
    steps: list = ()
    codes: list = ()
    keys: list = ()
    target: str = "policy"
    used: int = 0

    def covers(self, scenario, target, step, direct, through) -> bool:
        if not fnmatch.fnmatch(scenario, self.scenario) or target != self.target:
            return False
        if self.steps and step not in self.steps:
            return False
        if self.codes:
            return bool(compare.codes(through.get("error", {})) & set(self.codes))
        return compare.same(_without(direct, self.keys), _without(through, self.keys))


def _without(value, keys):
    if isinstance(value, list):
        return [_without(item, keys) for item in value]
    if isinstance(value, dict):
        return {key: _without(item, keys) for key, item in value.items() if key not in keys}
    return value


def load() -> list:
    entries = [Entry(**entry) for entry in yaml.safe_load(PATH.read_text()) or []]
    if len(entries) > ENTRIES_MAX:
        raise SystemExit(f"{PATH.name}: {len(entries)} entries, at most {ENTRIES_MAX} are allowed")
    return entries
