"""Which addresses a webhook may lead to: public ones, and what the operator allows.

Refused is all that IANA's registries of special addresses name, whether the network uses it or not, and every
IPv6 form that carries such an IPv4 address inside (mapped, 6to4, NAT64, ISATAP), because some stacks unpack them.
IPv4-compatible and Teredo addresses are refused whatever is inside. Of IPv6, only 2000::/3 is given out to anybody.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network


def _v4(text: str) -> IPv4Network:
    return IPv4Network(text)


def _v6(text: str) -> IPv6Network:
    return IPv6Network(text)


_REFUSED_V4 = {
    _v4("0.0.0.0/8"): "unspecified",
    _v4("10.0.0.0/8"): "private",
    _v4("100.64.0.0/10"): "shared (CGNAT)",
    _v4("127.0.0.0/8"): "loopback",
    _v4("168.63.129.16/32"): "a cloud's metadata",  # public by its number, answered inside of one cloud's machines
    _v4("169.254.0.0/16"): "link-local",
    _v4("172.16.0.0/12"): "private",
    _v4("192.0.0.0/24"): "reserved",
    _v4("192.0.2.0/24"): "for documentation",
    _v4("192.31.196.0/24"): "reserved",
    _v4("192.52.193.0/24"): "reserved",
    _v4("192.88.99.0/24"): "reserved",
    _v4("192.168.0.0/16"): "private",
    _v4("192.175.48.0/24"): "reserved",
    _v4("198.18.0.0/15"): "for measuring",
    _v4("198.51.100.0/24"): "for documentation",
    _v4("203.0.113.0/24"): "for documentation",
    _v4("224.0.0.0/4"): "multicast",
    _v4("240.0.0.0/4"): "reserved",
}
_REFUSED_V6 = {
    _v6("::/128"): "unspecified",
    _v6("::1/128"): "loopback",
    _v6("::/96"): "IPv4-compatible",
    _v6("64:ff9b:1::/48"): "translated (NAT64)",
    _v6("2001::/32"): "Teredo",
    _v6("2001::/23"): "reserved",
    _v6("2001:db8::/32"): "for documentation",
    _v6("2620:4f:8000::/48"): "reserved",
    _v6("3ffe::/16"): "reserved",
    _v6("3fff::/20"): "for documentation",
    _v6("fc00::/7"): "private",
    _v6("fe80::/10"): "link-local",
    _v6("fec0::/10"): "private",
    _v6("ff00::/8"): "multicast",
}
_GIVEN_OUT = _v6("2000::/3")
_MAPPED, _TRANSLATED, _6TO4 = _v6("::ffff:0:0/96"), _v6("64:ff9b::/96"), _v6("2002::/16")
_ISATAP = frozenset({0x00005EFE, 0x02005EFE})  # RFC 5214, section 6.1


def why_refused(address: Address, allowed: Sequence[Network] = ()) -> str | None:
    """Return what is wrong with an address, as in "loopback"; None: a webhook may lead to it.

    `allowed` are networks that the operator opened; an IPv4 network opens mapped and translated forms too.
    """
    inner = inside(address)
    if any(one.version == network.version and one in network for one in {address, inner} for network in allowed):
        return None
    if isinstance(inner, IPv4Address):
        return next((why for network, why in _REFUSED_V4.items() if inner in network), None)
    return _why_v6(inner)


def inside(address: Address) -> Address:
    """Return the IPv4 address that an IPv6 address carries; an address that carries none, itself."""
    if isinstance(address, IPv4Address):
        return address
    number = int(address)
    if address in _MAPPED or address in _TRANSLATED:
        return IPv4Address(number & 0xFFFFFFFF)
    if address in _6TO4:
        return IPv4Address((number >> 80) & 0xFFFFFFFF)
    if (number >> 32) & 0xFFFFFFFF in _ISATAP:
        return IPv4Address(number & 0xFFFFFFFF)
    return address


def _why_v6(address: IPv6Address) -> str | None:
    if address.scope_id is not None:
        return "bound to a zone"
    found = next((why for network, why in _REFUSED_V6.items() if address in network), None)
    return found or (None if address in _GIVEN_OUT else "reserved")


def read_address(text: str) -> Address | None:
    """Return the address that a resolver gave; None when it is none."""
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        return None
