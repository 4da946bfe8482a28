"""explained.yaml: differences that are right. Each entry says exactly what Rekey gives instead, so
that nothing else can hide behind it."""

import fnmatch
import json
from dataclasses import dataclass
from pathlib import Path

import yaml

PATH = Path(__file__).resolve().parents[1] / "explained.yaml"
ENTRIES_MAX = 10


@dataclass
class Entry:
    """gives: the result of that step, without labels, or "any"."""

    scenario: str
    step: int
    targets: list
    gives: object
    reason: str
    used: int = 0

    def covers(self, scenario, target, step, result) -> bool:
        if not fnmatch.fnmatch(scenario, self.scenario) or target not in self.targets:
            return False
        return step == self.step and (self.gives == "any" or gist(result) == self.gives)


def gist(result: dict):
    """An error by its code, anything else as it is."""
    code = result.get("error", {}).get("code")
    if isinstance(code, dict):
        code = int(next(iter(code.values())))
    return {"code": code} if code is not None else json.loads(json.dumps(result))


def load() -> list:
    entries = [Entry(**entry) for entry in yaml.safe_load(PATH.read_text()) or []]
    if len(entries) > ENTRIES_MAX:
        raise SystemExit(f"{PATH.name}: {len(entries)} entries, at most {ENTRIES_MAX} are allowed")
    return entries
