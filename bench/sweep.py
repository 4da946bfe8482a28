"""How fast a sweep is, beside the fastest that could be hoped for.

One collection after the other is filled with documents of about 400 bytes whose `answer` is a
legacy AES-256-CBC value, as an application would have written it. In turns
  raw    bench_bulk_update sets that field to binaries of the envelope's size, by _id, unordered,
         majority write concern, two threads: the same bytes written, nothing read, no
         decryption, no encryption, no comparison;
  sweep  a real rekeyd sweeps the collection to the current key. Its time runs from the start of
         the job to the end of the last range, both by mongod's clock.
Every run has documents that nobody wrote to before. The result is the median of each kind, and
the median of the ratios of neighbours. Prints a table, then one JSON line.
"""

import argparse
import json
import os
import secrets
import statistics
import subprocess
import sys
import time
from pathlib import Path

from bson import ObjectId
from bson.raw_bson import RawBSONDocument
from cryptography.hazmat.primitives import padding
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from pymongo import WriteConcern

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "integration"))

from harness import Rekeyd, ReplicaSet, policy, rekey_binary  # noqa: E402

DB = "bench"
CHUNK = 5000
GOAL_DOCS_PER_S = 29_761  # 18 billion records in a week
GOAL_RATIO = 0.6
LEGACY = {"cipher": "aes-256-cbc", "encoding": "binary", "key": "old", "type": "string"}
ENVELOPE_OVERHEAD = 20 + 24 + 16  # header, nonce, tag


def main():
    args = arguments()
    key = secrets.token_bytes(32)
    with ReplicaSet(1, cache_gb=args.cache_gb) as servers:
        fields = {"answer": {"algorithm": "random", "legacy": [LEGACY]}}
        settings = {"sweep": {"threads": args.threads, "batch_docs": args.batch}}
        policies = [policy(f"{DB}.*", fields)]
        with Rekeyd(servers, policies, settings, legacy_keys={"old": key}) as rekeyd:
            raw, sweep = [], []
            for number in range(args.rounds):
                with servers.client() as client:
                    fill(client, f"raw{number}", args.docs, key)
                    raw.append(run_raw(client, servers, f"raw{number}", args))
                    show(f"round {number + 1}  raw", raw[-1])
                    fill(client, f"sweep{number}", args.docs, key)
                    sweep.append(run_sweep(client, rekeyd, f"sweep{number}", args.docs))
                    show(f"round {number + 1}  sweep", sweep[-1])
    report(raw, sweep, args)


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--docs", type=int, default=200_000, help="in each run")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2, help="of the sweep")
    parser.add_argument("--batch", type=int, default=1000, help="documents in a bulk update")
    parser.add_argument("--cache-gb", type=float, default=1)
    return parser.parse_args()


def encrypt(key: bytes, text: bytes) -> bytes:
    iv = os.urandom(16)
    padder = padding.PKCS7(128).padder()
    padded = padder.update(text) + padder.finalize()
    encryptor = Cipher(algorithms.AES(key), modes.CBC(iv)).encryptor()
    return iv + encryptor.update(padded) + encryptor.finalize()


def answer(i: int) -> bytes:
    return b"the answer of respondent %9d" % i


def fill(client, name, docs, key):
    coll = client[DB].get_collection(name, write_concern=WriteConcern(1))
    size = 0
    for start in range(0, docs, CHUNK):
        batch = [
            {
                "_id": ObjectId(),
                "instanceId": i,
                "questionId": i % 50,
                "locale": "en_GB",
                "answer": encrypt(key, answer(i)),
                "comment": "c" * 220,
            }
            for i in range(start, min(start + CHUNK, docs))
        ]
        coll.insert_many(batch, ordered=False)
    size = len(coll.with_options(codec_options=raw_options()).find_one().raw)
    assert 350 <= size <= 450, size
    settle(client)


def raw_options():
    from bson.codec_options import CodecOptions

    return CodecOptions(document_class=RawBSONDocument)


def settle(client):
    """What was loaded is on disk and majority-committed before the clock starts."""
    client.admin.command("fsync")
    time.sleep(1)


def run_raw(client, servers, name, args) -> float:
    value_bytes = ENVELOPE_OVERHEAD + 4 + len(answer(0)) + 1  # a BSON string's length and NUL
    words = [servers.uri, DB, name, "answer", value_bytes, 2, args.batch]
    argv = [rekey_binary("bench_bulk_update"), *map(str, words)]
    result = subprocess.run(argv, capture_output=True, text=True, check=True)
    counted = json.loads(result.stdout)
    assert counted["docs"] == args.docs
    assert client[DB][name].count_documents({"answer": {"$type": "binData"}}) == args.docs
    return counted["updates_per_s"]


def run_sweep(client, rekeyd, name, docs) -> float:
    rekeyd.ctl("start", f"{DB}.{name}", "--wait")
    state = client[rekeyd.config["upstream"]["state_db"]]
    job = state.jobs.find_one({"ns": f"{DB}.{name}"})
    ranges = list(state.jobStatus.find({"jobId": job["_id"]}))
    assert sum(r["swept"] for r in ranges) == docs, ranges
    rekeyd.ctl("verify", f"{DB}.{name}")
    seconds = max(r["finishedAt"] for r in ranges) - job["startedAt"]
    return docs / seconds.total_seconds()


def show(what, rate):
    print(f"{what:<16}{rate:10,.0f} docs/s", flush=True)


def report(raw, sweep, args):
    result = {
        "bench": "sweep",
        "docs": args.docs,
        "rounds": args.rounds,
        "threads": args.threads,
        "batch_docs": args.batch,
        "cores": os.cpu_count(),
        "raw_updates_per_s": round(statistics.median(raw)),
        "sweep_docs_per_s": round(statistics.median(sweep)),
        "ratio": round(statistics.median(s / r for r, s in zip(raw, sweep)), 3),
    }
    result["ok"] = result["sweep_docs_per_s"] >= GOAL_DOCS_PER_S and result["ratio"] >= GOAL_RATIO
    print(json.dumps(result))


if __name__ == "__main__":
    main()
