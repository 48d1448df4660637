"""What needs the training stack: small checkpoints, plans, model cards, latency tables."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress

from fuzz import mutate
from fuzz.target import Target, file_of
from licquant.commands import toolkit as toolkit_commands
from licquant.errors import DataError, ModelError, PlanError, TrainingError
from licquant.evaluate.latency import LatencyTable
from licquant.models.files import read_file
from licquant.models.recognize import architectures_of
from licquant.models.shards import shard_paths
from licquant.models.small import from_small, to_small
from licquant.train import plan as training_plan
from licquant.train import resume
from licquant.train.card import describe_init, lmbda_of
from licquant.train.settings import Recipe, RunOptions


def plan(data: bytes) -> None:
    """The widths of the layers."""
    found = toolkit_commands.read_plan(file_of("plan.json", data))
    assert type(found).from_json(found.to_json()) == found, "written otherwise than it was read"
    assert len(found.hash) == 64
    found.check(found)
    found.check(["g_a.0", "g_s.0", "add"])


def plan_of_runs(data: bytes) -> None:
    """A training plan, JSON or TOML."""
    name = "runs.json" if data.lstrip()[:1] in (b"{", b"[") else "runs.toml"
    for run in training_plan.planned_runs(file_of(name, data)):
        Recipe.from_mapping(run.recipe.to_mapping())


def card(data: bytes) -> None:
    """A model card beside a checkpoint, whole and in shards: by everything that reads one."""
    whole, shards = file_of("card/whole.pt", b"weights"), file_of("card/shards-1of1.pt", b"weights")
    file_of("card/whole.json", data)
    file_of("card/shards.json", data)
    with suppress(ModelError):  # a λ that cannot be is refused; the rest is to be read all the same
        lmbda_of(whole)
    recipe = Recipe("bmshj2018-hyperprior", 0.013, precision="bf16")  # as the seeds say
    options = RunOptions(whole.parent, whole, init=whole, resume=True)
    describe_init(whole)
    hashes = {"data_sha256": "0", "data_contents_sha256": "0", "init_sha256": None}
    resume.finished_card({"recipe": recipe.to_mapping(), **hashes}, options)
    shard_paths(shards.with_name("shards.pt"))


def checkpoint(data: bytes) -> None:
    """A small checkpoint: its tensors, the model that they are of, and the tensors stored again."""
    state = read_file(file_of("model.licw", b"LICW" + data[4:]))  # other files are PyTorch's to read
    architectures_of(state)
    assert from_small(to_small(state)).keys() == state.keys(), "stored otherwise than it was read"


def latency_table(data: bytes) -> None:
    """The measured times of a machine."""
    table = LatencyTable.load(file_of("latency.json", data))
    table.to_json()
    for times in table.layers.values():
        times.at(8, 8)
    table.check_fits("0" * 64)


TARGETS: Mapping[str, Target] = {
    "checkpoint": Target("checkpoint", checkpoint, (ModelError,), mutate.container),
    "plan": Target("plan", plan, (PlanError,), mutate.json_record),
    "training-plan": Target("training-plan", plan_of_runs, (TrainingError,), mutate.json_or_words),
    "card": Target("card", card, (TrainingError, ModelError), mutate.json_record),
    "latency": Target("latency", latency_table, (DataError, ModelError), mutate.json_record),
}
