"""Commands on a Ray cluster of two nodes: what one process writes, byte for byte, whoever is killed meanwhile."""

import json
import os
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch

import licquant.cluster.worker
from licquant.allocate.sensitivity import ACTIVATIONS, WEIGHTS, Measuring, draw_crops, measure_sensitivity
from licquant.cluster.counts import Counts
from licquant.cluster.rows import parts_in, read_part
from licquant.cluster.run import Finished, run
from licquant.cluster.session import Cluster
from licquant.cluster.shards import Facts, Item
from licquant.commands.app import main
from licquant.commands.quantize import spread_over
from licquant.errors import LicquantError
from licquant.images import write_image
from licquant.models.trace import trace_model
from licquant.quant.calibrate import collect_statistics
from licquant.quant.synthetic import dead_leaves
from tests.models_for_tests import save_small_checkpoint, small_hyperprior
from tests.unit.train.small import write_images

pytest.importorskip("pyarrow", reason="rows are Parquet: install licquant[cluster]")
ray = pytest.importorskip("ray", reason="the cluster is Ray's: install licquant[cluster]")
cluster_utils = pytest.importorskip("ray.cluster_utils")

pytestmark = pytest.mark.slow

LESS = {"include_dashboard": False, "include_log_monitor": False}
NODE = {"num_cpus": 1, "object_store_memory": 80_000_000}


@pytest.fixture(scope="module")
def nodes() -> Iterator[Any]:
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    cluster = cluster_utils.Cluster(initialize_head=True, head_node_args={**NODE, **LESS})
    cluster.add_node(**NODE)
    yield cluster
    cluster.shutdown()


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    (folder / "sub").mkdir(parents=True)
    for seed in range(6):
        write_image(folder / ("sub" if seed % 2 else "") / f"{seed}.png", dead_leaves(1, 64 + 8 * seed, seed=seed)[0])
    (folder / "sub" / "bad.png").write_bytes((folder / "0.png").read_bytes()[:300])
    return folder


def command(*words: object) -> int:
    with pytest.raises(SystemExit) as stop:
        main(list(map(str, words)))
    return int(stop.value.code or 0)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_there_and_back(tmp_path, photos, nodes, artifact_path, capsys) -> None:
    for name, on in (("plain", []), ("ray", ["--cluster", "--address", nodes.address])):
        assert command("encode", photos, "-o", tmp_path / name, "-m", artifact_path, *on) == 1
        assert command("decode", tmp_path / name, "-o", tmp_path / f"{name}-back", "-m", artifact_path, *on) == 0
    for end in ("", "-back"):
        assert contents(tmp_path / f"ray{end}") == contents(tmp_path / f"plain{end}")
    assert len(contents(tmp_path / "ray-back")) == 6
    capsys.readouterr()

    words = ["encode", photos, "-o", tmp_path / "ray", "-m", artifact_path, "--cluster", "--address", nodes.address]
    assert command(*words, "--json") == 1
    said = capsys.readouterr()
    record = json.loads(said.out)
    assert [record[name] for name in ("files", "written", "kept", "failed", "workers")] == [7, 0, 6, 1, 2]
    assert len(record["errors"]) == 1
    assert "bad.png" in record["errors"][0]
    rows = [row for part in parts_in(Path(record["rows"])) for row in read_part(part)]
    assert [Path(row["input"]).name for row in rows] == [
        "0.png",
        "2.png",
        "4.png",
        "1.png",
        "3.png",
        "5.png",
        "bad.png",
    ]


@pytest.mark.long
def test_evaluate(tmp_path, photos, nodes, artifact_path, capsys) -> None:
    """The same figures but for seconds; an image that cannot be measured is left out, and said."""
    words = ["evaluate", "--images", photos, "--models", artifact_path, "--threads", 1]
    on = ["--cluster", "--address", nodes.address]
    assert command(*words, "-o", tmp_path / "ray.json", *on) == 1
    assert "bad.png" in capsys.readouterr().err
    (photos / "sub" / "bad.png").unlink()
    assert command(*words, "-o", tmp_path / "plain.json") == 0
    assert command(*words, "-o", tmp_path / "ray-2.json", *on) == 0
    plain, first, second = (
        without_seconds(json.loads((tmp_path / f"{name}.json").read_text())) for name in ("plain", "ray", "ray-2")
    )
    assert len(plain["curves"][0]["points"][0]["images"]) == 6
    assert plain["curves"] == first["curves"] == second["curves"]


