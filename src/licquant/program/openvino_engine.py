"""The OpenVINO engine: compiles a part for the CPU or another device, once, and runs it on any image size."""

import contextlib
import os
import threading
from collections.abc import Sequence
from functools import cache, cached_property, partial

import numpy as np

from licquant.errors import EngineError
from licquant.program import openvino_graph, self_test
from licquant.program.arithmetic import FIXED_POINT_BITS, Handed, Ints
from licquant.program.lean_openvino import ov
from licquant.program.part import Part
from licquant.program.saturation import int8_layers
from licquant.program.unread import without_unread
from licquant.ready import Ready

# Kernels are compiled for every size of image, 15 or so a part, and kept: at OpenVINO's own limit of 5000 they take
# gigabytes in a process that codes images of many sizes. These serve about 30 sizes.
_KERNELS_KEPT = 400
CPU, AUTO = "CPU", "AUTO"
_PREFERRED = ("GPU", "NPU", CPU)
_ON_ANY_DEVICE = {
    "PERFORMANCE_HINT": "LATENCY",
    # Otherwise bfloat16 wherever the CPU has it, even for what is not quantized.
    "INFERENCE_PRECISION_HINT": "f32",
}
_CPUINFO = 1 << 13  # characters: more than the first of its processors has


class OpenVinoEngine:
    """Runs one part of the free zone; compiles on first use.

    threads: how many threads OpenVINO may use for each caller; None leaves the choice to it.
    callers: how many threads call it at the same time; more wait for one another
    device:  as OpenVINO names it, one that ``usable_device`` has given
    ready:   of the part: where it may be found compiled, or else is kept so
    """

    def __init__(
        self,
        part: Part,
        threads: int | None = None,
        device: str = CPU,
        ready: Ready = Ready(),  # noqa: B008 (is frozen)
        callers: int = 1,
    ) -> None:
        self.part = part
        self.threads = threads
        self.callers = callers
        self.device = device
        self._ready = ready
        self._of_thread = threading.local()

    def prepare(self) -> None:
        """Compile, if that was not done yet: ``run`` then starts at once."""
        _ = self._compiled

    def run(self, q: Ints) -> Ints:
        """Stored integers of the input [C, H, W] to those of the output; views and any integer dtype are fine.

        Equal to the exact engine up to float rounding: at most one unit where a value falls beside a rounding
        boundary.
        """
        return self._rounded(self._infer(q, share_outputs=False))

    def hand_on(self, q: Handed) -> Handed:
        """``run`` for the next engine's ``run`` or ``hand_on``: not copied, and wide integers not rounded.

        A view of this thread's buffer: valid until the next call.
        """
        return self._infer(q, share_outputs=True)

    def _infer(self, q: Handed, share_outputs: bool) -> Handed:
        """Stored integers [C, H, W] to the same, as uint8 where ``openvino_graph.in_bytes``, else as float32."""
        x = _laid_out(q, self.part)
        y = self._request().infer([x], share_inputs=True, share_outputs=share_outputs)[0][0]
        return np.moveaxis(y, -1, 0) if openvino_graph.interleaved(self.part.output_grid) else y

    def _request(self) -> ov.InferRequest:
        """This thread's own: it keeps its buffers, and getting fresh ones for a large image costs milliseconds."""
        if not hasattr(self._of_thread, "request"):
            self._of_thread.request = self._compiled.create_infer_request()
        return self._of_thread.request

    def _rounded(self, y: np.ndarray) -> Ints:
        if openvino_graph.in_bytes(self.part.output_grid):
            return y
        y += 0.5
        np.floor(y, out=y)
        if self.part.output_grid.bits == FIXED_POINT_BITS:
            # float32 cannot hold the ends of int32
            np.clip(y, -(2.0**30), 2.0**30, out=y)
        return y.astype(np.int32)

    def execution_types(self) -> dict[str, str]:
        """Layer name → the kernel that runs it, e.g. ``"brgconv_avx512_I8"``: from the compiled model itself."""
        found = {}
        for node in self._compiled.get_runtime_model().get_ordered_ops():
            info = node.get_rt_info()
            for name in str(info["originalLayersNames"].astype(str)).split(","):
                found[name] = str(info["primitiveType"].astype(str))
        # What stands for a layer counts only where OpenVINO has dropped the layer's own node.
        by_layer = {
            op.name: found.get(op.name, found.get(op.name + openvino_graph.RESULT)) for op in self.part.operations
        }
        return {name: kernel for name, kernel in by_layer.items() if kernel is not None}

    def model(self) -> ov.Model:
        """What is compiled: the part, written for kernels that compute as this device's do."""
        return openvino_graph.build(*self._fitted, self._rescaled_apart)

    @cached_property
    def _fitted(self) -> tuple[Part, Part | None, bool]:
        """By the self-test, in every process: no name of a machine is trusted."""
        return machine(self.device).fit(without_unread(self.part))

    @cached_property
    def _rescaled_apart(self) -> bool:
        """Whether operations of their own round as everywhere, where kernels sum exactly but round in another way."""
        fitted, like, _ = self._fitted
        return like is None and bool(int8_layers(fitted)) and not machine(self.device).rounds_bytes

    @cached_property
    def _compiled(self) -> ov.CompiledModel:
        if self._ready.folder is None or self.device != CPU:
            return self._compile()
        ready = self._ready.of(
            _same_kernels(), _laid_out_as(*self._fitted, self._rescaled_apart), self.threads, self.callers
        )
        found = ready.read()
        if found is not None:
            try:
                return _core().import_model(bytes(found), CPU, _settings(self.threads, self.callers))
            except RuntimeError:  # as good as not there
                pass
        compiled = self._compile()
        ready.write(compiled.export_model().getvalue())
        return compiled

    def _compile(self) -> ov.CompiledModel:
        return compile_model(self.model(), self.threads, self.callers, self.device)


