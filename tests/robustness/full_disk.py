"""Run by test_full_disks.py in a mount namespace of its own: commands on a disk that is full or read-only.

python -m tests.robustness.full_disk FOLDER OPTIONS COMMANDS: mounts a disk with these options over FOLDER, whose files
it takes along, and remounts it read-only if the options end in ``remounted``; then runs the commands, lists of words
in JSON. Prints, in JSON, for each its status, what it said on standard error, and what is then on the disk.
"""

import contextlib
import io
import json
import subprocess
import sys
from pathlib import Path

from licquant.commands.app import main as licquant


def mount(folder: Path, options: str) -> None:
    kept = {path.name: path.read_bytes() for path in folder.iterdir()}
    size = options.removesuffix(",remounted")
    subprocess.run(["mount", "-t", "tmpfs", "-o", size, "none", str(folder)], check=True)
    for name, data in kept.items():
        (folder / name).write_bytes(data)
    if size != options:
        subprocess.run(["mount", "-o", "remount,ro", str(folder)], check=True)


def run(folder: Path, words: list[str]) -> tuple[int, str, dict[str, str]]:
    said, status = io.StringIO(), 0
    with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
        try:
            licquant(words)
        except SystemExit as end:
            status = int(end.code or 0)
    files = {str(path.relative_to(folder)): path.read_text("latin-1") for path in folder.rglob("*") if path.is_file()}
    return status, said.getvalue(), dict(sorted(files.items()))


if __name__ == "__main__":
    disk = Path(sys.argv[1])
    mount(disk, sys.argv[2])
    sys.stdout.write(json.dumps([run(disk, words) for words in json.loads(sys.argv[3])]))
