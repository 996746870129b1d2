"""No spelling of a URL leads a webhook to where it must not go; honest ones get there."""

from __future__ import annotations

import ipaddress
from ipaddress import IPv4Address, IPv6Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flik.domain.webhook.address import inside, why_refused
from flik.domain.webhook.target import MAX_URL_CHARS, Allowed, Refused, Target, read_allowed, read_url

NOBODY = Allowed()
HTTP = Allowed(plain_http=True)

PRIVATE_V4 = (
    "0.0.0.0", "0.1.2.3", "10.0.0.1", "10.255.255.255", "100.64.0.1", "100.100.100.200", "100.127.255.255",
    "127.0.0.1", "127.1.2.3", "127.255.255.255", "168.63.129.16", "169.254.0.1", "169.254.169.254", "169.254.170.2",
    "172.16.0.1", "172.31.255.255", "192.0.0.1", "192.0.0.192", "192.0.2.1", "192.88.99.1", "192.168.0.1",
    "192.168.255.255", "198.18.0.1", "198.19.255.255", "198.51.100.1", "203.0.113.1", "224.0.0.1", "239.255.255.255",
    "240.0.0.1", "255.255.255.255",
)  # fmt: skip
PRIVATE_V6 = (
    "::", "::1", "::7f00:1", "::8.8.8.8", "100::1", "2001::1", "2001:10::1", "2001:20::1", "2001:db8::1",
    "2001:0:4136:e378:8000:63bf:3fff:fdd2", "3fff::1", "3ffe::1", "4000::1", "5f00::1", "64:ff9b:1::808:808",
    "fc00::1", "fd00:ec2::254", "fd12:3456::1", "fe80::1", "febf::1", "fec0::1", "ff02::1", "ff0e::1",
    "2001:4860::5efe:7f00:1", "2001:4860::200:5efe:a9fe:a9fe",
)  # fmt: skip
CARRIERS = ("::ffff:{0}", "64:ff9b::{0}")  # mapped, NAT64


def six_to_four(address: str) -> str:
    number = int(IPv4Address(address))
    return f"2002:{number >> 16:x}:{number & 0xFFFF:x}::1"


def other_spellings(address: str) -> list[str]:
    """All that some program takes for this IPv4 address, beside the usual four numbers."""
    number = int(IPv4Address(address))
    a, b, c, d = address.split(".")
    return [
        str(number), hex(number), f"0{number:o}", f"{a}.{number & 0xFFFFFF}", f"{a}.{b}.{number & 0xFFFF}",
        f"0{int(a):o}.0{int(b):o}.0{int(c):o}.0{int(d):o}", f"{int(a):#x}.{int(b):#x}.{int(c):#x}.{int(d):#x}",
        f"{a}.{b}.{c}.{d}.", f"00{a}.{b}.{c}.{d}", f"{a}.{b}.{c}.{int(d):#x}",
    ]  # fmt: skip


