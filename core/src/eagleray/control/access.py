"""Projects, users and keys, inside a transaction."""

from __future__ import annotations

import hashlib
import re
import secrets
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Row, delete, func, insert, select, update

from eagleray.contract.errors import ConfigError, UnknownNameError
from eagleray.control.commands import SCOPES, Caller, Plain
from eagleray.control.database.tables import ApiKey, Counter, Project, TrainingJob, User
from eagleray.control.errors import ConflictError, ForbiddenError, PreconditionError
from eagleray.control.views import KeyView, ProjectView, UserView
from eagleray.control.writing import Transaction

KEY_PREFIX = "er_"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


def need(caller: Caller, scope: str) -> None:
    """Raises ForbiddenError."""
    allowed = {"read": True, "write": caller.may_write, "admin": caller.is_admin}[scope]
    if not allowed:
        raise ForbiddenError(
            f"The key '{caller.name}' may not do this: it lacks the scope '{scope}'.",
            f"Its scopes: {', '.join(sorted(caller.scopes)) or 'none'}. An admin can make another key.",
        )


def need_global(caller: Caller) -> None:
    """An admin of everything, not of some projects."""
    need(caller, "admin")
    if caller.projects is not None:
        raise ForbiddenError(f"The key '{caller.name}' is confined to projects.", "Use an admin key without projects.")


def hash_key(key: str) -> str:
    """Keys are random and long, so a plain sha256 keeps them; there is nothing to guess."""
    return hashlib.sha256(key.encode()).hexdigest()


def checked_name(kind: str, name: str) -> str:
    if not _NAME.fullmatch(name):
        raise ConfigError(
            f"'{name[:120]}' cannot be a {kind}'s name.",
            "Letters, digits, '.', '_' and '-'; at most 100, no leading '.'.",
        )
    return name


def check_etag(version: int, if_match: str | None) -> None:
    """Raises PreconditionError."""
    if if_match is not None and if_match not in ("*", f'"{version}"'):
        raise PreconditionError(
            f"It has changed since it was read: {if_match} is not the current etag.", f'The current one is "{version}".'
        )


def quota(jobs: int | None, gpus: float | None) -> Plain:
    if (jobs is not None and jobs < 0) or (gpus is not None and not gpus >= 0):
        raise ConfigError("A quota is below 0.", "Valid: a number from 0, or none for no limit.")
    return {"quota_jobs": jobs, "quota_gpus": gpus}


def need_project(caller: Caller, name: str | None) -> None:
    """Raises UnknownNameError."""
    if name is not None and not caller.sees(name):
        raise _unknown_project(name)


def ensure_project(transaction: Transaction, caller: Caller, name: str | None) -> None:
    """A project comes to be with its first job, where the caller may use any.

    Raises:
        UnknownNameError: the caller cannot see it, whether it exists or not.
    """
    if name is None:
        return
    need_project(caller, name)
    if _project(transaction, name) is None:
        if caller.projects is not None:
            raise _unknown_project(name)
        add_project(transaction, name, {"quota_jobs": None, "quota_gpus": None})


def add_project(transaction: Transaction, name: str, quotas: Plain) -> Plain:
    if _project(transaction, checked_name("project", name)) is not None:
        raise ConflictError(f"The project '{name}' is there already.", "Choose another name, or change its quotas.")
    transaction.connection.execute(insert(Project).values(name=name, created_at=transaction.now, version=1, **quotas))
    return _project_view(transaction, name)


def change_project(transaction: Transaction, name: str, quotas: Plain, if_match: str | None) -> Plain:
    row = _project(transaction, name)
    if row is None:
        raise _unknown_project(name)
    check_etag(row.version, if_match)
    changed = update(Project).where(Project.name == name).values(version=row.version + 1, **quotas)
    transaction.connection.execute(changed)
    transaction.stirred = True
    return _project_view(transaction, name)


def remove_project(transaction: Transaction, name: str) -> Plain:
    if _project(transaction, name) is None:
        raise _unknown_project(name)
    held = select(func.count()).select_from(TrainingJob).where(TrainingJob.project_id == name)
    if count := transaction.connection.execute(held).scalar_one():
        raise ConflictError(f"The project '{name}' has {count} jobs.", "Delete its jobs first.")
    transaction.connection.execute(delete(Project).where(Project.name == name))
    return {"name": name, "deleted": True}


