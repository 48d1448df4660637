"""licquant in a shell: completion, the manual page, ``python -m``, and what the terminal is spared."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from licquant import terminal
from licquant.commands import app as cli
from licquant.commands import toolkit
from licquant.commands.app import main
from licquant.commands.file_lists import distinct_names, images_meant
from licquant.errors import DataError
from licquant.images import write_image
from licquant.quant.in_training.finetune_settings import FinetuneRecipe
from licquant.quant.synthetic import dead_leaves
from licquant.train.progress import training_bar
from tests.models_for_tests import save_small_checkpoint
from tools import make_man

SCREEN = 40  # lines


def licquant(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "licquant", *words]
    return subprocess.run(command, env={**os.environ, **environment}, capture_output=True, text=True)


def test_completion(tmp_path: Path) -> None:
    script = Path(sys.executable).with_name("licquant")
    for words, expected in (("licquant de", {"decode", "demo"}), ("licquant decode --cr", {"--crop"})):
        environment = {
            **os.environ,
            "_LICQUANT_COMPLETE": "complete_bash",
            "COMP_WORDS": words,
            "COMP_CWORD": str(words.count(" ")),
        }
        done = subprocess.run([script], env=environment, capture_output=True, text=True)
        assert set(done.stdout.split()) == expected
    home = {**os.environ, "HOME": str(tmp_path), "_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"}
    done = subprocess.run([script, "--install-completion", "bash"], env=home, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert any("_LICQUANT_COMPLETE" in path.read_text() for path in tmp_path.rglob("*.sh"))


def test_the_manual_page_is_that_of_these_commands() -> None:
    assert make_man.PAGE.read_text(encoding="utf-8") == make_man.page(), "make man writes it again"
    assert "\\-\\-target\\-psnr" in make_man.page()


@pytest.mark.skipif(shutil.which("groff") is None, reason="groff is not here to read it")
def test_the_manual_page_is_well_formed() -> None:
    done = subprocess.run(["groff", "-man", "-Tutf8", "-ww", make_man.PAGE], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert "licquant decode FILES ... [OPTIONS]" in re.sub(".\x08", "", done.stdout)  # bold is struck twice


def test_the_module_is_the_command() -> None:
    done = licquant("version")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"{cli.__version__}\n"


@pytest.mark.parametrize("command", [*make_man.commands()])
def test_help_fits_a_screen(command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit):
        main([*command.split(), "--help"])
    lines = capsys.readouterr().out.rstrip().splitlines()
    assert 3 < len(lines) <= SCREEN


def test_what_is_wrong_with_the_options_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    word = "x " * 100 + "[b]"
    with pytest.raises(SystemExit) as stop:
        main(["inspect", "a", word])
    assert stop.value.code == 2
    assert any(word in line for line in capsys.readouterr().err.splitlines())


# --- warnings -----------------------------------------------------------------------------------------------

WARNS = """
import sys, warnings
from licquant.commands import app
app.app.command("warn")(lambda: warnings.warn_explicit("of a library", FutureWarning, "x.py", 1, "torch.jit"))
app.app.command("own")(lambda: warnings.warn_explicit("of licquant", FutureWarning, "x.py", 1, "licquant.own"))
app.main(sys.argv[1:])
"""


@pytest.mark.parametrize(
    ("words", "python", "said"),
    [
        (("warn",), (), False),
        (("warn", "--verbose"), (), True),
        (("--verbose", "warn"), (), True),
        (("warn",), ("-W", "default"), True),  # whoever asks Python for warnings gets them
        (("own",), (), True),
    ],
)
def test_warnings_of_libraries_are_for_those_who_ask(words, python, said) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONWARNINGS"}
    command = [sys.executable, *python, "-c", WARNS, *words]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert ("FutureWarning" in done.stderr) == said


def test_a_log_is_told_now_and_then_how_far_the_work_is(monkeypatch, capsys) -> None:
    """Bars are for terminals: in a log they come when all is done."""
    monkeypatch.setattr(terminal, "SECONDS_BETWEEN_LINES", 0.0)
    with toolkit.progress() as on_progress:
        on_progress("reconstruction", 3, 500)
        assert capsys.readouterr().err == "reconstruction 3/500\n"
        monkeypatch.setattr(terminal, "SECONDS_BETWEEN_LINES", 60.0)
        on_progress("reconstruction", 4, 500)
        assert capsys.readouterr().err == ""


def test_so_is_a_log_of_a_training(monkeypatch, capsys) -> None:
    """With its figures; and a bar that goes when all is done leaves nothing, not even a blank line."""
    monkeypatch.setattr(terminal, "SECONDS_BETWEEN_LINES", 0.0)
    with training_bar(
        terminal.plain_console(stderr=True), FinetuneRecipe("elic", 0.013, steps=600), 100, shown=True
    ) as move:
        move(150, "J 1.234")
        assert capsys.readouterr().err == "elic λ=0.013 150/600 J 1.234\n"
        monkeypatch.setattr(terminal, "SECONDS_BETWEEN_LINES", 60.0)
        move(151)
    assert capsys.readouterr().err == ""


@pytest.mark.slow
def test_quantize_says_nothing_that_is_not_its_own(tmp_path: Path) -> None:
    """All of standard error is the progress bars."""
    save_small_checkpoint(tmp_path)
    write_image(tmp_path / "a.png", dead_leaves(1, 128)[0])
    words = [
        "quantize",
        "--checkpoint",
        tmp_path / "c.pt",
        "--calib",
        tmp_path,
        "--steps",
        "1",
        "-o",
        tmp_path / "m.licq",
    ]
    done = licquant(*map(str, words), PYTHONWARNINGS="")
    assert done.returncode == 0, done.stderr
    assert [line for line in done.stderr.splitlines() if "━" not in line] == []


# --- images to evaluate -------------------------------------------------------------------------------------


def test_images_by_file_folder_and_list(tmp_path: Path) -> None:
    (tmp_path / "deep" / "er").mkdir(parents=True)
    for name in ("b.png", "deep/a.jpg", "deep/er/a.PNG", "deep/.x.png", "deep/readme.md"):
        (tmp_path / name).touch()
    below = [tmp_path / "deep" / "a.jpg", tmp_path / "deep" / "er" / "a.PNG"]
    assert images_meant([tmp_path / "deep"]) == below
    (tmp_path / "list.txt").write_text(f"# wanted\n\nb.png\n{below[1]}\r\n")
    assert images_meant([tmp_path / "list.txt"]) == [tmp_path / "b.png", below[1]]
    assert images_meant([tmp_path / "b.png", tmp_path / "list.txt", tmp_path]) == [
        tmp_path / "b.png",
        below[1],
        below[0],
    ]
    (tmp_path / "no suffix").write_bytes(b"\x89PNG\r\n\x1a\n\0\0")
    assert images_meant([tmp_path / "no suffix"]) == [tmp_path / "no suffix"]
    assert distinct_names([tmp_path / "b.png", below[0]]) == ["b.png", "a.jpg"]
    assert distinct_names([below[0], tmp_path / "a.jpg"]) == [str(below[0]), str(tmp_path / "a.jpg")]
    (tmp_path / "other.txt").write_text("b.png\ngone.png\n")
    (tmp_path / "empty.txt").touch()
    for wrong, why in (
        ("other.txt", "names .*gone.png"),
        ("empty.txt", "holds no images"),
        ("gone", "not a folder, an image"),
    ):
        with pytest.raises(DataError, match=why):
            images_meant([tmp_path / wrong])
