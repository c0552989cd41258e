"""The control plane: one writer of the database, a queue, and one Ray Job per attempt."""
