"""Colour profiles: what a profile is for, and conversion to sRGB by LittleCMS, which Pillow brings."""

from io import BytesIO

from PIL import Image, ImageCms

from licquant.errors import ImageError

_RGB, _GREY, _CMYK = "RGB", "GRAY", "CMYK"
# The mode that samples must have for a profile to say what they mean.
MODES = {_RGB: "RGB", _GREY: "L", _CMYK: "CMYK"}
_HEADER = 128  # bytes


def space_of(profile: bytes) -> str | None:
    """``RGB``, ``GRAY``, ``CMYK`` or another that the profile names; None if it is not an ICC profile."""
    if len(profile) < _HEADER or profile[36:40] != b"acsp":
        return None
    return profile[16:20].decode("latin-1").strip()


def to_srgb(image: Image.Image, profile: bytes) -> Image.Image:
    """RGB in sRGB, for an image of the mode that ``MODES`` names for its profile; perceptual intent.

    Raises ``ImageError`` for a profile that cannot be used.
    """
    try:
        found = ImageCms.profileToProfile(
            image, ImageCms.ImageCmsProfile(BytesIO(profile)), ImageCms.createProfile("sRGB"), outputMode="RGB"
        )
    except (ImageCms.PyCMSError, OSError, ValueError, ImportError) as error:
        raise ImageError(f"its colour profile cannot be used: {' '.join(str(error).split())}") from error
    assert found is not None
    return found