HOSTS = [
    *PRIVATE_V4,
    *(f"[{host}]" for host in PRIVATE_V6),
    *(f"[{carrier.format(host)}]" for host in PRIVATE_V4 for carrier in CARRIERS),
    *(f"[{six_to_four(host)}]" for host in PRIVATE_V4),
    *(spelling for host in ("127.0.0.1", "10.1.2.3", "169.254.169.254") for spelling in other_spellings(host)),
    "127.1", "127.0.1", "0", "0x0", "017700000001", "0x7f.1", "1.2.3.4.5", "256.1.1.1", "1.2.3", "0x", "127.0.0.0x1",
    "１２７.０.０.１", "①②⑦.⓪.⓪.①", "127。0。0。1", "127．0．0．1", "ⓛⓞⓒⓐⓛⓗⓞⓢⓣ",  # noqa: RUF001
    "localhost", "LOCALHOST", "localhost.", "a.localhost", "printer.local", "metadata.google.internal", "metadata",
    "intranet", "nas.lan", "x.home", "git.corp", "1.0.0.127.in-addr.arpa", "x.onion", "x.test", "x.invalid",
    "[fe80::1%25eth0]", "[fe80::1%eth0]", "[::1%251]", "[v1.fe80::a]", "[]", "[::1", "::1]", "[127.0.0.1]",
    "[::ffff:0x7f.0.0.1]", "", ".", "..", "a..b", ".example.com", "-a.example.com", "a-.example.com",
    "a_b.example.com", "ex ample.com", "ex\tample.com", "example.com\n", "exa\x00mple.com", "%6c%6fcalhost",
    "127.0.0.1%00.example.com", "xn--a.example.com", "xn--.example.com", f"{'a' * 64}.example.com",
    f"{'a.' * 127}example.com", "example.com\\@127.0.0.1", "exam\u00adple..com", "\u202eexample.com", "a\u200b..com",
    "*.example.com", "example.com,127.0.0.1", "example.com;x",
]  # fmt: skip
URLS = [
    *(f"https://{host}/hook" for host in HOSTS),
    *(f"https://{host}:8443/" for host in ("127.0.0.1", "[::1]", "localhost", "2130706433")),
    "", "hooks.example.com", "//hooks.example.com/", "https:/hooks.example.com", "https:hooks.example.com",
    "https://", "https:///path", "http://hooks.example.com/", "HTTP://hooks.example.com/", "ftp://example.com/",
    "file:///etc/passwd", "gopher://example.com/", "javascript:alert(1)", "data:text/plain,x", "ws://example.com/",
    "wss://example.com/", "unix:///var/run/x.sock", "dict://example.com:11211/", "ldap://example.com/",
    "https://user@hooks.example.com/", "https://user:word@hooks.example.com/", "https://@hooks.example.com/",
    "https://127.0.0.1@hooks.example.com/", "https://hooks.example.com@127.0.0.1/",
    "https://hooks.example.com:443@127.0.0.1/", "https://hooks.example.com#@127.0.0.1/",
    "https://hooks.example.com/#fragment", "https://hooks.example.com\\@127.0.0.1/", "https:\\\\127.0.0.1\\",
    "https://hooks.example.com:/", "https://hooks.example.com:0/", "https://hooks.example.com:65536/",
    "https://hooks.example.com:99999/", "https://hooks.example.com:-1/", "https://hooks.example.com:+443/",
    "https://hooks.example.com:443443/", "https://hooks.example.com:٤٤٣/", "https://hooks.example.com:0x1bb/",
    "https://hooks.example.com: 443/", "https://hooks.example.com:443:443/",
    *(f"https://hooks.example.com:{port}/" for port in (1, 22, 23, 25, 53, 80, 110, 139, 445, 465, 587, 993, 1023)),
    " https://hooks.example.com/", "https://hooks.example.com/ ", "https://hooks.example.com/a b",
    "https://hooks.example.com/a\r\nHost: x", "https://hooks.example.com/\x00", "https://hooks.example.com/é",
    "https://hooks.example.com/a\\b", "\thttps://hooks.example.com/", "https://hooks.example.com/\x7f",
    "https://hooks.example.com/" + "a" * MAX_URL_CHARS,
]  # fmt: skip


def test_table_is_long() -> None:
    assert len(set(URLS)) >= 300


@pytest.mark.parametrize("url", URLS)
def test_hostile_url_is_refused(url: str) -> None:
    refused = read_url(url, NOBODY)
    assert isinstance(refused, Refused), refused
    assert refused.why


@pytest.mark.parametrize("host", HOSTS)
def test_hostile_host_is_refused_in_plain_http_too(host: str) -> None:
    assert isinstance(read_url(f"http://{host}/", HTTP), Refused)


@pytest.mark.parametrize(
    ("url", "target"),
    [
        ("https://hooks.example.com", Target("https", "hooks.example.com", 443, "/")),
        ("HTTPS://Hooks.Example.COM./a?b=c%20d", Target("https", "hooks.example.com", 443, "/a?b=c%20d")),
        ("https://hooks.example.com?b", Target("https", "hooks.example.com", 443, "/?b")),
        ("https://hooks.example.com:443/", Target("https", "hooks.example.com", 443, "/")),
        ("https://hooks.example.com:08443/", Target("https", "hooks.example.com", 8443, "/")),
        ("https://bücher.example.com/", Target("https", "xn--bcher-kva.example.com", 443, "/")),
        ("https://a。example。com/", Target("https", "a.example.com", 443, "/")),
        ("https://8.8.8.8/", Target("https", "8.8.8.8", 443, "/", IPv4Address("8.8.8.8"))),
        ("https://[2606:4700:0::1111]:8443/", Target("https", "2606:4700::1111", 8443, "/",
                                                     IPv6Address("2606:4700::1111"))),
        ("https://1.example.com/", Target("https", "1.example.com", 443, "/")),
        ("https://a/../b.example.com", None),
    ],
)  # fmt: skip
def test_honest_url_is_read_into_its_one_spelling(url: str, target: Target | None) -> None:
    read = read_url(url, NOBODY)
    if target is None:
        assert isinstance(read, Refused)
        return
    assert read == target
    assert read_url(target.url, NOBODY) == target


def test_authority_names_a_port_only_where_it_is_not_the_usual_one() -> None:
    read = [read_url(f"https://{host}/", NOBODY) for host in ("8.8.8.8:443", "[2606:4700::1111]:8443")]
    assert [each.authority for each in read if isinstance(each, Target)] == ["8.8.8.8", "[2606:4700::1111]:8443"]


def test_plain_http_is_a_setting() -> None:
    assert read_url("http://hooks.example.com/", HTTP) == Target("http", "hooks.example.com", 80, "/")
    assert isinstance(read_url("https://hooks.example.com:80/", HTTP), Refused)
    assert isinstance(read_url("http://hooks.example.com:443/", HTTP), Refused)


