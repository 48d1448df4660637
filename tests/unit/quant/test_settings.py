"""Settings that cannot be are refused when they are written, with the error of their kind."""

from typing import Any

import pytest

from licquant.errors import LicquantError, ModelError, PlanError
from licquant.quant.settings import Settings


@pytest.mark.parametrize(
    ("given", "error", "said"),
    [
        ({"max_bits": 1}, PlanError, "a width of 1 bits"),
        ({"max_bits": 17}, PlanError, "a width of 17 bits"),
        ({"activation_bits": 1}, PlanError, "a width of 1 bits"),
        ({"activation_bits": 8.0}, PlanError, "a width of 8.0 bits"),
        ({"reconstruction_steps": -1}, ModelError, "-1 steps"),
        ({"metric": "psnr"}, ModelError, "unknown metric 'psnr'"),
        ({"lmbda": 0}, LicquantError, "0"),
        ({"lmbda": -0.01}, LicquantError, "-0.01"),
        ({"lmbda": float("nan")}, LicquantError, "nan"),
        ({"lmbda": float("inf")}, LicquantError, "inf"),
        ({"lmbda": 8.73}, LicquantError, "ms-ssim"),
    ],
)
def test_settings_that_cannot_be(given: dict[str, Any], error: type[Exception], said: str) -> None:
    with pytest.raises(error, match=said):
        Settings(**given)


def test_settings_that_can_be() -> None:
    for given in ({"max_bits": 2}, {"max_bits": 16, "activation_bits": 16}, {"lmbda": 8.73, "metric": "ms-ssim"}):
        assert Settings(**given)
