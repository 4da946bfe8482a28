"""Servers and what stands in front of them: one replica set and its rekeyds."""

import json
import sys
from dataclasses import dataclass
from pathlib import Path

from bson import json_util

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "integration"))
from harness import Certificates, Rekeyd, ReplicaSet, is_envelope, policy, values_at  # noqa: E402
from pymongo import WriteConcern  # noqa: E402

DB = "compat"
MEMBERS = 2
CACHE_GB = 1  # with little, mongod refuses documents of 15 MB (388, TransactionTooLargeForCache) under load
EMAIL = {"algorithm": "deterministic", "name": "customer-email"}
BADGE = {"algorithm": "deterministic", "name": "badge", "type": "string"}  # can be grouped and joined by
FIELDS = {
    "people": {
        "ssn": "random",
        "address.street": "random",
        "notes": "random",
        "email": EMAIL,
        "contacts.phone": "deterministic",
        "badge": BADGE,
    },
    "orders": {"customer_email": EMAIL, "badge": BADGE},
}
POLICIES = [policy(f"{DB}.{name}", fields) for name, fields in FIELDS.items()]

ORDINARY = {"name": {"$not": {"$regex": "^system[.]"}}}
COLLECTIONS = [*FIELDS, "plain"]  # these are always there

TARGETS = ["direct", "proxy", "policy"]
TOPOLOGIES = {"mirror": None, "single": ["primary"]}  # reads of the listeners: see Rekeyd


@dataclass(frozen=True)
class Variant:
    kind: str  # of servers
    topology: str = "mirror"


VARIANTS = {
    "plain": Variant("plain"),
    "compression": Variant("plain"),
    "single": Variant("plain", "single"),
    "tls": Variant("tls"),
    "auth": Variant("auth"),
}


AT_ONCE = WriteConcern(w=1)


class Fleet:
    """A replica set with TLS, with authentication or with neither, and a rekeyd for each target."""

    def __init__(self, kind: str, directory: Path):
        self.kind = kind
        certificates = Certificates(directory / "certificates") if kind == "tls" else None
        self.servers = ReplicaSet(
            MEMBERS, directory / "servers", auth=kind == "auth", certificates=certificates,
            args=["--setParameter", "enableTestCommands=1"], cache_gb=CACHE_GB,
        )
        self.direct = None
        self.rekeyds, self.clients = {}, {}  # by topology and target
        try:
            self.servers.start()
            self.servers.keep_primary()
            for topology in {v.topology for v in VARIANTS.values() if v.kind == kind}:
                for target, policies in (("proxy", []), ("policy", POLICIES)):
                    name = f"{topology}-{target}"
                    self.rekeyds[topology, target] = Rekeyd(
                        self.servers, policies, directory=directory / name, name=name,
                        listener_certificates=certificates, single=TOPOLOGIES[topology],
                    ).start()
            self.direct = self.servers.client()
            self.clients = {place: rekeyd.client() for place, rekeyd in self.rekeyds.items()}
        except BaseException:
            self.close()
            raise

    def _upstream(self, target, topology):
        return self.rekeyds.get((topology, target), self.servers)

    def _client(self, target, topology):
        return self.clients.get((topology, target), self.direct)

    def uri(self, target: str, topology: str, options: dict) -> str:
        addresses = self._upstream(target, topology).addresses
        options = {"appName": DB, "serverSelectionTimeoutMS": "30000", **options}
        return self.servers.uri_for(addresses, self.servers.certificates, **options)

    def hosts(self, target: str, topology: str) -> dict:
        """Addresses as clients of this target see them, to a member's name."""
        addresses = self._upstream(target, topology).addresses
        return {address: f"<member {i}>" for i, address in enumerate(addresses)}

    def compresses(self, target: str, compressor: str) -> bool:
        """Whether a client of this target would be told to use the compressor."""
        reply = self._client(target, "mirror").admin.command("hello", compression=[compressor])
        return reply.get("compression") == [compressor]

    def set_up(self, scenario, target: str, topology: str):
        """Every scenario starts with the same empty collections, on all members, and its own."""
        self.clean()
        for name, options in scenario.options.items():
            self.direct[DB].drop_collection(name)
            command = {"create": name, **documents(options), "writeConcern": {"w": 1}}
            self._client(target, topology)[DB].command(command)
        for name, given in scenario.given.items():
            if given:
                db = self._client(target, topology).get_database(DB, write_concern=AT_ONCE)
                db[name].insert_many(documents(given))
        # Once this is on all members, everything before it is.
        note = {"appendOplogNote": 1, "data": {"compat": scenario.id}, "writeConcern": {"w": MEMBERS}}
        self.direct.admin.command(note)

    def clean(self):
        """Emptying a collection is many times quicker than dropping it."""
        db = self.direct.get_database(DB, write_concern=AT_ONCE)
        kept = set()
        for info in db.list_collections(filter=ORDINARY):
            collection = db[info["name"]]
            usual = not info["options"] and len(list(collection.list_indexes())) == 1
            if info["name"] in COLLECTIONS and usual:
                collection.delete_many({})
                kept.add(info["name"])
            else:
                collection.drop()
        for name in COLLECTIONS:
            if name not in kept:
                db.create_collection(name)

    def clear_fail_points(self):
        for member in self.servers.members:
            with self.servers._direct(member) as client:
                client.admin.command("configureFailPoint", "failCommand", mode="off")

    def plaintext(self) -> list:
        """Protected values that lie on the server in the clear: there must be none."""
        found = []
        for name, fields in FIELDS.items():
            for document in self.direct[DB][name].find():
                for path in fields:
                    values = values_at(document, path)
                    clear = [v for v in values if v is not None and not is_envelope(v)]
                    found += [f"{name}.{path}"] * bool(clear)
        return sorted(set(found))

    def close(self):
        for client in [*self.clients.values(), *filter(None, [self.direct])]:
            client.close()
        failures = []
        for rekeyd in self.rekeyds.values():
            try:
                rekeyd.finish()
            except Exception as failure:  # all of them are ended before the first one is told
                failures.append(failure)
        self.servers.close()
        if failures:
            raise failures[0]


def documents(extended: object):
    """Canonical Extended JSON, parsed, as what PyMongo takes."""
    return json_util.loads(json.dumps(extended), json_options=json_util.CANONICAL_JSON_OPTIONS)
