"""Which image files are meant: by a folder and those in it, or by a list."""

from pathlib import Path

from licquant.errors import DataError
from licquant.images.formats import READ_SUFFIXES


def list_images(folder: str | Path) -> list[Path]:
    """The image files directly in ``folder``, by suffix, sorted by name; ``DataError`` if there are none."""
    folder = Path(folder)
    if not folder.is_dir():
        raise DataError(f"{folder}: not a folder")
    paths = sorted(path for path in folder.iterdir() if _is_meant(path))
    if not paths:
        raise DataError(f"{folder}: holds no images ({', '.join(READ_SUFFIXES)})")
    return paths


def _is_meant(path: Path) -> bool:
    return path.suffix.lower() in READ_SUFFIXES and not path.name.startswith(".") and path.is_file()
