"""The loop of a training run: steps, log, progress, saved states, and the wish to stop."""

import contextlib
import math
import time
from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

from rich.console import Console

from licquant.errors import LicquantError, TrainingError
from licquant.images import write_atomically
from licquant.train import resume
from licquant.train.batches import Crops, ahead
from licquant.train.progress import COMPLETE, INTERRUPTED, Clock, training_bar
from licquant.train.settings import LOG, STATE, RunOptions, learning_rate, phase_at
from licquant.train.stepper import Stepper

FIGURES = ("loss", "bpp", "distortion", "auxiliary", "gradient")


class Journal:
    """Rows of means over ``log_every`` steps. The text is part of the saved state, the file a copy of it.

    ``quality_db`` is -10·log10(distortion): the PSNR for the MSE, the usual dB form of MS-SSIM for the other.
    """

    def __init__(self, path: Path, figures: Sequence[str] = FIGURES) -> None:
        """``figures``: names of what a step reports, ``loss``, ``bpp`` and ``distortion`` among them."""
        self.path, self.figures = path, tuple(figures)
        self.after_distortion = self.figures.index("distortion") + 1
        names = (*self.figures[: self.after_distortion], "quality_db", *self.figures[self.after_distortion :])
        self.columns = ("step", "learning_rate", "crop", *names)
        self.text = ",".join(self.columns) + "\n"

    def add(self, step: int, learning_rate: float, crop: int, means: list[float]) -> None:
        """Append the row of the steps up to ``step``; ``means`` as ``Stepper.take_means`` gives them."""
        quality = -10 * math.log10(max(means[self.after_distortion - 1], 1e-12))
        values = (learning_rate, crop, *means[: self.after_distortion], quality, *means[self.after_distortion :])
        self.text += ",".join([str(step), *(f"{value:.7g}" for value in values)]) + "\n"

    def write(self) -> None:
        """Bring the file up to date; ``TrainingError`` if that fails."""
        _write(self.path, self.text.encode())

    def last_row(self) -> dict[str, float]:
        """Column → value of the latest row; there must be one."""
        return self._row(self.text.rsplit("\n", 2)[-2])

    def rows(self) -> list[dict[str, float]]:
        """All rows, in the order of the steps."""
        return [self._row(line) for line in self.text.splitlines()[1:]]

    def draw(self, path: Path, title: str) -> bool:
        """Draw the loss and its parts over the steps into a PNG file; False where matplotlib is missing."""
        try:
            from matplotlib.backends.backend_agg import FigureCanvasAgg
            from matplotlib.figure import Figure
        except ImportError:
            return False
        rows = self.rows()
        steps = [row["step"] for row in rows]
        figure = Figure(figsize=(10, 3.2), layout="constrained")
        FigureCanvasAgg(figure)
        panels = (
            ("loss", "loss", "log"),
            ("bpp", "bits per pixel", "linear"),
            ("quality_db", "quality in dB", "linear"),
        )
        for axes, (column, label, scale) in zip(figure.subplots(1, 3), panels, strict=True):
            axes.plot(steps, [row[column] for row in rows], linewidth=1)
            axes.set(xlabel="step", ylabel=label, yscale=scale)
            axes.grid(alpha=0.3, which="both")
        figure.suptitle(title)
        image = BytesIO()
        figure.savefig(image, format="png", dpi=100)
        _write(path, image.getvalue())
        return True

    def _row(self, line: str) -> dict[str, float]:
        return dict(zip(self.columns, map(float, line.split(",")), strict=True))


def _write(path: Path, data: bytes) -> None:
    try:
        write_atomically(path, data)
    except LicquantError as error:
        raise TrainingError(str(error)) from error


# How often several processes ask the first one whether to stop or to save: asking costs each of them a wait.
STEPS_BETWEEN_QUESTIONS = 10
NOTHING, SAVE, STOP = range(3)


class Loop:
    """The training loop of one run, with its log and its saved state."""

    def __init__(
        self,
        trainer: Stepper,
        crops: Crops,
        mine: Mapping[str, Any],
        options: RunOptions,
        clock: Clock,
        console: Console,
    ) -> None:
        """``mine``: the run's identity, see ``resume``."""
        self.trainer, self.crops = trainer, crops
        self.journal = Journal(options.companion(LOG), figures=trainer.figures)
        self.mine, self.options, self.clock, self.console = mine, options, clock, console
        self.recipe, self.fabric = trainer.recipe, trainer.fabric
        # Seconds of the interrupted runs before, less what the clock had run when this one began.
        self.seconds_before = -clock.seconds
        self.saved_at = clock.seconds
        self.images, self.images_since = 0, time.monotonic()

    @property
    def seconds(self) -> float:
        """Of training, those of the interrupted runs before included."""
        return self.seconds_before + self.clock.seconds

    def continue_from(self, saved: resume.Saved) -> None:
        """Take over step, weights, log and time of a run that was interrupted; ``TrainingError`` if they do not fit."""
        self.trainer.restore(saved.trainer)
        self.journal.text = saved.journal
        self.seconds_before += saved.seconds

    def train(self) -> str:
        """Take the steps left, or as many as there is time for; save the state; return the status."""
        first = self.fabric.is_global_zero
        bar = training_bar(self.console, self.recipe, self.trainer.step, shown=first)
        steps = ahead(self.crops, self.trainer.step, self.recipe.steps)
        # Closed whatever happens, so that no thread is left behind.
        with self.clock.listening(), self.trainer.prepared(), bar as move, contextlib.closing(steps):
            for step, samples in steps:
                self.trainer.advance(samples, self.crops.first_sample(step))
                self.images += len(samples) * self.fabric.world_size
                move(self.trainer.step, self._log() if self._log_is_due() else None)
                decision = self._decide()
                if decision == STOP:
                    break
                if decision == SAVE:
                    self._save()
        self._save()
        if self.trainer.step == self.recipe.steps:
            return COMPLETE
        return self.clock.stop_reason() or INTERRUPTED

    def _log_is_due(self) -> bool:
        return self.trainer.step % self.recipe.log_every == 0 or self.trainer.step == self.recipe.steps

    def _log(self) -> str:
        """Add a row to the log; return its figures for the progress bar."""
        step, means = self.trainer.step, self.trainer.take_means()
        rate = learning_rate(self.recipe, step - 1)
        self.journal.add(step, rate, phase_at(self.recipe, step - 1).crop, means)
        if self.fabric.is_global_zero:
            self.journal.write()
        row = self.journal.last_row()
        now = time.monotonic()
        speed = self.images / max(1e-9, now - self.images_since)
        self.images, self.images_since = 0, now
        width = f", {row['bits']:.2f} bits" if "bits" in row else ""
        return f"J {row['loss']:.3f} = {row['bpp']:.3f} bpp, {row['quality_db']:.2f} dB{width}, {speed:.0f} images/s"

    def _decide(self) -> int:
        """Whether to go on, to save or to stop after this step: the same answer in every process."""
        if self.fabric.world_size == 1:
            return self._wish()
        if self.trainer.step % STEPS_BETWEEN_QUESTIONS:
            return NOTHING
        return int(self.fabric.broadcast(self._wish()))

    def _wish(self) -> int:
        if self.clock.stop_reason() is not None:
            return STOP
        return SAVE if self.clock.seconds - self.saved_at >= 60 * self.options.checkpoint_minutes else NOTHING

    def _save(self) -> None:
        state = self.trainer.state()
        if self.fabric.is_global_zero:
            self.journal.write()
            resume.save_state(self.options.companion(STATE), self.mine, state, self.journal.text, self.seconds)
        self.saved_at = self.clock.seconds
