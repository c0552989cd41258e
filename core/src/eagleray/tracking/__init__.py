"""Experiment tracking: callbacks that tell another system of a run."""
