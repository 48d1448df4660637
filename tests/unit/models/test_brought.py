"""Checkpoints as other programs write them: the model loaded computes what the source computes."""

import argparse
import collections
import datetime
import decimal
import pathlib
import types
from itertools import cycle

import numpy as np
import omegaconf
import pytest
import torch
from safetensors.torch import save_file

from licquant.errors import ModelError
from licquant.models.load import load_model, model_name, read_state
from tests.models_for_tests import SMALL, hand_made, small_model

MEAN = "mbt2018-mean"
TABLES = ("_quantized_cdf", "_offset", "_cdf_length", "scale_table", "bound", "pedestal", "target", "scale_bound")


@pytest.fixture(scope="module")
def source():
    return small_model(MEAN)


def saved(folder, record):
    torch.save(record, folder / "c.pt")
    return folder / "c.pt"


def assert_same(found, wanted):
    """Same pictures, same strings: weights and coding tables are the source's."""
    torch.manual_seed(1)
    x = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(found(x)["x_hat"], wanted(x)["x_hat"])
        if hasattr(wanted, "compress"):
            assert found.compress(x)["strings"] == wanted.compress(x)["strings"]


def zoo_names(state):
    """As CompressAI's published files have them."""
    old = {"matrices": "_matrices", "biases": "_biases", "factors": "_factors"}
    renamed = {}
    for key, value in state.items():
        head, _, last = key.rpartition(".")
        kind = head.rpartition(".")[2]
        new = f"{head.removesuffix(kind)}{old[kind]}.{last}" if kind in old else key
        renamed[new.replace(".skip.", ".downsample.")] = value
    return renamed


def older_names(state):
    """As CompressAI named them between those and today."""
    old = {"matrices": "_matrix", "biases": "_bias", "factors": "_factor"}
    return {
        (f"{key.rsplit('.', 2)[0]}.{old[key.rsplit('.', 2)[1]]}{key[-1]}" if key.split(".")[-2] in old else key): value
        for key, value in state.items()
    }


@pytest.mark.parametrize("rename", [zoo_names, older_names])
@pytest.mark.parametrize("name", list(SMALL))
def test_older_names_and_the_model_by_its_weights(tmp_path, name, rename):
    model = small_model(name)
    state = rename(model.state_dict())
    if rename is zoo_names:
        assert any("._biases.0" in key for key in state)
    path = saved(tmp_path, state)
    assert model_name(None, path) == name
    assert_same(load_model(None, path), model)


PLACES = [
    ["network"], ["model_state_dict"], ["model"], ["net"], ["ema"], ["shadow"], ["ema_model"],
    ["trainer", "model"], ["a", "b", "c"], ["checkpoint", 0], [],
]  # fmt: skip
PREFIXES = ["module.", "_orig_mod.", "module._orig_mod.", "model.", "net.", "_forward_module.", "lit.codec.module.", ""]


@pytest.mark.parametrize(("place", "prefix"), list(zip(PLACES, cycle(PREFIXES))), ids=str)
def test_nested_and_prefixed(tmp_path, source, place, prefix):
    record = {prefix + key: value for key, value in source.state_dict().items()}
    for key in reversed(place):
        record = [record] if key == 0 else {key: record, "epoch": 3, "optimizer": {"state": {0: torch.ones(3)}}}
    assert_same(load_model(None, saved(tmp_path, record)), source)


@pytest.mark.parametrize("name", SMALL)
def test_names_without_dots(tmp_path, name):
    """LitEma's, of a whole model and of one inside a module of Lightning's; beside the usual names those are taken."""
    source = small_model(name)
    for before in ("model_ema.", "state_dict.model_ema.model", ""):
        average = {before + key.replace(".", ""): value.detach() for key, value in source.named_parameters()}
        record = {**average, "model_ema.decay": torch.tensor(0.999), "model_ema.num_updates": torch.tensor(7)}
        path = saved(tmp_path, record)
        if name == "elic2022-official":  # of another number of groups than the usual five
            with pytest.raises(ModelError, match="holds no state dict"):
                load_model(None, path)
            continue
        assert model_name(None, path) == name
        assert_same(load_model(None, path), source)
    usual = {key: value + 1 if value.is_floating_point() else value for key, value in source.state_dict().items()}
    state = read_state(saved(tmp_path, {**average, **{f"model.{key}": value for key, value in usual.items()}}))
    first = next(key for key in usual if key.startswith("g_a."))
    assert torch.equal(state[first], usual[first])


