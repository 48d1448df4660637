"""What needs the codec alone: coded images, artifacts, image files."""

from __future__ import annotations

import functools
from collections.abc import Mapping

from fuzz import mutate
from fuzz.target import SEEDS, Target, file_of
from licquant.codec.codec import Codec
from licquant.codec.files.artifact import Artifact, artifact_id
from licquant.codec.files.bitstream import Bitstream
from licquant.codec.files.contents import layer_contents, selector_contents
from licquant.errors import ArtifactError, BitstreamError, ImageError
from licquant.images import Reading, read_picture


def container(data: bytes) -> None:
    """A coded image, its strings not decoded."""
    assert Bitstream.from_bytes(data).to_bytes() == data, "written otherwise than it was read"


def coded_image(data: bytes) -> None:
    """A coded image with the artifact that it names, one of every family's."""
    codecs = _codecs()
    codec = codecs.get(Bitstream.from_bytes(data).artifact_id) or next(iter(codecs.values()))
    codec.extras(data)
    codec.decode_symbols(data)


@functools.cache
def _codecs() -> dict[bytes, Codec]:
    """Of the seeds of ``artifact``, by what their images call them."""
    contents = [path.read_bytes() for path in sorted((SEEDS / "artifact").iterdir())]
    return {artifact_id(data): Codec(Artifact.from_bytes(data), artifact_id(data), "exact") for data in contents}


def artifact(data: bytes) -> None:
    """A quantized model: loaded, and inspected."""
    found = Artifact.from_bytes(data)
    Codec(found, artifact_id(data), "exact")
    layer_contents(data, found)
    selector_contents(data, found)


def netpbm(data: bytes) -> None:
    """An image file in the formats whose headers are read here, beside Pillow."""
    read_picture(file_of("image.ppm", data), Reading(reduce=True))


TARGETS: Mapping[str, Target] = {
    "container": Target("coded-image", container, (BitstreamError,), mutate.coded_image),
    "coded-image": Target("coded-image", coded_image, (BitstreamError,), mutate.coded_image),
    "artifact": Target("artifact", artifact, (ArtifactError,), mutate.container),
    "netpbm": Target("netpbm", netpbm, (ImageError,), mutate.words),
}
