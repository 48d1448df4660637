"""The plan that is compared: its steps are those of one model alone, each λ starts from the one before."""

from benchmarks.train_plan import LMBDAS, alone, plan


def test_the_plan_costs_as_many_steps_as_one_model() -> None:
    runs = plan(4000)
    assert sum(run.recipe.steps for run in runs) == alone(0.01, 4000).steps
    assert [run.recipe.lmbda for run in runs] == list(LMBDAS)
    assert [run.init for run in runs] == [None, *(run.name for run in runs[:-1])]
