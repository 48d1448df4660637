"""Write the inputs that fuzzing starts from, fuzz/seeds/: small, made of integers alone, one of every kind.

python -m tools.make_fuzz_seeds
"""

import json
import tomllib
from pathlib import Path

import numpy as np
import torch

from licquant.codec.codec import Codec
from licquant.codec.files.artifact import Artifact, artifact_id
from licquant.config import LayerBits, Plan
from licquant.models.small import to_small
from licquant.train.settings import Recipe
from tests.dynamic_programs import UNEVEN, dynamic_artifact
from tests.latent_programs import FAMILIES, random_program, random_tables

FOLDER = Path(__file__).parents[1] / "fuzz" / "seeds"
PLAN = Plan({"g_a.0": LayerBits(8, 8), "g_s.0": LayerBits(2, 16), "add": LayerBits(None, 4)})
TOML = """# two models
[defaults]
model = "bmshj2018-hyperprior"
batch = 2
[[runs]]
name = "trunk"
lmbda = 0.013
steps = 90
final_rate = 1.0
[[runs]]
lmbda = 0.025
N = 8
M = 12
init = "trunk"
"""


def artifacts() -> dict[str, bytes]:
    made = {"dynamic": dynamic_artifact(widths=UNEVEN).to_bytes()}
    for family in FAMILIES:
        program = random_program(family, n=2, m=3)
        tables = random_tables(program, family, levels=5)
        made[family] = Artifact(family, program, tables, PLAN).to_bytes()
    return made


def images(artifacts: dict[str, bytes]) -> dict[str, bytes]:
    """One image of each artifact."""
    coded = {}
    for index, (name, data) in enumerate(artifacts.items()):
        rgb = np.random.default_rng(index).integers(0, 256, (1 + 20 * index, 70, 3)).astype(np.uint8)
        coded[name] = Codec(Artifact.from_bytes(data), artifact_id(data), "exact").encode(rgb)
    return coded


def cards() -> dict[str, bytes]:
    identity = {
        "recipe": Recipe("bmshj2018-hyperprior", 0.013, precision="bf16").to_mapping(),
        "data_sha256": "0",
        "init_sha256": None,
    }
    whole = {"model": "bmshj2018-hyperprior", "lmbda": 0.013, "complete": True, **identity}
    return {"whole": _json(whole), "shards": _json({"lmbda": 1, "shards": {"shards-1of1.pt": "0" * 64}})}


def latency() -> bytes:
    classes = [{"weight": w, "activation": a, "ms": 1.5} for w in (8, 12) for a in (8, 12)]
    layers = {
        "g_a.0": {"engine": "openvino", "runs": 3, "ms": classes},
        "h_s.0": {"engine": "exact", "runs": 1, "ms": classes[:1]},
    }
    facts = {"rest_ms": 2.0, "size": [64, 48], "threads": None, "geometry": "0" * 64, "machine": {"cores": 2}}
    return _json({"format": "licquant.latency", "version": 1, **facts, "layers": layers})


def netpbm() -> dict[str, bytes]:
    samples = bytes(range(48))
    return {
        "p6": b"P6\n# a comment\n4 4\n255\n" + samples,
        "p5": b"P5 8 6 15 " + samples,
        "p4": b"P4\n16 3\n" + samples[:6],
        "p3": b"P3 2 1 255\n1 2 3 4 5 6\n",
        "p2": b"P2 3 1 255 0 128 255\n",
        "p1": b"P1\n3 2\n1 0 1 0 1 0\n",
        "p6-wide": b"P6 2 2 65535 " + samples[:24],
        "pam": b"P7\nWIDTH 2\nHEIGHT 2\nDEPTH 3\nMAXVAL 255\nTUPLTYPE RGB\nENDHDR\n" + samples[:12],
        "pf": b"Pf\n2 2\n-1.0\n" + samples[:16],
    }


def main() -> None:
    made = artifacts()
    record = json.dumps(tomllib.loads(TOML))
    contents = {
        "artifact": made,
        "coded-image": images(made),
        "plan": {"plan": _json(PLAN.to_json())},
        "training-plan": {"toml": TOML.encode(), "json": record.encode()},
        "card": cards(),
        "latency": {"table": latency()},
        "netpbm": netpbm(),
        "checkpoint": checkpoints(),
    }
    for folder, files in contents.items():
        (FOLDER / folder).mkdir(parents=True, exist_ok=True)
        for name, data in files.items():
            (FOLDER / folder / name).write_bytes(data)


def checkpoints() -> dict[str, bytes]:
    """A kernel, a matrix and short vectors, under names of a model's and of none."""
    rng = np.random.default_rng(0)

    def tensor(*shape: int) -> torch.Tensor:
        return torch.from_numpy(rng.integers(-1023, 1024, shape).astype(np.float32) / 1024)

    model = {"g_a.0.weight": tensor(8, 3, 7, 7), "g_a.0.bias": tensor(8), "g_a.1.gamma": tensor(32, 32)}
    return {"model": to_small(model), "short": to_small({"a": tensor(2, 3), "b": tensor(1)})}


def _json(record: object) -> bytes:
    return json.dumps(record).encode()


if __name__ == "__main__":
    main()
