"""encode on a Ray cluster beside one process: the same bytes whoever is killed meanwhile, and how fast.

python -m benchmarks.cluster equality --images KODAK --tiles 20000 -o DIR
python -m benchmarks.cluster throughput --images KODAK --copies 4 -o DIR
python -m benchmarks.cluster names -o DIR
"""

import contextlib
import hashlib
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Annotated, Any

import psutil
import typer

from licquant.cluster.counts import Counts
from licquant.cluster.rows import parts_in, read_part
from licquant.cluster.shards import Facts, Item, cut, shard_size
from licquant.cluster.worker import do_shard, give_order
from licquant.commands.file_lists import plan
from licquant.evaluate import provenance
from licquant.images import list_images, read_image, write_image
from licquant.reports import report

OBJECT_STORE = 100_000_000  # bytes a node
Encoded = tuple[float, dict[str, Any]]
app = typer.Typer(no_args_is_help=True)
Images = Annotated[Path, typer.Option(help="A folder of photographs.")]
Output = Annotated[Path, typer.Option("-o", help="Folder for the JSON result.")]


def make_tiles(images: Sequence[Path], count: int, side: int, damaged: float, folder: Path) -> int:
    """Square pieces of the images, below folders of 1000; how many of them are cut short, at random."""
    draw = random.Random(0)
    pictures = [read_image(path) for path in images]
    broken = 0
    for number in range(count):
        rgb = pictures[number % len(pictures)]
        top, left = draw.randrange(rgb.shape[0] - side + 1), draw.randrange(rgb.shape[1] - side + 1)
        path = folder / f"{number // 1000:04d}" / f"{number:07d}.ppm"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_image(path, rgb[top : top + side, left : left + side].copy())
        if draw.random() < damaged:
            path.write_bytes(path.read_bytes()[: side * side])
            broken += 1
    return broken


def encode(*words: object, meanwhile: Callable[[subprocess.Popen[bytes]], object] = subprocess.Popen.wait) -> Encoded:
    """Seconds of the command, and what it prints."""
    start = time.perf_counter()
    command = [sys.executable, "-m", "licquant", "encode", *map(str, words), "--json"]
    with tempfile.TemporaryFile() as said:
        process = subprocess.Popen(command, stdout=said)
        meanwhile(process)
        if process.wait() not in (0, 1):
            raise SystemExit(f"{' '.join(command)}: status {process.returncode}")
        seconds = time.perf_counter() - start
        said.seek(0)
        return seconds, json.loads(said.read())


