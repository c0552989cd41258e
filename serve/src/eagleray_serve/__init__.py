"""HTTP API of eagleray: a plain FastAPI app (`app`), and its shell for Ray Serve (`deployment`)."""

__version__ = "0.1.0"
