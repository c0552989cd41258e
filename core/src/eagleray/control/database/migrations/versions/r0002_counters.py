"""Ids of users and keys that are never given out again, whatever is deleted."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "r0002"
down_revision = "r0001"


def upgrade() -> None:
    op.create_table(
        "counters",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("value", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_counters")),
    )
    for table in ("api_keys", "users"):
        op.execute(f"INSERT INTO counters (name, value) SELECT '{table}', COALESCE(MAX(id), 0) FROM {table}")
