"""Hostile artifacts with a checksum that fits: only ``ArtifactError`` is a legal failure."""

import hashlib
import json
import struct
from typing import Any

import numpy as np
import pytest

from licquant.codec.codec import Codec
from licquant.codec.files.artifact import DYNAMIC_VERSION, MAGIC, VERSION, Artifact
from licquant.config import LayerBits, Plan
from licquant.errors import ArtifactError
from tests.dynamic_programs import dynamic_artifact
from tests.latent_programs import FAMILIES, random_program, random_tables

_PREFIX = struct.Struct("<4sHI")
_JUNK = [None, -1, 0, 1, 3, 2**31, 2**63, 1.5, float("inf"), "x", "", [], {}, [1, 2], {"blob": 0}, True, 10**30]


def rebuilt(header: Any, blobs: bytes) -> bytes:
    text = json.dumps(header).encode()
    version = DYNAMIC_VERSION if isinstance(header, dict) and "dynamic" in header else VERSION
    content = _PREFIX.pack(MAGIC, version, len(text)) + text + blobs
    return content + hashlib.sha256(content).digest()


def places(record: Any, path: tuple = ()) -> list[tuple]:
    """The path of every value in a JSON record."""
    found = [path] if path else []
    items = record.items() if isinstance(record, dict) else enumerate(record) if isinstance(record, list) else ()
    for key, value in items:
        found += places(value, (*path, key))
    return found


def put(record: Any, path: tuple, value: Any) -> None:
    for key in path[:-1]:
        record = record[key]
    record[path[-1]] = value


@pytest.fixture(scope="module", params=["quantized", "dynamic", *FAMILIES])
def opened(request, artifact_path):
    """A quantized scale hyperprior, a dynamic one, and a random program of every family."""
    if request.param == "quantized":
        data = artifact_path.read_bytes()
    elif request.param == "dynamic":
        data = dynamic_artifact().to_bytes()
    else:
        program = random_program(request.param)
        plan = Plan({"g_a.0": LayerBits(8, 8)})
        data = Artifact(request.param, program, random_tables(program, request.param), plan).to_bytes()
    _, _, length = _PREFIX.unpack_from(data)
    text = data[_PREFIX.size : _PREFIX.size + length]
    return text, data[_PREFIX.size + length : -32]


def tried(data: bytes) -> bool:
    """Whether the artifact was accepted; anything but ``ArtifactError`` propagates."""
    try:
        Codec(Artifact.from_bytes(data), bytes(8), "exact")
    except ArtifactError:
        return False
    return True


def test_the_rebuilt_original_is_accepted(opened):
    text, blobs = opened
    assert tried(rebuilt(json.loads(text), blobs))


def test_any_field_replaced_by_junk(opened):
    text, blobs = opened
    rng = np.random.default_rng(0)
    paths = places(json.loads(text))
    refused = 0
    for index in rng.integers(0, len(paths), 250):
        header = json.loads(text)
        put(header, paths[index], _JUNK[rng.integers(len(_JUNK))])
        refused += not tried(rebuilt(header, blobs))
    assert refused > 100


def test_any_field_of_the_widths_replaced_by_junk():
    """As above, for the part of a dynamic artifact's header that only it has."""
    data = dynamic_artifact().to_bytes()
    length = _PREFIX.unpack_from(data)[2]
    text, blobs = data[_PREFIX.size : _PREFIX.size + length], data[_PREFIX.size + length : -32]
    paths = [path for path in places(json.loads(text)) if path[0] == "dynamic"]
    rng, refused = np.random.default_rng(2), 0
    for index in rng.integers(0, len(paths), 150):
        header = json.loads(text)
        put(header, paths[index], _JUNK[rng.integers(len(_JUNK))])
        refused += not tried(rebuilt(header, blobs))
    assert refused > 100


def test_blobs_replaced_by_noise(opened):
    text, blobs = opened
    rng = np.random.default_rng(1)
    for _ in range(60):
        broken = bytearray(blobs)
        for position in rng.integers(0, len(blobs), 4):
            broken[position] = rng.integers(256)
        tried(rebuilt(json.loads(text), bytes(broken)))


@pytest.mark.parametrize("header", [[], 3, "x", {}, {"blobs": []}])
def test_headers_that_are_something_else(header):
    assert not tried(rebuilt(header, b""))
