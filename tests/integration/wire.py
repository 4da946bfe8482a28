"""MongoDB wire messages as bytes, well-formed and broken ones, and a client that sends them."""

import itertools
import socket
import struct
import zlib
from dataclasses import dataclass

import bson
import snappy
from backports import zstd
from bson.raw_bson import RawBSONDocument

HEADER = struct.Struct("<iiii")
OP_REPLY, OP_UPDATE, OP_INSERT, OP_QUERY, OP_GET_MORE = 1, 2001, 2002, 2004, 2005
OP_DELETE, OP_KILL_CURSORS, OP_COMPRESSED, OP_MSG = 2006, 2007, 2012, 2013
CHECKSUM_PRESENT, MORE_TO_COME, EXHAUST_ALLOWED = 1, 2, 1 << 16
MESSAGE_BYTES_MAX = 48_000_000
INT32_MAX = 2**31 - 1

# By name: id, and both ways.
COMPRESSORS = {
    "snappy": (1, snappy.compress, snappy.decompress),
    "zlib": (2, zlib.compress, zlib.decompress),
    "zstd": (3, zstd.compress, zstd.decompress),
}
COMPRESSED_HEAD = struct.Struct("<iiB")

_request_ids = itertools.count(1000)


@dataclass(frozen=True)
class Message:
    raw: bytes
    request_id: int
    response_to: int
    opcode: int

    @property
    def payload(self) -> bytes:
        return self.raw[HEADER.size :]

    @property
    def compressor(self):
        """The name of its compressor, or None when it is not compressed."""
        if self.opcode != OP_COMPRESSED:
            return None
        used = self.payload[8]
        return next(name for name, (id_, _, _) in COMPRESSORS.items() if id_ == used)

    @property
    def plain(self) -> "Message":
        """What is inside a compressed message; any other as it is."""
        if self.opcode != OP_COMPRESSED:
            return self
        opcode, size, _ = COMPRESSED_HEAD.unpack_from(self.payload)
        content = COMPRESSORS[self.compressor][2](self.payload[COMPRESSED_HEAD.size :])
        if len(content) != size:
            raise ValueError(f"{size} bytes declared, {len(content)} there")
        raw = frame(content, opcode, self.request_id, self.response_to)
        return Message(raw, self.request_id, self.response_to, opcode)

    @property
    def flags(self) -> int:
        return struct.unpack_from("<I", self.payload)[0]

    @property
    def document(self) -> dict:
        """The body of an OP_MSG without sequences, or the first document of an OP_REPLY."""
        return bson.decode(self.payload[5:] if self.opcode == OP_MSG else self.payload[20:])

    @property
    def body(self) -> RawBSONDocument:
        """The body of an OP_MSG whose body section comes first."""
        (length,) = struct.unpack_from("<i", self.payload, 5)
        return RawBSONDocument(self.payload[5 : 5 + length])

    @property
    def command(self) -> dict:
        """The body of an OP_MSG with its sequences as the arrays that they stand for."""
        command, sequences, at = {}, {}, 4
        while at < len(self.payload):
            kind, (length,) = self.payload[at], struct.unpack_from("<i", self.payload, at + 1)
            section = self.payload[at + 1 : at + 1 + length]
            if kind == 0:
                command = bson.decode(section)
            else:
                name, _, documents = section[4:].partition(b"\0")
                sequences[name.decode()] = bson.decode_all(documents)
            at += 1 + length
        return command | sequences


def encoded(document) -> bytes:
    return document if isinstance(document, bytes) else bson.encode(document)


def frame(payload: bytes, opcode=OP_MSG, request_id=None, response_to=0, length=None) -> bytes:
    """length: what the header claims, where that is not the truth."""
    if request_id is None:
        request_id = next(_request_ids)
    claimed = HEADER.size + len(payload) if length is None else length
    return HEADER.pack(claimed, request_id, response_to, opcode) + payload


def body_section(document) -> bytes:
    return b"\0" + encoded(document)


def sequence_section(identifier: str, documents, size=None) -> bytes:
    content = identifier.encode() + b"\0" + b"".join(map(encoded, documents))
    return b"\1" + struct.pack("<i", 4 + len(content) if size is None else size) + content


def op_msg(*sections, flags=0, **header) -> bytes:
    """Sections are bytes; a dict is a body."""
    joined = b"".join(s if isinstance(s, bytes) else body_section(s) for s in sections)
    return frame(struct.pack("<I", flags) + joined, OP_MSG, **header)


def compressed(message: bytes, compressor: str, content=None, **head) -> bytes:
    """A message as OP_COMPRESSED. content, head (opcode, size, id, length): what it claims instead
    of the truth."""
    _, request_id, response_to, opcode = HEADER.unpack_from(message)
    payload = message[HEADER.size :]
    id_, pack, _ = COMPRESSORS[compressor]
    claims = {"opcode": opcode, "size": len(payload), "id": id_, "length": None, **head}
    compression = COMPRESSED_HEAD.pack(claims["opcode"], claims["size"], claims["id"])
    content = pack(payload) if content is None else content
    return frame(compression + content, OP_COMPRESSED, request_id, response_to, claims["length"])


