"""Random updates."""

from bson import SON

from .documents import SCALARS
from .filters import Filters


class Updates(Filters):
    def set_path(self):
        path = self.path(self.shape)
        return path, self.value(self.shape.node_at(path))

    def fields(self):
        return SON(self.some(self.set_path, 1, 2))

    def operators(self):
        update = SON()
        for _ in range(self.pick(1, 1, 1, 2)):
            operator, fields = self.operator()
            update[operator] = fields
        return update

    def operator(self):
        return self.pick(
            self.assignment, self.assignment, self.arithmetic, self.array_operator, self.positional
        )()

    def assignment(self):
        return self.pick(
            lambda: ("$set", self.fields()),
            lambda: ("$set", self.fields()),
            lambda: ("$unset", SON((path, 1) for path, _ in self.some(self.set_path, 1, 2))),
            lambda: ("$setOnInsert", self.fields()),
            lambda: ("$rename", SON([(self.pick("k", "n", self.path(self.shape)), "kk")])),
        )()

    def arithmetic(self):
        path = self.path(self.shape) if self.chance(8) else self.pick("n", "k", "c.k", "a.b.k")
        return self.pick("$inc", "$mul", "$min", "$max"), SON([(path, self.pick(1, 2, 2.5))])

    def each(self, member):
        modifiers = SON([("$each", self.some(member))])
        if self.chance(50):
            modifiers["$position"] = self.pick(0, 1, -1)
        if self.chance(50):
            modifiers["$slice"] = self.pick(3, 2, -2)
        if self.chance(25):
            modifiers["$sort"] = self.pick({"k": 1}, {"k": -1}, 1)
        return modifiers

    def array_operator(self):
        if self.chance(25):
            return self.pick("$push", "$addToSet", "$pull"), SON([("k", self.of(SCALARS))])
        self.touched = True
        path = self.of(self.shape.above)
        node = self.shape.node_at(path)

        def member():
            return self.container(node, 1)

        return self.pick(
            lambda: ("$push", SON([(path, member())])),
            lambda: ("$push", SON([(path, self.each(member))])),
            lambda: ("$pull", SON([(path, self.element(node))])),
            lambda: ("$pop", SON([(path, self.pick(1, -1))])),
            lambda: ("$pull", SON([(path, self.pick(self.of(SCALARS), {"$in": [None, 7]}))])),
            lambda: ("$addToSet", SON([(path, member())])),
            lambda: ("$addToSet", SON([(path, {"$each": self.some(member)})])),
            lambda: ("$pullAll", SON([(path, self.some(member))])),
        )()

    def positional(self):
        self.touched = True
        parent = self.shape.above[0]
        node = self.shape.node_at(parent)
        key = self.of([*node, "k"])
        child = node.get(key)
        path = f"{parent}.{self.pick('$[]', '$', '$[e]')}.{key}"
        return self.pick("$set", "$set", "$unset"), SON([(path, self.value(child))])

    def pipeline_update(self):
        def stage():
            path = self.path(self.shape).replace(".0", "").replace(".1", "")
            value = self.value(self.shape.node_at(path))
            return self.pick(
                {"$set": SON([(path, {"$literal": value})])},
                {"$unset": path},
                {"$set": {"n": {"$add": ["$_id", 1]}}},
                {"$project": SON([(path, 1), ("n", 1)])},
                {"$addFields": {"k": self.computed()}},
                {"$replaceWith": {"$mergeObjects": ["$$ROOT", {"n": 2}]}},
                {"$set": SON([(path, f"${path}"), ("n", 1)])},
                {"$set": SON([(path, {"$cond": [{"$eq": ["$n", 1]}, f"${path}", None]})])},
            )

        return self.some(stage, 1, 2)

    def statement(self):
        """One update: {q, u, ...}; upserts name their _id, for mongod would make one up."""
        kind = self.pick("operators", "operators", "operators", "replacement", "pipeline")
        upsert, filter = self.chance(25), self.filter()
        if upsert or self.chance(40):
            filter = SON([("_id", self.id()), *((k, v) for k, v in filter.items() if k != "_id")])
        if kind == "operators":
            u = self.operators()
        elif kind == "replacement":
            u = self.document(self.shape, with_id=False)
        else:
            u = self.pipeline_update()
        statement = SON([("q", filter), ("u", u)])
        if upsert:
            statement["upsert"] = True
        if kind != "replacement" and self.chance(40):
            statement["multi"] = True
        if "$[e]" in repr(u):
            node = self.shape.node_at(self.shape.above[0])
            condition = self.pick(
                SON([("e.k", "x")]),
                SON([("e.k", {"$ne": 1})]),
                SON((f"e.{key}", value) for key, value in self.element(node).items()),
            )
            statement["arrayFilters"] = [condition]
        return statement
