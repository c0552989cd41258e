"""Which addresses of the network may be asked for a dataset, and the transport that asks no other.

A name is resolved once, every address it stands for is checked, and the connection goes to the address that was
checked; so a name that means something else a moment later gains nothing. Each redirect passes here again.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import httpx

from eagleray.contract.errors import DatasetError
from eagleray.datasets.report import shown

Resolve = Callable[[str, int], Sequence[str]]
IpAddress = ipaddress.IPv4Address | ipaddress.IPv6Address
HINT = "A dataset is fetched from a public https address; other hosts: EAGLERAY_DATASET_HOSTS=host:port,…"
# Public by its number, but answers with the secrets of the machine that asks (Azure).
METADATA = frozenset({ipaddress.ip_address("168.63.129.16")})
# For protocols, and for some clouds' secrets (Oracle's); Python calls it public before 3.11.10.
_PROTOCOLS = ipaddress.IPv4Network("192.0.0.0/24")
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
_NAT64_LOCAL = ipaddress.IPv6Network("64:ff9b:1::/48")


def resolve(host: str, port: int) -> Sequence[str]:
    """The addresses of a host by the system's resolver."""
    return [str(found[4][0]) for found in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]


@dataclass(frozen=True)
class HostRules:
    """Who may be asked.

    Attributes:
        trusted: `host` or `host:port`, lower-case, that may also have a private address and speak plain http.
    """

    trusted: frozenset[str] = frozenset()
    resolve: Resolve = resolve

    def check(self, url: httpx.URL) -> str:
        """The address to connect to. Raises DatasetError."""
        host = url.host.lower().rstrip(".")
        port = url.port or (443 if url.scheme == "https" else 80)
        trusted = host in self.trusted or f"{host}:{port}" in self.trusted
        if url.scheme not in ("https", "http") or (url.scheme == "http" and not trusted):
            raise DatasetError(f"{described(url)} is not an https address.", HINT)
        if not host:
            raise DatasetError(f"{described(url)} names no host.", HINT)
        if url.userinfo:
            raise DatasetError(f"The address at {host} holds a user's name or password.", "Leave them out.")
        try:
            found = [ipaddress.ip_address(text.partition("%")[0]) for text in self.resolve(host, port)]
        except (OSError, ValueError, UnicodeError):
            found = []
        if not found:
            raise DatasetError(f"The host {shown(host)} cannot be found.", "Check the address and the network.")
        if not trusted:
            for address in found:
                if not is_public(address):
                    raise DatasetError(f"{shown(host)} is not a public host: its address is {address}.", HINT)
        return str(found[0])


def is_public(address: IpAddress) -> bool:
    """Whether it belongs to the public network, also when looked at through what wraps one address in another."""
    if isinstance(address, ipaddress.IPv6Address):
        inner = address.ipv4_mapped or address.sixtofour
        if address in _NAT64:
            inner = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
        if inner is not None:
            return is_public(inner)
        if address.teredo or address.is_site_local or address in _NAT64_LOCAL:
            return False
    return (
        address.is_global
        and not (address.is_multicast or address.is_reserved or address.is_loopback or address.is_unspecified)
        and address not in METADATA
        and address not in _PROTOCOLS
    )


class PinnedTransport(httpx.BaseTransport):
    """Sends each request to the address that `rules` has checked, for the host that the request names."""

    def __init__(self, rules: HostRules) -> None:
        self._rules = rules
        # A kept connection was authenticated for one host, and would be taken for another at the same address.
        self._inner = httpx.HTTPTransport(limits=httpx.Limits(max_keepalive_connections=0))

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        address = self._rules.check(request.url)
        pinned = httpx.Request(
            request.method,
            request.url.copy_with(host=address),
            headers=request.headers,
            stream=request.stream,
            extensions={**request.extensions, "sni_hostname": request.url.host},
        )
        return self._inner.handle_request(pinned)

    def close(self) -> None:
        self._inner.close()


def described(url: httpx.URL) -> str:
    """The address without what may be secret in it."""
    return shown(url.copy_with(query=None, fragment=None, userinfo=None)) if url.host else shown(f"{url.scheme}:…")
