"""Which versions of the contract this core takes, and what of it ends when."""

from __future__ import annotations

import warnings
from collections.abc import Mapping

from eagleray.contract.framework import CONTRACT_VERSION

OLDEST_VERSION = 1
# A version that is still taken and will not be for ever → the release of eagleray that ends it.
ENDING: Mapping[int, str] = {}


class ContractDeprecation(FutureWarning):
    """Something that a plugin uses ends with a release that the message names. Shown to users, who can upgrade it."""


def fault_of(version: object) -> str:
    """Why a plugin of contract `version` is not taken, as a clause; "" where it is."""
    if isinstance(version, int) and OLDEST_VERSION <= version <= CONTRACT_VERSION:
        return ""
    taken = f"{OLDEST_VERSION} to {CONTRACT_VERSION}" if OLDEST_VERSION < CONTRACT_VERSION else f"{CONTRACT_VERSION}"
    return f"it asks for contract version {version}, this core has {taken}"


def notice_of(version: int) -> str:
    """What a plugin of contract `version` should know, as a sentence; "" where there is nothing."""
    if version not in ENDING:
        return ""
    return f"Contract version {version} ends with eagleray {ENDING[version]}; {CONTRACT_VERSION} is the newest."


def deprecated(what: str, *, ends_in: str, instead: str) -> None:
    """Warn the plugin that calls the caller: `what` ends with release `ends_in`, `instead` says what to use."""
    warnings.warn(f"{what} ends with eagleray {ends_in}. {instead}", ContractDeprecation, stacklevel=3)
