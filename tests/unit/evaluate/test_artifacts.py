"""Artifacts become curves: by method, budget and settings, in order of λ."""

from pathlib import Path
from typing import Any

import pytest

from licquant.codec.contents import LayerContents
from licquant.errors import DataError
from licquant.evaluate.artifacts import Candidate, average_bits, grouped
from licquant.evaluate.codec_results import AverageBits


def candidate(lmbda: float, **provenance: Any) -> Candidate:
    return Candidate(Path(f"{lmbda}.licq"), lmbda, "", "", AverageBits(8, 8, 8), (), provenance)


def layer(weight: int | None, activation: int, weights: int) -> LayerContents:
    return LayerContents("g_a.0", "g_a", "Conv", weight, activation, 100, weights, 20)


def test_averages_by_parameters_and_by_layers() -> None:
    layers = [layer(8, 8, 100), layer(4, 6, 300), layer(None, 10, 0)]
    assert average_bits(layers) == AverageBits(weight=5, weight_layer=6, activation=8)
    with pytest.raises(DataError, match="no quantized weights"):
        average_bits(layers[2:])


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


def test_an_artifact_need_not_say_its_method() -> None:
    assert [group.label for group in grouped([candidate(0.01)])] == ["licquant"]


def test_two_of_one_curve_and_lambda_are_refused() -> None:
    with pytest.raises(DataError, match="both made with fmpq"):
        grouped([candidate(0.01, method="fmpq"), candidate(0.01, method="fmpq")])


def test_reading_an_artifact(artifact_path: Path, hand_made_path: Path) -> None:
    found = Candidate.read(artifact_path)
    assert found.lmbda == 0.01
    assert found.bits == AverageBits(8, 8, 8)
    with pytest.raises(DataError, match="does not say its λ"):
        Candidate.read(hand_made_path)
