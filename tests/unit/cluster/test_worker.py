"""A shard done in this process: the bytes of one process alone, bad files as rows, earlier results kept by content."""

import json
import resource
import shutil
import socket
from dataclasses import replace
from pathlib import Path

import pytest

from licquant.cluster.counts import Counts
from licquant.cluster.rows import parts_in, read_part, write_part
from licquant.cluster.shards import LARGEST, Item, Shard, cut, shard_size
from licquant.cluster.worker import Order, check_same, do_shard, give_order, give_up
from licquant.commands.app import main
from licquant.commands.base import Wanted
from licquant.commands.coding_work import Decoding, Encoding, HowRun
from licquant.commands.on_cluster import FileWork
from licquant.errors import LicquantError
from licquant.images import Reading, read_image, write_image
from licquant.quant.synthetic import dead_leaves

pytest.importorskip("pyarrow", reason="rows are Parquet: install licquant[cluster]")

RUN = HowRun("openvino", 1)


@pytest.fixture
def work(artifact_path: Path) -> FileWork:
    return FileWork(Encoding(RUN, artifact_path, None, None, None, Reading()))


@pytest.fixture
def shard(tmp_path: Path) -> Shard:
    """Three pictures and what is none; nothing coded yet."""
    for seed in range(3):
        write_image(tmp_path / f"{seed}.png", dead_leaves(1, 64, seed=seed)[0])
    (tmp_path / "bad.png").write_bytes((tmp_path / "0.png").read_bytes()[:200])
    names = ["0.png", "bad.png", "1.png", "2.png"]
    items = [Item(str(tmp_path / name), str(tmp_path / "out" / f"{name}.lic")) for name in names]
    (tmp_path / "rows").mkdir()
    (only,) = cut(items, 10, tmp_path / "rows")
    return only


def figures(counts: Counts) -> tuple[int, int, int, int]:
    return counts.done, counts.kept, counts.skipped, counts.failed


def test_a_shard(tmp_path, shard, work, codec) -> None:
    counts = do_shard(shard, give_order(work), "here")
    assert figures(counts) == (3, 0, 0, 1)
    rows = read_part(shard.part)
    assert [Path(row["input"]).name for row in rows] == ["0.png", "bad.png", "1.png", "2.png"]
    for row in rows:
        if row["error"]:
            continue
        written = Path(row["output"]).read_bytes()
        assert written == codec.encode(read_image(row["input"]))
        assert (row["bytes"], row["width"], row["node"]) == (len(written), 64, "here")
        assert json.loads(row["record"])["notes"] == []
    assert "bad.png" in rows[1]["error"]
    assert (rows[1]["output_sha256"], Path(rows[1]["output"]).exists()) == (None, False)
    assert counts.errors == [rows[1]["error"]]
    assert counts.bytes_out == sum(row["bytes"] or 0 for row in rows)


def test_what_still_holds_is_kept(tmp_path, shard, work) -> None:
    """By content, not by name: another picture, a damaged result, another model or setting are done again."""
    do_shard(shard, give_order(work), "here")
    first = read_part(shard.part)
    counts = do_shard(shard, give_order(work), "there")
    assert figures(counts) == (0, 3, 0, 1)
    again = read_part(shard.part)
    assert [row["node"] for row in again] == ["here", "there", "here", "here"]  # the bad one was tried again
    assert [row["output_sha256"] for row in again] == [row["output_sha256"] for row in first]

    shutil.copy(tmp_path / "2.png", tmp_path / "0.png")  # another picture of the same name
    damaged = tmp_path / "out" / "1.png.lic"
    whole = damaged.read_bytes()
    damaged.write_bytes(whole[:-1] + b"x")
    assert figures(do_shard(shard, give_order(work), "here")) == (2, 1, 0, 1)
    assert damaged.read_bytes() == whole
    assert (tmp_path / "out/0.png.lic").read_bytes() == (tmp_path / "out/2.png.lic").read_bytes()

    how = replace(work.how, reading=Reading(metadata=True))
    assert figures(do_shard(shard, give_order(replace(work, how=how)), "here")) == (3, 0, 0, 1)


def test_another_model_makes_all_again(tmp_path, shard, work, artifact_path) -> None:
    do_shard(shard, give_order(work), "here")
    other = FileWork(Encoding(RUN, None, 1, None, None, Reading()))
    assert figures(do_shard(shard, give_order(other), "here")) == (3, 0, 0, 1)
    moved = shutil.copy(artifact_path, tmp_path / "moved.licq")
    same = FileWork(replace(work.how, model=Path(moved)))
    do_shard(shard, give_order(work), "here")
    assert figures(do_shard(shard, give_order(same), "here")) == (0, 3, 0, 1)  # the same model under another name


def test_rows_of_another_division_are_found(tmp_path, shard, work) -> None:
    do_shard(shard, give_order(work), "here")
    first, second = shard.halves()
    assert first.items + second.items == shard.items
    assert len({shard.part, first.part, second.part}) == 3
    assert figures(do_shard(first, give_order(work), "here")) == (0, 1, 0, 1)
    assert figures(do_shard(second, give_order(work), "here")) == (0, 2, 0, 0)


def test_damaged_rows_are_made_again(tmp_path, shard, work, caplog) -> None:
    do_shard(shard, give_order(work), "here")
    shard.part.write_bytes(shard.part.read_bytes()[:100])
    assert figures(do_shard(shard, give_order(work), "here")) == (3, 0, 0, 1)
    assert "made again" in caplog.text
    assert len(read_part(shard.part)) == 4


