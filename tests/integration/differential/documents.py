"""Random values and documents. What a policy protects carries SECRET, so that it can be found."""

import datetime
from functools import lru_cache

from bson import SON, Binary, Code, Decimal128, Int64, MaxKey, MinKey, ObjectId, Regex, Timestamp
from harness import SECRET
from hypothesis import strategies as st

from .shapes import step

STRINGS = [f"{SECRET} a", f"{SECRET} b", f"{SECRET} A", f"{SECRET} \u00e4\0", ""]
# No Code: some pipelines of mongod 6.0 ($lookup, then $unwind) make a string of it.
COMPARABLE = [
    *STRINGS,
    1,
    Int64(1),
    0,
    Int64(2**40),
    -1,
    True,
    False,
    Binary(SECRET.encode()),
    Binary(b"", 4),
    datetime.datetime(2020, 1, 1),
    ObjectId(SECRET.encode() * 2),
    Timestamp(1, 2),
]
TYPED = {"string": STRINGS, "long": [Int64(1), Int64(2), Int64(-(2**40))]}
STORABLE = [
    *COMPARABLE,
    1.0,
    -0.0,
    float("nan"),
    Decimal128("1.50"),
    Regex(SECRET, "i"),
    Code("f()", {"x": SECRET}),
    [],
    [SECRET, [SECRET]],
    {},
    SON(b=SECRET, a=SON([("0", SECRET)])),
]
FREE = ["x", "y", 1, Int64(1), 2, 2.5, True, None, [], {}, [1, 2], [None], {"a": 1}, "", MaxKey()]
SCALARS = [None, 7, "x", [], {}, [None], [[]], True]
IDS = [0, 1, 2, 3, 4, 5, "x", 2.5]


@lru_cache(maxsize=None)
def below(n: int):
    return st.integers(0, n - 1)


class Source:
    """Choices that hypothesis makes and can shrink: towards the first, and towards no. touched:
    whether a path was chosen that has to do with a protected one."""

    def __init__(self, draw):
        self.draw = draw
        self.touched = False

    def index(self, n: int) -> int:
        return self.draw(below(n)) if n > 1 else 0

    def pick(self, *choices):
        return choices[self.index(len(choices))]

    def of(self, choices):
        return choices[self.index(len(choices))]

    def chance(self, percent: int) -> bool:
        return self.index(100) >= 100 - percent

    def some(self, make, least=0, most=3) -> list:
        return [make() for _ in range(least + self.index(most - least + 1))]

    # Values.

    def id(self):
        return self.of(IDS)

    def stored(self, field):
        """A value of a protected field: often the same few, so that they are found again."""
        values = TYPED.get(field.type) or (STORABLE if field.is_random else COMPARABLE)
        return self.of(values[:2] if self.chance(60) else values)

    def value(self, node):
        """A value for that place of a policy: what can be stored there, most of the time."""
        if node is None:
            return self.of(FREE)
        self.touched = True
        if isinstance(node, dict):
            return self.container(node)
        if self.chance(3):
            return self.pick(MinKey(), Decimal128("1"), [1], {"a": 1})
        if self.chance(10):
            return None
        return self.stored(node)

    def container(self, node, depth=0):
        """What stands above protected paths: a document, an array of them, arrays of arrays, or
        something quite different."""
        kind = self.pick("document", "array", "document", "scalar") if depth < 3 else "scalar"
        if kind == "scalar":
            return self.of(SCALARS)
        if kind == "array":
            return self.some(lambda: self.container(node, depth + 1))
        return self.members(node, False, depth)

    def members(self, node, is_root: bool, depth=0):
        keys = [key for key in node if self.chance(65)]
        if self.chance(35):
            keys.append(self.pick("k", "0", "1", "", "kk"))
        if self.chance(2):
            keys.append(self.pick("$k", "c.a", "a.b.c", "$b"))
        if self.chance(30):
            keys.reverse()
        document = SON()
        for key in keys:
            child = step(node, key, is_root)
            inner = isinstance(child, dict)
            document[key] = self.container(child, depth + 1) if inner else self.value(child)
        return document

    def document(self, shape, with_id=True):
        document = SON(self.members(shape.tree, True))
        if self.chance(60):
            document["n"] = self.index(3)
        self.touched = self.touched or any(key in shape.tree for key in document)
        if not with_id:
            return document
        if self.chance(10):
            document["_id"] = self.id()
            return document
        return SON([("_id", self.id()), *document.items()])

    # Paths.

    def path(self, shape):
        kind = self.index(100)
        if kind < 22:
            return self.of(shape.free)
        self.touched = True
        if kind < 62:
            return self.of(shape.deterministic)
        if kind < 80:
            return self.of(shape.random)
        return self.of(shape.above) if kind < 98 else self.of(shape.below)
