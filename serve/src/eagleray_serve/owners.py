"""Whose a dataset is: a user's, with whichever of their keys, else the key's itself. Names of keys are not unique."""

from __future__ import annotations

from eagleray.control.commands import Caller


def owner_of(caller: Caller) -> str:
    """What stands in a dataset as `created_by`; numbers of users and keys are never given out twice."""
    if caller.user_id is not None:
        return f"user:{caller.user_id}"
    return f"key:{caller.key_id}" if caller.key_id is not None else caller.name


def may_change(caller: Caller, created_by: str) -> bool:
    return caller.projects is None or created_by == owner_of(caller)


def shown_to(caller: Caller, created_by: str) -> str:
    """Datasets are everybody's to read; who else has keys here is not for one that is bound to projects."""
    return created_by if may_change(caller, created_by) else ""
