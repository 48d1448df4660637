"""licquant: learned image compression as a small, fast, integer codec.

    codec = licquant.load("model.licq")
    data = codec.encode(rgb)            # uint8 H×W×3 → bytes
    rgb = codec.decode(data)            # bytes → uint8 H×W×3

Importing this needs no PyTorch; making a ``model.licq`` does: see ``licquant.pipeline``.
"""

__version__ = "0.1.0"

from licquant.codec.codec import Codec, load
from licquant.errors import ArtifactError, BitstreamError, ImageError, LicquantError
from licquant.images import read_image, write_image

__all__ = [
    "ArtifactError",
    "BitstreamError",
    "Codec",
    "ImageError",
    "LicquantError",
    "__version__",
    "load",
    "read_image",
    "write_image",
]
