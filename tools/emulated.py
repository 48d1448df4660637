"""Run the conformance corpus on another architecture: ``python tools/emulated.py arm64 s390x`` (as root, on Debian).

For each architecture: a Debian root made with debootstrap, from the mirror that this machine's apt uses, with Python,
NumPy and Pillow of that architecture; in it, under QEMU's user-mode emulation, the codec half of licquant decodes and
encodes the corpus with the exact engine. Nothing else is there: the coder is licquant's own where constriction has no
package. Wants ``apt-get install debootstrap qemu-user-static`` once. The roots are kept in ``--folder`` and used again.

Packages are only unpacked, not configured: that needs no emulation, so a root takes a minute instead of a quarter of an
hour, and this machine's table of binary formats stays as it is.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
NEEDED = ("python3-numpy", "python3-pil")
SUITE = "bookworm"
# Debian's name of an architecture → QEMU's, and that of its folders of libraries.
ARCHITECTURES = {
    "amd64": ("x86_64", "x86_64-linux-gnu"),
    "arm64": ("aarch64", "aarch64-linux-gnu"),
    "armhf": ("arm", "arm-linux-gnueabihf"),
    "i386": ("i386", "i386-linux-gnu"),
    "ppc64el": ("ppc64le", "powerpc64le-linux-gnu"),
    "riscv64": ("riscv64", "riscv64-linux-gnu"),
    "s390x": ("s390x", "s390x-linux-gnu"),
}
COPIED = (
    "src/licquant/*.py",
    "src/licquant/program/*.py",
    "src/licquant/codec/*.py",
    "src/licquant/codec/*/*.py",
    "tests/conformance/*.py",
    "tests/conformance/corpus/*",
)


def mirror() -> str:
    """Where this machine's apt gets Debian's packages from."""
    sources = [Path("/etc/apt/sources.list"), *sorted(Path("/etc/apt/sources.list.d").glob("*.sources"))]
    for source in sources:
        if source.exists():
            found = re.search(
                r"^\s*(?:URIs:|deb(?:\s+\[[^]]*\])?)\s*(\S+/debian)/?\s", source.read_text(), re.MULTILINE
            )
            if found:
                return found[1]
    sys.exit("no mirror of Debian in this machine's apt sources")


def make_root(root: Path, architecture: str, suite: str) -> None:
    """Unpack a minimal system with what is needed."""
    root.parent.mkdir(parents=True, exist_ok=True)
    unfinished = root.with_name(root.name + ".unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    command = ["debootstrap", "--foreign", f"--arch={architecture}", "--variant=minbase"]
    made = subprocess.run(
        [*command, f"--include={','.join(NEEDED)}", suite, unfinished, mirror()], stdout=subprocess.PIPE, text=True
    )
    if made.returncode:
        sys.exit(f"debootstrap failed: {made.stdout.strip().splitlines()[-1]}")
    for package in sorted((unfinished / "var/cache/apt/archives").glob("*.deb")):
        subprocess.run(["dpkg-deb", "-x", package, unfinished], check=True)
    emulator = f"qemu-{ARCHITECTURES[architecture][0]}-static"
    shutil.copy(shutil.which(emulator) or sys.exit(f"{emulator} is missing"), unfinished / "usr/bin")
    unfinished.rename(root)


def copy_project(root: Path) -> None:
    """The codec half and the corpus, as they are now."""
    target = root / "opt/licquant"
    shutil.rmtree(target, ignore_errors=True)
    for pattern in COPIED:
        for path in ROOT.glob(pattern):
            to = target / path.relative_to(ROOT)
            to.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, to)


def run(root: Path, architecture: str) -> tuple[int, dict[str, Any]]:
    """(exit status, what the runner found) of the corpus in that root."""
    emulated, libraries = ARCHITECTURES[architecture]
    # Debian chooses among several BLAS libraries while configuring, which has not been done.
    folders = ":".join(f"/usr/lib/{libraries}/{name}" for name in ("blas", "lapack"))
    environment = {"PYTHONPATH": "/opt/licquant/src:/opt/licquant", "LD_LIBRARY_PATH": folders, "LC_ALL": "C.UTF-8"}
    emulator = ["chroot", root, f"/usr/bin/qemu-{emulated}-static", "/usr/bin/python3"]
    done = subprocess.run(
        [*emulator, "-m", "tests.conformance.run", "--engine", "exact", "--json", "/opt/licquant/found.json"],
        env={"PATH": os.environ["PATH"], "PYTHONDONTWRITEBYTECODE": "1", **environment},
    )
    found = root / "opt/licquant/found.json"
    return done.returncode, json.loads(found.read_text()) if found.exists() else {}


def main() -> int:
    """Make the roots that are missing, run the corpus in each, and print a table; 0 if all of it came out alike."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("architectures", nargs="*", default=["arm64", "s390x"], help=", ".join(ARCHITECTURES))
    parser.add_argument("--suite", default=SUITE, help="Debian's release")
    parser.add_argument("--folder", type=Path, default=ROOT / "build" / "emulated", help="where the roots are kept")
    options = parser.parse_args()
    unknown = sorted(set(options.architectures) - set(ARCHITECTURES))
    if unknown:
        parser.error(f"unknown architecture {unknown[0]}: choose among {', '.join(ARCHITECTURES)}")
    missing = [name for name in ("debootstrap", "dpkg-deb", "chroot") if not shutil.which(name)]
    if missing or os.geteuid() != 0:
        parser.error(f"needs {missing[0] if missing else 'to be root'}: see the head of this file")

    rows, failed = [], False
    for architecture in options.architectures:
        root = options.folder.resolve() / f"{architecture}-{options.suite}"
        if not root.exists():
            make_root(root, architecture, options.suite)
        copy_project(root)
        status, found = run(root, architecture)
        failed |= status != 0
        facts = found.get("machine", {})
        names = ("byte order", "python", "numpy", "coder", "seconds")
        pictures = sum(entry["pictures"] for entry in found.get("entries", []))
        rows.append(
            [architecture, *(facts.get(name, "?") for name in names), pictures, len(found.get("faults", [])), status]
        )
    heads = ["architecture", "byte order", "Python", "NumPy", "coder", "seconds", "pictures", "faults", "exit status"]
    print("\n| " + " | ".join(heads) + " |\n|" + "---|" * len(heads))
    for row in rows:
        print("| " + " | ".join(map(str, row)) + " |")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
