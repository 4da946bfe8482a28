"""Documents to begin sequences with: as an application sees them, and as they are stored under one
key; some values in the forms that they had before Rekey."""

import random
from dataclasses import dataclass

from bson import Binary
from harness.legacy import stored_forms
from pymongo.errors import OperationFailure

from .commands import POOL_DOCUMENTS
from .documents import STRINGS, Source
from .shapes import SHAPES, fields_of

LEGACY = [form for text in STRINGS for form in stored_forms(text)]


def is_legacy(value) -> bool:
    return value in LEGACY or isinstance(value, bytes) and Binary(value) in LEGACY


@dataclass
class Document:
    plain: dict
    stored: dict
    never_encrypted: int = 0  # values


class Pool:
    """Of the current key: {collection: [Document, ...]}"""

    def __init__(self, protected, number):
        self.dice = random.Random(number)
        self.documents = {shape.name: self.fill(protected, shape) for shape in SHAPES}

    def fill(self, protected, shape) -> list:
        source = Source(None)
        source.index = self.dice.randrange
        app, stored = protected.app_db[shape.name], protected.stored_db[shape.name]
        while stored.estimated_document_count() < POOL_DOCUMENTS:
            document = source.document(shape)
            document["_id"] = self.dice.randrange(2**30)
            try:
                app.insert_one(document)
            except OperationFailure:
                pass  # one of those that are refused
        through = {document["_id"]: document for document in app.find()}
        pairs = [Document(through[d["_id"]], d) for d in stored.find().sort("_id")]
        stored.delete_many({})
        for pair in pairs:
            self.make_older(shape, pair)
        return pairs

    def make_older(self, shape, document):
        places = zip(fields_of(shape.tree, document.stored), fields_of(shape.tree, document.plain))
        for (field, _, stored, key), (_, _, plain, _) in places:
            value, age = plain[key], self.dice.randrange(3)
            if value is None:
                continue
            if age == 1 and field.accept_plaintext:
                if self.dice.randrange(10) == 0:
                    value = plain[key] = [value, 1]
                stored[key] = value
                document.never_encrypted += 1
            elif age == 2 and field.legacy and type(value) is str:  # not Code
                stored[key] = self.dice.choice(stored_forms(value, field.legacy))
