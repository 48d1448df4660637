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
from typing import BinaryIO

from licquant.cluster.session import Cluster
from licquant.cluster.sources import expand
from licquant.commands.base import Crop, Report, Wanted
from licquant.commands.coding_work import Decoding, Encoding, HowRun, Outcome, Work, attempt, with_name
from licquant.commands.file_lists import STREAM, Job, plan
from licquant.commands.on_cluster import FileWork, code_files
from licquant.errors import BitstreamError, LicquantError
from licquant.images import Reading
from licquant.images.formats import READ_SUFFIXES
from licquant.images.writing import WRITE_FORMATS
from licquant.program.threads import thread_count
from licquant.terminal import note, on_one_line, progress_bars, remark, say

_JOBS = 2
_LARGEST_STREAM = 1 << 32  # bytes


@dataclass(frozen=True)
class CodingOptions:
    """What encode and decode have in common.

    inputs:  files, folders, patterns, or ``-``;  output: a file, a folder or ``-``
    jobs:    files at the same time; None: 2, or all that the cluster has cores for
    cluster: None for this process;  rows: see ``on_cluster.code_files``
    """

    inputs: Sequence[Path]
    output: str
    model: Path | None
    engine: str
    threads: int | None
    jobs: int | None
    skip_existing: bool
    as_json: bool
    device: str = "CPU"
    cluster: Cluster | None = None
    rows: Path | None = None

    def plan(self, suffixes: Sequence[str], ending: str) -> list[Job]:
        """As ``file_lists.plan``; a cluster also reads archives, and addresses of ``fsspec``."""
        if self.cluster:
            return plan(self.inputs, self.output, suffixes, ending, expand)
        return plan(self.inputs, self.output, suffixes, ending)

    def how_run(self, files: int) -> HowRun:
        """How codecs are run for so many files; on a cluster, each by one thread.

        Jobs share the threads: two images on a thread each take less time than one after the other on both.
        """
        if self.cluster:
            return HowRun(self.engine, self.cluster.threads, self.device)
        threads, callers = self.threads, min(self.jobs or _JOBS, files)
        if callers > 1:
            whole = threads or thread_count()
            callers = min(callers, whole)
            threads = whole // callers
        return HowRun(self.engine, threads, self.device, callers)


def encode(
    options: CodingOptions, quality: int | None, target_bpp: float | None, target_psnr: float | None, reading: Reading
) -> Report:
    """The options of the model are those of ``model_choice.encoder``; reading: as ``images.read_picture`` has it."""
    jobs = options.plan(READ_SUFFIXES, ".lic")
    how = Encoding(options.how_run(len(jobs)), options.model, quality, target_bpp, target_psnr, reading)
    return _run(options, jobs, ".lic", how, how.start())


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
    jobs = options.plan((".lic",), suffix)
    how = Decoding(options.how_run(len(jobs)), options.model, wanted)
    return _run(options, jobs, suffix, how, how.start())


def parse_crop(text: str) -> Crop:
    """``"X,Y,W,H"``, pixels; ``LicquantError`` for anything else."""
    words = text.split(",")
    if len(words) != 4 or not all(word.strip().isdecimal() and len(word) < 12 for word in words):
        raise LicquantError(f"--crop {text[:40]}: must be X,Y,WIDTH,HEIGHT in pixels, as in 0,0,640,480")
    x, y, width, height = map(int, words)
    return x, y, width, height


def _run(options: CodingOptions, jobs: Sequence[Job], suffix: str, how: Encoding | Decoding, work: Work) -> Report:
    if options.cluster:
        return code_files(options.cluster, jobs, FileWork(how, options.skip_existing), options.output, options.rows)
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
            raise BitstreamError(with_name(job.source, str(error))) from error
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
            raise type(error)(with_name(Path(name), text) if isinstance(error, BitstreamError) else text) from error
        if job.target != Path(STREAM):
            return report
        with target.open("rb") as file:
            shutil.copyfileobj(file, sys.stdout.buffer)
        sys.stdout.buffer.flush()
        return Report({**report.record, "output": STREAM})  # and not a word where the data go


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


def _all(options: CodingOptions, jobs: Sequence[Job], work: Work) -> Report:
    """Every job, whatever becomes of the others; its status is 1 if one failed."""

    outcomes: list[Outcome] = []
    with _bar(len(jobs)) as moved, ThreadPoolExecutor(options.jobs or _JOBS) as pool:
        waiting = [pool.submit(attempt, job, work, options.skip_existing) for job in jobs]
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
        "files": [outcome.record for outcome in outcomes],
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


@contextmanager
def _bar(total: int) -> Iterator[Callable[[], None]]:
    with progress_bars() as bars:
        task = bars.add_task("files", total=total)
        yield lambda: bars.advance(task)