def without_seconds(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: without_seconds(item) for key, item in value.items() if "seconds" not in key}
    return [without_seconds(item) for item in value] if isinstance(value, list) else value


# --- what dies ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Slow:
    """Writes a file's bytes again, turned round, in a while; one name kills the process."""

    code: Sequence[str] = ("licquant.digests",)

    @property
    def columns(self) -> Mapping[str, str]:
        return {}

    def models(self, subject: int) -> Sequence[Path]:
        return ()

    def settings(self, subject: int) -> object:
        return None

    def start(self) -> Callable[[Item], Facts]:
        def do(item: Item) -> Facts:
            time.sleep(0.02)
            if item.source.endswith("deadly"):
                os.kill(os.getpid(), signal.SIGKILL)
            Path(item.target).write_bytes(Path(item.source).read_bytes()[::-1])
            return {}

        return do


@pytest.fixture
def by_value() -> Iterator[None]:
    """Workers cannot import a test."""
    module = sys.modules[__name__]
    ray.cloudpickle.register_pickle_by_value(module)
    yield
    ray.cloudpickle.unregister_pickle_by_value(module)


def items_in(folder: Path, count: int) -> list[Item]:
    folder.mkdir()
    for number in range(count):
        (folder / f"{number:04d}").write_text(f"file {number}")
    return [Item(str(path), f"{path}.out") for path in sorted(folder.iterdir())]


def check(done: Finished, items: Sequence[Item]) -> None:
    """Every result is there, and is in the rows once."""
    assert all(Path(item.target).read_bytes() == Path(item.source).read_bytes()[::-1] for item in items)
    told = Counter(row["output"] for part in parts_in(done.rows) for row in read_part(part) if not row["error"])
    assert told == Counter(item.target for item in items)


def every_one(done: Finished) -> int:
    """One that died after its part was written, and before it was told, is kept when it is done again."""
    assert not done.counts.failed
    return done.counts.done + done.counts.kept


def killing(victim: Callable[[], object], rows: Path, times: int) -> threading.Thread:
    """Calls it when some parts are there, and again when there are more."""

    def watch() -> None:
        for number in range(times):
            while len(parts_in(rows)) < 2 + 2 * number:
                time.sleep(0.01)
            victim()

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    return thread


def kill_a_worker() -> None:
    busy: list[psutil.Process] = []
    while not busy:
        busy = [
            child for child in psutil.Process().children(recursive=True) if "ray::_task" in " ".join(child.cmdline())
        ]
    busy[0].kill()


def test_workers_are_killed(tmp_path, nodes, by_value) -> None:
    items = items_in(tmp_path / "in", 200)
    killer = killing(kill_a_worker, tmp_path / "rows", times=3)
    done = run(Cluster(nodes.address), Slow(), items, tmp_path / "rows", lambda counts: None)
    killer.join(10)
    assert not killer.is_alive()
    assert every_one(done) == 200
    check(done, items)


def test_a_node_is_killed(tmp_path, nodes, by_value) -> None:
    items = items_in(tmp_path / "in", 200)
    third = nodes.add_node(**NODE)
    killer = killing(lambda: nodes.remove_node(third, allow_graceful=False), tmp_path / "rows", times=1)
    done = run(Cluster(nodes.address), Slow(), items, tmp_path / "rows", lambda counts: None)
    killer.join(30)
    assert not killer.is_alive()
    assert (every_one(done), done.workers) == (200, 3)
    check(done, items)


def test_a_file_that_kills_whoever_reads_it_is_a_row(tmp_path, nodes, by_value) -> None:
    items = items_in(tmp_path / "in", 40)
    (tmp_path / "in" / "deadly").write_text("x")
    deadly = Item(str(tmp_path / "in" / "deadly"), str(tmp_path / "in" / "deadly.out"))
    done = run(Cluster(nodes.address), Slow(), [*items[:11], deadly, *items[11:]], tmp_path / "rows", lambda _: None)
    assert (done.counts.done + done.counts.kept, done.counts.failed) == (40, 1)
    assert "deadly: the process that worked on it died" in done.counts.errors[0]
    check(done, items)


