"""Artifacts become curves: by method, budget and settings, in order of λ."""

from pathlib import Path
from typing import Any

import pytest

from licquant.errors import DataError
from licquant.evaluate.artifacts import Candidate, grouped
from licquant.evaluate.widths import AverageBits


def candidate(lmbda: float, **provenance: Any) -> Candidate:
    return Candidate(Path(f"{lmbda}.licq"), lmbda, "", "", (), provenance)


def test_groups_by_method_budget_and_width() -> None:
    fmpq = {"method": "fmpq", "budget": "size=0.25"}
    given = [
        candidate(0.05, **fmpq, act_bits=8),
        candidate(0.01, **fmpq, act_bits=10),
        candidate(0.01, **fmpq, act_bits=8),
        candidate(0.01, method="fmpq", budget="size=0.14", act_bits=8),
    ]
    found = [(group.label, group.method, [member.lmbda for member in group.members]) for group in grouped(given)]
    assert found == [
        ("fmpq size=0.25 a8", "fmpq a8", [0.01, 0.05]),
        ("fmpq size=0.25 a10", "fmpq a10", [0.01]),
        ("fmpq size=0.14 a8", "fmpq a8", [0.01]),
    ]


def test_settings_are_told_where_labels_would_coincide() -> None:
    given = [
        candidate(0.01, method="uniform", budget="bits=8", steps=0),
        candidate(0.01, method="uniform", budget="bits=8", steps=250),
        candidate(0.01, method="fmpq", budget="bits=8", steps=250),
    ]
    assert [group.label for group in grouped(given)] == [
        "uniform bits=8 steps=0",
        "uniform bits=8 steps=250",
        "fmpq bits=8",
    ]


def test_gammas_and_seeds_are_told_where_they_tell_artifacts_of_one_lambda_apart() -> None:
    dynamic = {"method": "dpa-dq", "budget": "widths=6,8"}
    along = [candidate(0.01, gamma=0.1, seed=0, **dynamic), candidate(0.05, gamma=0.2, seed=0, **dynamic)]
    assert [group.label for group in grouped(along)] == ["dpa-dq widths=6,8"]
    apart = [*along, candidate(0.01, gamma=0.3, seed=0, **dynamic)]
    assert [group.label for group in grouped(apart)] == [
        f"dpa-dq widths=6,8 gamma={gamma}" for gamma in (0.1, 0.2, 0.3)
    ]
    seeds = [candidate(lmbda, gamma=lmbda, seed=seed, **dynamic) for seed in (0, 1) for lmbda in (0.01, 0.05)]
    assert [(group.label, len(group.members)) for group in grouped(seeds)] == [
        ("dpa-dq widths=6,8 seed=0", 2), ("dpa-dq widths=6,8 seed=1", 2)
    ]  # fmt: skip


def test_an_artifact_need_not_say_its_method() -> None:
    assert [group.label for group in grouped([candidate(0.01)])] == ["licquant"]


def test_two_of_one_curve_and_lambda_are_refused() -> None:
    with pytest.raises(DataError, match="both made with fmpq"):
        grouped([candidate(0.01, method="fmpq"), candidate(0.01, method="fmpq")])


def test_reading_an_artifact(artifact_path: Path, hand_made_path: Path) -> None:
    found = Candidate.read(artifact_path)
    assert found.lmbda == 0.01
    assert found.bits([{}, {}]) == AverageBits(8, 8, 8)
    assert found.stages == {}
    with pytest.raises(DataError, match="does not say its λ"):
        Candidate.read(hand_made_path)
