"""Datasets: every format read into one streaming model, checked, shown, and written as any other.

`read_dataset` gives the counts that training needs or one error that names the files; `validate` reports all that is
wrong or odd; `convert` goes from any format to any other; `prepare_form` gives a plugin the form it declares.
"""

from eagleray.datasets.convert import ConversionReport, convert, write
from eagleray.datasets.edit import Edit, split_validation
from eagleray.datasets.fix import FixReport, fix
from eagleray.datasets.formats import FORMATS, detect_format
from eagleray.datasets.prepare import prepare_form
from eagleray.datasets.preview import preview
from eagleray.datasets.read import open_dataset, read_dataset
from eagleray.datasets.report import DatasetReport
from eagleray.datasets.validate import ValidationReport, validate
from eagleray.datasets.writing import Placing

__all__ = [
    "FORMATS",
    "ConversionReport",
    "DatasetReport",
    "Edit",
    "FixReport",
    "Placing",
    "ValidationReport",
    "convert",
    "detect_format",
    "fix",
    "open_dataset",
    "prepare_form",
    "preview",
    "read_dataset",
    "split_validation",
    "validate",
    "write",
]