def test_wrappers_inside(tmp_path, source):
    state = {
        key.replace("g_a.", "g_a.module.").replace("h_s.", "h_s._orig_mod."): v
        for key, v in source.state_dict().items()
    }
    assert_same(load_model(MEAN, saved(tmp_path, state)), source)


def test_parts_saved_apart(tmp_path, source):
    parts = {}
    for key, value in source.state_dict().items():
        part, _, rest = key.partition(".")
        parts.setdefault(part, {})[rest] = value
    assert_same(load_model(None, saved(tmp_path, parts)), source)


@pytest.mark.parametrize("name", list(SMALL))
def test_what_follows_from_the_weights_may_be_missing(tmp_path, name):
    model = small_model(name)
    parameters = {key for key, _ in model.named_parameters()}
    state = {key: value for key, value in model.state_dict().items() if key in parameters}
    assert_same(load_model(name, saved(tmp_path, {"state_dict": state})), model)


def test_a_scale_table_of_its_own_is_kept(tmp_path):
    model = small_model(MEAN)
    model.update(scale_table=[0.2, 1.0, 5.0, 25.0], force=True)
    assert_same(load_model(None, saved(tmp_path, model.state_dict())), model)


def test_optimizer_moments_are_no_second_model(tmp_path, source):
    state = source.state_dict()
    moments = {key: {"exp_avg": value * 0} for key, value in state.items()}
    assert_same(load_model(None, saved(tmp_path, {"model": state, "optimizer": {"state": moments}})), source)


def test_a_copy_counts_once_and_others_are_listed(tmp_path, source):
    state = source.state_dict()
    assert_same(load_model(None, saved(tmp_path, {"model": state, "best": dict(state)})), source)
    other = {key: value + 1 if key == "g_a.0.bias" else value for key, value in state.items()}
    with pytest.raises(ModelError, match="several models, under ema, model"):
        load_model(None, saved(tmp_path, {"model": state, "ema": other}))
    # Of two, the one that fits.
    with_other = {"student": source.state_dict(), "teacher": small_model("cheng2020-anchor").state_dict()}
    assert_same(load_model(MEAN, saved(tmp_path, with_other)), source)


@pytest.mark.parametrize("zipped", [True, False])
def test_other_containers_of_the_weights(tmp_path, source, zipped):
    state = source.state_dict()
    arrays = {key: value.numpy() for key, value in state.items()}
    turned = {key: value.astype(value.dtype.newbyteorder(">")) for key, value in arrays.items()}
    for record in (collections.defaultdict(list, state), [{"epoch": 1}, (arrays,)], {"ema": {"shadow": turned}}):
        torch.save(record, tmp_path / "c.pt", _use_new_zipfile_serialization=zipped)
        assert_same(load_model(None, tmp_path / "c.pt"), source)


def test_nothing_that_fits_is_listed(tmp_path):
    with pytest.raises(ModelError, match=r"it holds encoder\.0, decoder\.0|it holds decoder\.0, encoder\.0"):
        load_model(None, saved(tmp_path, {"encoder": {"0": torch.ones(1)}, "decoder": {"0": torch.ones(1)}}))


# --- beside the weights --------------------------------------------------------------------------------------

