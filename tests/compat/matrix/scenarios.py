"""Scenarios: read from YAML, with the values of documents made canonical Extended JSON."""

import base64
import copy
import datetime
import fnmatch
import json
import re
import uuid
from dataclasses import dataclass, field
from pathlib import Path

import yaml

DIRECTORY = Path(__file__).resolve().parents[1] / "scenarios"
INT32 = range(-(2**31), 2**31)
WRAPPERS = {
    "$oid", "$numberInt", "$numberLong", "$numberDouble", "$numberDecimal", "$binary", "$code",
    "$scope", "$timestamp", "$regularExpression", "$minKey", "$maxKey", "$symbol", "$undefined",
    "$dbPointer",
}
# Arguments that hold documents; whatever else a step has are options of the driver's API.
DOCUMENTS = {
    "document", "documents", "filter", "projection", "sort", "update", "replacement", "pipeline",
    "arrayFilters", "let", "hint", "comment", "min", "max", "keys", "partialFilterExpression",
    "validator", "command", "id",
}
NESTED = {"steps", "requests", "insertOne", "updateOne", "updateMany", "replaceOne", "deleteOne",
          "deleteMany"}
# What a step says to the core about its result; runners are not told.
CORE_KEYS = {"fails", "compare", "note"}
STEP_KEYS = CORE_KEYS | {
    "op", "args", "coll", "session", "readPreference", "readConcern", "writeConcern",
}


class BadScenario(Exception):
    pass


@dataclass
class Scenario:
    id: str
    steps: list
    given: dict = field(default_factory=dict)
    options: dict = field(default_factory=dict)
    uri: dict = field(default_factory=dict)
    note: str = ""
    needs: str = ""  # secondaries: not for a variant whose clients see none

    def request(self, uri: str) -> dict:
        steps = [{k: v for k, v in step.items() if k not in CORE_KEYS} for step in self.steps]
        return {"id": self.id, "uri": uri, "db": "compat", "steps": steps}

    @property
    def text(self) -> str:
        """Everything that the scenario itself says, to tell generated values from given ones."""
        return json.dumps([self.given, self.steps])


def load(patterns=()) -> list:
    """Every scenario whose id matches a pattern (all without patterns), in the files' order."""
    found, ids = [], set()
    for path in sorted(DIRECTORY.glob("*.yaml")):
        for entry in yaml.load(path.read_text(), _Loader):
            scenario = _scenario(path, entry)
            if scenario.id in ids:
                raise BadScenario(f"{path.name}: {scenario.id} is there twice")
            ids.add(scenario.id)
            if not patterns or any(fnmatch.fnmatch(scenario.id, p) for p in patterns):
                found.append(scenario)
    return found


def themes() -> list:
    return sorted(path.stem for path in DIRECTORY.glob("*.yaml"))


def _scenario(path, entry) -> Scenario:
    scenario = Scenario(**entry)
    if not scenario.id.startswith(path.stem + "/"):
        raise BadScenario(f"{path.name}: {scenario.id} should start with {path.stem}/")
    scenario.given = {name: _documents(given) for name, given in scenario.given.items()}
    scenario.options = _arguments(scenario.options)
    scenario.steps = [_step(scenario.id, step) for step in scenario.steps]
    return scenario


def _step(where, step) -> dict:
    unknown = set(step) - STEP_KEYS
    if unknown:
        raise BadScenario(f"{where}: a step has {', '.join(sorted(unknown))}")
    return {**step, "args": _arguments(step.get("args", {}), where)}


def _arguments(value, where=""):
    if isinstance(value, list):
        return [_arguments(item, where) for item in value]
    if not isinstance(value, dict):
        return value
    if "op" in value:
        return _step(where, value)
    made = {}
    for name, item in value.items():
        if name in ("documents", "pipeline", "arrayFilters", "update") and _is_many(item):
            made[name] = _documents(item)
        else:
            made[name] = canonical(item) if name in DOCUMENTS else _arguments(item, where)
    return made


def _is_many(item) -> bool:
    return isinstance(item, list) or (isinstance(item, dict) and "$documents" in item)


def _documents(given) -> list:
    """A list of documents, or {$documents: [count, template]}."""
    if isinstance(given, dict):
        count, template = given["$documents"]
        return [canonical(_numbered(copy.deepcopy(template), i)) for i in range(count)]
    return [canonical(document) for document in given]


def _numbered(value, i):
    """The template with $i replaced: alone by the number, within a string by its digits."""
    if isinstance(value, dict):
        return {key: _numbered(item, i) for key, item in value.items()}
    if isinstance(value, list):
        return [_numbered(item, i) for item in value]
    if value == "$i":
        return i
    return value.replace("$i", str(i)) if isinstance(value, str) else value


def canonical(value):
    if isinstance(value, dict):
        return _document(value)
    if isinstance(value, list):
        return [canonical(item) for item in value]
    if isinstance(value, bool) or value is None or isinstance(value, str):
        return value
    if isinstance(value, int):
        return {"$numberInt" if value in INT32 else "$numberLong": str(value)}
    if isinstance(value, float):
        return {"$numberDouble": repr(value)}
    raise BadScenario(f"{value!r} is no value of a document: quote it")


def _document(value):
    first = next(iter(value), None)
    if first == "$documents" and isinstance(value[first][0], int):  # otherwise a stage
        return _documents(value)
    if first == "$repeat":
        piece, times = value["$repeat"]
        return piece * times
    if first == "$bytes":  # [byte, times]
        byte, times = value["$bytes"]
        data = base64.b64encode(bytes([byte]) * times).decode()
        return {"$binary": {"base64": data, "subType": "00"}}
    if first == "$uuid":
        data = base64.b64encode(uuid.UUID(value["$uuid"]).bytes).decode()
        return {"$binary": {"base64": data, "subType": "04"}}
    if first == "$date" and isinstance(value["$date"], str):
        moment = datetime.datetime.fromisoformat(value["$date"].replace("Z", "+00:00"))
        epoch = datetime.datetime(1970, 1, 1, tzinfo=datetime.timezone.utc)
        ms = (moment - epoch) // datetime.timedelta(milliseconds=1)
        return {"$date": {"$numberLong": str(ms)}}
    if first in WRAPPERS or first == "$date":
        return value
    return {key: canonical(item) for key, item in value.items()}


class _Loader(yaml.SafeLoader):
    """YAML without its dates and without yes and no: those are strings here."""


_Loader.yaml_implicit_resolvers = {
    first: [found for found in resolvers if not found[0].endswith((":timestamp", ":bool"))]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:bool", re.compile(r"^(?:true|false)$"), list("tf")
)
