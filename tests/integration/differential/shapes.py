"""The protected collections of the differential test: few keys, so that random paths meet."""

from dataclasses import dataclass, field

from harness import policy
from harness.legacy import FORMATS

RANDOM, DETERMINISTIC = "random", "deterministic"


@dataclass(frozen=True)
class Field:
    """What a policy says about one path."""

    algorithm: str
    type: str = ""
    name: str = ""
    accept_plaintext: bool = False
    legacy: list = field(default_factory=list)

    @property
    def is_random(self) -> bool:
        return self.algorithm == RANDOM

    @property
    def has_old_values(self) -> bool:
        return self.accept_plaintext or bool(self.legacy)

    def options(self) -> dict:
        return {name: value for name, value in vars(self).items() if value}


class Shape:
    """A collection, its policy as a tree, and its paths by what they are to that policy."""

    def __init__(self, name: str, fields: dict, free: list, below: list, above: list):
        self.name, self.fields = name, fields
        self.free, self.below, self.above = free, below, above
        self.has_old_values = any(one.has_old_values for one in fields.values())
        self.tree = {}
        self.random, self.deterministic = [], []
        for path, one in fields.items():
            *parents, last = path.split(".")
            node = self.tree
            for parent in parents:
                node = node.setdefault(parent, {})
            node[last] = one
            # Every parent may be an array, and a number one of its elements.
            head, dot, tail = path.partition(".")
            spelt = [path, path, f"{head}.0.{tail}", f"{head}.1.{tail}"] if dot else [path]
            (self.random if one.is_random else self.deterministic).extend(spelt)
        self.random = self.random or self.deterministic

    def policy(self, db_name: str) -> dict:
        fields = {path: one.options() for path, one in self.fields.items()}
        return policy(f"{db_name}.{self.name}", fields)

    def node_at(self, path: str):
        """A tree above protected paths, the Field of one, or None."""
        node = self.tree
        for component in path.split("."):
            if not component.startswith("$"):
                node = step(node, component, node is self.tree)
        return node


def step(node, key: str, is_root: bool):
    """The node of a document's member, as a policy finds it: numbers stay at their parent's."""
    if not isinstance(node, dict):
        return node
    if key in node:
        return node[key]
    return node if key.isdigit() and not is_root else None


def fields_of(node, value, is_root=True, path=""):
    """(the Field, its path, what holds the value, at which key) of all that a policy protects in
    a document."""
    if isinstance(value, list):
        for item in value:
            if isinstance(item, (dict, list)):
                yield from fields_of(node, item, False, path)
    elif isinstance(value, dict):
        for key, item in value.items():
            child = step(node, key, is_root)
            if isinstance(child, Field):
                yield child, f"{path}{key}", value, key
            elif child is not None:
                yield from fields_of(child, item, False, f"{path}{key}.")


SHAPES = [
    Shape(
        "flat",
        {
            "a": Field(RANDOM),
            "b": Field(DETERMINISTIC),
            "c.a": Field(RANDOM),
            "c.b": Field(DETERMINISTIC),
        },
        free=["n", "k", "c.k", "c.0.k", "k.a", "ab"],
        below=["a.k", "b.0", "c.b.k"],
        above=["c", "c.0", "c.1"],
    ),
    Shape(
        "deep",
        {
            "a.b.c": Field(DETERMINISTIC),
            "a.b.d": Field(RANDOM),
            "a.e": Field(DETERMINISTIC),
            "ab": Field(DETERMINISTIC),
        },
        free=["n", "k", "a.k", "a.b.k", "b", "a.0.b.0.k"],
        below=["ab.k", "a.b.c.0"],
        above=["a", "a.b", "a.0", "a.0.b", "a.0.0"],
    ),
    # One type each, so that the server may group by ciphertext while there is one key.
    Shape(
        "typed",
        {
            "a": Field(DETERMINISTIC, type="string", name="word"),
            "b": Field(DETERMINISTIC, type="long"),
            "c.a": Field(DETERMINISTIC, type="string", name="word"),
            "c.b": Field(RANDOM),
        },
        free=["n", "k", "c.k", "c.0.k", "ab"],
        below=["a.k", "c.b.k"],
        above=["c", "c.0", "c.1"],
    ),
    # Some values were never encrypted, or by something else.
    Shape(
        "mixed",
        {
            "a": Field(DETERMINISTIC, accept_plaintext=True),
            "c.a": Field(DETERMINISTIC, accept_plaintext=True, legacy=FORMATS),
            "c.b": Field(RANDOM, legacy=FORMATS),
        },
        free=["n", "k", "b", "c.k", "c.0.k"],
        below=["a.k", "c.b.k"],
        above=["c", "c.0", "c.1"],
    ),
    Shape(
        "legacy",
        {
            "a": Field(DETERMINISTIC, legacy=FORMATS),
            "c.a": Field(DETERMINISTIC, type="string", legacy=FORMATS[:1]),
            "c.b": Field(DETERMINISTIC, legacy=FORMATS[1:]),
        },
        free=["n", "k", "b", "c.k", "c.0.k"],
        below=["a.k", "c.b.k"],
        above=["c", "c.0", "c.1"],
    ),
]
BY_NAME = {shape.name: shape for shape in SHAPES}


def policies(db_name: str) -> list:
    return [shape.policy(db_name) for shape in SHAPES]
