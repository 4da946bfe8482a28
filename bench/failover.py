"""Writes through failovers: over Rekey in both topologies, and directly as the control.

The last line is JSON: {clients, step_downs, acknowledged, lost, duplicated, errors_proxy,
errors_direct}. It fails when a write is lost or doubled.
"""

import argparse
import json
import sys

from harness import Rekeyd, ReplicaSet
from harness.failover import write_through_failovers


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--step-downs", type=int, default=20)
    parser.add_argument("--clients", type=int, default=4, help="for each way")
    options = parser.parse_args()
    with ReplicaSet(3) as servers:
        with Rekeyd(servers) as mirror, Rekeyd(servers, single=["primary"]) as single:
            ways = {
                "direct": servers.uri,
                "mirror": mirror.uri,
                "single": f"mongodb://{single.addresses[0]}/",
            }
            result = write_through_failovers(servers, ways, options.clients, options.step_downs)
    errors = result.pop("errors")
    for way, lines in errors.items():
        for line in lines:
            print(f"{way}: {line}", file=sys.stderr)
    result["errors_proxy"] = len(errors["mirror"]) + len(errors["single"])
    result["errors_direct"] = len(errors["direct"])
    print(json.dumps(result))
    return 1 if result["lost"] or result["duplicated"] else 0


if __name__ == "__main__":
    sys.exit(main())
