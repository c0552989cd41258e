"""Hugging Face Transformers plugin of eagleray."""

from __future__ import annotations

from collections.abc import Callable

from eagleray.contract import Framework, hookimpl

__version__ = "0.1.0"


@hookimpl
def register_frameworks(register: Callable[[Framework], None]) -> None:
    """Offer Transformers: the model list is read from a data file, so nothing heavy is imported."""
    from eagleray_huggingface.framework import describe  # noqa: PLC0415  workers import this package without it

    register(describe(__version__))
