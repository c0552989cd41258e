"""Ultralytics YOLO plugin of eagleray."""

__version__ = "0.1.0"
