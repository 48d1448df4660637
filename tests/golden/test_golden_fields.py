"""Files of version 2, as they were first written: what they carry and what regions they have is read the same for ever.

They are pictures of the model that the fuzzers have as ``scale-hyperprior``.
"""

import hashlib
from pathlib import Path

import numpy as np

from licquant.codec.codec import Codec
from licquant.codec.files.artifact import Artifact, artifact_id
from licquant.codec.files.bitstream import Bitstream

FOLDER = Path(__file__).parent
MODEL = FOLDER.parents[1] / "fuzz" / "seeds" / "artifact" / "scale-hyperprior"


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:16]


def codec() -> Codec:
    data = MODEL.read_bytes()
    return Codec(Artifact.from_bytes(data), artifact_id(data), "exact", 1)


def test_what_is_carried() -> None:
    data = (FOLDER / "with-fields.lic").read_bytes()
    assert Bitstream.from_bytes(data).to_bytes() == data
    extras = codec().extras(data)
    assert extras.density == (300.0, 72.0)
    assert [sha256(part) for part in (extras.profile, extras.exif, extras.xmp)] == WANTED
    assert extras.alpha is not None
    assert np.array_equal(extras.alpha, np.tile(np.linspace(0, 255, 70).astype(np.uint8), (41, 1)))


def test_fields_change_nothing_else() -> None:
    data = (FOLDER / "with-fields.lic").read_bytes()
    stream = Bitstream.from_bytes(data)
    plain = Bitstream(stream.artifact_id, stream.width, stream.height, stream.strings).to_bytes()
    assert plain == (FOLDER.parents[1] / "fuzz" / "seeds" / "coded-image" / "scale-hyperprior").read_bytes()
    assert np.array_equal(codec().decode(data), codec().decode(plain))


def test_regions() -> None:
    data = (FOLDER / "with-regions.lic").read_bytes()
    assert Bitstream.from_bytes(data).to_bytes() == data
    found = codec().decode_symbols(data)
    assert [sha256(part.astype("<i4").tobytes()) for part in (found.y, found.z)] == WANTED_SYMBOLS
    assert codec().decode(data).shape == (70, 1100, 3)


WANTED = ["86e5ae0d3c23aec3", "a2adb4d1848c897f", "da82db782c40c551"]
WANTED_SYMBOLS = ["7b55fea284712f6a", "53e47663c636ec03"]
