"""``licquant compare``: makes what is missing, measures all of it, leaves out what cannot meet its budget."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from licquant import pipeline
from licquant.cluster.session import Cluster
from licquant.commands import compare as compare_command
from licquant.commands.compare import CompareOptions, compare, is_made
from licquant.errors import BudgetError, LicquantError, ModelError
from licquant.images import write_image
from licquant.quant.synthetic import dead_leaves
from tests.html_pages import numbers, read_page, table_of
from tests.models_for_tests import small_hyperprior


@pytest.fixture
def options(tmp_path: Path) -> CompareOptions:
    for lmbda in (0.01, 0.02):
        torch.save(small_hyperprior(seed=int(100 * lmbda)).state_dict(), tmp_path / f"{lmbda}.pt")
        (tmp_path / f"{lmbda}.json").write_text(json.dumps({"lmbda": lmbda}))
    for folder in ("calib", "test"):
        (tmp_path / folder).mkdir()
        write_image(tmp_path / folder / "a.png", np.ascontiguousarray(dead_leaves(1, 128)[0]))
    checkpoints = [tmp_path / "0.02.pt", tmp_path / "0.01.pt"]
    return CompareOptions(
        model="bmshj2018-hyperprior",
        checkpoints=checkpoints,
        calib=tmp_path / "calib",
        images=tmp_path / "test",
        budgets=["bits=8", "bits=4"],
        methods="uniform",
        output=tmp_path / "out",
        act_bits=8,
        max_bits=8,
        steps=0,
        threads=1,
    )


def test_compare_makes_each_artifact_once(options: CompareOptions, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    record = compare(options).record
    assert [curve["label"] for curve in record["curves"]] == ["uniform bits=8 a8", "uniform bits=4 a8"]
    assert [point["lmbda"] for point in record["curves"][0]["points"]] == [0.01, 0.02]
    assert record["comparisons"][1]["average_bits"] == {"weight": 4, "weight_layer": 4, "activation": 8}
    assert record["provenance"]["missed"] == []
    assert json.loads((options.output / "results.json").read_text())["schema"] == record["schema"]
    for name in ("results-rd.png", "results-pareto-0.01.png", "results-pareto-0.02.png"):
        assert (options.output / name).stat().st_size > 1000

    made: list[Path] = []
    monkeypatch.setattr(compare_command, "quantize", lambda job, prepared: made.append(job.output))
    compare(options).show()
    assert made == []
    printed = capsys.readouterr().out
    assert "uniform bits=4 a8" in printed
    assert "…" not in printed  # no cell is cut

    changed = json.loads((options.checkpoints[0]).with_suffix(".json").read_text()) | {"lmbda": 0.03}
    options.checkpoints[0].with_suffix(".json").write_text(json.dumps(changed))
    jobs = compare_command._jobs(options)
    assert [is_made(job) for job in jobs] == [False, True, False, True]
    next(options.calib.iterdir()).write_bytes(b"another image")
    assert not any(is_made(job) for job in jobs)
    jobs[1].output.write_bytes(b"LICQ, cut off")
    assert not is_made(jobs[1])


def test_what_misses_its_budget_is_left_out(
    options: CompareOptions, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    real = compare_command.quantize

    def quantize(job, prepared):
        if job.budget == "bits=4":
            raise BudgetError("the smallest reachable value is 5")
        return real(job)

    monkeypatch.setattr(compare_command, "quantize", quantize)
    found = compare(options)
    assert [miss["lmbda"] for miss in found.record["provenance"]["missed"]] == [0.02, 0.01]
    assert len(found.record["curves"]) == 1
    found.show()
    assert "left out: uniform bits=4, λ=0.02: the smallest reachable value is 5" in capsys.readouterr().out


@pytest.mark.slow
def test_a_report_of_the_comparison(options: CompareOptions, capsys: pytest.CaptureFixture[str]) -> None:
    """With a budget that is missed, and the table of the method that measured one."""
    html = options.output / "report"
    values = vars(options) | {
        "methods": "fmpq",
        "budgets": ["bits=3", "bytes=10"],
        "max_bits": 3,
        "html": html,
        "checkpoints": options.checkpoints[:1],
    }
    found = compare(CompareOptions(**values))
    found.show()
    assert f"{html / 'index.html'}: the report" in capsys.readouterr().out
    record = json.loads((html / "report.json").read_text())
    assert record["evaluation"] == json.loads((options.output / "results.json").read_text())
    (model,) = record["models"]
    assert model["sensitivity"]["bits"] == [2, 3]  # what weights may get; activations have no choice
    assert model["sensitivity"]["artifact"] == model["sha256"]
    page = read_page((html / "index.html").read_text(encoding="utf-8"))
    shown = numbers(table_of(page, "weights, λ = 0.02: ζ in percent"))
    assert shown[0] == [100 * zeta for zeta in model["sensitivity"]["weights"][0]]
    assert "activations, λ = 0.02: ζ" not in page.text
    assert "Budgets that were not met" in page.text


def test_bad_options_are_found_before_any_work(options: CompareOptions, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compare_command, "quantize", lambda job, prepared: pytest.fail("work began"))

    def changed(**values: object) -> CompareOptions:
        return CompareOptions(**{**vars(options), **values})

    with pytest.raises(BudgetError, match="unknown method 'magic'"):
        compare(changed(methods="uniform,magic"))
    with pytest.raises(BudgetError, match="cannot read the budget"):
        compare(changed(budgets=["small"]))
    with pytest.raises(LicquantError, match="not a folder"):
        compare(changed(images=options.images / "no"))
    with pytest.raises(ModelError, match="no model card"):
        compare(changed(checkpoints=[options.images / "x.pt"]))
    with pytest.raises(ModelError, match="same λ"):
        compare(changed(checkpoints=[options.checkpoints[0]] * 2))
    for place in (options.images, options.output):
        with pytest.raises(LicquantError, match=r"not a report|of its own"):
            compare(changed(html=place))
    assert not (options.output / "results.json").exists()
    assert "uniform" in pipeline.METHODS


@pytest.mark.slow
def test_from_what_a_cluster_is_sent_the_same_is_made(options: CompareOptions, sent: list[int], tmp_path: Path) -> None:
    """Artifacts byte for byte, made of what checkpoints have in common as it arrives at another machine."""
    torch.set_num_threads(1)
    values = vars(options) | {"methods": "uniform,fmpq", "budgets": ["bits=3.5", "bytes=10"], "max_bits": 4, "steps": 2}
    made = {}
    for name in ("plain", "away"):
        jobs = compare_command._jobs(CompareOptions(**values | {"output": tmp_path / name, "act_bits": 4}))
        on_cluster = compare_command._on_cluster(Cluster(), jobs, options)
        reasons = dict(compare_command._in_turn(jobs) if name == "plain" else on_cluster)
        assert [bool(reasons[job.output]) for job in jobs] == 2 * [False, False, True, True]
        made[name] = [job.output.read_bytes() for job in jobs if not reasons[job.output]]
        assert all(is_made(job) for job in jobs if not reasons[job.output])
    assert made["away"] == made["plain"]
    assert sent == [60, 60, 8]  # measurements of two tables, then the artifacts
