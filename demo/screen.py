"""How the demo shows itself: plain lines in a file or pipe, colour and moving bars on a terminal."""

import shutil
import struct
import sys
import time

from bson import Binary

TTY = sys.stdout.isatty()
BAR_WIDTH = 32
ENVELOPE_SUBTYPE = 0x8E
ENVELOPE_MAGIC = b"RK\xe1\x1e"
ALGORITHMS = {1: "XAES-256-GCM", 2: "AES-256-SIV"}


def colour(code: str, text: str) -> str:
    return f"\x1b[{code}m{text}\x1b[0m" if TTY else text


def bold(text):
    return colour("1", text)


def dim(text):
    return colour("2", text)


def say(text=""):
    print(text, flush=True)


class Steps:
    def __init__(self, total):
        self.total = total
        self.number = 0
        self.started = time.monotonic()

    def next(self, title):
        self.number += 1
        elapsed = time.monotonic() - self.started
        say(f"\n{bold(f'{self.number}/{self.total}  {title}')}  {dim(f'[{elapsed:.0f} s]')}")


class Bar:
    """with Bar("reading back", 200000) as bar: bar.add(1000)"""

    def __init__(self, label, total):
        self.label = label
        self.total = max(total, 1)
        self.done = 0
        self.started = time.monotonic()
        self.drawn = 0.0

    def add(self, n):
        self.done += n
        if TTY and time.monotonic() - self.drawn > 0.1:
            self.draw()

    def rate(self) -> float:
        return self.done / max(time.monotonic() - self.started, 1e-6)

    def draw(self):
        self.drawn = time.monotonic()
        share = min(self.done / self.total, 1)
        filled = "#" * round(share * BAR_WIDTH)
        line = f"    {self.label}  [{filled:.<{BAR_WIDTH}}] {share:4.0%}  {self.rate():,.0f}/s"
        width = shutil.get_terminal_size().columns - 1
        print(f"\r{line[:width]:<{width}}", end="", flush=True)

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        if TTY:
            self.draw()
            say()
        elif kind is None:
            say(f"    {self.label}: {self.done:,} at {self.rate():,.0f}/s")


def record(title, document):
    say(f"    {bold(title)}")
    for path, value in flatten(document):
        if path in ("_id", "answer", "respondent.email"):
            say(f"      {path:<17} {describe(value)}")


def flatten(document, prefix=""):
    for key, value in document.items():
        if isinstance(value, dict):
            yield from flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def describe(value) -> str:
    if not isinstance(value, bytes):
        return colour("32", repr(value))
    tail = f"{value[-8:].hex(' ')} {dim(f'({len(value)} bytes)')}"
    key_id = envelope_key(value)
    if key_id is None:
        return f"{colour('31', 'legacy AES-256-CBC')}  ... {tail}"
    algorithm = ALGORITHMS.get(value[5], f"algorithm {value[5]}")
    when = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(struct.unpack_from("<I", value, 16)[0]))
    return f"{colour('33', f'key {key_id}')}  {algorithm}  {when}  ... {tail}"


def envelope_key(value):
    """The key id in an envelope's header, or None: the header can be read without any key."""
    if isinstance(value, Binary) and value.subtype == ENVELOPE_SUBTYPE:
        if value.startswith(ENVELOPE_MAGIC):
            return struct.unpack_from(">I", value, 8)[0]
    return None
