"""
Nobody sees another's bytes. Many clients at once, each with a marker of its own in every value it
writes, do what could mix up connections: pipelines, exhaust streams, both of them compressed, too,
transactions, cursors killed under a getMore, and leaving in the middle of a reply. Whatever comes
back must carry no other marker.

It ends when every act was done often enough. ISOLATION_SECONDS has it go on for longer,
ISOLATION_CLIENTS sets the number of clients.
"""

import os
import threading
import time
import uuid

import pytest
import wire
from bson.binary import Binary
from bson.int64 import Int64
from harness import people_policy
from wire import RawClient

PING = {"ping": 1, "$db": "admin"}
SECONDS = float(os.environ.get("ISOLATION_SECONDS", "0"))
CLIENTS = int(os.environ.get("ISOLATION_CLIENTS", "64"))
ENOUGH = CLIENTS // 2  # of each act
ENOUGH_WITHIN_S = 60
MARKER = b"<marker-%03d>"


def compress(message: bytes) -> bytes:
    return wire.compressed(message, "zlib")


class Intruder(Exception):
    pass


class Visitor(threading.Thread):
    """A raw client that only ever asks for and writes documents with its own marker."""

    def __init__(self, rekeyd, db_name, number, over):
        super().__init__(daemon=True)
        self.rekeyd, self.db_name, self.number, self.over = rekeyd, db_name, number, over
        self.marker = MARKER % number
        self.failure, self.replies, self.rounds = None, 0, 0
        self.acts = [
            self.pipeline,
            self.exhaust,
            self.leave_exhaust,
            self.commit,
            self.abort,
            self.kill_cursor,
            self.leave_in_mid_reply,
            self.compressed_pipeline,
            self.compressed_exhaust,
        ]
        # Complete from the start: others look while this thread counts.
        self.done = dict.fromkeys((act.__name__ for act in self.acts), 0)

    def run(self):
        try:
            while not self.over.is_set():
                act = self.acts[(self.number + self.rounds) % len(self.acts)]
                name = "people" if (self.number + self.rounds // len(self.acts)) % 2 else "plain"
                with RawClient(self.rekeyd.addresses[0], timeout_s=30) as client:
                    act(client, name)
                self.done[act.__name__] += 1
                self.rounds += 1
        except Exception as failure:
            self.failure = failure

    def find(self, name, **more):
        return {"find": name, "filter": {"owner": self.number}, "$db": self.db_name, **more}

    def get_more(self, name, cursor):
        return {"getMore": cursor, "collection": name, "batchSize": 1, "$db": self.db_name}

    def pipeline(self, client, name):
        for _ in range(3):
            client.send(wire.op_msg(self.find(name)) + wire.op_msg(PING))
            self.look(client.receive())
            self.look(client.receive())

    def stream(self, client, name, pack=bytes):
        """The replies of an exhaust stream as they come."""
        client.send(pack(wire.op_msg(self.find(name, batchSize=1))))
        cursor = self.look(client.receive())["cursor"]["id"]
        client.send(pack(wire.op_msg(self.get_more(name, cursor), flags=wire.EXHAUST_ALLOWED)))
        more = True
        while more:
            reply = client.receive()
            self.look(reply)
            yield reply
            more = reply.plain.flags & wire.MORE_TO_COME

    def exhaust(self, client, name):
        assert len(list(self.stream(client, name))) > 1, "that was no stream"

    def leave_exhaust(self, client, name):
        stream = self.stream(client, name)
        next(stream), next(stream)

    def negotiate(self, client):
        hello = {"hello": 1, "compression": ["zlib"], "$db": "admin"}
        assert self.look(self.call(client, hello))["compression"] == ["zlib"]

    def compressed_pipeline(self, client, name):
        self.negotiate(client)
        for _ in range(3):
            client.send(compress(wire.op_msg(self.find(name))) + wire.op_msg(PING))
            reply = client.receive()
            self.look(reply)
            assert reply.compressor == "zlib"
            self.look(client.receive())

    def compressed_exhaust(self, client, name):
        self.negotiate(client)
        replies = list(self.stream(client, name, pack=compress))
        assert len(replies) > 1 and {reply.compressor for reply in replies} == {"zlib"}

    def transaction(self, client, name, end):
        """Writes a document and reads it back in a transaction; returns the document's id."""
        lsid = {"id": Binary(uuid.uuid4().bytes, 4)}
        within = {"lsid": lsid, "txnNumber": Int64(1), "autocommit": False, "$db": self.db_name}
        text = self.marker.decode() * 20
        document = {"_id": lsid["id"], "ssn": text, "extra": text}
        self.look(self.call(client, {"insert": name, "documents": [document], **within,
                                     "startTransaction": True}))
        found = self.look(self.call(client, {"find": name, "filter": {"_id": lsid["id"]}, **within}))
        assert [d["ssn"] for d in found["cursor"]["firstBatch"]] == [text]
        self.look(self.call(client, {end: 1, **within, "$db": "admin"}))
        return lsid["id"]

    def commit(self, client, name):
        written = self.transaction(client, name, "commitTransaction")
        delete = {"delete": name, "deletes": [{"q": {"_id": written}, "limit": 1}]}
        assert self.look(self.call(client, {**delete, "$db": self.db_name}))["n"] == 1

    def abort(self, client, name):
        written = self.transaction(client, name, "abortTransaction")
        count = {"count": name, "query": {"_id": written}, "$db": self.db_name}
        assert self.look(self.call(client, count))["n"] == 0

    def kill_cursor(self, client, name):
        client.send(wire.op_msg(self.find(name, batchSize=1)))
        cursor = self.look(client.receive())["cursor"]["id"]
        kill = {"killCursors": name, "cursors": [cursor], "$db": self.db_name}
        more = wire.op_msg(self.get_more(name, cursor))
        client.send(more + wire.op_msg(kill) + more + wire.op_msg(self.find(name)))
        assert self.look(client.receive())["ok"] == 1
        assert self.look(client.receive())["cursorsKilled"] == [cursor]
        assert self.look(client.receive(), ok=0)["code"] == 43
        self.look(client.receive())

    def leave_in_mid_reply(self, client, name):
        client.send(wire.op_msg(self.find(name)) * 3)
        self.look_at(client.socket.recv(30_000))

    def call(self, client, document):
        client.send(wire.op_msg(document))
        return client.receive()

    def look(self, reply, ok=1) -> dict:
        assert reply is not None, "closed instead of answering"
        self.look_at(reply.plain.raw)
        self.replies += 1
        document = reply.plain.document
        assert document["ok"] == ok, document
        return document

    def look_at(self, data: bytes):
        for part in data.split(b"<marker-")[1:]:
            if len(part) >= 4 and part[:4] != self.marker[8:]:
                raise Intruder(f"client {self.number} saw {part[:4]!r}")


def done_by(visitors) -> dict:
    """How often each act was."""
    return {act: sum(visitor.done[act] for visitor in visitors) for act in visitors[0].done}


@pytest.mark.timeout(SECONDS + ENOUGH_WITHIN_S + 90)
def test_nobody_sees_anothers_bytes(single_member_set, start_rekeyd, db_name):
    rekeyd = start_rekeyd(single_member_set, [people_policy(db_name)])
    with rekeyd.client() as app:
        for name in ("people", "plain"):
            app[db_name][name].create_index("owner")
            for owner in range(CLIENTS):
                text = (MARKER % owner).decode() * (200 + 150 * (owner % 16))
                documents = [{"owner": owner, "ssn": text, "extra": text} for _ in range(6)]
                app[db_name][name].insert_many(documents)
    over = threading.Event()
    visitors = [Visitor(rekeyd, db_name, i, over) for i in range(CLIENTS)]
    began = time.monotonic()
    for visitor in visitors:
        visitor.start()
    while (lasted := time.monotonic() - began) < SECONDS or min(done_by(visitors).values()) < ENOUGH:
        if lasted > SECONDS + ENOUGH_WITHIN_S or any(visitor.failure for visitor in visitors):
            break
        time.sleep(0.1)
    over.set()
    for visitor in visitors:
        visitor.join()
    failures = [repr(visitor.failure) for visitor in visitors if visitor.failure]
    assert not failures, failures[:5]
    done = done_by(visitors)
    assert min(done.values()) >= ENOUGH, done
    print("replies:", sum(visitor.replies for visitor in visitors), done)
