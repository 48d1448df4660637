"""``licquant encode`` and ``licquant decode``: one file, many of them, or a stream."""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO

from licquant.commands import base as commands
from licquant.commands.base import Crop, Report, Wanted
from licquant.commands.file_lists import STREAM, Job, plan
from licquant.commands.model_choice import Codecs, encoder
from licquant.errors import BitstreamError, LicquantError
from licquant.images import Reading
from licquant.images.formats import READ_SUFFIXES
from licquant.images.writing import WRITE_FORMATS
from licquant.program.threads import thread_count
from licquant.terminal import note, on_one_line, progress_bars, remark, say

Work = Callable[[Path, Path, str, Path], Report]  # source, target, what errors call the source, the folder it is in
_LARGEST_STREAM = 1 << 32  # bytes


@dataclass(frozen=True)
class CodingOptions:
    """What encode and decode have in common.

    inputs: files, folders, patterns, or ``-``;  output: a file, a folder or ``-``
    """

    inputs: Sequence[Path]
    output: str
    model: Path | None
    engine: str
    threads: int | None
    jobs: int
    skip_existing: bool
    as_json: bool
    device: str = "CPU"


def encode(
    options: CodingOptions, quality: int | None, target_bpp: float | None, target_psnr: float | None, reading: Reading
) -> Report:
    """The options of the model are those of ``model_choice.encoder``; reading: as ``images.read_picture`` has it."""
    jobs = plan(options.inputs, options.output, READ_SUFFIXES, ".lic")
    chosen = encoder(_codecs(options, len(jobs)), options.model, quality, target_bpp, target_psnr)
    return _run(options, jobs, ".lic", lambda source, target, *_: commands.encode(source, chosen, target, reading))


def decode(options: CodingOptions, form: str | None, wanted: Wanted) -> Report:
    """form: of the image files in a folder, or of standard output, as their suffix without the dot."""
    if form is not None and f".{form.lower()}" not in WRITE_FORMATS:
        raise LicquantError(f"--format {form}: choose one of {', '.join(word[1:] for word in WRITE_FORMATS)}")
    prefix, _, rest = options.output.partition(":")
    if rest == STREAM and f".{prefix.lower()}" in WRITE_FORMATS:  # png:-
        if form not in (None, prefix.lower()):
            raise LicquantError(f"-o {options.output} and --format {form}: give one of them")
        options, form = replace(options, output=STREAM), prefix.lower()
    suffix = f".{(form or 'png').lower()}"
    jobs = plan(options.inputs, options.output, (".lic",), suffix)
    codecs = _codecs(options, len(jobs))

    def work(source: Path, target: Path, name: str, beside: Path) -> Report:
        return commands.decode(source, lambda data: codecs.for_coded(data, options.model, name, beside), target, wanted)

    return _run(options, jobs, suffix, work)


def _codecs(options: CodingOptions, files: int) -> Codecs:
    """Jobs share the threads: two images on a thread each take less time than one after the other on both."""
    threads, callers = options.threads, min(options.jobs, files)
    if callers > 1:
        whole = threads or thread_count()
        callers = min(callers, whole)
        threads = whole // callers
    return Codecs(options.engine, threads, options.device, callers)


def parse_crop(text: str) -> Crop:
    """``"X,Y,W,H"``, pixels; ``LicquantError`` for anything else."""
    words = text.split(",")
    if len(words) != 4 or not all(word.strip().isdecimal() and len(word) < 12 for word in words):
        raise LicquantError(f"--crop {text[:40]}: must be X,Y,WIDTH,HEIGHT in pixels, as in 0,0,640,480")
    x, y, width, height = map(int, words)
    return x, y, width, height


def _run(options: CodingOptions, jobs: Sequence[Job], suffix: str, work: Work) -> Report:
    if len(jobs) > 1 or jobs[0].target != Path(options.output):
        return _all(options, jobs, work)
    (job,) = jobs
    if options.skip_existing and job.target.exists():
        line = f"{on_one_line(job.target)}: is there, skipped"
        return Report({"output": str(job.target), "skipped": True}, lambda: say(line))
    if Path(STREAM) not in (job.source, job.target) and not _is_pipe(job.source):
        try:
            return work(job.source, job.target, str(job.source), job.source.parent)
        except BitstreamError as error:  # of a codec, which knows no names
            raise BitstreamError(_with_name(job.source, str(error))) from error
    return _streamed(job, suffix, work, options.as_json)


