"""Plugins' Python environments: read a lock, build it once on this node, keep it, throw away the oldest."""
