"""licquant: learned image compression as a small, fast, integer codec.

    codec = licquant.load("model.licq")
    data = codec.encode(rgb)            # uint8 H×W×3 → bytes
    rgb = codec.decode(data)            # bytes → uint8 H×W×3

Importing this needs no PyTorch; making a ``model.licq`` does: see ``licquant.pipeline``. The libraries that
code files (OpenVINO, constriction) are imported with the first use of ``load`` or ``Codec``: training needs
none of them.
"""

import logging
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

from licquant.errors import ArtifactError, BitstreamError, ImageError, LicquantError
from licquant.images import read_image, read_picture, write_image

if TYPE_CHECKING:
    from licquant.codec.codec import Codec, load

logging.getLogger(__name__).addHandler(logging.NullHandler())  # whoever wants to read it adds a handler

__all__ = [
    "ArtifactError",
    "BitstreamError",
    "Codec",
    "ImageError",
    "LicquantError",
    "__version__",
    "load",
    "read_image",
    "read_picture",
    "write_image",
]


def __getattr__(name: str) -> Any:
    """``Codec`` and ``load``, when first asked for; then they are attributes like the others."""
    if name not in ("Codec", "load"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from licquant.codec import codec

    return globals().setdefault(name, getattr(codec, name))
