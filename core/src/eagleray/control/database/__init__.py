"""The control plane's database: SQLite on the head's disk, or PostgreSQL by `DATABASE_URL`."""
