"""Which URLs a webhook may have, before any name is resolved, and what the operator allows beyond that.

    https://hooks.example.com/flik?team=7      taken
    http://hooks.example.com/                  only with FLIK_WEBHOOK_HTTP
    https://hooks.example.com:8443/            ports: 443 (80 for http), and from 1024 on
    https://10.1.2.3/                          only with 10.0.0.0/8, or 10.1.2.3:443, in FLIK_WEBHOOK_ALLOW
    http://receiver:9000/                      only with receiver:9000 in FLIK_WEBHOOK_ALLOW

A URL is at most 2,048 characters, printable, without user, password and fragment. A host is a name of at least two
labels, in the form that DNS uses (IDNA 2008), or an address written in the one usual way: 2130706433, 0x7f.1,
127.1 and 0177.0.0.1 are refused, as programs differ on what they mean. Names that are local by definition are
refused. Where a name leads is asked later, at every sending: `address.py`, `flik/outbound`.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address

import idna

from flik.domain.webhook.address import Address, Network, why_refused

MAX_URL_CHARS = 2_048
_MAX_HOST_CHARS = 253
_LEAST_FREE_PORT = 1_024  # below: mail, shells, files and whatever else trusts who connects
_PORTS = {"https": 443, "http": 80}
_URL = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*)://(?P<authority>[^/?#]*)(?P<rest>[^#]*)(?P<fragment>#.*)?")
_AUTHORITY = re.compile(r"(?P<host>\[[^\[\]]*\]|[^\[\]:]*)(?P<port>:.*)?")
_PORT = re.compile(r":[0-9]{1,5}", re.ASCII)
_LABEL = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?", re.ASCII)
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*", re.ASCII)
_REST = re.compile(r"[!-~]*", re.ASCII)  # visible ASCII
_LOCAL = frozenset({"localhost", "local", "internal", "intranet", "lan", "home", "corp", "private", "arpa", "onion",
                    "invalid", "test", "alt"})  # fmt: skip


@dataclass(frozen=True, slots=True)
class Allowed:
    """What the operator opened: networks, and single places by host and port."""

    networks: tuple[Network, ...] = ()
    places: frozenset[tuple[str, int]] = frozenset()
    plain_http: bool = False


@dataclass(frozen=True, slots=True)
class Target:
    """Where a webhook leads: a URL in its one spelling. `address`: the host, when it is one."""

    scheme: str
    host: str
    port: int
    rest: str
    address: Address | None = None

    @property
    def authority(self) -> str:
        """Host and port, as the header Host has them."""
        host = f"[{self.host}]" if isinstance(self.address, IPv6Address) else self.host
        return host if self.port == _PORTS[self.scheme] else f"{host}:{self.port}"

    @property
    def origin(self) -> str:
        """Scheme, host and port: whom it leads to."""
        return f"{self.scheme}://{self.authority}"

    @property
    def url(self) -> str:
        """The whole of it."""
        return f"{self.origin}{self.rest}"


@dataclass(frozen=True, slots=True)
class Refused:
    """Why a URL is not taken, as the end of a sentence that begins with it."""

    why: str


class _Broken(Exception):  # never leaves this module
    pass


def read_url(text: str, allowed: Allowed) -> Target | Refused:
    """Return where a URL leads, or why a webhook may not have it."""
    try:
        return _read(text, allowed)
    except _Broken as broken:
        return Refused(str(broken))


def _read(text: str, allowed: Allowed) -> Target:
    if len(text) > MAX_URL_CHARS:
        raise _Broken(f"is longer than {MAX_URL_CHARS:,} characters")
    found = _URL.fullmatch(text)
    if found is None:
        raise _Broken("is not a URL as in https://hooks.example.com/flik")
    scheme = found["scheme"].lower()
    if scheme not in _PORTS:
        raise _Broken("must begin with https://")
    authority, rest = found["authority"], found["rest"]
    if found["fragment"] is not None:
        raise _Broken("has a fragment, which is never sent")
    if "@" in authority:
        raise _Broken("has a user or password; the signature tells who sends")
    if not _REST.fullmatch(rest) or "\\" in rest:
        raise _Broken("has a path or query with characters that must be percent-encoded")
    host, address, port = _place(authority, scheme)
    target = Target(scheme, host, port, rest if rest.startswith("/") else f"/{rest}", address)
    if (host, port) not in allowed.places:
        _refuse(target, allowed)
    return target


def _refuse(target: Target, allowed: Allowed) -> None:
    if target.scheme == "http" and not allowed.plain_http:
        raise _Broken("must begin with https://")
    if target.port != _PORTS[target.scheme] and target.port < _LEAST_FREE_PORT:
        raise _Broken(f"names a port that is neither {_PORTS[target.scheme]} nor above {_LEAST_FREE_PORT - 1}")
    if target.address is None:
        if "." not in target.host or target.host.rpartition(".")[2] in _LOCAL:
            raise _Broken("names a host that only a local network knows")
    elif why := why_refused(target.address, allowed.networks):
        raise _Broken(f"leads to an address that is {why}")


def _place(authority: str, scheme: str) -> tuple[str, Address | None, int]:
    found = _AUTHORITY.fullmatch(authority)
    if found is None:
        raise _Broken("has a host that cannot be read")
    port = _PORTS[scheme]
    if found["port"] is not None:
        port = int(found["port"][1:]) if _PORT.fullmatch(found["port"]) else 0
        if not 1 <= port <= 65_535:
            raise _Broken("has a port that is none")
    return *_host(found["host"]), port


def _host(raw: str) -> tuple[str, Address | None]:
    if raw.startswith("["):
        return _literal_v6(raw[1:-1])
    name = _ascii(raw)
    if len(name) > _MAX_HOST_CHARS or not all(map(_LABEL.fullmatch, name.split("."))):
        raise _Broken("has a host that no DNS name can be")
    if _NUMBER.fullmatch(name.rpartition(".")[2]):  # WHATWG URL: such a host is an address, however it is written
        return _literal_v4(name)
    return name, None


def _literal_v6(text: str) -> tuple[str, Address]:
    try:
        address = IPv6Address(text)
    except ValueError:
        address = None
    if address is None or address.scope_id is not None:
        raise _Broken("has a host that is no IPv6 address")
    return str(address), address


def _literal_v4(text: str) -> tuple[str, Address]:
    try:
        address = IPv4Address(text)  # takes four decimal numbers without leading zeros, and nothing else
    except ValueError:
        raise _Broken("has an address that is not written as in 192.0.2.1") from None
    return text, address


def _ascii(raw: str) -> str:
    """Return a name as DNS has it, in lower case, without the dot at the end."""
    if raw.isascii():
        name = raw.lower()
        labels = [label for label in name.split(".") if label.startswith("xn--")]
    else:
        try:
            name = idna.encode(raw, uts46=True, std3_rules=True).decode().lower()
        except (idna.IDNAError, UnicodeError):
            raise _Broken("has a host that no DNS name can be") from None
        labels = []
    try:
        for label in labels:
            idna.ulabel(label)
    except (idna.IDNAError, UnicodeError):
        raise _Broken("has a host that no DNS name can be") from None
    return name.removesuffix(".")


def read_allowed(parts: Iterable[str], *, plain_http: bool = False) -> Allowed:
    """Return what FLIK_WEBHOOK_ALLOW opens: networks as in 10.0.0.0/8, places as in receiver:9000 or [::1]:9000.

    Raises:
        ValueError: names the part that is neither.
    """
    networks: list[Network] = []
    places: set[tuple[str, int]] = set()
    for part in parts:
        try:
            if "/" in part:
                networks.append(ipaddress.ip_network(part))
                continue
            host, _, port = _place(part, "https")
            if not part.endswith(f":{port}"):
                raise ValueError
            places.add((host, port))
        except (ValueError, _Broken):
            raise ValueError(f"{part!r} is neither a network (10.0.0.0/8) nor host:port (receiver:9000)") from None
    return Allowed(tuple(networks), frozenset(places), plain_http)
