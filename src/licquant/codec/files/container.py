"""The envelope of a file of tensors: a header in JSON, blobs, and a checksum. Everything little-endian.

    magic (4 bytes) | version (uint16) | length of the header (uint32) | header (JSON, UTF-8) | blobs | SHA-256

The header's field ``blobs`` has the length of every blob; the SHA-256 is of everything before it.
"""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from licquant.codec.files.blobs import get
from licquant.errors import ArtifactError
from licquant.images import utf8

HASH_BYTES = 32
_PREFIX = struct.Struct("<4sHI")
_MAX_HEADER = 1 << 24  # bytes; parsed, JSON takes up to about 30 times its size


def pack(magic: bytes, version: int, header: Mapping[str, Any], blobs: Sequence[bytes]) -> bytes:
    """The file's content; the same header and blobs give the same bytes."""
    whole = {**header, "blobs": [len(blob) for blob in blobs]}
    text = utf8(json.dumps(whole, separators=(",", ":"), ensure_ascii=False))
    content = _PREFIX.pack(magic, version, len(text)) + text + b"".join(blobs)
    return content + hashlib.sha256(content).digest()


def unpack(magic: bytes, versions: Collection[int], data: bytes, kind: str) -> tuple[int, dict[str, Any], list[bytes]]:
    """(version, header, blobs); ``ArtifactError`` for anything but an undamaged file of a known version.

    kind: what such a file is, for messages
    """
    if not data:
        raise ArtifactError("the file is empty")
    if not data.startswith(magic):
        raise ArtifactError(f"not {kind}: the file does not begin with {magic.decode()}")
    if len(data) < _PREFIX.size + HASH_BYTES:
        raise ArtifactError(f"truncated: shorter than {kind} can be")
    _, version, length = _PREFIX.unpack_from(data)
    if version not in versions:
        known = " and ".join(map(str, sorted(versions)))
        raise ArtifactError(f"version {version} of the format; this licquant reads {known}")
    content = data[:-HASH_BYTES]
    if hashlib.sha256(content).digest() != data[-HASH_BYTES:]:
        raise ArtifactError("damaged or truncated: its checksum does not match")
    if length > _MAX_HEADER:
        raise ArtifactError(f"its header has {length} bytes: at most {_MAX_HEADER} are read")
    if _PREFIX.size + length > len(content):
        raise ArtifactError("its header is longer than the file")
    try:
        header = json.loads(content[_PREFIX.size : _PREFIX.size + length])
    except (ValueError, RecursionError) as error:
        raise ArtifactError("its header is not JSON") from error
    return version, header, _blobs(content, _PREFIX.size + length, get(header, "blobs", list))


def _blobs(content: bytes, position: int, lengths: Sequence[Any]) -> list[bytes]:
    if not all(type(n) is int and n >= 0 for n in lengths):
        raise ArtifactError("the lengths of its blobs are not numbers")
    if position + sum(lengths) != len(content):
        raise ArtifactError("its blobs do not fill the file")
    blobs = []
    for n in lengths:
        blobs.append(content[position : position + n])
        position += n
    return blobs
