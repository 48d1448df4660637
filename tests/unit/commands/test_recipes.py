"""Recipes and presets: which of several words counts, and what is refused."""

import os
from pathlib import Path

import pytest

from licquant.commands import quantize as quantize_command
from licquant.commands import recipes, toolkit_commands
from licquant.commands.app import main
from licquant.commands.base import Report
from licquant.commands.train import train_command

COMMANDS = {
    "quantize": toolkit_commands.quantize,
    "finetune": toolkit_commands.finetune,
    "train": train_command,
}


@pytest.fixture
def quantized(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """Runs ``quantize`` up to the work: the options that it would work with."""
    found = []
    monkeypatch.setattr(quantize_command, "quantize", lambda options: found.append(options) or Report({}))

    def run(*words: object) -> quantize_command.QuantizeOptions:
        needed = ["--checkpoint", tmp_path / "c.pt", "--calib", tmp_path, "-o", tmp_path / "m.licq"]
        main_without_exit(["quantize", *map(str, [*needed, *words])])
        return found[-1]

    return run


def main_without_exit(words: list[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(words)
    assert not stop.value.code


def recipe(folder: Path, text: str) -> Path:
    path = folder / "own.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_the_command_line_wins_over_a_recipe_and_a_recipe_over_a_preset(quantized, tmp_path: Path) -> None:
    own = recipe(tmp_path, 'steps = 7\nranges = "min-max"\n[finetune]\nbeta = 3.0\n[quantize]\nper-tensor = true\n')
    assert quantized().steps == quantized("--preset", "balanced").steps == 250
    assert (quantized("--preset", "fast").steps, quantized("--preset", "best").steps) == (0, 700)
    for words in (["--preset", "fast", "--recipe", own], ["--recipe", own, "--preset", "fast"]):
        made = quantized(*words)
        assert (made.steps, made.ranges, made.per_channel) == (7, "min-max", False)
        assert quantized(*words, "--steps", 9).steps == 9
        assert quantized("--steps", 9, *words).steps == 9


def test_the_default_is_what_the_preset_says(quantized) -> None:
    assert quantized() == quantized("--preset", "balanced")


def test_a_path_is_relative_to_the_recipe(quantized, tmp_path: Path) -> None:
    (tmp_path / "below").mkdir()
    own = recipe(tmp_path / "below", 'latency = "table.json"\n')
    assert quantized("--recipe", own).latency == tmp_path / "below" / "table.json"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("stepz = 3", "'stepz' is no option of licquant quantize"),
        ("beta = 2.0", "'beta' is no option of licquant quantize"),
        ("json = true", "'json' is no option"),
        ('recipe = "other.toml"', "'recipe' is no option"),
        ("steps = -1", "steps = -1: must be a whole number from 0"),
        ("steps = 2.0", "steps = 2.0: must be a whole number"),
        ("steps = true", "steps = True: must be a whole number"),
        ('steps = "3"', "steps = '3': must be a whole number"),
        ("act-bits = 17", "act-bits = 17: must be a whole number from 2 to 16"),
        ("lmbda = nan", "lmbda = nan: must be a finite number above 0"),
        ("lmbda = inf", "lmbda = inf: must be a finite number above 0"),
        ("[quantize]\nlmbda = 0", "lmbda = 0: must be a finite number above 0"),
        ("method = 3", "method = 3: must be a text in quotes"),
        ("strict = 1", "strict = 1: must be true or false"),
        ("latency = []", "latency = []: must be a text in quotes"),
        ("[quantise]\nsteps = 1", "unknown table 'quantise'"),
        ("quantize = 1", "must be a table"),
        ("steps = ", "not a TOML file"),
        ("a = " + "[" * 5000, "not a TOML file"),
        ("#" * (2**20 + 1), "not a recipe"),
    ],
)
def test_what_cannot_be_used_is_one_line_that_names_the_file(text, said, tmp_path, capsys) -> None:
    own = recipe(tmp_path, text)
    with pytest.raises(SystemExit) as stop:
        main(["quantize", "--recipe", str(own)])
    assert stop.value.code == 1
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    assert told.startswith(f"licquant: {own}: ")
    assert said in told


@pytest.mark.skipif(os.name != "posix", reason="names of files are bytes on POSIX")
def test_files_that_are_no_text_are_refused(tmp_path: Path, capsys) -> None:
    (tmp_path / "bytes.toml").write_bytes(b"\xff\x00")
    for path, said in (
        (tmp_path, "cannot be read"),
        (tmp_path / "none", "cannot be read"),
        (tmp_path / "bytes.toml", ""),
    ):
        with pytest.raises(SystemExit) as stop:
            main(["train", "--recipe", str(path)])
        told = capsys.readouterr().err
        assert (stop.value.code, told.count("\n")) == (1, 1)
        assert said in told


@pytest.mark.parametrize("command", COMMANDS)
def test_presets_hold_for_each_command_and_are_shown(command: str, capsys) -> None:
    assert recipes.presets() == ["fast", "balanced", "best"]
    for name in recipes.presets():
        path = recipes.preset_file(name)
        recipes.read_recipe(path, command, recipes.keys_of(COMMANDS[command]))
        main_without_exit(["recipe", "show", name])
        assert capsys.readouterr().out.strip() == path.read_text(encoding="utf-8").strip()
    main_without_exit(["recipe", "list"])
    assert [line.partition(":")[0] for line in capsys.readouterr().out.splitlines()] == recipes.presets()
    main_without_exit(["recipe", "keys", command])
    assert {line.partition(":")[0] for line in capsys.readouterr().out.splitlines()} > {"threads", "seed"} & {
        *recipes.keys_of(COMMANDS[command])
    }


def test_every_option_of_the_command_is_a_key(capsys) -> None:
    made = {name: {key.parameter for key in recipes.keys_of(of).values()} for name, of in COMMANDS.items()}
    assert {"ranges", "per_tensor", "cache"} <= made["quantize"]
    assert {"learning_rate", "grid_rate", "large_crop", "beta"} <= made["finetune"]
    assert {"precision", "width_n"} <= made["train"]
    assert not {"recipe", "preset", "as_json"} & set().union(*made.values())


def test_a_preset_that_is_not_there(capsys) -> None:
    for words in (["recipe", "show", "none"], ["quantize", "--preset", "none"]):
        with pytest.raises(SystemExit) as stop:
            main(words)
        assert stop.value.code == 1
        assert "unknown preset 'none': choose one of fast, balanced, best" in capsys.readouterr().err
