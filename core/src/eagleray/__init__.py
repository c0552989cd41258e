"""eagleray trains vision models on Ray clusters, each framework in its own environment."""

__version__ = "0.1.0"