def add_user(transaction: Transaction, name: str, projects: Sequence[str] | None) -> Plain:
    if transaction.connection.execute(select(User.id).where(User.name == checked_name("user", name))).first():
        raise ConflictError(f"The user '{name}' is there already.", "Choose another name.")
    user_id = _next_id(transaction, User.__tablename__)
    values = {"id": user_id, "name": name, "projects": _sorted(projects), "created_at": transaction.now}
    transaction.connection.execute(insert(User).values(**values))
    return UserView.model_validate(values).model_dump(mode="json")


def remove_user(transaction: Transaction, user_id: int) -> Plain:
    _check_user(transaction, user_id)
    transaction.connection.execute(delete(ApiKey).where(ApiKey.user_id == user_id))
    transaction.connection.execute(delete(User).where(User.id == user_id))
    return {"id": user_id, "deleted": True}


def add_key(
    transaction: Transaction,
    key: str,
    *,
    name: str,
    scopes: Sequence[str],
    projects: Sequence[str] | None,
    user_id: int | None,
    expires_at: datetime | None,
) -> Plain:
    """Raises ConfigError for a scope that does not exist, UnknownNameError for a user that does not."""
    if wrong := sorted(set(scopes) - set(SCOPES)):
        raise ConfigError(f"There is no scope '{wrong[0]}'.", f"Valid: {', '.join(SCOPES)}.")
    if user_id is not None:
        _check_user(transaction, user_id)
    digest = hash_key(key)
    # The same key again: the first try's acknowledgement was lost.
    if transaction.connection.execute(select(ApiKey.id).where(ApiKey.sha256 == digest)).first() is None:
        transaction.connection.execute(
            insert(ApiKey).values(
                id=_next_id(transaction, ApiKey.__tablename__),
                name=checked_name("key", name),
                prefix=key[:10],
                sha256=digest,
                scopes=sorted(set(scopes)),
                projects=_sorted(projects),
                user_id=user_id,
                created_at=transaction.now,
                expires_at=expires_at,
            )
        )
    return {**_key_view(transaction, ApiKey.sha256 == digest), "key": key}


def revoke(transaction: Transaction, key_id: int) -> Plain:
    wanted = ApiKey.id == key_id
    if transaction.connection.execute(select(ApiKey.id).where(wanted)).first() is None:
        raise UnknownNameError(f"Unknown key '{key_id}'.", "List the keys to see their ids.")
    revoked = update(ApiKey).where(wanted, ApiKey.revoked_at.is_(None)).values(revoked_at=transaction.now)
    transaction.connection.execute(revoked)
    return _key_view(transaction, wanted)


def new_key() -> str:
    return KEY_PREFIX + secrets.token_urlsafe(32)


def moment(text: str | None) -> datetime | None:
    """Raises ConfigError."""
    if text is None:
        return None
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        found = None
    if found is None or found.tzinfo is None:
        raise ConfigError(f"'{text[:60]}' is not a time with its offset.", "Example: 2027-01-31T12:00:00+00:00")
    return found


def _sorted(projects: Sequence[str] | None) -> list[str] | None:
    return None if projects is None else sorted({checked_name("project", name) for name in projects})


def _project(transaction: Transaction, name: str) -> Row[Any] | None:
    wanted = select(*Project.__table__.columns).where(Project.name == name)
    return transaction.connection.execute(wanted).one_or_none()


def _project_view(transaction: Transaction, name: str) -> Plain:
    row = _project(transaction, name)
    assert row is not None
    return ProjectView.model_validate(dict(row._mapping)).model_dump(mode="json")


def _key_view(transaction: Transaction, wanted: Any) -> Plain:
    columns = [column for column in ApiKey.__table__.columns if column.name in KeyView.model_fields]
    row = transaction.connection.execute(select(*columns).where(wanted)).one()
    return KeyView.model_validate(dict(row._mapping)).model_dump(mode="json")


def _check_user(transaction: Transaction, user_id: int) -> None:
    if transaction.connection.execute(select(User.id).where(User.id == user_id)).first() is None:
        raise UnknownNameError(f"Unknown user '{user_id}'.", "List the users to see their ids.")


def _next_id(transaction: Transaction, table: str) -> int:
    """Never one that was somebody else's: idempotency keys and old requests still name the deleted one by it."""
    counted = update(Counter).where(Counter.name == table).values(value=Counter.value + 1).returning(Counter.value)
    return int(transaction.connection.execute(counted).scalar_one())


def _unknown_project(name: str) -> UnknownNameError:
    return UnknownNameError(f"Unknown project '{name}'.", "List the projects to see their names.")
