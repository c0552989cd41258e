"""The table of datasets: what their records in the store say, for whoever asks the database."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from sqlalchemy import bindparam, delete, insert

from eagleray.control.commands import Plain
from eagleray.control.database.tables import DatasetRow
from eagleray.control.recording import scrubbed
from eagleray.control.writing import Transaction


def index_datasets(transaction: Transaction, found: Mapping[str, Plain | None]) -> None:
    """Put the rows of the datasets in `found`, by id, right; None: there is no such dataset any more."""
    rows = [_row(facts) for facts in found.values() if facts is not None]
    if found:
        gone = delete(DatasetRow).where(DatasetRow.id == bindparam("gone"))
        transaction.connection.execute(gone, [{"gone": dataset_id} for dataset_id in found])
    if rows:
        transaction.connection.execute(insert(DatasetRow), rows)


def _row(facts: Plain) -> Plain:
    row = {column.name: scrubbed(facts[column.name]) for column in DatasetRow.__table__.columns if column.name in facts}
    moments = {name: datetime.fromisoformat(row[name]) for name in ("created_at", "updated_at")}
    # Datasets belong to no project: they are shared by all keys of a server.
    return {**row, **moments, "project_id": None}
