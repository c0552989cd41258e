"""Reads datasets: formats, pairing, counts, and every fault with its file and line."""

from eagleray.datasets.read import FORMATS, read_dataset
from eagleray.datasets.report import DatasetReport

__all__ = ["FORMATS", "DatasetReport", "read_dataset"]