def contents(folder: Path) -> dict[str, str]:
    files = (path for path in folder.rglob("*.lic") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


class Killer:
    """Kills a worker and a node in turn, at random moments, and brings in another node for one that it killed.

    sizes: resident bytes of the driver, one a second
    """

    def __init__(self, cluster: Any, last: Any, kills: int, every: float) -> None:
        self.cluster, self.last, self.kills, self.every = cluster, last, kills, every
        self.killed: list[str] = []
        self.sizes: list[int] = []

    def __call__(self, driver: subprocess.Popen[bytes]) -> None:
        """While the driver runs; nodes are made in the main thread only."""
        draw, started = random.Random(1), time.monotonic()
        due = started + draw.uniform(0.5, 1.5) * self.every
        while driver.poll() is None:
            time.sleep(1)
            with contextlib.suppress(psutil.Error):
                self.sizes.append(psutil.Process(driver.pid).memory_info().rss)
            if time.monotonic() > due and len(self.killed) < self.kills and self._kill(draw):
                due = time.monotonic() + draw.uniform(0.5, 1.5) * self.every

    def _kill(self, draw: random.Random) -> bool:
        if len(self.killed) % 2:
            self.cluster.remove_node(self.last, allow_graceful=False)
            self.last = self.cluster.add_node(num_cpus=1, object_store_memory=OBJECT_STORE)
            self.killed.append("node")
            return True
        victims = [process for process in children() if "ray::_task" in command_of(process)]
        if victims:
            draw.choice(victims).kill()
            self.killed.append("worker")
        return bool(victims)


def children() -> list[psutil.Process]:
    return psutil.Process().children(recursive=True)


def command_of(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


@app.command()
def equality(
    images: Images,
    tiles: int = 20_000,
    side: int = 64,
    damaged: float = 0.01,
    nodes: Annotated[int, typer.Option(min=2, help="Of the cluster, at a time.")] = 2,
    kills: int = 4,
    every: Annotated[float, typer.Option(help="Seconds between two kills, on average.")] = 30.0,
    output: Output = Path("bench-output"),
) -> None:
    """Encode small images in one process and on nodes of which, and of whose workers, some are killed; compare all."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    from ray.cluster_utils import Cluster

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        broken = make_tiles(list_images(images), tiles, side, damaged, folder / "in")
        plain_seconds, plain = encode(folder / "in", "-o", folder / "plain", "--jobs", 2, "--threads", 1)
        node: dict[str, Any] = {"num_cpus": 1, "object_store_memory": OBJECT_STORE}
        cluster = Cluster(
            initialize_head=True, head_node_args={**node, "include_dashboard": False, "include_log_monitor": False}
        )
        last = [cluster.add_node(**node) for _ in range(nodes - 1)][-1]
        killer = Killer(cluster, last, kills, every)
        on = ("-o", folder / "ray", "--cluster", "--address", cluster.address)
        _, first = encode(folder / "in", *on, meanwhile=killer)
        _, second = encode(folder / "in", *on)
        cluster.shutdown()
        rows = [row for part in parts_in(folder / "ray-rows") for row in read_part(part, ["input", "error"])]
        same = contents(folder / "plain") == contents(folder / "ray")
    failed = sum(row["error"] is not None for row in rows)
    sizes = killer.sizes or [0]
    record = {
        "schema": "licquant-cluster-equality/1",
        "tiles": tiles,
        "side": side,
        "damaged": broken,
        "nodes": nodes,
        "killed": killer.killed,
        "same_bytes": same,
        "every_input_once": max(Counter(row["input"] for row in rows).values()) == 1 and len(rows) == tiles,
        "failed": [plain["failed"], first["failed"], failed],
        "plain_seconds": plain_seconds,
        "first": first,
        "second": second,
        "driver_bytes": {
            "early": sizes[len(sizes) // 10],
            "median": median(sizes),
            "last": sizes[-1],
            "most": max(sizes),
        },
        "provenance": provenance.collect(threads=1),
    }
    typer.echo(json.dumps({key: value for key, value in record.items() if key not in ("provenance",)}, indent=1))
    output.mkdir(parents=True, exist_ok=True)
    report.write_json(output / "cluster-equality.json", record)
    if not same or failed != broken:
        raise typer.Exit(1)


@app.command()
def throughput(
    images: Images,
    copies: Annotated[int, typer.Option(help="How often each image is encoded in a run.")] = 4,
    pairs: int = 3,
    workers: Annotated[str, typer.Option(help="Numbers of workers, separated by commas.")] = "2",
    output: Output = Path("bench-output"),
) -> None:
    """Images a second with --jobs N and with N workers of a local cluster, in pairs."""
    found: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "in").mkdir()
        for path in list_images(images):
            for copy in range(copies):
                shutil.copy(path, folder / "in" / f"{path.stem}-{copy}{path.suffix}")
        count = len(list_images(folder / "in"))
        for _ in range(pairs):
            for jobs in map(int, workers.split(",")):
                seconds, _ = encode(folder / "in", "-o", folder / "plain", "--jobs", jobs, "--threads", 1)
                shutil.rmtree(folder / "ray", ignore_errors=True)
                shutil.rmtree(folder / "ray-rows", ignore_errors=True)
                _, on = encode(folder / "in", "-o", folder / "ray", "--jobs", jobs, "--cluster")
                pair = {"workers": jobs, "plain": count / seconds, "cluster": on["files_per_second"]}
                found.append({**pair, "ratio": pair["cluster"] / pair["plain"], "run": on})
                typer.echo(f"{pair} {found[-1]['ratio']:.3f}")
    ratios = {
        jobs: median(one["ratio"] for one in found if one["workers"] == jobs)
        for jobs in {one["workers"] for one in found}
    }
    typer.echo(f"{count} images, median ratios {ratios}")
    output.mkdir(parents=True, exist_ok=True)
    record = {"schema": "licquant-cluster-throughput/1", "images": count, "ratios": ratios, "pairs": found}
    report.write_json(output / "cluster-throughput.json", {**record, "provenance": provenance.collect(threads=1)})


@dataclass(frozen=True)
class Copying:
    """What costs next to nothing, so that what is left is the cost of names, rows and hashes."""

    code: Sequence[str] = ("licquant.digests",)

    @property
    def columns(self) -> Mapping[str, str]:
        return {}

    def models(self, subject: int) -> Sequence[Path]:
        return ()

    def settings(self, subject: int) -> object:
        return None

    def start(self) -> Callable[[Item], Facts]:
        return lambda item: {"copied": str(shutil.copyfile(item.source, item.target))}


@app.command()
def names(
    files: Annotated[int, typer.Option(help="In one folder.")] = 100_000, output: Output = Path("bench-output")
) -> None:
    """What the driver needs for many files in one folder, and what a shard costs beside coding; without Ray."""
    order, process = give_order(Copying()), psutil.Process()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for made in ("in", "out", "rows"):
            (folder / made).mkdir()
        for number in range(files):
            (folder / "in" / f"{number:06d}.ppm").write_bytes(number.to_bytes(8, "little"))
        rss, begun = process.memory_info().rss, time.perf_counter()
        jobs = plan([folder / "in"], str(folder / "out"), [".ppm"], ".lic")
        items = [Item(os.path.abspath(job.source), os.path.abspath(job.target)) for job in jobs]
        shards = list(cut(items, shard_size(files, 2), folder / "rows"))
        listed, grown = time.perf_counter() - begun, process.memory_info().rss - rss
        runs = []
        for _ in range(2):
            begun, counts = time.perf_counter(), Counts()
            for shard in shards:
                counts.add(do_shard(shard, order, "here"), 0)
            figures = {"seconds": time.perf_counter() - begun, "done": counts.done, "kept": counts.kept}
            runs.append({**figures, "cpu_seconds": counts.seconds})
    record = {"schema": "licquant-cluster-names/1", "files": files, "shards": len(shards), "list_seconds": listed}
    record |= {"list_bytes": grown, "driver_bytes": process.memory_info().rss, "first": runs[0], "second": runs[1]}
    typer.echo(json.dumps(record, indent=1))
    output.mkdir(parents=True, exist_ok=True)
    report.write_json(output / "cluster-names.json", {**record, "provenance": provenance.collect(threads=1)})
    if runs[1]["kept"] != files:
        raise typer.Exit(1)


@app.command()
def scaling(
    cpu_seconds: Annotated[float, typer.Option(help="Of a worker, for a picture.")],
    start_seconds: Annotated[float, typer.Option(help="Of a worker.")],
    driver_seconds: Annotated[float, typer.Option(help="For a picture.")],
    bytes_in: Annotated[float, typer.Option(help="Of a picture.")],
    bytes_out: Annotated[float, typer.Option(help="Of its file.")],
) -> None:
    """What follows for many pictures on many cores, as rows of results/cluster-scaling.json."""
    rows = []
    for pictures in (1e6, 1e9):
        for cores in (100, 10_000):
            working, driving = pictures * cpu_seconds / cores, pictures * driver_seconds
            seconds = start_seconds + max(working, driving)
            network = 8e-9 * pictures * (bytes_in + bytes_out) / seconds
            bound = "the driver" if driving > working else "processors"
            core_hours = pictures * cpu_seconds / 3600
            rows.append(
                [f"{pictures:,.0f}", f"{cores:,}", seconds / 3600, pictures / seconds, network, core_hours, bound]
            )
    typer.echo(json.dumps(rows, indent=1))


if __name__ == "__main__":
    app()
