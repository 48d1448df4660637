"""What a quantization gives."""

from __future__ import annotations

from dataclasses import dataclass

from licquant.allocate.file_budget import FileSize
from licquant.allocate.sensitivity import Sensitivity
from licquant.codec.files.artifact import Artifact
from licquant.config import Plan
from licquant.quant.calibrate import Statistics
from licquant.quant.network import QuantizedModel


@dataclass(frozen=True, eq=False)
class Result:
    """A finished quantization.

    artifact:    save it with ``artifact.save("model.licq")``
    quantized:   the simulated network it was lowered from
    statistics:  of the float network on the calibration images, which its ranges were chosen from
    sensitivity: the table that its widths were chosen from; None for a method that looks at none
    size:        of the file, beside its budget; None under a budget of another kind
    """

    artifact: Artifact
    quantized: QuantizedModel
    statistics: Statistics
    sensitivity: Sensitivity | None = None
    size: FileSize | None = None

    @property
    def plan(self) -> Plan:
        """The widths that were chosen, those of the quantized model."""
        return self.quantized.plan
