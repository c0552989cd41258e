"""torchvision's detectors for eagleray.

This module is all that listing imports, so nothing heavy is imported here.
"""

from __future__ import annotations

from collections.abc import Callable

from eagleray.contract import Framework, hookimpl

__version__ = "0.1.0"


@hookimpl
def register_frameworks(register: Callable[[Framework], None]) -> None:
    """Offer the framework."""
    from eagleray_torchvision.framework import describe  # noqa: PLC0415 - workers import this package without it

    register(describe(__version__))