def machine(device: str = CPU) -> self_test.Machine:
    """What this machine's kernels compute, on that device: each kind is tested once for the process."""
    return _machine(device)


@cache
def _machine(device: str) -> self_test.Machine:
    return self_test.Machine(partial(_run_together, device))


def usable_device(wanted: str) -> str:
    """The device that is meant: itself, or for ``AUTO`` the first of GPU, NPU and CPU that computes rightly.

    Raises ``EngineError`` for one that OpenVINO does not have here, or whose kernels fail the self-test.
    """
    here = devices()
    if wanted == AUTO:
        return next((name for name in _PREFERRED if _has(here, name) and _right(name)), CPU)
    if not _has(here, wanted):
        raise EngineError(f"device {wanted[:40]}: OpenVINO has no such device here, it has {', '.join(here)}")
    if wanted != CPU:
        _tested(wanted)
    return wanted


def devices() -> list[str]:
    """Those that OpenVINO has here: ``CPU``, ``GPU`` or ``GPU.0``, …"""
    return list(map(str, _core().available_devices))


def _has(here: Sequence[str], device: str) -> bool:
    """``GPU`` is the first of GPU.0, GPU.1, …"""
    return bool(device) and any(name in (device, f"{device}.0") for name in here)


def _right(device: str) -> bool:
    try:
        _tested(device)
    except EngineError:
        return False
    return True


def _tested(device: str) -> None:
    """Raises ``EngineError`` where the kernels of a device cannot be run, or are wrong in INT8 and in float32."""
    try:
        machine(device).sums()
    except EngineError as error:
        raise EngineError(f"device {device} fails the self-test: {error}") from error
    except RuntimeError as error:
        raise EngineError(f"device {device}: OpenVINO cannot run the self-test on it") from error


def _run_together(device: str, parts: Sequence[Part], inputs: Sequence[Ints]) -> list[Ints]:
    """Parts as they are, compiled as one model; their outputs are planar."""
    models = [openvino_graph.build(part) for part in parts]
    results = [result for model in models for result in model.get_results()]
    whole = ov.Model(results, [p for model in models for p in model.get_parameters()])
    compiled = compile_model(whole, threads=1, device=device)
    found = compiled.create_infer_request().infer([_laid_out(q, part) for q, part in zip(inputs, parts, strict=True)])
    return [np.rint(found[index][0]).astype(np.int64) for index in range(len(parts))]


def _laid_out(q: Handed, part: Part) -> np.ndarray:
    """Stored integers [C, H, W] as the part's model reads them."""
    q = np.moveaxis(q, 0, -1) if openvino_graph.interleaved(part.input_grid) else q
    return np.ascontiguousarray(q[None], dtype=np.uint8 if openvino_graph.in_bytes(part.input_grid) else np.float32)


def description() -> dict[str, str]:
    """CPU and version, as OpenVINO names them."""
    return {"cpu": str(_core().get_property("CPU", "FULL_DEVICE_NAME")), "openvino": str(ov.get_version())}


def compile_model(model: ov.Model, threads: int | None, callers: int = 1, device: str = CPU) -> ov.CompiledModel:
    """For a device; ``EngineError`` for what another than the CPU cannot run.

    threads: how many each inference may use, None leaves the choice to OpenVINO
    callers: how many inferences may run at the same time; more wait for one another
    """
    if device != CPU:
        try:
            return _core().compile_model(model, device, _ON_ANY_DEVICE)
        except RuntimeError as error:
            raise EngineError(f"device {device}: OpenVINO cannot compile these layers for it") from error
    return _core().compile_model(model, CPU, _settings(threads, callers))


def _settings(threads: int | None, callers: int = 1) -> dict[str, str]:
    """Of what is compiled for the CPU."""
    settings = {**_ON_ANY_DEVICE, "CPU_RUNTIME_CACHE_CAPACITY": str(_KERNELS_KEPT)}
    if threads is not None:
        settings |= {"INFERENCE_NUM_THREADS": str(callers * threads), "NUM_STREAMS": str(callers)}
    return settings


def _same_kernels() -> list[object]:
    """What OpenVINO compiles for: where all of this is the same, what it has compiled can be used again."""
    with contextlib.suppress(OSError), open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
        first = file.read(_CPUINFO).partition("\n\n")[0].splitlines()
    told = sorted(line for line in first if line.startswith(("model name", "flags", "Features", "microcode")))
    chosen = sorted(f"{k}={v}" for k, v in os.environ.items() if k.startswith(("ONEDNN_", "DNNL_", "OV_")))
    return [description(), told, chosen]


def _laid_out_as(fitted: Part, like: Part | None, fused: bool, rescaled_apart: bool) -> list[object]:
    """What the self-test made of a part, which is known otherwise."""
    layers = [(op.name, type(op).__name__, getattr(op, "weight_bits", None)) for op in fitted.operations]
    return [layers, like is not None, fused, rescaled_apart]


_CORE: list[ov.Core] = []


def _core() -> ov.Core:
    """One Core for the process: making one costs as much as compiling a small model."""
    if not _CORE:
        _CORE.append(ov.Core())
    return _CORE[0]