def test_another_version_is_one_line(tmp_path, nodes, by_value, monkeypatch) -> None:
    monkeypatch.setattr(licquant.cluster.worker, "code_version", lambda modules: "0" * 12)
    with pytest.raises(LicquantError, match=r"^[\d.]+ has other code, licquant .* install the same"):
        run(Cluster(nodes.address), Slow(), items_in(tmp_path / "in", 3), tmp_path / "rows", lambda _: None)


def test_an_interrupted_run_goes_on(tmp_path, nodes, by_value) -> None:
    items = items_in(tmp_path / "in", 60)

    def interrupt(counts: Counts) -> None:
        if counts.done:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(Cluster(nodes.address), Slow(), items, tmp_path / "rows", interrupt)
    assert not ray.is_initialized()
    done = run(Cluster(nodes.address), Slow(), items, tmp_path / "rows", lambda _: None)
    assert 0 < done.counts.kept < 60
    assert done.counts.kept + done.counts.done == 60
    check(done, items)


# --- measurements -------------------------------------------------------------------------------------------


@pytest.fixture
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.long
def test_the_table_of_sensitivities_is_that_of_one_process(tmp_path, nodes, one_thread) -> None:
    """Bit for bit; and it is kept as it would be."""
    images = dead_leaves(2, 64)
    traced = trace_model(small_hyperprior())
    made = (
        Measuring(traced, collect_statistics(traced, images), draw_crops(images, count=1, side=64)),
        {WEIGHTS: (3, 6), ACTIVATIONS: (3, 6)},
    )
    here = measure_sensitivity(*made)
    away = measure_sensitivity(*made, cache=tmp_path, spread=spread_over(Cluster(nodes.address)))
    assert (away.base, away.changes, away.layers) == (here.base, here.changes, here.layers)
    assert measure_sensitivity(*made, cache=tmp_path, spread=None).changes == here.changes  # nothing is missing


@pytest.fixture
def checkpoints(tmp_path: Path) -> list[Path]:
    write_images(tmp_path / "images", count=2)
    return [save_small_checkpoint(tmp_path, name, lmbda) for name, lmbda in (("a", 0.01), ("b", 0.02))]


def artifacts(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.glob("*.licq")}


@pytest.mark.long
def test_a_comparison_is_that_of_one_process(tmp_path, checkpoints, nodes, one_thread, monkeypatch, capsys) -> None:
    """Artifacts byte for byte, figures bit for bit; what is there is not made again, what is damaged is."""
    words = ["compare", "--checkpoint", *checkpoints, "--calib", tmp_path / "images", "--images", tmp_path / "images"]
    words += ["--budget", "bits=3.5", "bytes=10", "--methods", "uniform,fmpq", "--max-bits", 4, "--act-bits", 4]
    words += ["--steps", 2, "--threads", 1, "-o"]

    def run_command(*more: object) -> None:
        monkeypatch.setattr(sys, "argv", ["licquant", *map(str, [*words, *more])])
        assert command(*words, *more) == 0

    run_command(tmp_path / "plain" / "out")
    on = [tmp_path / "ray" / "out", "--cluster", "--address", nodes.address]
    run_command(*on)
    plain, away = (without_seconds(json.loads((tmp_path / n / "out" / "results.json").read_text())) for n in FOLDERS)
    assert away["curves"] == plain["curves"]
    assert (len(away["curves"]), len(away["provenance"]["missed"])) == (2, 4)
    assert away["provenance"]["missed"] == plain["provenance"]["missed"]
    first = artifacts(tmp_path / "ray" / "out")
    assert len(first) == 4
    assert first == artifacts(tmp_path / "plain" / "out")
    for name in ("a-fmpq-bits=3.5-w4-a4-zeta.json", "a-fmpq-bits=3.5-w4-a4-plan.json"):
        here, there = ((tmp_path / folder / "out" / name).read_bytes() for folder in FOLDERS)
        assert there == here

    damaged = tmp_path / "ray" / "out" / min(first)
    damaged.write_bytes(first[damaged.name][:-1])
    before = {path.name: path.stat().st_mtime_ns for path in damaged.parent.glob("*.licq")}
    run_command(*on)
    changed = {path.name for path in damaged.parent.glob("*.licq") if path.stat().st_mtime_ns != before[path.name]}
    assert changed == {damaged.name}
    assert artifacts(damaged.parent) == first


FOLDERS = ("plain", "ray")
