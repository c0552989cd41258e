"""The Python client of a server: `from eagleray.client import Client`."""

from eagleray.client.client import Client
from eagleray.client.errors import ServerError, UnreachableError

__all__ = ["Client", "ServerError", "UnreachableError"]
