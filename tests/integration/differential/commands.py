"""Random sequences of commands. A step is a tuple: what it is, and what Pair.run needs for it."""

from bson import SON
from hypothesis import strategies as st

from .documents import Source
from .pipelines import Pipelines
from .shapes import SHAPES

POOL_DOCUMENTS = 40  # of each collection and key, to begin sequences with


class Commands(Pipelines):
    """Commands on the collection of one shape."""

    def start(self, name):
        return SON([(name, self.shape.name)])

    def insert(self):
        documents = self.some(lambda: self.document(self.shape), 1, 3)
        command = self.start("insert")
        command.update(documents=documents, ordered=self.pick(True, False))
        return command

    def update(self):
        command = self.start("update")
        command["updates"] = self.some(self.statement, 1, 2)
        command["ordered"] = self.pick(True, False)
        return command

    def delete(self):
        def statement():
            return SON([("q", self.filter()), ("limit", self.pick(1, 1, 0))])

        command = self.start("delete")
        command["deletes"] = self.some(statement, 1, 2)
        return command

    def find(self):
        command = self.start("find")
        command["filter"] = self.filter()
        if self.chance(35):
            command["projection"] = self.projection()
        if self.chance(40):
            path = self.path(self.shape) if self.chance(8) else self.pick("n", "_id")
            command["sort"] = SON([(path, self.pick(1, -1)), ("_id", 1)])
        if self.chance(20):
            command["skip"] = 1
        if self.chance(20):
            command["limit"] = self.pick(1, 2)
        if self.chance(30):
            command["batchSize"] = self.pick(1, 2, 0)
        return command

    def count(self):
        command = self.start("count")
        command["query"] = self.filter()
        return command

    def distinct(self):
        command = self.start("distinct")
        paths = [*self.shape.deterministic, *self.shape.random, *self.shape.free]
        command["key"] = self.path(self.shape) if self.chance(10) else self.of(paths)
        self.touched = True
        if self.chance(50):
            command["query"] = self.filter()
        return command

    def find_and_modify(self):
        command = self.start("findAndModify")
        if self.chance(25):
            command["query"] = self.filter()
            command["remove"] = True
        else:
            statement = self.statement()
            statement.pop("multi", None)
            command["query"], command["update"] = statement.pop("q"), statement.pop("u")
            command.update(statement)
            command["new"] = self.pick(True, False)
        if self.chance(50):
            command["sort"] = SON([("n", 1), ("_id", 1)])
        if self.chance(25):
            command["fields"] = self.projection()
        return command

    def aggregate(self):
        command = self.start("aggregate")
        command["pipeline"] = self.pipeline()
        command["cursor"] = {"batchSize": self.pick(100, 1, 2)}
        return command


# How often each is chosen: documents have to be there before anything can be found.
COMMANDS = [
    Commands.insert, Commands.find, Commands.update, Commands.insert, Commands.aggregate,
    Commands.find_and_modify, Commands.update, Commands.find, Commands.count, Commands.distinct,
    Commands.delete,
]  # fmt: skip


@st.composite
def steps_of(draw, shapes):
    source = Commands(draw, draw(st.sampled_from(shapes)), [shape.name for shape in shapes])
    if source.chance(8):
        return (source.pick("begin", "begin", "commit", "abort"),)
    command = source.of(COMMANDS)(source)
    return ("command", source.shape.name, command, source.touched)


@st.composite
def seeds(draw, shape):
    """Documents that are there before: stored under any live key, or in an older form."""
    source = Source(draw)
    chosen = source.some(lambda: (source.index(POOL_DOCUMENTS), source.index(3)), 1, 5)
    return ("seed", shape.name, chosen)


@st.composite
def sequences(draw, with_jobs: bool = False, length: int = 8):
    """A list of steps. with_jobs: one of them may be a rotation or a sweep."""
    shapes = [draw(st.sampled_from(SHAPES))]
    if draw(st.integers(0, 3)) == 3:
        shapes.append(draw(st.sampled_from([shape for shape in SHAPES if shape != shapes[0]])))
    steps = [draw(seeds(shape)) for shape in shapes]
    steps += draw(st.lists(steps_of(shapes), min_size=2, max_size=length))
    if with_jobs:
        job = draw(st.sampled_from(["rotate", "sweep"]))
        steps.insert(draw(st.integers(1, len(steps))), (job, shapes[0].name))
    return steps
