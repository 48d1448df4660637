"""Every exception that licquant raises on purpose.

    LicquantError                    the base: catch this to catch them all
    ├── ImageError                   an image file that cannot be read, or a kind of image that is refused
    ├── BitstreamError               an ``image.lic`` that is truncated, corrupted, hostile or of another model
    ├── ArtifactError                a ``model.licq`` that is truncated, corrupted, hostile or of another version
    ├── PlanError                    a plan that does not fit the model, or is not a plan
    ├── BudgetError                  a budget that cannot be read or cannot be met
    ├── ModelError                   an unknown model, a checkpoint that does not fit, a graph that cannot be traced
    ├── DataError                    a folder without usable images, or data that a figure cannot be made from
    ├── LoweringError                a quantized graph that has no integer program (an accumulator too wide, ...)
    ├── ExportError                  an artifact that has no form in ONNX, or a folder that cannot take it
    ├── EngineError                  kernels of this machine that compute wrongly in every way, or a device it lacks
    └── TrainingError                training that cannot start or go on

Each carries one line that says what was wrong and, where there is one, the way out; the command line prints that
line and exits with status 1.
"""


class LicquantError(Exception):
    """Base of all of licquant's own exceptions; ``str(error)`` is one clear line."""


class ImageError(LicquantError):
    """An image file cannot be read, or is of a kind that licquant refuses."""


class BitstreamError(LicquantError):
    """A coded image (``image.lic``) is truncated, corrupted, hostile, or was made with another artifact."""


class ArtifactError(LicquantError):
    """A quantized model (``model.licq``) is truncated, corrupted, hostile, or of an unknown version."""


class PlanError(LicquantError):
    """A plan is malformed, names layers that the model lacks, or lacks layers that it has."""


class BudgetError(LicquantError):
    """A budget is malformed, or no plan meets it; the message then names the smallest reachable value.

    least: that value, in the unit of what the budget counts, where it is the cost of a plan
    """

    def __init__(self, message: str, least: float | None = None) -> None:
        super().__init__(message)
        self.least = least


class ModelError(LicquantError):
    """A model is unknown, its checkpoint does not fit it, or its graph holds something unsupported."""


class DataError(LicquantError):
    """A folder of images is missing, empty, or holds nothing usable."""


class LoweringError(LicquantError):
    """A quantized graph has no integer program, for instance because an accumulator would not fit int32."""


class ExportError(LicquantError):
    """An artifact holds what ONNX, or ONNX Runtime, has no exact form for; or its folder cannot be written."""


class EngineError(LicquantError):
    """The fast engine's kernels compute wrongly on this machine, in INT8 and in float32, or it lacks a device."""


class TrainingError(LicquantError):
    """Training cannot start (bad setting, bad data) or cannot go on (a loss that is not finite, a full disk)."""