# ---- what an operator allows


def test_network_opens_its_addresses_and_no_others() -> None:
    allowed = read_allowed(["10.0.0.0/8", "fd00::/8"])
    for open_ in ("10.1.2.3", "[::ffff:10.1.2.3]", "[fd00::1]"):
        assert isinstance(read_url(f"https://{open_}/", allowed), Target)
    for closed in ("127.0.0.1", "192.168.1.1", "[fc00::1]", "[::ffff:127.0.0.1]", "2130706433", "localhost"):
        assert isinstance(read_url(f"https://{closed}/", allowed), Refused)
    assert isinstance(read_url("http://10.1.2.3/", allowed), Refused)  # still no plain HTTP


def test_place_opens_one_port_of_one_host() -> None:
    allowed = read_allowed(["receiver:9000", "127.0.0.1:25", "[::1]:9000", "Hooks.Example.com:80"])
    for open_ in ("receiver:9000", "127.0.0.1:25", "[::1]:9000", "hooks.example.com:80"):
        assert isinstance(read_url(f"http://{open_}/", allowed), Target)
    for closed in ("receiver", "receiver:9001", "127.0.0.1:26", "127.0.0.2:25", "[::1]:9001"):
        assert isinstance(read_url(f"https://{closed}/", allowed), Refused)


@pytest.mark.parametrize(
    "part",
    ["receiver", "10.0.0.0/33", "10.0.0.1/8", "a b:80", "receiver:", "receiver:0", "receiver:x", ":80", "/8", ""],
)
def test_what_allows_nothing_is_named(part: str) -> None:
    with pytest.raises(ValueError, match="neither a network"):
        read_allowed([part])


# ---- addresses


@pytest.mark.parametrize("text", PRIVATE_V4)
def test_address_is_refused_in_every_form_that_carries_it(text: str) -> None:
    forms = [text, *(carrier.format(text) for carrier in CARRIERS), six_to_four(text), f"::{text}"]
    assert all(why_refused(ipaddress.ip_address(form)) for form in forms)


@pytest.mark.parametrize(
    "text",
    ["1.1.1.1", "8.8.8.8", "9.255.255.255", "11.0.0.0", "100.63.255.255", "100.128.0.0", "126.255.255.255",
     "128.0.0.0", "169.253.255.255", "169.255.0.0", "172.15.255.255", "172.32.0.0", "192.167.255.255", "192.169.0.0",
     "198.17.255.255", "198.20.0.0", "223.255.255.255", "2606:4700::1111", "2a00:1450::1", "2001:4860:4860::8888",
     "::ffff:8.8.8.8", "64:ff9b::808:808", "2002:808:808::1"],
)  # fmt: skip
def test_public_address_is_taken(text: str) -> None:
    assert why_refused(ipaddress.ip_address(text)) is None


@given(st.ip_addresses(v=4))
def test_no_private_ipv4_address_is_taken_in_any_form(address: IPv4Address) -> None:
    forms = [str(address), *(carrier.format(address) for carrier in CARRIERS), six_to_four(str(address))]
    verdicts = {why_refused(ipaddress.ip_address(form)) for form in forms}
    assert len(verdicts) == 1
    if not address.is_global or address.is_multicast or address.is_reserved:
        assert verdicts != {None}


@given(st.ip_addresses(v=6))
def test_what_python_calls_private_is_refused(address: IPv6Address) -> None:
    inner = inside(address)
    if not inner.is_global or inner.is_multicast or inner.is_reserved or inner.is_link_local:
        assert why_refused(address) is not None


@given(st.ip_addresses(v=4), st.sampled_from([*range(10)]))
def test_no_odd_spelling_of_an_address_is_taken(address: IPv4Address, which: int) -> None:
    spelling = other_spellings(str(address))[which]
    read = read_url(f"https://{spelling}/", NOBODY)
    if isinstance(read, Target):  # some spellings are the usual one, as 0 in octal, or with a dot at the end
        assert read.host == str(address)
        assert why_refused(address) is None


@given(st.text(max_size=60))
def test_whatever_is_taken_names_a_public_place(text: str) -> None:
    for url in (text, f"https://{text}", f"https://{text}/", f"https://hooks.example.com{text}"):
        read = read_url(url, NOBODY)
        if isinstance(read, Target):
            assert read.url.isascii()
            assert read.url.isprintable()
            assert " " not in read.url
            assert read.scheme == "https"
            assert read.address is None or why_refused(read.address) is None
            assert read_url(read.url, NOBODY) == read


def test_origin_is_the_same_however_a_url_is_written() -> None:
    spellings = ("https://hooks.example.com/a?b", "HTTPS://HOOKS.example.com:443", "https://hooks.example.com./c")
    assert {each.origin for text in spellings if isinstance(each := read_url(text, NOBODY), Target)} == {
        "https://hooks.example.com"
    }
