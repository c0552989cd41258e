"""Running a job on Ray: the only package of the core that knows Ray."""
