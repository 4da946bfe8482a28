"""Random filters, expressions and projections."""

from bson import SON, Regex

from .documents import IDS, Source
from .shapes import Field


def is_random(node) -> bool:
    return isinstance(node, Field) and node.is_random


class Filters(Source):
    """For the collection of one shape."""

    def __init__(self, draw, shape):
        super().__init__(draw)
        self.shape = shape

    def filter(self, depth=0):
        if depth < 2 and self.chance(20):
            members = self.some(lambda: self.filter(depth + 1), 1, 2)
            return SON([(self.pick("$and", "$or", "$nor"), members)])
        if depth == 0 and self.chance(8):
            return SON([("$expr", self.expression())])
        filter = SON()
        for _ in range(self.pick(1, 1, 2)):
            path = self.pick("_id", None, None, None) or self.path(self.shape)
            filter[path] = self.of(IDS) if path == "_id" else self.condition(path)
        return filter

    def searched(self, path):
        """A value to look for: protected ones with what their field can be compared with."""
        node = self.shape.node_at(path)
        if isinstance(node, dict):
            return self.pick(None, {}, [])
        return None if is_random(node) and not self.chance(5) else self.value(node)

    def condition(self, path):
        node = self.shape.node_at(path)
        exists = {"$exists": self.pick(True, False)}
        if isinstance(node, dict):
            return self.pick(
                exists,
                None,
                {"$size": self.index(3)},
                {"$type": self.pick("object", "array", "string", "null")},
                {"$elemMatch": self.element(node)},
                {},
                [],
                {"$ne": None},
                {"$not": {"$elemMatch": self.element(node)}},
            )
        if self.chance(4):
            return self.pick(
                {"$gt": 1}, {"$regex": "x"}, {"$size": 1}, {"$type": "string"}, Regex("^x"),
                {"$mod": [2, 0]}, {"$all": [1]}, {"$elemMatch": {"$eq": 1}}, {"$in": [Regex("x")]},
            )  # fmt: skip
        if is_random(node) and not self.chance(4):
            return self.pick(exists, None, {"$ne": None}, {"$not": exists}, {"$in": [None]})
        value, values = self.searched(path), self.some(lambda: self.searched(path), 0, 3)
        free = [{"$gt": 1}, {"$lte": 2}, {"$type": "number"}, {"$size": 2}] if node is None else []
        return self.pick(
            value,
            {"$eq": value},
            {"$in": values},
            {"$ne": value},
            {"$nin": values},
            {"$not": {"$eq": value}},
            {"$not": {"$in": values}},
            {"$ne": value, **exists},
            exists,
            *free,
        )

    def element(self, node):
        """A filter on the elements of an array above protected fields."""
        filter = SON()
        for key in self.some(lambda: self.of([*node, "k"]), 1, 2):
            child = node.get(key)
            if isinstance(child, dict):
                filter[key] = self.pick({"$exists": True}, None)
            elif is_random(child):
                filter[key] = self.pick({"$exists": True}, {"$exists": False}, None)
            else:
                filter[key] = self.pick(self.value(child), {"$ne": self.value(child)})
        return filter

    # Expressions.

    def field_path(self, path=None):
        return f"${path or self.path(self.shape)}".replace(".0", "").replace(".1", "")

    def above(self):
        self.touched = True
        return self.field_path(self.of(self.shape.above))

    def literal(self, value):
        return {"$literal": value} if isinstance(value, (str, list, dict)) else value

    def comparison(self, path, node):
        """Of what stands at a path of an expression, with a constant."""
        if isinstance(node, dict):
            return {"$isArray": path}
        if is_random(node):
            return {self.pick("$eq", "$ne"): [path, None]}
        value = self.literal(self.value(node))
        return self.pick(
            {"$eq": [path, value]},
            {"$ne": [path, value]},
            {"$eq": [value, path]},
            {"$in": [path, [value, None]]},
            {"$eq": [{"$ifNull": [path, value]}, value]},
        )

    def expression(self):
        path = self.field_path()
        one = self.comparison(path, self.shape.node_at(path[1:]))
        return self.pick(one, {"$not": [one]}, {"$and": [one, {"$gte": ["$n", 1]}]},
                         {"$or": [{"$eq": ["$n", 0]}, one]})  # fmt: skip

    def of_elements(self):
        """An expression about the elements of an array above protected fields."""
        parent = self.above()
        node = self.shape.node_at(parent[1:])
        key = self.of([*node, "k"]) if isinstance(node, dict) else "k"
        member = node.get(key) if isinstance(node, dict) else None
        array = {"$cond": [{"$isArray": parent}, parent, []]}
        return self.pick(
            {"$map": {"input": array, "as": "e", "in": f"$$e.{key}"}},
            {"$filter": {"input": array, "as": "e", "cond": self.comparison(f"$$e.{key}", member)}},
            {"$size": array},
            {"$arrayElemAt": [array, self.pick(0, -1, 1)]},
            {"$first": array},
            {"$slice": [array, 1]},
            {"$concatArrays": [array, array]},
            {"$reverseArray": array},
            {"$map": {"input": array, "in": {"x": f"$$this.{key}", "y": "$$this.k"}}},
        )

    def computed(self):
        path = self.field_path()
        return self.pick(
            path,
            {"$cond": [{"$eq": ["$n", 1]}, path, None]},
            {"$ifNull": [path, "none"]},
            {"x": path, "y": "$n"},
            [path, "$n"],
            {"$add": ["$n", 1]},
            {"$literal": path},
            {"$cond": [self.expression(), 1, 2]},
            {"$isArray": path},
            {"$type": path},
            self.of_elements(),
            self.of_elements(),
            {"$switch": {"branches": [{"case": self.expression(), "then": path}], "default": "$n"}},
            {"$let": {"vars": {"v": path}, "in": {"x": "$$v", "y": {"$eq": ["$$v", None]}}}},
            {"$mergeObjects": [{"x": path}, {"y": 1}]},
        )

    # Projections.

    def projection(self):
        kind = self.pick("in", "out", "in", "computed", "slice", "match", "copies")
        names = self.some(lambda: self.path(self.shape), 1, 2)
        if kind == "in":
            return SON((name, 1) for name in names)
        if kind == "out":
            return SON((name, self.pick(0, False)) for name in names)
        if kind == "computed":
            return SON([("n", 1), ("x", self.computed())])
        if kind == "copies":
            return SON([("x", self.field_path()), ("y", {"z": self.field_path()})])
        self.touched = True
        parent = self.of(self.shape.above)
        if kind == "slice":
            return SON([(parent, {"$slice": self.pick(1, -1, [1, 1])})])
        condition = self.pick(
            {"k": self.pick("x", 1, None)}, self.element(self.shape.node_at(parent))
        )
        return SON([(parent.partition(".")[0], {"$elemMatch": condition})])