def op_query(namespace: str, query, flags=0, **header) -> bytes:
    head = struct.pack("<i", flags) + namespace.encode() + b"\0" + struct.pack("<ii", 0, -1)
    return frame(head + encoded(query), OP_QUERY, **header)


def op_reply(document, **header) -> bytes:
    return frame(struct.pack("<iqii", 0, 0, 0, 1) + encoded(document), OP_REPLY, **header)


def nested(depth: int, innermost: bytes) -> bytes:
    """{a: {a: ... innermost}}, depth documents around it."""
    document = innermost
    for _ in range(depth):
        document = element(0x03, "a", document)
        document = struct.pack("<i", len(document) + 5) + document + b"\0"
    return document


def element(kind: int, key: str, value: bytes) -> bytes:
    return bytes([kind]) + key.encode() + b"\0" + value


def string(key: str, value: str) -> bytes:
    content = value.encode() + b"\0"
    return element(0x02, key, struct.pack("<i", len(content)) + content)


def raw_document(*elements: bytes, length=None, end=b"\0") -> bytes:
    content = b"".join(elements) + end
    return struct.pack("<i", 4 + len(content) if length is None else length) + content


def broken_documents(*good: bytes) -> dict:
    """Documents that are not BSON, each beginning with the good elements. By what is wrong."""

    def after(*bad, **options):
        return raw_document(*good, *bad, **options)

    def text(length, content=b"text\0"):
        return element(0x02, "x", struct.pack("<i", length) + content)

    def binary(length):
        return element(0x05, "x", struct.pack("<i", length) + b"\0" + b"bytes")

    def sub(length):
        return element(0x03, "x", struct.pack("<i", length) + b"\0")

    length = len(after())
    return {
        "unknown type": after(element(0x42, "x", b"\0" * 8)),
        "type without value": after(b"\x02"),
        "key without end": after(b"\x10key", end=b""),
        "string longer than the document": after(text(1000)),
        "string of length 0": after(text(0)),
        "string of negative length": after(text(-1)),
        "string of length INT32_MAX": after(text(INT32_MAX)),
        "string without end": after(text(5, b"texts")),
        "binary longer than the document": after(binary(1000)),
        "binary of negative length": after(binary(-1)),
        "binary of length INT32_MAX": after(binary(INT32_MAX)),
        "document longer than its parent": after(sub(1000)),
        "document of length 4": after(sub(4)),
        "document of negative length": after(sub(-5)),
        "number cut short": after(b"\x12x\0\1\2\3"),
        "code with scope of a lying length": after(
            element(0x0F, "x", struct.pack("<ii", 14, 500) + b"\0" * 6)
        ),
        "regex without end": after(element(0x0B, "x", b"abc"), end=b"\1"),
        "no end": after(end=b"\1"),
        "length too long": after(length=length + 100),
        "length too short": after(length=length - 3),
        "length 4": after(length=4),
        "length negative": after(length=-length),
    }


def receive(sock: socket.socket):
    """The next message, or None when the other side ended first (within one or before it)."""
    head = _receive_exactly(sock, HEADER.size)
    if head is None:
        return None
    length, request_id, response_to, opcode = HEADER.unpack(head)
    if not HEADER.size <= length <= MESSAGE_BYTES_MAX:
        raise ValueError(f"peer sent a message of length {length}")
    rest = _receive_exactly(sock, length - HEADER.size)
    return None if rest is None else Message(head + rest, request_id, response_to, opcode)


def _receive_exactly(sock: socket.socket, n: int):
    data = b""
    while len(data) < n:
        try:
            more = sock.recv(n - len(data))
        except ConnectionError:
            return None
        if not more:
            return None
        data += more
    return data


class RawClient:
    """One connection on which anything can be sent. Waits at most timeout_s for what comes back."""

    def __init__(self, address: str, timeout_s: float = 10):
        host, port = address.rsplit(":", 1)
        self.socket = socket.create_connection((host, int(port)), timeout=timeout_s)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def send(self, data: bytes):
        """A peer that has closed already is found out by reading."""
        try:
            self.socket.sendall(data)
        except ConnectionError:
            pass

    def end(self):
        """Nothing more will be sent."""
        try:
            self.socket.shutdown(socket.SHUT_WR)
        except OSError:
            pass

    def receive(self):
        return receive(self.socket)

    def receive_all(self) -> bytes:
        """Everything until the other side closes."""
        data = b""
        while True:
            try:
                more = self.socket.recv(1 << 16)
            except ConnectionError:
                return data
            if not more:
                return data
            data += more

    def command(self, document: dict, *sequences: bytes) -> dict:
        self.send(op_msg(document, *sequences))
        reply = self.receive()
        if reply is None:
            raise ConnectionError("closed instead of answering")
        return reply.document

    def close(self):
        self.socket.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


def messages(data: bytes) -> list:
    """The whole messages in data; a last incomplete one is left out."""
    found = []
    while len(data) >= HEADER.size:
        length, request_id, response_to, opcode = HEADER.unpack_from(data)
        if not HEADER.size <= length <= len(data):
            break
        found.append(Message(data[:length], request_id, response_to, opcode))
        data = data[length:]
    return found
