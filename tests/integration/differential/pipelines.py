"""Random aggregation pipelines."""

from bson import SON

from .updates import Updates


class Pipelines(Updates):
    """others: names of collections that may be joined."""

    def __init__(self, draw, shape, others):
        super().__init__(draw, shape)
        self.others = others

    def stage(self, depth=0):
        parent = self.above()
        choices = [
            lambda: {"$match": self.filter()},
            lambda: {"$match": self.filter()},
            lambda: {"$project": self.projection()},
            lambda: {"$addFields": {"x": self.computed()}},
            lambda: {"$unset": [self.path(self.shape)]},
            lambda: {"$unwind": {"path": parent, "preserveNullAndEmptyArrays": self.chance(50)}},
            lambda: {"$sort": SON([("n", 1), ("_id", 1)])},
            lambda: {"$limit": self.pick(1, 2)},
            lambda: {"$count": "x"},
            lambda: {"$replaceWith": SON([("x", self.field_path()), ("y", "$n")])},
            lambda: {"$replaceRoot": {"newRoot": {"$mergeObjects": ["$$ROOT", parent]}}},
            lambda: {"$redact": {"$cond": [self.expression(), "$$KEEP", "$$PRUNE"]}},
            lambda: self.join(),
        ]
        if depth == 0:
            choices.append(
                lambda: {"$facet": {"x": self.some(lambda: self.stage(1), 1, 2),
                                    "y": [{"$match": self.filter()}]}}
            )  # fmt: skip
        return self.pick(*choices)()

    def group(self):
        path = self.field_path()
        accumulator = self.pick(
            {"$sum": 1}, {"$push": path}, {"$first": path}, {"$last": path}, {"$sum": "$n"},
            {"$push": "$$ROOT"}, {"$max": "$n"}, {"$sum": {"$cond": [self.expression(), 1, 0]}},
        )  # fmt: skip
        key = self.pick("$n", None, path, {"$eq": ["$n", 1]}, {"x": path, "y": "$n"})
        return SON([("_id", key), ("x", accumulator)])

    def join(self):
        self.touched = True
        other = self.of(self.others)
        return self.pick(
            {"$unionWith": other},
            {"$unionWith": {"coll": other, "pipeline": [{"$project": {"_id": 1, "n": 1}}]}},
            {"$lookup": {"from": other, "localField": "n", "foreignField": "n", "as": "x"}},
            {"$lookup": SON([("from", self.shape.name), ("localField", self.path(self.shape)),
                             ("foreignField", self.path(self.shape)), ("as", "x")])},
            {"$lookup": {"from": self.shape.name, "pipeline": [{"$match": self.filter()}],
                         "as": "x"}},
        )  # fmt: skip

    def pipeline(self):
        """A $group comes last, for it is undefined in which order there are groups: they are
        compared sorted (see Pair)."""
        stages = self.some(self.stage, 1, 3)
        if self.chance(20):
            last = self.pick({"$group": self.group()}, {"$sortByCount": self.field_path()})
            stages = [{"$sort": SON([("_id", 1)])}, *stages[1:], last]
        return stages
