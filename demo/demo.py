"""./dev demo: a replica set with survey responses under an old key, an application at work, and
Rekey moving every record to a new key underneath it.

Everything that is printed is measured in this run. The last line says whether it held.
"""

import argparse
import json
import multiprocessing
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import corpus
import screen
from harness import Process, Rekeyd, ReplicaSet, Vault, admin_settings, rekey_binary
from pymongo import MongoClient
from screen import Bar, bold, dim, say

HERE = Path(__file__).resolve().parent
CHUNK = 5000
WARM_UP_S = 2


class Failure(Exception):
    """What was promised did not hold."""


def main():
    options = parse_arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("terminated"))
    signal.signal(signal.SIGINT, signal.default_int_handler)  # even where a shell ignores it
    directory = Path(tempfile.mkdtemp(prefix="rekey-demo-"))
    demo = Demo(options, directory)
    reason = None
    try:
        demo.run()
    except KeyboardInterrupt:
        reason = "interrupted"
    except Exception as error:
        reason = str(error) or type(error).__name__
    except SystemExit as error:
        reason = str(error)
    finally:
        if reason and demo.rekeyd:
            say(dim(demo.rekeyd.log_tail()))
        demo.close()
        shutil.rmtree(directory, ignore_errors=True)
    say()
    say(f"demo: failed {reason}" if reason else demo.verdict())
    return 1 if reason else 0


def parse_arguments():
    parser = argparse.ArgumentParser(prog="./dev demo", description=__doc__)
    parser.add_argument("--docs", type=int, default=200_000, help="survey responses")
    parser.add_argument("--rate", type=int, default=150, help="the application's operations/s")
    parser.add_argument("--vault", action="store_true", help="keys from a real Vault server")
    parser.add_argument("--baseline", type=float, default=10, help="seconds without a sweep")
    return parser.parse_args()


