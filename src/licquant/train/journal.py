"""The log of a run (CSV, without times: a resumed run has the same log as any other) and its picture."""

import math
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path

from licquant.errors import LicquantError, TrainingError
from licquant.images import write_atomically

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
