"""Fetch large photographs to measure on: the middles of wallpapers that Debian has, as PNG files in a folder.

    python tools/large_photographs.py -o large/ [--side 512] [--set test|choose]

They are larger, smoother and more colourful than Kodak and than the photographs that models are calibrated on. Two sets
that share no picture: ``test`` is for figures, ``choose`` is for settings are chosen by. Neither is ever calibrated on,
and neither belongs to the project: the script wants ``apt-get`` and ``dpkg-deb``, and asks the machine's own sources.
The licences are those of the packages (``usr/share/doc/PACKAGE/copyright`` in each).
"""

import argparse
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from licquant.errors import ImageError
from licquant.images import RGB, read_image, write_image

# Package → the files in it that are photographs, by pattern; drawings and logos are left out.
SETS = {
    "test": {
        "mate-backgrounds": ["usr/share/backgrounds/mate/nature/*.jpg"],
        "lomiri-wallpapers-20.04": ["usr/share/backgrounds/Kleiber*.jpg", "usr/share/backgrounds/Infinite-Sea*.jpg"],
    },
    "choose": {"lomiri-wallpapers-16.04": ["usr/share/backgrounds/*.jpg"]},
}


def unpacked(package: str, folder: Path) -> Path:
    """The package's files under a folder; ``CalledProcessError`` where it cannot be had."""
    subprocess.run(["apt-get", "download", "-qq", "-o", "APT::Sandbox::User=root", package], check=True, cwd=folder)
    root = folder / package
    subprocess.run(["dpkg-deb", "-x", next(folder.glob(f"{package}_*.deb")), root], check=True)
    return root


def middle(rgb: RGB, side: int) -> RGB:
    """The middle of a photograph, at most ``side`` pixels a side, uint8 H×W×3."""
    top, left = (max(n - side, 0) // 2 for n in rgb.shape[:2])
    return rgb[top : top + side, left : left + side]


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder for the PNG files")
    parser.add_argument("--set", choices=sorted(SETS), default="test", help="which of the two")
    parser.add_argument("--side", type=int, default=512, help="pixels a side of what is kept of each; 0 keeps all")
    options = parser.parse_args()
    missing = [name for name in ("apt-get", "dpkg-deb") if not shutil.which(name)]
    if missing:
        parser.error(f"needs {missing[0]}: see the head of this file")
    if options.side < 0:
        parser.error(f"--side {options.side}: must not be negative")
    options.output.mkdir(parents=True, exist_ok=True)
    count = 0
    with tempfile.TemporaryDirectory() as folder:
        for package, patterns in SETS[options.set].items():
            try:
                root = unpacked(package, Path(folder))
            except subprocess.CalledProcessError:
                sys.exit(f"{package} cannot be fetched: has this machine Debian's sources?")
            for path in sorted(found for pattern in patterns for found in root.glob(pattern)):
                try:
                    rgb = read_image(path)
                except ImageError as error:
                    print(f"left out: {error}", file=sys.stderr)
                    continue
                write_image(options.output / f"{path.stem}.png", middle(rgb, options.side or max(rgb.shape)))
                count += 1
    print(f"{options.output}: {count} photographs")
    return 0


if __name__ == "__main__":
    sys.exit(main())