BESIDE = {
    "numpy scalar": np.float64(0.5),
    "numpy integer": np.int64(3),
    "numpy array": np.arange(3.0),
    "numpy bool": np.bool_(True),
    "namespace": argparse.Namespace(lmbda=0.01, data=pathlib.Path("a/b")),
    "simple namespace": types.SimpleNamespace(a=1),
    "path": pathlib.Path("a/b"),
    "omegaconf": omegaconf.OmegaConf.create({"train": {"lr": 1e-4, "name": "x", "sizes": [1, 2.5, None, True]}}),
    "omegaconf list": omegaconf.OmegaConf.create([1, {"a": "${oc.env:HOME}"}]),
    "time": datetime.datetime(2024, 1, 2),
    "counter": collections.Counter("abc"),
    "default dictionary": collections.defaultdict(list, {"loss": [1.0]}),
    "deque": collections.deque([1, 2], maxlen=3),
    "set": {1, 2},
    "complex": 1 + 2j,
    "dtype": torch.float16,
}  # fmt: skip


@pytest.mark.parametrize("name", list(BESIDE))
@pytest.mark.parametrize("zipped", [True, False])
def test_plain_data_beside_the_weights(tmp_path, source, name, zipped):
    path = tmp_path / "c.pt"
    record = {"state_dict": source.state_dict(), "beside": BESIDE[name]}
    torch.save(record, path, _use_new_zipfile_serialization=zipped)
    if not zipped and name.startswith("omegaconf"):
        with pytest.raises(ModelError, match="omegaconf"):
            load_model(None, path)
        return
    assert_same(load_model(None, path), source)


def test_what_other_libraries_declare_safe_changes_nothing(tmp_path, source):
    """As torch_geometric does with ``defaultdict``, for which PyTorch looks in a set: the order is by chance."""
    torch.save({"state_dict": source.state_dict(), "beside": BESIDE["default dictionary"]}, tmp_path / "c.pt")
    theirs = [collections.defaultdict, (collections.defaultdict, "collections.defaultdict")]
    with torch.serialization.safe_globals(theirs):
        before = set(torch.serialization.get_safe_globals())
        assert_same(load_model(None, tmp_path / "c.pt"), source)
        assert set(torch.serialization.get_safe_globals()) == before


class Recorder:
    ran = False

    def __init__(self):
        self.x = 1

    def __reduce__(self):
        return (_run, ())


def _run():
    Recorder.ran = True
    return {}


class Settings:
    lr = 1


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize(
    ("beside", "named"),
    [
        (Recorder(), "test_brought._run"),
        (Settings(), "test_brought.Settings"),
        (decimal.Decimal(1), "decimal.Decimal"),
    ],
)
def test_other_classes_are_named_and_never_run(tmp_path, source, beside, named, zipped):
    torch.save(
        {"state_dict": source.state_dict(), "c": beside}, tmp_path / "c.pt", _use_new_zipfile_serialization=zipped
    )
    with pytest.raises(ModelError, match=named) as caught:
        load_model(None, tmp_path / "c.pt")
    assert not Recorder.ran
    text = str(caught.value)
    assert "torch.load(" in text
    assert "torch.save(" in text
    assert "\n" not in text


def test_the_lines_in_the_message_convert_the_file(tmp_path, source, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for record, end in (({"state_dict": source.state_dict(), "c": Settings()}, ", or"), (source, None)):
        torch.save(record, "c.pt")
        with pytest.raises(ModelError) as caught:
            load_model(None, "c.pt")
        lines = str(caught.value).split("in Python: ")[1]
        exec(lines.split(end)[0] if end else lines, {"torch": torch})
        assert_same(load_model(None, "c-weights.pt"), source)


# --- files of other kinds -------------------------------------------------------------------------------------


def test_safetensors(tmp_path, source):
    save_file({f"model.{key}": value.clone() for key, value in source.state_dict().items()}, tmp_path / "c.safetensors")
    assert_same(load_model(None, tmp_path / "c.safetensors"), source)
    (tmp_path / "d.safetensors").write_bytes((tmp_path / "c.safetensors").read_bytes()[:-9])
    with pytest.raises(ModelError, match="safetensors"):
        load_model(None, tmp_path / "d.safetensors")


def test_lightning(tmp_path, source):
    import lightning as L
    from lightning.pytorch.callbacks import ModelCheckpoint

    class Lit(L.LightningModule):
        def __init__(self, model, lmbda=0.01, config=None):
            super().__init__()
            self.save_hyperparameters(ignore=["model"])
            self.codec, self.loss = model, torch.nn.Linear(2, 1)

        def training_step(self, batch, index):
            return self.loss(batch[0]).mean() * 0

        def configure_optimizers(self):
            return torch.optim.SGD(self.loss.parameters(), lr=0.0)

    data = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(torch.ones(2, 2)))
    trainer = L.Trainer(
        max_epochs=1, accelerator="cpu", logger=False, enable_progress_bar=False, enable_model_summary=False,
        callbacks=[ModelCheckpoint(tmp_path)],
    )  # fmt: skip
    trainer.fit(Lit(source, config=argparse.Namespace(a=1)), data)
    source.eval()
    trainer.save_checkpoint(tmp_path / "c.ckpt")
    assert_same(load_model(None, tmp_path / "c.ckpt"), source)


