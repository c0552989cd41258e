"""HTTP API of eagleray on Ray Serve.

A skeleton: the API is not written yet. Use `eagleray train` and `eagleray run` meanwhile.
"""

__version__ = "0.1.0"
