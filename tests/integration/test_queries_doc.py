"""The table of refusals in docs/queries.md is what a rekeyd does."""

import json
import re
import secrets
from pathlib import Path

import pytest
from bson import SON
from harness import policy, protected
from pymongo.errors import OperationFailure

TABLE = Path(__file__).resolve().parents[2] / "docs" / "queries.md"
LINE = re.compile(r"^\| `(\{.*?\})` \| (\d+) \| (.+) \|$", re.MULTILINE)
ROWS = [(text, int(code)) for text, code, _ in LINE.findall(TABLE.read_text())]


def test_the_table_is_read():
    assert len(ROWS) > 30
    assert TABLE.read_text().count('\n| `{"') == len(ROWS)


@pytest.fixture
def documented(single_member_set, start_rekeyd):
    db_name = f"t{secrets.token_hex(5)}"
    fields = {"ssn": "deterministic", "answer": "random", "contact.phone": "random"}
    rekeyd = start_rekeyd(single_member_set, [policy(f"{db_name}.c", fields)])
    with protected(rekeyd, db_name, name="c", fields=fields) as collection:
        yield collection


def test_every_line(documented):
    for text, code in ROWS:
        text = text.replace('"db.c"', f'"{documented.namespace}"')
        command = json.loads(text, object_pairs_hook=SON)
        with pytest.raises(OperationFailure) as refused:
            documented.app_db.command(command)
        said = refused.value.details["errmsg"]
        assert refused.value.code == code, (text, said)
        assert f"{documented.app_db.name}." in said, said
        assert documented.stored_db.list_collection_names() == [], text
