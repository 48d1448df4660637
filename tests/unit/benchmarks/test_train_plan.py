"""The plan that is compared: its steps are those of one model alone, each λ starts from its neighbour."""

from benchmarks.train_plan import BRANCHES, RATE, alone, plan


def test_the_plan_costs_as_many_steps_as_one_model() -> None:
    trunk, *branches = plan(4000)
    assert trunk.recipe.steps + sum(run.recipe.steps for run in branches) == alone(0.01, 4000).steps
    assert {run.recipe.lmbda: run.init for run in branches} == BRANCHES
    names = ["trunk", *(run.name for run in branches)]
    assert all(run.init in names[: names.index(run.name)] for run in branches)


def test_both_sides_are_trained_alike() -> None:
    single = alone(0.01, 4000)
    assert single.learning_rate == RATE >= max(run.recipe.learning_rate for run in plan(4000))
    for field in ("model", "N", "M", "crop", "batch", "large_crop", "large_batch", "average", "clip", "precision"):
        assert {getattr(run.recipe, field) for run in plan(4000)} == {getattr(single, field)}
