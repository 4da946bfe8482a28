"""What this machine lacks of tools.yaml, said before an hour of work and not after it."""

import re
import subprocess
from pathlib import Path

import yaml

PATH = Path(__file__).resolve().parents[1] / "tools.yaml"
VERSIONS = [re.compile(r"\d+(?:\.\d+)+"), re.compile(r"\b\d+\b")]  # the second where there is no first


def missing(runners, path: Path = PATH) -> list:
    """A line for each tool that these runners need and that is absent or too old."""
    lines = []
    for entry in yaml.load(path.read_text(), yaml.BaseLoader):  # versions are strings: 1.9 < 1.10
        wanting = [name for name in entry["runners"] if name in runners]
        found = version(entry["asks"]) if wanting else None
        if not wanting or (found and _numbers(found) >= _numbers(entry["at_least"])):
            continue
        lines.append(
            f"{', '.join(wanting)}: needs {entry['tool']} {entry['at_least']} or later, "
            f"{f'has {found}' if found else 'there is none'}; get it: {entry['get']}"
        )
    return lines


def version(command: list) -> str:
    """What the command prints first that looks like a version; "" without one."""
    try:
        said = subprocess.run(command, capture_output=True, text=True, timeout=120)
    except FileNotFoundError:
        return ""
    if said.returncode != 0:
        return ""
    return next((found[0] for v in VERSIONS if (found := v.search(said.stdout + said.stderr))), "")


def _numbers(text: str) -> list:
    return [int(part) for part in text.split(".")]
