"""Mutations that get past the checksums, and ones that change the structure of a record instead of its bytes.

Half of all inputs are mutated blindly, as libFuzzer does it; the other half are taken apart, changed in one or a few
places and put together again, with lengths and checksums that fit, so that the code behind them is reached too.
"""

from __future__ import annotations

import copy
import hashlib
import json
import random
import struct
import zlib
from collections.abc import Callable, Iterable
from typing import Any

Raw = Callable[[bytes, int], bytes]  # bytes, largest size → other bytes: libFuzzer's own mutation
Mutation = Callable[[bytes, int, random.Random, Raw], bytes]

_LIC = struct.Struct("<4sB8sIIB")
_LICQ = struct.Struct("<4sHI")
_JUNK: list[Any] = [
    None, True, False, -1, 0, 1, 2, 3, 8, 16, 17, 255, 2**15, 2**16, 2**31 - 1, 2**31, 2**62, 2**63, -(2**63), 10**30,
    0.0, -0.0, 0.5, 1.5, 1e-300, 1e300, float("inf"), float("-inf"), float("nan"), "", "x", "\ud800", "\n", "\0", "..",
    "a" * 300, [], {}, [1, 2], [[]], {"blob": 0}, {"value": 1, "shape": [1]},
]  # fmt: skip
_SIZES = (0, 1, 2, 7, 15, 16, 17, 63, 64, 65, 255, 1024, 1 << 20, (1 << 20) + 1, (1 << 32) - 1)
_DEPTH = 3000  # of a record that recursion cannot follow


def mutated(data: bytes, size: int, rng: random.Random, raw: Raw, structured: Mutation) -> bytes:
    """At most ``size`` bytes: one half blindly, the other half with structure."""
    found = structured(data, size, rng, raw) if rng.random() < 0.5 else None
    return raw(data, size) if found is None or len(found) > size else found


# --- image.lic ----------------------------------------------------------------------------------------------


