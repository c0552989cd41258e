"""What the store holds under a name: datasets and their versions.

Knows nothing of Ray. `DatasetRegistry` is the way in.
"""

from eagleray.registry.check import ImportOptions
from eagleray.registry.compare import Comparison
from eagleray.registry.limits import Limits
from eagleray.registry.models import DatasetRecord, DatasetVersion, Imported, Source
from eagleray.registry.names import Reference, parse_reference
from eagleray.registry.progress import Progress
from eagleray.registry.registry import DatasetRegistry
from eagleray.registry.removal import sweep_datasets
from eagleray.registry.sources.opening import SourceRules

__all__ = [
    "Comparison",
    "DatasetRecord",
    "DatasetRegistry",
    "DatasetVersion",
    "ImportOptions",
    "Imported",
    "Limits",
    "Progress",
    "Reference",
    "Source",
    "SourceRules",
    "parse_reference",
    "sweep_datasets",
]
