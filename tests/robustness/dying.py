"""``licquant`` in a process that dies, without warning, at one of the moments at which it changes a folder.

python -m tests.robustness.dying FOLDER MOMENT COUNT_FILE licquant's arguments

Moments are counted from 1: a file opened for writing, a rename, a removal. At its last moment the process is killed
before the change is made, or, where a file is written, when its first byte has been; 0 lets it live. COUNT_FILE gets
the number of moments that there were.
"""

import os
import resource
import signal
import sys
from pathlib import Path

_CHANGES = ("open", "os.rename", "os.remove", "os.mkdir", "os.truncate")
_WRITING = os.O_WRONLY | os.O_RDWR


class Death:
    """An audit hook."""

    def __init__(self, folder: Path, moment: int) -> None:
        self.folder, self.moment, self.count = str(folder), moment, 0

    def __call__(self, event: str, arguments: tuple[object, ...]) -> None:
        if event not in _CHANGES or not self._inside(event, arguments):
            return
        self.count += 1
        if self.count == self.moment:
            if event != "open":
                os.kill(os.getpid(), signal.SIGKILL)
            # The kernel kills whoever writes a second byte into any file.
            signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
            resource.setrlimit(resource.RLIMIT_FSIZE, (1, 1))

    def _inside(self, event: str, arguments: tuple[object, ...]) -> bool:
        if event == "open" and not (isinstance(arguments[2], int) and arguments[2] & _WRITING):
            return False
        return isinstance(arguments[0], str | os.PathLike) and str(arguments[0]).startswith(self.folder)


def main() -> None:
    folder, moment, count = Path(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3])
    sys.argv = ["licquant", *sys.argv[4:]]
    from licquant.commands.app import main as licquant

    death = Death(folder, moment)
    sys.addaudithook(death)
    try:
        licquant(sys.argv[1:])
    finally:
        changes = death.count
        count.write_text(str(changes))


if __name__ == "__main__":
    main()