class Demo:
    def __init__(self, options, directory):
        self.docs = options.docs
        self.legacy_docs = options.docs // 4
        self.rate = options.rate
        self.baseline_s = options.baseline
        self.directory = directory
        self.legacy_key = secrets.token_bytes(32)
        self.with_vault = options.vault
        self.steps = screen.Steps(7)
        self.servers = None
        self.rekeyd = None
        self.app = None
        self.report = None
        self.total = 0
        self.swept = 0
        self.sweep_s = 0.0
        self.old_key_left = 0
        self.mismatches = 0

    def run(self):
        self.start_servers()
        self.write_responses()
        self.show_record("Before")
        self.start_application()
        self.sweep()
        self.verify()
        self.read_back()
        self.rekeyd.terminate()

    def verdict(self) -> str:
        rate = self.swept / self.sweep_s
        return (
            f"demo: ok docs={self.total} swept={self.swept} rate={rate:.0f}/s "
            f"old_key_left={self.old_key_left} plaintext_mismatches={self.mismatches}"
        )

    def close(self):
        if self.app and self.app.poll() is None:
            self.app.kill()
            self.app.wait()
        for process in list(Process.everyone):
            process.close()

    # The steps.

    def start_servers(self):
        self.steps.next("A MongoDB replica set, and rekeyd in front of it")
        self.servers = ReplicaSet(3, self.directory / "servers", cache_gb=0.5).start()
        say(f"    mongod   {'  '.join(self.servers.addresses)}")
        # The guard still yields to the application, but a visitor does not wait for ever.
        settings = {"upstream": {"state_db": "rekey"}, "sweep": {"guard": {"rate_min": 2500}}}
        settings.update(admin_settings())
        legacy_keys = {corpus.LEGACY_KEY_NAME: self.legacy_key}
        if self.with_vault:
            settings.update(self.start_vault())
            legacy_keys = {}
        directory = self.directory / "rekeyd"
        self.rekeyd = Rekeyd(self.servers, [policy()], settings, directory, legacy_keys).start()
        say(f"    rekeyd   {'  '.join(self.rekeyd.addresses)}")
        for line in policy_lines():
            say(dim(f"    {line}"))

    def start_vault(self) -> dict:
        """rekey.yaml's part; the application's former key lies in Vault's kv store."""
        vault = Vault(self.directory / "vault").start()
        path = vault.keep("former-key", key=self.legacy_key.hex())
        say(f"    vault    {vault.address}")
        legacy = [{"name": corpus.LEGACY_KEY_NAME, "path": path}]
        return vault.settings(self.directory / "secrets", legacy=legacy)

    def write_responses(self):
        self.steps.next(f"{self.docs:,} survey responses under the old keys")
        say(f"    {self.legacy_docs:,} as the application encrypted them before it had Rekey")
        say(f"    {self.docs - self.legacy_docs:,} through rekeyd, under data key 1")
        chunks = [(n, min(n + CHUNK, self.docs)) for n in range(0, self.docs, CHUNK)]
        common = (self.servers.uri, self.rekeyd.uri, self.legacy_docs, self.legacy_key)
        with Bar("writing", self.docs) as bar, multiprocessing.Pool(2, connect, common) as pool:
            for written in pool.imap_unordered(write_chunk, chunks):
                bar.add(written)

    def show_record(self, when):
        """One response of either kind, as it lies on disk and as the application gets it."""
        with self.servers.client() as direct, self.rekeyd.client() as through:
            for i in (0, self.docs - 1):
                key = {"_id": corpus.identifier(i)}
                screen.record(f"{when}, as mongod has it", responses(direct).find_one(key))
                screen.record("as the application sees it", responses(through).find_one(key))

    def start_application(self):
        self.steps.next("An unmodified PyMongo application goes to work")
        self.report = self.directory / "report.json"
        argv = [sys.executable, HERE / "app.py", self.rekeyd.uri, self.docs, self.rate, self.report]
        self.app = subprocess.Popen([str(word) for word in argv])
        say(f"    {self.rate} finds, updates and inserts a second, every answer checked")
        self.baseline = self.watch(self.baseline_s)

    def watch(self, seconds):
        started = time.monotonic() + WARM_UP_S
        time.sleep(WARM_UP_S + seconds)
        return started, time.monotonic()

    def sweep(self):
        self.steps.next("Rotate the key and sweep, while the application works")
        self.rekeyctl("keys", "rotate")
        self.rekeyctl("keys", "list")
        started = time.monotonic()
        self.rekeyctl("start", corpus.NAMESPACE, "--wait")
        self.swept_between = started, time.monotonic()
        self.sweep_s = time.monotonic() - started
        self.stop_application()

    def stop_application(self):
        if self.app.poll() is not None:
            raise Failure(f"the application ended with {self.app.returncode}")
        self.app.terminate()
        self.app.wait(30)
        self.report = json.loads(self.report.read_text())
        for error in self.report["errors"]:
            raise Failure(f"the application met an error: {error}")
        self.mismatches += self.report["mismatches"]
        self.total = self.docs + self.report["inserted"]
        self.show_latencies()

    def show_latencies(self):
        say(f"    the application meanwhile: {len(self.report['samples']):,} operations")
        for label, span in ("no sweep", self.baseline), ("sweeping", self.swept_between):
            times = sorted(s for at, _, s in self.report["samples"] if span[0] <= at < span[1])
            if not times:
                raise Failure(f"the application did nothing ({label})")
            p50, p99 = (1000 * times[int(q * (len(times) - 1))] for q in (0.5, 0.99))
            row = f"{label}  {len(times):6,} operations  p50 {p50:5.1f} ms  p99 {p99:5.1f} ms"
            say(f"      {bold(row)}")

    def verify(self):
        self.steps.next("Is anything left under an old key?")
        self.rekeyctl("verify", corpus.NAMESPACE)
        with self.servers.client() as direct:
            keys = direct.rekey["keys"].find({"state": "current"})
            current = max(key["_id"] for key in keys)
            found = self.count_keys(direct)
            status = direct.rekey.jobStatus.aggregate(
                [{"$group": {"_id": None, "swept": {"$sum": "$swept"}}}]
            )
            in_ranges = next(status)["swept"]
        read_first = int(self.rekeyd.admin.value("rekey_sweep_hot_reencrypted_total"))
        say(f"      moved {in_ranges:,} range by range, {read_first:,} when the application read them")
        self.swept = in_ranges + read_first
        for key_id, values in sorted(found.items(), key=str):
            say(f"      {'legacy' if key_id is None else f'key {key_id}':<8} {values:9,} values")
        self.old_key_left = sum(n for key_id, n in found.items() if key_id != current)
        if self.old_key_left:
            raise Failure(f"{self.old_key_left} values are not under key {current}")
        if self.swept < self.docs:
            raise Failure(f"only {self.swept} of {self.docs} documents were swept")

    def count_keys(self, direct) -> dict:
        """Without Rekey: the key ids in the headers of what really lies in mongod."""
        found = {}
        fields = {"answer": 1, "respondent.email": 1}
        with Bar("counting by key, straight from mongod", self.total) as bar:
            for document in responses(direct).find({}, fields, batch_size=CHUNK):
                for value in document["answer"], document["respondent"]["email"]:
                    key_id = screen.envelope_key(value)
                    found[key_id] = found.get(key_id, 0) + 1
                bar.add(1)
        return found

    def read_back(self):
        self.steps.next("Does every response still say what it said?")
        changed = {int(i): answer for i, answer in self.report["changed"].items()}
        seen = 0
        with self.rekeyd.client() as through, Bar("reading through rekeyd", self.total) as bar:
            for document in responses(through).find(batch_size=CHUNK):
                i = int.from_bytes(document["_id"].binary[4:], "big")
                expected = corpus.response(i)
                expected["answer"] = changed.get(i, expected["answer"])
                expected["date"] = expected["date"].replace(tzinfo=None)
                self.mismatches += document != expected
                seen += 1
                bar.add(1)
        if seen != self.total:
            raise Failure(f"{seen} documents instead of {self.total}")
        if self.mismatches:
            raise Failure(f"plaintext_mismatches={self.mismatches}")
        self.steps.next("The same records again")
        self.show_record("After")

    def rekeyctl(self, *words):
        say(f"    {bold('$ rekeyctl ' + ' '.join(words))}")
        argv = [rekey_binary("rekeyctl"), "-c", str(self.rekeyd.config_path), *words]
        status = subprocess.run(argv, timeout=150).returncode
        if status:
            raise Failure(f"rekeyctl {' '.join(words)} exited with {status}")