def coded_image(data: bytes, size: int, rng: random.Random, raw: Raw) -> bytes:
    """An ``image.lic`` with another header, other strings or other fields, its lengths and CRC right."""
    try:
        magic, version, identity, width, height, count = _LIC.unpack_from(data)
        lengths = struct.unpack_from(f"<{count}I", data, _LIC.size)
        at = _LIC.size + 4 * count
        strings, at = _cut(data, at, lengths)
        fields = _fields(data, at) if version == 2 else {}
    except (struct.error, IndexError):
        return raw(data, size)
    match rng.randrange(8):
        case 0:
            width, height = rng.choice((width, rng.choice(_SIZES))), rng.choice((height, rng.choice(_SIZES)))
        case 1 if strings:
            del strings[rng.randrange(len(strings))]
        case 2 if len(strings) < 255:
            strings.insert(rng.randint(0, len(strings)), raw(rng.choice(strings) if strings else b"", size))
        case 3:
            sized = struct.pack("<I", rng.choice(_SIZES)) + _bomb(rng)
            fields[rng.randrange(1, 8)] = rng.choice((b"", _bomb(rng), sized))
        case 4 | 5 if fields:
            kind = rng.choice(list(fields))
            fields[kind] = _other_field(fields[kind], size, rng, raw)
        case 6 if fields:
            fields[rng.randrange(1, 256)] = fields.pop(rng.choice(list(fields)))
        case _ if strings:
            index = rng.randrange(len(strings))
            strings[index] = raw(strings[index], max(1, size // 2))
    version = version if version not in (1, 2) else 2 if fields else 1
    head = _LIC.pack(magic, version, identity, width & 0xFFFFFFFF, height & 0xFFFFFFFF, len(strings))
    body = head + struct.pack(f"<{len(strings)}I", *map(len, strings)) + b"".join(strings)
    if fields:
        ordered = sorted(fields.items())
        body += bytes([len(ordered)]) + b"".join(struct.pack("<BI", kind, len(content)) for kind, content in ordered)
        body += b"".join(content for _, content in ordered)
    return body + struct.pack("<I", zlib.crc32(body))


def _cut(data: bytes, at: int, lengths: Iterable[int]) -> tuple[list[bytes], int]:
    """(pieces of those lengths from ``at`` on, where the last ends)"""
    pieces = []
    for length in lengths:
        pieces.append(data[at : at + length])
        at += length
    return pieces, at


def _fields(data: bytes, at: int) -> dict[int, bytes]:
    """Kind → contents of what stands behind the strings."""
    entries = [struct.unpack_from("<BI", data, at + 1 + 5 * index) for index in range(data[at])]
    contents, _ = _cut(data, at + 1 + 5 * len(entries), (length for _, length in entries))
    return dict(zip((kind for kind, _ in entries), contents, strict=True))


def _bomb(rng: random.Random) -> bytes:
    """What unpacks to far more than it is."""
    return zlib.compress(bytes(rng.choice((100, 1 << 16, 1 << 22))), 9)


def _other_field(content: bytes, size: int, rng: random.Random, raw: Raw) -> bytes:
    """Changed as it stands; or unpacked, changed and packed again; or with another number at its beginning."""
    match rng.randrange(3):
        case 0:
            return struct.pack("<I", rng.choice(_SIZES)) + content[4:]
        case 1:
            for head in (content[:4], b""):
                try:
                    return head + zlib.compress(raw(zlib.decompress(content[len(head) :]), max(1, size)))
                except zlib.error:
                    continue
    return raw(content, max(1, size // 2))


# --- model.licq and model.licw --------------------------------------------------------------------------------


def container(data: bytes, size: int, rng: random.Random, raw: Raw) -> bytes:
    """A ``model.licq`` or ``model.licw`` with another header or other blobs, its lengths and SHA-256 right."""
    try:
        magic, version, length = _LICQ.unpack_from(data)
        header = json.loads(data[_LICQ.size : _LICQ.size + length])
        sizes = [n for n in header["blobs"] if isinstance(n, int) and 0 <= n <= len(data)]
    except (struct.error, ValueError, KeyError, TypeError, RecursionError):
        return raw(data, size)
    blobs, at = [], _LICQ.size + length
    for n in sizes:
        blobs.append(data[at : at + n])
        at += n
    match rng.randrange(3):
        case 0 if blobs:
            index = rng.randrange(len(blobs))
            blobs[index] = raw(blobs[index], max(1, size // 2))
            header["blobs"] = [len(blob) for blob in blobs]
        case 1 if blobs:
            blobs[rng.randrange(len(blobs))] = rng.choice(blobs)
            header["blobs"] = [len(blob) for blob in blobs]
        case _:
            header = altered(header, rng)
    text = _to_json(header)
    content = _LICQ.pack(magic, version, len(text)) + text + b"".join(blobs)
    return content + hashlib.sha256(content).digest()


# --- JSON, TOML and netpbm ----------------------------------------------------------------------------------


def json_record(data: bytes, size: int, rng: random.Random, raw: Raw) -> bytes:
    """A JSON text with some of its values replaced, moved, copied, renamed or removed."""
    if rng.random() < 0.002:
        return rng.choice((b"[", b'{"a":')) * _DEPTH
    try:
        record = json.loads(data)
    except (ValueError, RecursionError):
        return raw(data, size)
    return _to_json(altered(record, rng))


def json_or_words(data: bytes, size: int, rng: random.Random, raw: Raw) -> bytes:
    """A text that is JSON, or else one of words."""
    return (json_record if data[:1] == b"{" else words)(data, size, rng, raw)


def words(data: bytes, size: int, rng: random.Random, raw: Raw) -> bytes:
    """A text some of whose words are another's, a number, or gone: TOML files and netpbm headers."""
    head, tail = data[:512], data[512:]
    found = head.split(b" ") if rng.random() < 0.5 else head.split(b"\n")
    separator = b" " if head.count(b" ") + 1 == len(found) else b"\n"
    for _ in range(rng.randint(1, 3)):
        index = rng.randrange(len(found))
        other = (rng.choice(found), str(rng.choice(_SIZES)).encode(), b"", b"-1", b"#", raw(found[index], 64))
        found[index] = rng.choice(other)
    return separator.join(found) + tail


def altered(record: Any, rng: random.Random) -> Any:
    """The record with one to three of its values changed; the record itself may be lost.

    What is put into it is copied: an object in two places would in the end hold itself.
    """
    for _ in range(rng.randint(1, 3)):
        paths = _places(record)
        if not paths:
            return copy.deepcopy(rng.choice(_JUNK))
        path = rng.choice(paths)
        holder = record
        for key in path[:-1]:
            holder = holder[key]
        _alter(holder, path[-1], rng, lambda: _at(record, rng.choice(paths)))  # noqa: B023 (called at once)
    return record


def _alter(holder: Any, key: Any, rng: random.Random, another: Callable[[], Any]) -> None:
    value = holder[key]
    match rng.randrange(6):
        case 0:
            del holder[key]
        case 1:
            holder[key] = copy.deepcopy(another())
        case 2 if isinstance(holder, list):
            holder.insert(key, copy.deepcopy(value))
        case 2:
            holder[rng.choice([*holder, "", "x", "\n", "\ud800", "n" * 300])] = holder.pop(key)
        case 3 if isinstance(value, int | float):
            holder[key] = rng.choice((value + 1, value - 1, -value, 2 * value, value * 1000))
        case 4 if isinstance(value, str) and value:
            holder[key] = value[: rng.randrange(len(value))] + rng.choice(("", "\n", "é", "\ud800", "/"))
        case _:
            holder[key] = copy.deepcopy(rng.choice(_JUNK))


def _places(record: Any) -> list[tuple[Any, ...]]:
    """The path of every value in a record."""
    found: list[tuple[Any, ...]] = []
    waiting: list[tuple[tuple[Any, ...], Any]] = [((), record)]
    while waiting:
        path, value = waiting.pop()
        items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
        for key, item in items:
            found.append((*path, key))
            waiting.append(((*path, key), item))
    return found


def _at(record: Any, path: tuple[Any, ...]) -> Any:
    for key in path:
        record = record[key]
    return record


def _to_json(record: Any) -> bytes:
    return json.dumps(record, separators=(",", ":")).encode()
