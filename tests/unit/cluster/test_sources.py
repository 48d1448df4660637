"""Inputs of a cluster: folders at an address, WebDataset shards, columns of Parquet; what is damaged is told."""

import io
import tarfile
from pathlib import Path

import pytest

from licquant.cluster.rows import read_part
from licquant.cluster.shards import Item, cut
from licquant.cluster.sources import expand, local, source_of
from licquant.cluster.worker import do_shard, give_order
from licquant.commands.coding_work import Encoding, HowRun
from licquant.commands.file_lists import Job, plan
from licquant.commands.on_cluster import FileWork
from licquant.errors import DataError
from licquant.images import Reading, write_image
from licquant.images.formats import READ_SUFFIXES
from licquant.quant.synthetic import dead_leaves

arrow = pytest.importorskip("pyarrow", reason="install licquant[cluster]")
fsspec = pytest.importorskip("fsspec", reason="install licquant[cluster]")


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """Three, and one that is cut short."""
    folder = tmp_path_factory.mktemp("pictures")
    for seed in range(3):
        write_image(folder / f"{seed}.png", dead_leaves(1, 64, seed=seed)[0])
    found = {f"{'sub/' if seed else ''}{seed}.png": (folder / f"{seed}.png").read_bytes() for seed in range(3)}
    return {**found, "sub/bad.png": found["0.png"][:200]}


