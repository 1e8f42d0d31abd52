"""Importing this lets calls check the shapes in the annotations of some packages."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from beartype import BeartypeConf, beartype
from jaxtyping import install_import_hook

PACKAGES = [f"workflow_scripts.{stage}" for stage in ("crosscoder", "latents", "interventions")]
SHAPED = re.compile(r"\[(Tensor|ndarray), ")


def check(function: Callable[..., Any]) -> Callable[..., Any]:
    """Check annotations that name a shape; a test's substitute may stand in for another type."""
    hints = function.__annotations__.items()
    function.__annotations__ = {n: hint for n, hint in hints if SHAPED.search(str(hint))}
    checked: Callable[..., Any] = beartype(conf=BeartypeConf(is_pep484_tower=True))(function)
    return checked


install_import_hook(PACKAGES, f"{__name__}.check")
