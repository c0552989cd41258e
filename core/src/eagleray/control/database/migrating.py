"""Brings a database to this release's schema, in one transaction, and refuses those of newer releases."""

from __future__ import annotations

from pathlib import Path

from alembic.config import Config
from alembic.runtime.environment import EnvironmentContext
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Engine

from eagleray import __version__
from eagleray.control.database.tables import Base
from eagleray.control.errors import UnusableDatabaseError

MIGRATIONS = Path(__file__).with_name("migrations")


def migrate(engine: Engine, revision: str = "head") -> None:
    """Upgrade to `revision`; all of it or nothing, by one process at a time.

    Raises:
        UnusableDatabaseError: a newer release has written the database.
    """
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    scripts = ScriptDirectory.from_config(config)
    with engine.connect() as connection, connection.begin():
        if connection.dialect.name == "postgresql":
            connection.exec_driver_sql("SELECT pg_advisory_xact_lock(7285107)")
        current = MigrationContext.configure(connection).get_current_revision()
        known = {script.revision for script in scripts.walk_revisions()}
        if current is not None and current not in known:
            raise UnusableDatabaseError(
                f"The database has the schema '{current}', which eagleray {__version__} does not know.",
                "A newer release has written it: install that one, or restore a backup of before the upgrade.",
            )
        if current == scripts.get_current_head() and revision == "head":
            return
        environment = EnvironmentContext(config, scripts)
        environment.configure(
            connection=connection,
            target_metadata=Base.metadata,
            fn=lambda rev, _: scripts._upgrade_revs(revision, rev),
            transactional_ddl=True,
        )
        environment.run_migrations()
