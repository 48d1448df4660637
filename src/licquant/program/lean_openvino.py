"""OpenVINO as the codec needs it: without its converter of other frameworks' models.

Importing that takes longer than all the rest of OpenVINO, and tells a server on the internet of it where the user has
not forbidden so. OpenVINO does without a converter that cannot be imported, so it is made one while OpenVINO itself is
imported; who wants to convert a model in the same process still can, by ``openvino.convert_model`` or as a module.
"""

from __future__ import annotations

import importlib
import sys
from typing import TYPE_CHECKING, Any

_CONVERTER = "openvino.tools.ovc"


def _without_converter() -> Any:
    """The module, imported now, or as somebody else in the process has imported it."""
    if "openvino" in sys.modules or _CONVERTER in sys.modules:
        return importlib.import_module("openvino")
    sys.modules[_CONVERTER] = None  # type: ignore[assignment]  # its import raises ImportError
    try:
        library = importlib.import_module("openvino")
    finally:
        del sys.modules[_CONVERTER]
    if not hasattr(library, "convert_model"):
        setattr(library, "convert_model", _convert_model)  # noqa: B010
    return library


def _convert_model(*arguments: Any, **named: Any) -> Any:
    """What OpenVINO has under this name, imported when it is called."""
    return importlib.import_module(_CONVERTER).convert_model(*arguments, **named)


if TYPE_CHECKING:
    import openvino as ov
    from openvino import opset13 as opset
else:
    ov = _without_converter()
    opset = ov.opset13
