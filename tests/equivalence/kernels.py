"""Which kernels run a part's layers, as the runtime's own model says."""

from licquant.program.openvino_engine import OpenVinoEngine, machine
from licquant.program.part import Part
from licquant.program.saturation import int8_layers
from licquant.program.self_test import Sums


def not_in_int8(part: Part) -> dict[str, str]:
    """Layer → its kernel, of those that should run in INT8 and do not.

    All should where this machine's INT8 kernels are exact; else those that an exact layout is found for. What the part
    gives is float32, and machines without VNNI have no INT8 kernel that writes that.
    """
    kernels = OpenVinoEngine(part, 1).execution_types()
    wanted = {op.name for op in part.operations if hasattr(op, "weight_bits")}
    assert wanted <= set(kernels)
    if set(machine().sums().values()) != {Sums.EXACT}:
        found = {op.name for op in int8_layers(machine().fit(part)[0])}
        assert len(found) >= len(wanted) - 1  # but for what reads pixels or a latent, whose order is given
        wanted = found - {part.output}
    return {layer: kernels[layer] for layer in wanted if not kernels[layer].lower().endswith("i8")}