def test_there_and_back(tmp_path, shard, work, artifact_path, codec) -> None:
    do_shard(shard, give_order(work), "here")
    coded = [item.target for item in shard.items]
    back = Shard(tuple(Item(name, f"{name}.ppm") for name in coded), 0, tmp_path / "rows")
    how = FileWork(Decoding(RUN, artifact_path, Wanted()))
    assert figures(do_shard(back, give_order(how), "here")) == (3, 0, 0, 1)  # the bad one was never coded
    decoded = codec.decode(Path(coded[0]).read_bytes())
    assert (read_image(f"{coded[0]}.ppm") == decoded).all()


def test_skip_existing(tmp_path, shard, work) -> None:
    Path(shard.items[0].target).parent.mkdir()
    Path(shard.items[0].target).write_bytes(b"mine")
    assert figures(do_shard(shard, give_order(replace(work, skip_existing=True)), "here")) == (2, 0, 1, 1)
    assert Path(shard.items[0].target).read_bytes() == b"mine"
    assert figures(do_shard(shard, give_order(work), "here")) == (1, 2, 0, 1)  # not taken for a result of its own


def test_names_that_are_not_utf8(tmp_path, shard, work) -> None:
    odd = tmp_path / b"\xff.png".decode("utf-8", "surrogateescape")
    shutil.copy(tmp_path / "0.png", odd)
    one = Shard((Item(str(odd), f"{odd}.lic"),), 0, tmp_path / "rows")
    assert figures(do_shard(one, give_order(work), "here")) == (1, 0, 0, 0)
    assert figures(do_shard(one, give_order(work), "here")) == (0, 1, 0, 0)


# --- machines that differ -----------------------------------------------------------------------------------


def test_another_version_is_refused(work) -> None:
    order = give_order(work)
    check_same(order, "far")
    with pytest.raises(LicquantError, match=r"^far has other code, licquant .* install the same"):
        check_same(replace(order, code="0" * 12), "far")


def test_another_model_is_refused(tmp_path, work, artifact_path) -> None:
    path = Path(shutil.copy(artifact_path, tmp_path / "m.licq"))
    work = FileWork(replace(work.how, model=path))
    order = give_order(work)
    path.write_bytes(path.read_bytes() + b"x")
    with pytest.raises(LicquantError, match=r"far has another .*m\.licq"):
        check_same(order, "far")
    path.unlink()
    with pytest.raises(LicquantError, match=r"far has no .*m\.licq"):
        check_same(order, "far")


def test_rows_that_cannot_be_written(tmp_path, shard, work) -> None:
    shutil.rmtree(tmp_path / "rows")
    (tmp_path / "rows").write_text("a file")
    with pytest.raises(LicquantError, match="cannot be written"):
        do_shard(shard, give_order(work), "here")


def test_a_full_disk_is_one_line_and_the_run_goes_on_later(tmp_path, shard, work) -> None:
    order = give_order(work)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, before[1]))  # bytes a file: nothing can be written
    try:
        with pytest.raises(LicquantError, match=r"^\S+part-\S+: cannot be written: File too large$"):
            do_shard(shard, order, "here")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert [path for path in tmp_path.rglob("*") if path.suffix in (".lic", ".tmp", ".parquet")] == []
    assert figures(do_shard(shard, order, "here")) == (3, 0, 0, 1)


def test_what_kills_every_process(tmp_path, shard, work) -> None:
    order: Order = give_order(work)
    assert figures(give_up(shard, order, "died")) == (0, 0, 0, 4)
    assert read_part(shard.part)[0]["error"] == f"{shard.items[0].source}: died"


# --- addresses ----------------------------------------------------------------------------------------------


def test_nobody_answers(tmp_path, work, capsys) -> None:
    """At once, in one line, without Ray's own minutes."""
    with socket.socket() as bound:  # not listening
        bound.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{bound.getsockname()[1]}"
        for given in (address, f"ray://{address}"):
            with pytest.raises(SystemExit) as stop:
                main(["encode", str(tmp_path), "-o", str(tmp_path / "o"), "--cluster", "--address", given])
            assert stop.value.code == 1


def test_an_address_without_a_cluster_is_refused(tmp_path, capsys) -> None:
    with pytest.raises(SystemExit):
        main(["encode", "a.png", "-o", str(tmp_path), "--address", "auto"])
    assert capsys.readouterr().err == "licquant: --address auto: goes with --cluster\n"


# --- portions -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("items", [1, 7, 1000, 10**6])
@pytest.mark.parametrize("workers", [0, 1, 3, 10_000])
def test_shards_hold_every_item_once(items: int, workers: int, tmp_path: Path) -> None:
    size = shard_size(items, workers)
    assert 1 <= size <= LARGEST
    assert size == 1 or -(-items // size) >= workers
    if items <= 1000:
        shards = list(cut([Item(str(n)) for n in range(items)], size, tmp_path))
        assert [item.source for shard in shards for item in shard.items] == [str(n) for n in range(items)]
        assert len({shard.part for shard in shards}) == len(shards)


def test_parts_are_in_order_and_nothing_else(tmp_path) -> None:
    for number in (10, 2):
        write_part(tmp_path / f"part-{number:06d}-aa.parquet", [], {})
    (tmp_path / "notes.parquet").write_text("")
    assert [path.name for path in parts_in(tmp_path)] == ["part-000002-aa.parquet", "part-000010-aa.parquet"]
