"""The loop of a training run: steps, log, progress, saved states, and the wish to stop."""

import contextlib
import time
from collections.abc import Mapping
from typing import Any

from rich.console import Console

from licquant.train import resume, schedule
from licquant.train.batches import Crops, ahead
from licquant.train.journal import Journal
from licquant.train.progress import COMPLETE, INTERRUPTED, Clock, training_bar
from licquant.train.settings import LOG, STATE, RunOptions
from licquant.train.stepper import Stepper

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
        rate = schedule.learning_rate(self.recipe, step - 1)
        self.journal.add(step, rate, schedule.phase_at(self.recipe, step - 1).crop, means)
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
