"""The command line: exit codes, one clear line on bad input, JSON on standard output."""

import json
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner, Result

from licquant.commands.train import train_command
from tests.unit.train.small import write_images

app = typer.Typer()
app.command()(train_command)

SMALL = (
    "--architecture bmshj2018-hyperprior --lmbda 0.01 --N 8 --M 12 --crop 64 --large-crop 64 --steps 2 "
    "--accelerator cpu --threads 1"
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_images(tmp_path / "images", count=2)


def train(folder: Path, *arguments: str, small: str = SMALL) -> Result:
    place = ["--data", str(folder), "-o", str(folder / "model.pt"), "--cache", str(folder / "cache")]
    return CliRunner().invoke(app, [*small.split(), *place, *arguments])


def test_json_goes_to_standard_output(folder: Path) -> None:
    done = train(folder, "--json")
    assert done.exit_code == 0, done.output
    record = json.loads(done.stdout)
    assert (record["status"], record["card"]["steps"]) == ("complete", 2)
    assert Path(record["checkpoint"]).exists()


def test_the_time_limit_is_no_failure(folder: Path) -> None:
    done = train(folder, "--max-minutes", "0", "--json")
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["status"] == "time limit"
    assert (folder / "model.pt").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--lmbda", "0"], "--lmbda 0: must be a finite number above 0"),
        (["--architecture", "vgg"], "error: unknown model 'vgg'"),
        (["--devices", "0"], "--devices 0: must be"),
        (["--accelerator", "abacus"], "error: cannot train on 1 x abacus"),
        (["--init", "nowhere.pt"], "there is no such file"),
        (["--runs", "plan.toml"], "error: with --runs, model stands in the plan file"),
    ],
)
def test_bad_input_gives_one_line_and_exit_code_1(folder: Path, arguments: list[str], message: str) -> None:
    done = train(folder, *arguments)
    assert done.exit_code == 1
    assert message in done.stderr + str(done.exception)  # of an option's range: main() says it
    assert "Traceback" not in done.output


def test_an_empty_folder_is_said(tmp_path: Path) -> None:
    done = train(tmp_path)
    assert done.exit_code == 1
    assert "holds no images" in done.stderr
