"""What a training run is told: ``Recipe`` decides the result, ``RunOptions`` only how it is reached.

Crop size, batch size and learning rate of a step are pure functions of the recipe and the step, so nothing to save.
"""

import math
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import KW_ONLY, asdict, dataclass, fields
from pathlib import Path
from typing import Any, Self

from licquant.errors import LicquantError, TrainingError
from licquant.evaluate.rd import DISTORTION_WEIGHTS
from licquant.images import check_places

METRICS = tuple(DISTORTION_WEIGHTS)
AUTO, BFLOAT16, FLOAT32 = "auto", "bf16", "fp32"
PRECISIONS = (AUTO, BFLOAT16, FLOAT32)

# Six steps of stride 2 between image and hyper latent.
CROP_MULTIPLE = 64
_WARM_UP_SHARE = 6  # one over the most that a warm-up may take: of 60 steps that raise the rate, few are left to train
# MS-SSIM has five scales and an 11-wide window: shorter sides leave the last scale without a window.
MS_SSIM_CROP = 192


@dataclass(frozen=True)
class BaseRecipe:
    """What every kind of training decides its result by.

    model            CompressAI's registered name
    lmbda            > 0; for the MSE on the [0, 1] scale times 255², or for 1 - MS-SSIM
    steps            optimizer steps; ``warmup`` of them, a sixth at most, raise the learning rate, a cosine
                     then lowers it to ``final_rate`` times its maximum
    crop, batch      crops a step, over all processes, of crop×crop pixels (a multiple of 64)
    large_crop, …    the same from step ``large_from``·steps on
    clip             largest norm of the gradient       average   decay of the moving average of the weights
    log_every        steps in one row of the log
    """

    model: str
    lmbda: float
    _: KW_ONLY
    metric: str = "mse"
    steps: int = 15_000
    batch: int = 8
    crop: int = 128
    large_batch: int = 3
    large_crop: int = 256
    large_from: float = 0.75
    learning_rate: float = 3e-4
    warmup: int = 200
    final_rate: float = 0.01
    clip: float = 1.0
    average: float = 0.999
    seed: int = 0
    log_every: int = 50

    def __post_init__(self) -> None:
        for name, complaint in self.complaints():
            raise TrainingError(f"{name} = {getattr(self, name)!r}: {complaint}")

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any]) -> Self:
        """A recipe from names and values; ``TrainingError`` for unknown names and values of a wrong type."""
        known = {field.name: field.type for field in fields(cls)}
        for name, value in values.items():
            if name not in known:
                raise TrainingError(f"unknown setting {name!r}; known are {', '.join(known)}")
            if not _fits(value, known[name]):
                raise TrainingError(f"{name} = {value!r}: must be a value of type {known[name]}")
        missing = [name for name in ("model", "lmbda") if name not in values]
        if missing:
            raise TrainingError(f"a recipe needs {' and '.join(missing)}")
        settings: dict[str, Any] = {
            name: float(value) if known[name] is float else value for name, value in values.items()
        }
        if settings.get("metric") == "ms-ssim":
            settings.setdefault("crop", MS_SSIM_CROP)
        return cls(**settings)

    def to_mapping(self) -> dict[str, Any]:
        """Names and values; ``from_mapping`` is the inverse."""
        return asdict(self)

    def complaints(self) -> Iterator[tuple[str, str]]:
        """(field, what is wrong with it) for every field that cannot be used."""
        yield from _out_of_range(self, ("lmbda", "learning_rate", "clip"), _positive, "must be a finite number above 0")
        yield from _out_of_range(self, ("steps", "batch", "large_batch", "log_every"), _at_least_one, AT_LEAST_ONE)
        yield from _out_of_range(self, ("warmup", "seed"), lambda n: 0 <= n < 2**63, "must not be negative")
        sides = ("crop", "large_crop")
        yield from _out_of_range(
            self,
            sides,
            lambda n: n >= CROP_MULTIPLE and n % CROP_MULTIPLE == 0,
            f"must be a multiple of {CROP_MULTIPLE}",
        )
        if self.metric == "ms-ssim":
            yield from _out_of_range(self, sides, lambda n: n >= MS_SSIM_CROP, f"MS-SSIM needs at least {MS_SSIM_CROP}")
        yield from _out_of_range(
            self, ("large_from", "final_rate"), lambda share: 0 <= share <= 1, "must be between 0 and 1"
        )
        yield from _out_of_range(self, ("average",), lambda d: 0 <= d < 1, "must be at least 0 and below 1")
        yield from _out_of_range(self, ("metric",), METRICS.__contains__, f"choose one of {', '.join(METRICS)}")


@dataclass(frozen=True)
class Recipe(BaseRecipe):
    """Everything that decides the weights. A run is resumed only with the recipe it was started with.

    N, M             widths of the model; None: those of ``init``, else the usual ones
    precision        of everything but the entropy models: ``bf16``, ``fp32``, or ``auto`` for bf16 where the device
                     multiplies it natively; a run on ``auto`` may go on on another machine, in another precision
    """

    N: int | None = None
    M: int | None = None
    aux_learning_rate: float = 1e-3
    precision: str = AUTO

    def complaints(self) -> Iterator[tuple[str, str]]:
        """Those of every recipe, and about widths, precision and the auxiliary rate."""
        yield from super().complaints()
        yield from _out_of_range(self, ("aux_learning_rate",), _positive, "must be a finite number above 0")
        yield from _out_of_range(self, ("N", "M"), lambda n: n is None or n >= 1, AT_LEAST_ONE)
        yield from _out_of_range(
            self, ("precision",), PRECISIONS.__contains__, f"choose one of {', '.join(PRECISIONS)}"
        )


