"""Quantized models that are to be measured: what each says of its making, and which belong on one curve."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from licquant.codec.files.artifact import Artifact, read_artifact_bytes
from licquant.codec.files.contents import LayerContents, layer_contents
from licquant.config import check_lmbda
from licquant.errors import DataError
from licquant.evaluate.bops import average_bops, macs_per_pixel
from licquant.evaluate.rd import DISTORTION_WEIGHTS, MSE
from licquant.evaluate.widths import AverageBits, Widths, average_bits_over, stage_of_layer

UNNAMED = "licquant"  # an artifact that does not say its method
# Keys of the provenance that make two artifacts of one method and budget different.
SETTINGS = ("model", "ranges", "per_channel", "steps")
# Those that tell artifacts of one λ apart, but may differ along a curve: every λ has its own scale of γ.
OF_ONE_LMBDA = ("gamma", "seed")


@dataclass(frozen=True, eq=False)
class Candidate:
    """An artifact file and what it holds.

    layers: at the widest widths, where these depend on the image
    stages: ``widths.stage_of_layer``: empty where nothing depends on the image
    macs:   of every operation, per pixel
    """

    path: Path
    lmbda: float
    sha256: str
    plan_hash: str
    layers: tuple[LayerContents, ...]
    provenance: Mapping[str, Any]
    stages: Mapping[str, str] = field(default_factory=dict)
    macs: Mapping[str, float] = field(default_factory=dict)

    @classmethod
    def read(cls, path: Path) -> "Candidate":
        """``ArtifactError`` for another file, ``DataError`` without λ, ``ModelError`` for one that is no λ."""
        data = read_artifact_bytes(path)
        artifact = Artifact.from_bytes(data)
        lmbda = artifact.provenance.get("lmbda")
        if lmbda is None:
            raise DataError(
                f"{path}: does not say its λ: quantize with --lmbda, or put a model card beside the checkpoint"
            )
        if artifact.provenance.get("metric", MSE) not in DISTORTION_WEIGHTS:
            raise DataError(f"{path}: was made for a metric that is not known")
        return cls(
            path=Path(path),
            lmbda=check_lmbda(lmbda, f"{path}: λ"),
            sha256=hashlib.sha256(data).hexdigest(),
            plan_hash=artifact.plan.hash,
            layers=tuple(layer_contents(data, artifact)),
            provenance=artifact.provenance,
            stages=stage_of_layer(artifact),
            macs=macs_per_pixel(artifact.program),
        )

    def bits(self, chosen: Sequence[Widths]) -> AverageBits:
        """Average widths over images, given what was chosen for each; errors as ``widths.average_bits``."""
        return average_bits_over(self.layers, self.stages, chosen)

    def bops(self, chosen: Sequence[Widths]) -> float:
        """Bit operations per pixel on average over images, given what was chosen for each."""
        return average_bops(self.macs, self.layers, self.stages, chosen)

    @property
    def metric(self) -> str:
        """What its λ weighs."""
        return str(self.provenance.get("metric", MSE))

    @property
    def method(self) -> str:
        """Method and width of the activations, as in ``"fmpq a8"``: what is the same under every budget."""
        return self._name("method", "act_bits")

    @property
    def label(self) -> str:
        """Method, budget and width of the activations, as in ``"fmpq size=0.25 a8"``."""
        return self._name("method", "budget", "act_bits")

    def _name(self, *keys: str) -> str:
        words = {"method": UNNAMED} | {key: self.provenance[key] for key in keys if key in self.provenance}
        return " ".join(f"a{words[key]}" if key == "act_bits" else str(words[key]) for key in keys if key in words)


@dataclass(frozen=True)
class Group:
    """Artifacts made alike for several λ: one curve, in order of λ."""

    label: str
    method: str
    members: tuple[Candidate, ...]


def grouped(candidates: Sequence[Candidate]) -> list[Group]:
    """The candidates as curves, in the order in which each curve's first one was given.

    One curve holds what was made with the same method, budget and settings. Settings are told in the labels only
    where the label would else stand for several curves. ``DataError`` for two candidates of one curve and one λ.
    """
    labels: dict[str, list[Candidate]] = {}
    for candidate in candidates:
        labels.setdefault(candidate.label, []).append(candidate)
    groups: dict[tuple[str, str], list[Candidate]] = {}
    for candidate in candidates:
        alike = labels[candidate.label]
        varying = [key for key in SETTINGS if _differs(key, alike)]
        varying += [
            key
            for key in OF_ONE_LMBDA
            if any(_differs(key, [other for other in alike if other.lmbda == lmbda]) for lmbda in _lmbdas(alike))
        ]
        told = "".join(f" {key}={candidate.provenance.get(key, '?')}" for key in varying)
        groups.setdefault((candidate.label + told, candidate.method + told), []).append(candidate)
    return [_group(label, method, members) for (label, method), members in groups.items()]


def _differs(key: str, candidates: Sequence[Candidate]) -> bool:
    return len({candidate.provenance.get(key) for candidate in candidates}) > 1


def _lmbdas(candidates: Sequence[Candidate]) -> set[float]:
    return {candidate.lmbda for candidate in candidates}


def _group(label: str, method: str, members: Sequence[Candidate]) -> Group:
    of_lmbda: dict[float, Candidate] = {}
    for member in members:
        other = of_lmbda.setdefault(member.lmbda, member)
        if other is not member:
            raise DataError(
                f"{other.path} and {member.path} were both made with {label} for λ = {member.lmbda:g}: "
                "evaluate them one after the other"
            )
    return Group(label, method, tuple(of_lmbda[lmbda] for lmbda in sorted(of_lmbda)))
