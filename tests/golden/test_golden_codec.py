"""Stored bytes against today's code, both ways; regenerated only by tools/regen_golden.py."""

import hashlib
import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest

from licquant.codec.entropy.coder import decode_symbols
from licquant.codec.entropy.tables import CodingTables
from licquant.codec.files.bitstream import Bitstream
from licquant.codec.files.weights import unpack_integers

HERE = Path(__file__).parent
_spec = importlib.util.spec_from_file_location("golden_codec", HERE / "golden_codec.py")
assert _spec is not None
assert _spec.loader is not None
golden = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(golden)

NAMES = ["payload.bin", "tables.bin", "weights.bin", "container.lic"]


def stored(name: str) -> bytes:
    """The file's bytes, checked against the manifest; a file or an entry that is missing fails."""
    entry = json.loads((HERE / "manifest.json").read_text())[name]
    data = (HERE / name).read_bytes()
    assert hashlib.sha256(data).hexdigest() == entry["sha256"], f"{name} is not the file of the manifest"
    assert entry["why"]
    return data


@pytest.mark.parametrize("name", NAMES)
def test_encoding_gives_the_stored_bytes(name):
    made = golden.make()
    assert sorted(made) == sorted(NAMES)
    assert made[name] == stored(name)


def test_decoding_the_stored_bytes_gives_the_integers():
    values, index = golden.symbols()
    tables = CodingTables.from_bytes(stored("tables.bin"))
    assert np.array_equal(tables.frequencies, golden.tables().frequencies)
    assert np.array_equal(decode_symbols(stored("payload.bin"), index, tables), values)
    assert np.array_equal(unpack_integers(stored("weights.bin"), (12, 25, 9), 8), golden.weights())
    container = Bitstream.from_bytes(stored("container.lic"))
    assert container == Bitstream(bytes(range(8)), 768, 512, (stored("payload.bin")[:100], b"", b"\0"))
