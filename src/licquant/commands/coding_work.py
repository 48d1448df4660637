"""How one file of many is encoded or decoded: a record, which can be sent to another process and is started there."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from licquant.commands import base as commands
from licquant.commands.base import Report, Wanted
from licquant.commands.file_lists import Job
from licquant.commands.model_choice import Codecs, encoder
from licquant.errors import LicquantError
from licquant.images import Reading

Work = Callable[[Path, Path, str, Path], Report]  # source, target, what errors call the source, the folder it is in


@dataclass(frozen=True)
class HowRun:
    """How a codec is run: see ``codec.load``."""

    engine: str
    threads: int | None
    device: str = "CPU"
    callers: int = 1

    def codecs(self) -> Codecs:
        """``LicquantError`` for an engine that there is not."""
        return Codecs(self.engine, self.threads, self.device, self.callers)


@dataclass(frozen=True)
class Encoding:
    """model, quality and targets: of ``model_choice.encoder``;  reading: of ``images.read_picture``"""

    run: HowRun
    model: Path | None
    quality: int | None
    target_bpp: float | None
    target_psnr: float | None
    reading: Reading

    def start(self) -> Work:
        """Load the model; errors as ``model_choice.encoder``."""
        chosen = encoder(self.run.codecs(), self.model, self.quality, self.target_bpp, self.target_psnr)
        return lambda source, target, *_: commands.encode(source, chosen, target, self.reading)


@dataclass(frozen=True)
class Decoding:
    """model: None for the one that each file names"""

    run: HowRun
    model: Path | None
    wanted: Wanted

    def start(self) -> Work:
        """Models are loaded as files ask for them."""
        codecs = self.run.codecs()

        def work(source: Path, target: Path, name: str, beside: Path) -> Report:
            return commands.decode(
                source, lambda data: codecs.for_coded(data, self.model, name, beside), target, self.wanted
            )

        return work


@dataclass(frozen=True)
class Outcome:
    """Of one file of many. report: None if it was there already, or there is an error"""

    job: Job
    report: Report | None = None
    error: str = ""

    @property
    def record(self) -> dict[str, Any]:
        """For machines."""
        record: dict[str, Any] = {"input": str(self.job.source), "output": str(self.job.target)}
        if self.error:
            return {**record, "error": self.error}
        return {**record, **self.report.record} if self.report else {**record, "skipped": True}


def attempt(job: Job, work: Work, skip_existing: bool) -> Outcome:
    """Do it; what is wrong with one file must not stop the others."""
    if skip_existing and job.target.exists():
        return Outcome(job)
    try:
        job.target.parent.mkdir(parents=True, exist_ok=True)
        return Outcome(job, work(job.source, job.target, str(job.source), job.source.parent))
    except LicquantError as error:
        text = str(error)
    except MemoryError:
        text = "not enough memory"
    except OSError as error:
        text = f"{error.filename or job.target}: {error.strerror or error}"
    return Outcome(job, error=with_name(job.source, text))


def with_name(source: Path, text: str) -> str:
    """An error's text, the file's name in it."""
    return text if str(source) in text else f"{source}: {text}"