def test_a_whole_model(tmp_path, source):
    torch.save(source, tmp_path / "c.pt")
    with pytest.raises(ModelError, match=r"whole model.*state_dict\(\)"):
        load_model(None, tmp_path / "c.pt")


@pytest.mark.filterwarnings("ignore")
def test_torchscript(tmp_path):
    torch.jit.save(torch.jit.script(torch.nn.Conv2d(3, 4, 1)), tmp_path / "c.pt")
    with pytest.raises(ModelError, match="TorchScript"):
        load_model(None, tmp_path / "c.pt")


@pytest.mark.parametrize(
    ("head", "said"),
    [
        (b"\x08\x08\x12\x07pytorch", "ONNX"),
        (b"\x89HDF\r\n\x1a\n", "HDF5"),
        (b"\x1f\x8b\x08\x00", "unpack"),
        (b"LICQ", "quantized"),
    ],
)
def test_other_kinds_of_files(tmp_path, head, said):
    (tmp_path / "c.pt").write_bytes(head + bytes(50))
    with pytest.raises(ModelError, match=said):
        load_model(None, tmp_path / "c.pt")


# --- which model ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", list(SMALL))
def test_a_wrong_name_is_told_what_it_is(tmp_path, name):
    path = saved(tmp_path, small_model(name).state_dict())
    wrong = "bmshj2018-hyperprior" if name != "bmshj2018-hyperprior" else MEAN
    with pytest.raises(ModelError, match=f"these look like {name}, N={SMALL[name]['N']}.*, not {wrong}"):
        load_model(wrong, path)


def test_weights_of_no_model_are_compared_with_the_closest(tmp_path, source):
    state = dict(source.state_dict())
    state["g_a.0.weight"] = torch.zeros(8, 4, 5, 5)
    with pytest.raises(
        ModelError, match=f"compared with {MEAN}, N=8, M=12 it has g_a.0.weight of 8x4x5x5 instead of 8x3x5x5"
    ):
        load_model(None, saved(tmp_path, state))


def test_a_class_of_ones_own(tmp_path):
    model = hand_made()
    path = saved(tmp_path, {"net": model.state_dict()})
    found = load_model("tests.models_for_tests:HandMade", path, {"n": 8, "m": 12})
    assert_same(found, model)
    assert torch.equal(found.gaussian_conditional.scale_table, torch.tensor([0.11, 1.0, 10.0]))
    with pytest.raises(ModelError, match=r"it has \S+ of 8x\S+ instead of 6x"):
        load_model("tests.models_for_tests:HandMade", path, {"n": 6})
    for name, said in {
        "tests.nowhere:HandMade": "cannot be imported",
        "tests.models_for_tests:Nothing": "has no Nothing",
        "torch.nn:Identity": "has no part g_a",
        "tests.models_for_tests:hand_made_": "has no hand_made_",
    }.items():
        with pytest.raises(ModelError, match=said):
            load_model(name, path)
    with pytest.raises(ModelError, match="cannot be built"):
        load_model("tests.models_for_tests:HandMade", path, {"width": 6})


def test_read_state_is_what_training_starts_from(tmp_path, source):
    state = read_state(saved(tmp_path, {"a": {"module." + k: v.double() for k, v in source.state_dict().items()}}))
    parameters = dict(source.named_parameters())
    assert all(torch.equal(state[key], value) for key, value in parameters.items())
