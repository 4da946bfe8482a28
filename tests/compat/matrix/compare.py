"""What of a result counts. Volatile parts are replaced by their names, so that their presence is
still compared; everything else, with the order of keys, must be equal."""

import json
import re

# Fields whose value differs between any two runs, wherever they stand.
VOLATILE = {
    "$clusterTime": "the cluster's logical clock",
    "operationTime": "the same clock",
    "clusterTime": "the same clock, in change events",
    "atClusterTime": "the same clock, in snapshot cursors",
    "wallTime": "the time of a change event",
    "lsid": "the driver's random session id",
    "txnNumber": "counts up in a session of the driver's pool",
    "connectionId": "counts connections",
    "localTime": "the server's clock",
    "lastWrite": "optimes of the last write",
    "opTime": "the same clock, in replies to writes",
    "topologyVersion": "counts topology changes",
    "electionId": "the election that made the primary",
    "_data": "a resume token: holds the clock",
    "durationMillis": "how long it took",
    "executionTimeMillis": "how long it took",
    "executionTimeMillisEstimate": "how long it took",
    "optimizedPipeline": "explain: depends on the plan cache",
    "queryHash": "explain: a hash over the query, ciphertext included",
    "planCacheKey": "explain: the same",
    "serverInfo": "explain: host and port",
}
GENERATED_OID = re.compile(r"^[0-9a-f]{24}$")
HOST = re.compile(r"127\.0\.0\.1:\d+")


class Normaliser:
    """For the results of one scenario by one target. hosts maps addresses to members' names."""

    def __init__(self, scenario, hosts: dict):
        self.scenario, self.hosts, self.text = scenario, hosts, scenario.text

    def results(self, results: list) -> list:
        steps = self.scenario.steps
        return [self.result(step, result) for step, result in zip(steps, results)]

    def result(self, step, result):
        wanted = step.get("compare")
        if wanted == "keys" and isinstance(result.get("ok"), dict):
            return {"ok": sorted(result["ok"])}
        if wanted == "success" and "ok" in result:
            return {"ok": "success"}
        return self.value(result)

    def value(self, value):
        if isinstance(value, dict):
            return self.document(value)
        if isinstance(value, list):
            return [self.value(item) for item in value]
        if isinstance(value, str) and value not in self.text:
            return HOST.sub(lambda found: self.hosts.get(found[0], found[0]), value)
        return value

    def document(self, document):
        oid = document.get("$oid")
        if isinstance(oid, str) and len(document) == 1 and oid not in self.text:
            return "<generated ObjectId>"
        binary = document.get("$binary")
        if isinstance(binary, dict) and binary.get("subType") in ("04", "4"):
            if binary.get("base64") not in self.text:
                return "<generated UUID>"
        return {
            key: f"<{key}>" if key in VOLATILE or self.is_cursor_id(document, key) else self.value(item)
            for key, item in document.items()
        }

    def is_cursor_id(self, document, key) -> bool:
        """A random number; 0 says that there is no cursor, and counts."""
        return key == "id" and "ns" in document and document[key] != {"$numberLong": "0"}


def same(one, other) -> bool:
    """Order of keys included."""
    return json.dumps(one) == json.dumps(other)


def unexpected(scenario, results: list) -> list:
    """What a direct run gave that the scenario does not say: a comparison of two identical
    failures would prove nothing."""
    problems = []
    for i, (step, result) in enumerate(zip(scenario.steps, results)):
        error, fails = result.get("error"), step.get("fails", False)
        if fails == "maybe":
            continue
        if error is None and fails and "unsupported" not in result:
            problems.append(f"step {i} ({step['op']}) did not fail")
        elif error is not None and not fails:
            problems.append(f"step {i} ({step['op']}) failed: {json.dumps(error)}")
        elif error is not None and fails is not True and fails not in codes(error):
            problems.append(f"step {i} ({step['op']}) failed otherwise: {json.dumps(error)}")
    if len(results) != len(scenario.steps):
        problems.append(f"{len(results)} results for {len(scenario.steps)} steps")
    return problems


def codes(error: dict) -> set:
    found = {_number(error.get("code"))}
    found |= {_number(entry.get("code")) for entry in error.get("writeErrors", ())}
    found.add(_number(error.get("writeConcernError", {}).get("code")))
    return found


def _number(value):
    return int(next(iter(value.values()))) if isinstance(value, dict) else value