def policy() -> dict:
    legacy = {
        "cipher": "aes-256-cbc",
        "encoding": "binary",
        "version_hex": corpus.LEGACY_VERSION.hex(),
        "key": corpus.LEGACY_KEY_NAME,
        "type": "string",
    }
    fields = [("answer", "random"), ("respondent.email", "deterministic")]
    return {
        "namespace": corpus.NAMESPACE,
        "fields": [{"path": p, "algorithm": a, "legacy": [legacy]} for p, a in fields],
    }


def policy_lines():
    yield "rekey.yaml:"
    yield f"  - namespace: {policy()['namespace']}"
    for field in policy()["fields"]:
        yield f"    - {field['path']}: {field['algorithm']}, reads aes-256-cbc from before"


def responses(client):
    return client[corpus.DATABASE][corpus.COLLECTION]


# In the writing processes.

writer = {}


def connect(direct_uri, rekeyd_uri, legacy_docs, legacy_key):
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    writer["direct"] = responses(MongoClient(direct_uri))
    writer["through"] = responses(MongoClient(rekeyd_uri))
    writer["legacy_docs"] = legacy_docs
    writer["legacy_key"] = legacy_key


def write_chunk(span) -> int:
    old = [corpus.legacy_response(i, writer["legacy_key"]) for i in range(*span) if is_legacy(i)]
    new = [corpus.response(i) for i in range(*span) if not is_legacy(i)]
    if old:
        writer["direct"].insert_many(old, ordered=False)
    if new:
        writer["through"].insert_many(new, ordered=False)
    return len(old) + len(new)


def is_legacy(i) -> bool:
    return i < writer["legacy_docs"]


if __name__ == "__main__":
    sys.exit(main())
