"""Every numeric option at the ends of its range and beyond them: what is out of range is one line, before any work."""

import math
from typing import get_args, get_type_hints

import pytest

from licquant.commands import app as cli
from licquant.commands.options import Range
from licquant.errors import LicquantError


def declared():
    """(command, name of the parameter, its types, what typer is told of it) for the whole command line."""
    for command in cli.app.registered_commands:
        hints = get_type_hints(command.callback, include_extras=True)
        for name, hint in hints.items():
            if name != "return":
                plain, *told = get_args(hint) if hasattr(hint, "__metadata__") else (hint,)
                kinds = get_args(plain) or (plain,)
                yield command.name or command.callback.__name__, name, kinds, told[0] if told else None


RANGED = [(command, told.parser) for command, _, _, told in declared() if isinstance(getattr(told, "parser", 0), Range)]
IDS = [f"{command} {of.option}" for command, of in RANGED]


def beyond(of: Range) -> list[str]:
    """What the option must refuse."""
    if of.whole:
        ends = [str(of.low - 1), str(of.high + 1), str(10 * of.high), "2.5", "1e2"]
    else:
        low = of.low if of.above else math.nextafter(of.low, -math.inf)
        ends = [repr(low), repr(math.nextafter(of.high, math.inf)), "-0.013"]
    return [*ends, "nan", "-nan", "inf", "-inf", "1e400", "", " ", "x", "1\n2", "\udcff", "9" * 5000]


def test_no_number_is_without_a_range():
    found = list(declared())
    numbers = [(command, name, told) for command, name, kinds, told in found if {int, float} & set(kinds)]
    assert [(command, name) for command, name, told in numbers if not isinstance(told.parser, Range)] == []
    assert all(told.parser.option in (told.default, *told.param_decls) for *_, told in numbers)
    assert len(numbers) == len(RANGED) > 40


@pytest.mark.parametrize(("command", "of"), RANGED, ids=IDS)
def test_what_is_out_of_range_is_one_line_before_any_work(command, of, capsys):
    """Options that are required are missing here: nothing but the parser has run."""
    for value in beyond(of):
        with pytest.raises(SystemExit) as stop:
            cli.main([command, f"{of.option}={value}"])
        assert stop.value.code == 1
        said = capsys.readouterr().err
        assert said.count("\n") == 1
        assert said.startswith(f"licquant: {of.option} ")
        assert "must be a" in said


@pytest.mark.parametrize(("command", "of"), RANGED, ids=IDS)
def test_both_ends_are_within(command, of):
    low = math.nextafter(of.low, math.inf) if of.above else of.low
    assert of(str(low)) == low
    assert of(str(of.high)) == of.high
    with pytest.raises(LicquantError):
        of(str(of.low - 1))


@pytest.mark.parametrize("command", ["quantize", "finetune"])
@pytest.mark.parametrize(
    "budget",
    [
        "bits=1",
        "bits=1.99",
        "bits=16.01",
        "bits=17",
        "bits=nan",
        "size=0",
        "size=-1",
        "size=inf",
        "size=nan",
        "bytes=0",
        "bytes=nan",
        "bops=-1",
        "latency=0",
        "loss=0%",
        "loss=-1%",
        "loss=inf%",
        "loss=nan",
        "bytes=",
        "=8",
        "weight=3",
    ],
)
def test_budgets_out_of_range(command, budget, capsys, tmp_path):
    words = ["--checkpoint", tmp_path / "c.pt", "--calib", tmp_path, "-o", tmp_path / "m.licq", "--lmbda", "0.01"]
    data = ["--data", tmp_path] if command == "finetune" else []
    with pytest.raises(SystemExit) as stop:
        cli.main([command, *map(str, [*words, *data]), "--budget", budget])
    assert stop.value.code == 1
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "budget" in said
