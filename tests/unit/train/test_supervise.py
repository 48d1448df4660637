"""Work in a process of its own: crashes, errors, signals, and what the command line says of them."""

import json
import os
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path

import pytest

from licquant.errors import DataError, TrainingError
from licquant.train.supervise import survive
from tests.unit.train.small import write_images

ROOT = Path(__file__).parents[3]


def crash_once(marker: Path, number: int) -> str:
    """Ends its process by a signal the first time, and works from then on."""
    if not marker.exists():
        marker.touch()
        os.kill(os.getpid(), number)
    return "done"


def crash(number: int) -> str:
    os.kill(os.getpid(), number)
    return "never"


def refuse() -> str:
    raise DataError("no images")


@pytest.mark.parametrize("number", [signal.SIGSEGV, signal.SIGABRT])
def test_a_crash_is_survived_once_and_told(tmp_path: Path, number: int) -> None:
    told: list[str] = []
    assert survive(crash_once, tmp_path / "marker", number, on_crash=told.append) == ("done", 1)
    assert told == [signal.Signals(number).name]


def test_a_second_crash_is_an_error() -> None:
    with pytest.raises(TrainingError, match=r"SIGSEGV, the second time after 1 restart"):
        survive(crash, signal.SIGSEGV)


def test_what_is_no_crash_is_not_tried_again(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="SIGKILL"):
        survive(crash_once, tmp_path / "marker", signal.SIGKILL)


def test_errors_of_the_work_arrive() -> None:
    with pytest.raises(DataError, match="no images"):
        survive(refuse)


def warn() -> str:
    warnings.warn("old", FutureWarning, stacklevel=1)
    return "done"


def test_warnings_that_are_not_shown_here_are_not_shown_there(capfd: pytest.CaptureFixture[str]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        survive(warn)
        assert "old" not in capfd.readouterr().err
        warnings.simplefilter("default")
        survive(warn)
    assert "FutureWarning: old" in capfd.readouterr().err


def plan_of(folder: Path) -> list[str]:
    """The command line of a plan of one tiny run."""
    plan = {
        "runs": [
            {
                "model": "bmshj2018-hyperprior", "lmbda": 0.01, "N": 8, "M": 12, "crop": 64, "large_crop": 64,
                "batch": 2, "large_batch": 2, "steps": 100_000, "name": "tiny",
            }
        ]
    }  # fmt: skip
    (folder / "plan.json").write_text(json.dumps(plan))
    data = write_images(folder / "images", count=2)
    words = ["--plan", folder / "plan.json", "--data", data, "-o", folder / "out", "--cache", folder / "cache"]
    return [sys.executable, "-m", "licquant.commands.train", *map(str, words), "--threads", "1", "--accelerator", "cpu"]


@pytest.mark.slow
def test_a_plan_saves_its_state_when_asked_to_end(tmp_path: Path) -> None:
    words = [*plan_of(tmp_path), "--checkpoint-minutes", "0"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    process = subprocess.Popen(words, env=environment, stderr=subprocess.PIPE, text=True, start_new_session=True)
    state = tmp_path / "out" / "tiny.state"
    limit = time.monotonic() + 240
    while not state.exists() and time.monotonic() < limit:
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGTERM)  # as a terminal or a batch system does: all at once
    _, said = process.communicate(timeout=120)
    assert process.returncode == 130, said
    assert "interrupted after" in said
    assert (tmp_path / "out" / "tiny.pt").exists()


def sleeps(marker: Path) -> None:
    marker.write_text(str(os.getpid()))
    time.sleep(600)


@pytest.mark.skipif(not Path("/proc").exists(), reason="asks Linux whether a process runs")
def test_a_child_ends_with_its_parent(tmp_path: Path) -> None:
    marker = tmp_path / "child"
    program = (
        "from pathlib import Path; from tests.unit.train.test_supervise import sleeps; "
        f"from licquant.train.supervise import survive; survive(sleeps, Path({str(marker)!r}))"
    )
    environment = {**os.environ, "PYTHONPATH": f"{ROOT / 'src'}:{ROOT}"}
    parent = subprocess.Popen([sys.executable, "-c", program], env=environment)
    limit = time.monotonic() + 120
    while not (marker.exists() and marker.read_text()):
        assert parent.poll() is None
        assert time.monotonic() < limit
        time.sleep(0.05)
    parent.kill()
    parent.wait()
    child = int(marker.read_text())
    while is_alive(child):
        assert time.monotonic() < limit, "the child goes on"
        time.sleep(0.05)


def is_alive(process: int) -> bool:
    """Whether it runs; a zombie, which whoever adopted it has not looked after, does not."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False
