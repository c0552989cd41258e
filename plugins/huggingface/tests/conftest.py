"""Tests in `in_environment/` need torch: this environment leaves them to `test_in_environment.py`."""

from importlib.util import find_spec

collect_ignore = [] if find_spec("torch") else ["in_environment"]
