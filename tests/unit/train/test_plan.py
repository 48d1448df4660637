"""Training plans: what a file may say, and that a plan is worked through, interrupted and continued."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from licquant.errors import TrainingError
from licquant.train import progress, trainer
from licquant.train.plan import planned_runs, run_plan
from licquant.train.progress import COMPLETE, INTERRUPTED
from tests.unit.train.small import RECIPE, options

DEFAULTS = {**RECIPE.to_mapping(), "steps": 4}
del DEFAULTS["lmbda"]
BASE = "bmshj2018-hyperprior-lambda0.0100"


def write_plan(folder: Path, runs: list[dict[str, Any]], defaults: dict[str, Any] | None = None) -> Path:
    path = folder / "plan.json"
    path.write_text(json.dumps({"defaults": DEFAULTS if defaults is None else defaults, "runs": runs}))
    return path


def test_toml_and_json_say_the_same(tmp_path: Path) -> None:
    toml = tmp_path / "plan.toml"
    toml.write_text(
        '[defaults]\nmodel = "mbt2018-mean"\nN = 8\n'
        '[[runs]]\nlmbda = 0.0483\n[[runs]]\nlmbda = 0.025\ninit = "mbt2018-mean-lambda0.0483"\nsteps = 5\n'
    )
    runs = [{"lmbda": 0.0483}, {"lmbda": 0.025, "init": "mbt2018-mean-lambda0.0483", "steps": 5}]
    plan = planned_runs(toml)
    assert plan == planned_runs(write_plan(tmp_path, runs, {"model": "mbt2018-mean", "N": 8}))
    assert [(run.name, run.recipe.lmbda, run.recipe.steps, run.init) for run in plan] == [
        ("mbt2018-mean-lambda0.0483", 0.0483, 15_000, None),
        ("mbt2018-mean-lambda0.0250", 0.025, 5, "mbt2018-mean-lambda0.0483"),
    ]


@pytest.mark.parametrize(
    ("runs", "message"),
    [
        ([], "needs a list of runs"),
        ([{"lmbda": 0}], "run 1: lmbda = 0"),
        ([{"lmbda": 0.1}, {"lmbda": 0.1}], "run 2: the name .* is taken"),
        ([{"lmbda": 0.1, "init": "nowhere.pt"}], "run 1: init: neither an earlier run nor a checkpoint"),
        ([{"lmbda": 0.1, "init": 5}], "run 1: init = 5"),
        ([{"lmbda": 0.1, "name": "../up"}], "run 1: name"),
        ([{"lmbda": 0.1, "epochs": 3}], "run 1: unknown setting 'epochs'"),
        ([3], "run 1: defaults and runs must be tables"),
    ],
)
def test_a_plan_that_cannot_be_followed_is_refused(tmp_path: Path, runs: list[Any], message: str) -> None:
    with pytest.raises(TrainingError, match=message):
        planned_runs(write_plan(tmp_path, runs))


@pytest.mark.parametrize(("name", "text"), [("a.toml", "runs = ["), ("a.json", "{"), ("a.toml", "[oops]\nruns=1")])
def test_a_file_that_is_no_plan_is_refused(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(TrainingError, match=name):
        planned_runs(tmp_path / name)
    with pytest.raises(TrainingError, match="No such file"):
        planned_runs(tmp_path / "nothing.toml")


def test_an_interrupted_plan_is_continued(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runs = [
        {"lmbda": 0.01},
        {"lmbda": 0.02, "init": BASE},
        {"lmbda": 0.04, "name": "last", "init": "second.pt"},
    ]
    runs[1]["name"] = "second"
    runs[2]["init"] = "second"
    plan = planned_runs(write_plan(tmp_path, runs))
    whole = run_plan(plan, options(tmp_path, output=tmp_path / "whole"))
    assert [result.status for result in whole] == [COMPLETE] * 3
    assert [result.card["init"] for result in whole] == ["scratch", "lambda 0.01", "lambda 0.02"]

    taken = []
    advance = trainer.Trainer.advance

    def counted(self: trainer.Trainer, *arguments: Any) -> None:
        advance(self, *arguments)
        taken.append(self.step)

    monkeypatch.setattr(trainer.Trainer, "advance", counted)
    with monkeypatch.context() as patch:
        patch.setattr(progress.Clock, "stop_reason", lambda _: INTERRUPTED if len(taken) == 6 else None)
        stopped = run_plan(plan, options(tmp_path, output=tmp_path / "parts"))
    assert [result.status for result in stopped] == [COMPLETE, INTERRUPTED]
    again = run_plan(plan, options(tmp_path, output=tmp_path / "parts"))
    assert [result.status for result in again] == [COMPLETE] * 3
    assert len(taken) == 12  # none twice
    for name in (f"{BASE}.pt", "second.pt", "last.pt"):
        one, other = (torch.load(tmp_path / place / name, weights_only=True) for place in ("whole", "parts"))
        assert all(torch.equal(one[key], other[key]) for key in one)