def _fits(value: Any, annotation: Any) -> bool:
    wanted = {
        str: (str,),
        int: (int,),
        float: (int, float),
        int | None: (int, type(None)),
    }[annotation]
    if not isinstance(value, wanted) or isinstance(value, bool):
        return False
    return annotation is not float or not isinstance(value, int) or abs(value) <= sys.float_info.max


AT_LEAST_ONE = "must be at least 1"


def _positive(value: float) -> bool:
    return math.isfinite(value) and value > 0


def _at_least_one(value: int) -> bool:
    return value >= 1


def _out_of_range(
    recipe: BaseRecipe, names: Sequence[str], fine: Callable[[Any], bool], complaint: str
) -> Iterator[tuple[str, str]]:
    """The complaint about each of the fields that is not fine."""
    return ((name, complaint) for name in names if not fine(getattr(recipe, name)))


@dataclass(frozen=True)
class RunOptions:
    """How a run is carried out and what it leaves; none of this changes the weights.

    data, output        folder of training images; where the checkpoint goes, its companions beside it
    init                checkpoint to start from
    resume              continue an interrupted run, if there is one
    max_minutes         stop after this time with a usable checkpoint; the run can be resumed
    checkpoint_minutes  time between two states that a killed run resumes from
    devices             processes; each takes an equal share of every batch
    accelerator         ``auto``, ``cpu`` or ``cuda``
    threads             PyTorch's threads; None leaves its default
    cache               folder for the decoded images; None: ``cache.cache_folder()``
    test_images         folder; the finished model's RD point on it goes into the model card
    validation_images   the same, with the RD loss of ``init`` beside it: what the run has gained
    max_file_mib        split a larger checkpoint into shards of at most this size
    note, licence       for the model card
    """

    data: Path
    output: Path
    init: Path | None = None
    resume: bool = False
    max_minutes: float | None = None
    checkpoint_minutes: float = 5.0
    devices: int = 1
    accelerator: str = "auto"
    threads: int | None = None
    cache: Path | None = None
    test_images: Path | None = None
    validation_images: Path | None = None
    max_file_mib: float | None = None
    note: str = ""
    licence: str = "weights made with licquant (Apache-2.0); the training images' own terms apply beside it"

    def __post_init__(self) -> None:
        if self.devices < 1:
            raise TrainingError(f"devices = {self.devices}: must be at least 1")
        for name in ("max_minutes", "checkpoint_minutes", "max_file_mib"):
            value = getattr(self, name)
            if value is not None and not (math.isfinite(value) and value >= 0):
                raise TrainingError(f"{name} = {value}: must be a finite number, not negative")

    def check_output(self) -> None:
        """Raise ``TrainingError`` unless ``output`` can be a checkpoint's name beside its companions, and all of them
        can be written, in a folder that is there."""
        if self.output.suffix in ("", *COMPANIONS):
            raise TrainingError(f"{self.output}: name the checkpoint with a suffix of its own, as in model.pt")
        try:
            check_places(self.output, *map(self.companion, COMPANIONS))
        except LicquantError as error:
            raise TrainingError(str(error)) from error

    def companion(self, suffix: str) -> Path:
        """The file beside the checkpoint with one of the suffixes of ``COMPANIONS``."""
        return self.output.with_suffix(suffix)


CARD, STATE, LOG, PICTURE = ".json", ".state", ".csv", ".png"
COMPANIONS = (CARD, STATE, LOG, PICTURE)


@dataclass(frozen=True)
class Phase:
    """Steps ``start`` to ``stop`` - 1 take ``batch`` crops of ``crop``×``crop`` pixels each."""

    start: int
    stop: int
    crop: int
    batch: int


def phases(recipe: BaseRecipe) -> tuple[Phase, ...]:
    """Small crops first, for many steps in little time; large ones at the end, for borders and long range."""
    turn = round(recipe.large_from * recipe.steps)
    both = (
        Phase(0, turn, recipe.crop, recipe.batch),
        Phase(turn, recipe.steps, recipe.large_crop, recipe.large_batch),
    )
    return tuple(phase for phase in both if phase.stop > phase.start)


def phase_at(recipe: BaseRecipe, step: int) -> Phase:
    """The phase that ``step``, 0 to steps - 1, falls in."""
    return next(phase for phase in phases(recipe) if step < phase.stop)


def learning_rate(recipe: BaseRecipe, step: int) -> float:
    """Linear from 0 over the warm-up, times a half cosine over all steps down to ``final_rate``."""
    return recipe.learning_rate * warm_up(recipe, step) * decay(recipe, step / recipe.steps)


def warm_up(recipe: BaseRecipe, step: int) -> float:
    """Factor of the learning rate at a step: linear over the warm-up, a sixth of the steps at most, then 1."""
    return min(1.0, (step + 1) / max(1, min(recipe.warmup, recipe.steps // _WARM_UP_SHARE)))


def decay(recipe: BaseRecipe, share: float) -> float:
    """Factor of the learning rate after so large a share, 0 to 1, of the training: half a cosine."""
    return recipe.final_rate + (1 - recipe.final_rate) * 0.5 * (1 + math.cos(math.pi * share))