def _streamed(job: Job, suffix: str, work: Work, as_json: bool) -> Report:
    """The work on files in a folder of its own; they are what stands in the streams and pipes."""
    if as_json and job.target == Path(STREAM):
        raise LicquantError("--json writes to standard output, and so does -o -: give one of them")
    with tempfile.TemporaryDirectory(prefix="licquant-") as folder:
        source, target, name = Path(folder) / "input", job.target, str(job.source)
        if job.source == Path(STREAM):
            name = "standard input"
        if target == Path(STREAM):
            target = Path(folder) / f"output{suffix}"
        try:
            if job.source == Path(STREAM):
                _read_stream(sys.stdin.buffer, source)
            elif _is_pipe(job.source):
                with job.source.open("rb") as pipe:
                    _read_stream(pipe, source)
            else:
                source = job.source
            report = work(source, target, name, job.source.parent)
        except LicquantError as error:
            text = str(error).replace(str(source), name)
            raise type(error)(_with_name(Path(name), text) if isinstance(error, BitstreamError) else text) from error
        if job.target != Path(STREAM):
            return report
        with target.open("rb") as file:
            shutil.copyfileobj(file, sys.stdout.buffer)
        sys.stdout.buffer.flush()
        return Report({**report.record, "output": STREAM})  # and not a word where the data go


def _with_name(source: Path, text: str) -> str:
    return text if str(source) in text else f"{source}: {text}"


def _is_pipe(path: Path) -> bool:
    """Of another command, as a shell's <(…) is: it cannot be read twice, as image files are."""
    return path.is_fifo()


def _read_stream(stream: BinaryIO, path: Path) -> None:
    if stream.isatty():
        raise LicquantError("standard input is a terminal: - reads what another command writes, as in cat FILE | …")
    try:
        with path.open("wb") as file:
            while piece := stream.read(1 << 20):
                if file.tell() > _LARGEST_STREAM:
                    raise LicquantError(f"{path}: larger than 4 GiB")
                file.write(piece)
    except OSError as error:
        raise LicquantError(f"{tempfile.gettempdir()}: a stream cannot be kept there: {error.strerror}") from error


# --- many files ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Outcome:
    job: Job
    report: Report | None = None  # none: it was there already, or there is an error
    error: str = ""


def _all(options: CodingOptions, jobs: Sequence[Job], work: Work) -> Report:
    """Every job, whatever becomes of the others; its status is 1 if one failed."""

    def one(job: Job) -> _Outcome:
        if options.skip_existing and job.target.exists():
            return _Outcome(job)
        try:
            job.target.parent.mkdir(parents=True, exist_ok=True)
            return _Outcome(job, work(job.source, job.target, str(job.source), job.source.parent))
        except LicquantError as error:
            text = str(error)
        except MemoryError:
            text = "not enough memory"
        except OSError as error:
            text = f"{error.filename or job.target}: {error.strerror or error}"
        return _Outcome(job, error=_with_name(job.source, text))

    outcomes: list[_Outcome] = []
    with _bar(len(jobs)) as moved, ThreadPoolExecutor(options.jobs) as pool:
        waiting = [pool.submit(one, job) for job in jobs]
        try:
            for future in waiting:
                outcomes.append(future.result())
                moved()
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    failed = [outcome for outcome in outcomes if outcome.error]
    for outcome in failed:
        remark(outcome.error)
    written = [outcome for outcome in outcomes if outcome.report]
    record = {
        "files": [_record(outcome) for outcome in outcomes],
        "written": len(written),
        "skipped": len(outcomes) - len(written) - len(failed),
        "failed": len(failed),
    }

    def show() -> None:
        for outcome in written:
            assert outcome.report
            outcome.report.show()
        parts = [f"{record[name]} {name}" for name in ("skipped", "failed") if record[name]]
        note(", ".join([f"{len(written)} of {len(jobs)} files written to {options.output}", *parts]))

    return Report(record, show, status=int(bool(failed)))


def _record(outcome: _Outcome) -> dict[str, Any]:
    record: dict[str, Any] = {"input": str(outcome.job.source), "output": str(outcome.job.target)}
    if outcome.error:
        return {**record, "error": outcome.error}
    return {**record, **outcome.report.record} if outcome.report else {**record, "skipped": True}


@contextmanager
def _bar(total: int) -> Iterator[Callable[[], None]]:
    with progress_bars() as bars:
        task = bars.add_task("files", total=total)
        yield lambda: bars.advance(task)
