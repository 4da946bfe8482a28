"""docs/compatibility.md."""

from .compare import VOLATILE
from .targets import VARIANTS

HEAD = """# Driver compatibility

Written by `./dev compat`, which runs it again; `tests/compat/README.md` says how it works.

{scenarios} scenarios are run by each driver, against mongod and through rekeyd, without policies and
with some; what a driver gives through rekeyd must be what the same driver gives directly: results,
errors with their codes and labels, change events, the order of keys. Each cell counts comparisons
that were equal, and in brackets those with a difference that is explained below.
"""


def markdown(run) -> str:
    variants = [v for v in VARIANTS if any(v == variant for _, variant in run.counts)]
    lines = [HEAD.format(scenarios=len(run.scenarios))]
    lines.append("| driver | version | " + " | ".join(variants) + " | different |")
    lines.append("|---" * (len(variants) + 3) + "|")
    for driver, version in sorted(run.drivers.items()):
        counts = [run.counts[driver, variant] for variant in variants]
        different = sum(count["different"] for count in counts)
        cells = " | ".join(_cell(count) for count in counts)
        lines.append(f"| {driver} | {version} | {cells} | {different} |")
    lines += ["", "## Explained differences", ""]
    lines += [f"- `{e.scenario}`: {e.reason}" for e in run.explained] or ["None."]
    if run.unsupported:
        lines += ["", "## Operations that a driver does not have", ""]
        lines += [f"- {driver}: {op}" for driver, op in sorted(run.unsupported)]
    lines += ["", "## What is not compared", "", "| field | why |", "|---|---|"]
    lines += [f"| `{name}` | {why} |" for name, why in VOLATILE.items()]
    lines.append("| addresses | replaced by the member's number |")
    lines.append("| ObjectIds and UUIDs that the scenario did not give | generated |")
    return "\n".join(lines) + "\n"


def _cell(count) -> str:
    return f"{count['same']} ({count['explained']})" if count["explained"] else str(count["same"])
