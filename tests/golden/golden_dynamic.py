"""A golden artifact whose widths depend on the image, an image coded with it, and what the two must give."""

import hashlib
import json

import numpy as np

from licquant.codec.codec import Codec
from licquant.codec.files.artifact import Artifact, artifact_id
from tests.dynamic_programs import UNEVEN, Draws, dynamic_artifact


def image() -> np.ndarray:
    """uint8 70×90×3: 10×10 squares of random colours, which fade from left to right."""
    squares = Draws(5)(0, 255, 7, 9, 3).repeat(10, axis=0).repeat(10, axis=1)
    return (squares * np.arange(90, 0, -1)[None, :, None] // 90).astype(np.uint8)


def open_codec(data: bytes) -> Codec:
    """The codec of an artifact file's content, on the exact engine."""
    return Codec(Artifact.from_bytes(data), artifact_id(data), "exact")


def results(codec: Codec, coded: bytes) -> dict[str, object]:
    """What must be the same on every machine and in every later version."""
    return {
        "analysis": codec.analyse(image()).widths,
        "synthesis": codec.synthesis_widths(codec.decode_symbols(coded).y),
        "pixels": hashlib.sha256(codec.decode(coded).tobytes()).hexdigest(),
    }


def make() -> dict[str, bytes]:
    """File name to bytes."""
    data = dynamic_artifact(widths=UNEVEN).to_bytes()
    codec = open_codec(data)
    coded = codec.encode(image())
    text = json.dumps(results(codec, coded), indent=2) + "\n"
    return {"dynamic.licq": data, "dynamic.lic": coded, "dynamic.json": text.encode()}