def tar_of(path: Path, files: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w") as archive:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return path


def parquet_of(path: Path, rows: list[bytes | None], **more: list[object]) -> Path:
    from pyarrow import parquet

    parquet.write_table(arrow.table({"image": rows, **more}), path, row_group_size=3)
    return path


def folder_in_memory(files: dict[str, bytes]) -> Path:
    memory = fsspec.filesystem("memory")
    memory.rm("/", recursive=True) if memory.ls("/") else None
    for name, data in files.items():
        memory.pipe(f"/photos/{name}", data)
    return Path("memory://photos")


def contents(found: dict[Path, Path] | None) -> dict[str, bytes]:
    assert found is not None
    told = {}
    for item, name in found.items():
        with local(source_of(item)) as place:
            told[str(name)] = Path(place).read_bytes()
    return told


def test_what_there_is_to_read(tmp_path: Path, pictures: dict[str, bytes]) -> None:
    shard = tar_of(tmp_path / "shard-7.tar", {**pictures, "0.json": b"{}", "sub/.hidden.png": b"x"})
    assert contents(expand(shard, READ_SUFFIXES)) == {f"shard-7/{name}": data for name, data in pictures.items()}
    assert contents(expand(Path(f"file://{shard}"), READ_SUFFIXES)) == contents(expand(shard, READ_SUFFIXES))
    rows = list(pictures.values())
    table = parquet_of(tmp_path / "p.parquet", rows, label=list(range(4)))
    assert contents(expand(table, READ_SUFFIXES)) == {f"p/{row:08d}": data for row, data in enumerate(rows)}
    records = parquet_of(tmp_path / "hf.parquet", [{"bytes": data, "path": "a"} for data in rows])  # type: ignore[misc]
    assert list(contents(expand(records, READ_SUFFIXES)).values()) == rows
    assert contents(expand(folder_in_memory(pictures), READ_SUFFIXES)) == pictures
    assert contents(expand(Path("memory://photos/sub/1.png"), READ_SUFFIXES)) == {"1.png": pictures["sub/1.png"]}
    (tmp_path / "photos").mkdir()
    for name in (tmp_path, tmp_path / "photos", tmp_path / "a.png"):
        assert expand(name, READ_SUFFIXES) is None


def test_a_pattern_of_archives(tmp_path: Path, pictures: dict[str, bytes]) -> None:
    """In quotes a pattern comes as it is; what is in archives of one name stays apart."""
    for folder in ("a", "b/c"):
        (tmp_path / folder).mkdir(parents=True)
        tar_of(tmp_path / folder / "0001.tar", pictures)
    found = contents(expand(tmp_path / "**" / "*.tar", READ_SUFFIXES))
    assert found == {f"{folder}/0001/{name}": data for folder in ("a", "b/c") for name, data in pictures.items()}
    assert set(contents(expand(tmp_path / "a" / "*.tar", READ_SUFFIXES))) == {f"0001/{name}" for name in pictures}
    with pytest.raises(DataError, match=r"x\*\.tar: matches no file"):
        expand(tmp_path / "x*.tar", READ_SUFFIXES)


def test_an_address_as_a_path_is_told_again() -> None:
    for address in ("s3://bucket/a b/c.png", "file:///a/b.tar", "tar://a/b.png::s3://bucket/x.tar", "gs://b/x.parquet"):
        assert source_of(Path(address)) == address
    assert source_of(Path("tar://a.png::/data/x.tar")) == "tar://a.png::/data/x.tar"
    assert source_of(Path("/a/b")) == "/a/b"


@pytest.mark.parametrize("name", ["no.tar", "cut.tar", "cut.parquet", "two.parquet", "memory://nowhere", "what://x/y"])
def test_what_cannot_be_listed_is_one_line(tmp_path: Path, pictures: dict[str, bytes], name: str) -> None:
    tar_of(tmp_path / "whole.tar", pictures)
    (tmp_path / "cut.tar").write_bytes((tmp_path / "whole.tar").read_bytes()[:700])
    (tmp_path / "cut.parquet").write_bytes(parquet_of(tmp_path / "p.parquet", [b"x"]).read_bytes()[:-9])
    parquet_of(tmp_path / "two.parquet", [b"x"], mask=[b"y"])
    given = Path(name) if ":" in name else tmp_path / name
    with pytest.raises(DataError, match=r"(nowhere|what|no|cut|two).*: cannot be listed: .") as told:
        expand(given, READ_SUFFIXES)
    assert "\n" not in str(told.value)


def test_a_list_names_what_is_coded(tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    names = ["a/1.png", "a/b/2.png"]
    (tmp_path / "all.txt").write_text("# pictures\n" + "\n".join(names))
    jobs = plan([tmp_path / "all.txt"], str(tmp_path / "out"), READ_SUFFIXES, ".lic")
    targets = [tmp_path / "out" / "1.lic", tmp_path / "out" / "b" / "2.lic"]
    assert jobs == [Job(tmp_path / name, target) for name, target in zip(names, targets, strict=True)]
    (tmp_path / "none.txt").write_text("# nothing\n")
    with pytest.raises(DataError, match=r"none\.txt: names no file"):
        plan([tmp_path / "none.txt"], str(tmp_path / "out"), READ_SUFFIXES, ".lic")


@pytest.mark.slow
def test_a_shard_of_which_one_in_a_hundred_is_damaged(tmp_path: Path, pictures, artifact_path, codec) -> None:
    """Each of them is a row with its error, and its neighbours are coded as alone; the same of a row without bytes."""
    good, bad = pictures["0.png"], pictures["sub/bad.png"]
    rows: list[bytes | None] = [good] * 200
    rows[17], rows[171] = bad, None
    given = [parquet_of(tmp_path / "p.parquet", rows)]
    given.append(tar_of(tmp_path / "t.tar", {f"{row:03d}.png": data or b"" for row, data in enumerate(rows)}))
    work = FileWork(Encoding(HowRun("openvino", 1), artifact_path, None, None, None, Reading()))
    (tmp_path / "rows").mkdir()
    for source in given:
        jobs = plan([source], str(tmp_path / "out"), READ_SUFFIXES, ".lic", expand)
        items = [Item(source_of(job.source), str(job.target)) for job in jobs]
        (shard,) = cut(items, 200, tmp_path / "rows")
        counts = do_shard(shard, give_order(work), "here")
        assert (counts.done, counts.failed, counts.bytes_in) == (198, 2, 198 * len(good))
        told = read_part(shard.part)
        assert [row["input"] for row in told if row["error"]] == [items[17].source, items[171].source]
        assert all(row["error"].startswith(row["input"]) for row in told if row["error"])
        written = {Path(row["output"]).read_bytes() for row in told if not row["error"]}
        assert len(written) == 1
        again = do_shard(shard, give_order(work), "here")
        assert (again.kept, again.failed) == (198, 2)


def test_a_shard_that_goes_missing_is_rows(tmp_path: Path, pictures, artifact_path) -> None:
    shard = tar_of(tmp_path / "gone.tar", pictures)
    jobs = plan([shard], str(tmp_path / "out"), READ_SUFFIXES, ".lic", expand)
    shard.unlink()
    (tmp_path / "rows").mkdir()
    (part,) = cut([Item(source_of(job.source), str(job.target)) for job in jobs], 9, tmp_path / "rows")
    counts = do_shard(
        part, give_order(FileWork(Encoding(HowRun("openvino", 1), artifact_path, None, None, None, Reading()))), "here"
    )
    assert counts.failed == 4
    assert all("gone.tar: cannot be read: " in row["error"] for row in read_part(part.part))
