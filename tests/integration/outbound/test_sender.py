"""What is sent goes to the address that was looked at and nowhere else, over real sockets and TLS."""

from __future__ import annotations

import asyncio
import datetime
import ssl
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from receiver import CUT, ENDLESS, SILENT, SLOW, listening

from flik.domain.webhook.attempt import AgainAt, Answered, Unreached, judge
from flik.domain.webhook.message import MAX_BODY_BYTES
from flik.domain.webhook.target import Allowed, read_allowed
from flik.outbound.lookups import Lookups
from flik.outbound.resolve import NOWHERE, Lookup
from flik.outbound.sender import GuardedSender, refusal_of

LOOPBACK = read_allowed(["127.0.0.0/8"], plain_http=True)


def names(*addresses: str) -> Lookup:
    async def lookup(host: str) -> list[str]:
        return list(addresses)

    return lookup


@pytest.mark.parametrize("status", [200, 204, 301, 307, 410, 500, 503])
async def test_answer_is_its_status_and_no_redirect_is_followed(status: int) -> None:
    async with listening(lambda _: status) as receiver:
        sender = GuardedSender(LOOPBACK)
        answer = await sender.send("acme", f"http://127.0.0.1:{receiver.port}/a?b=c%20d", {"webhook-id": "x"}, b"{}")
        await sender.close()
    assert answer == Answered(status)
    (got,) = receiver.got
    assert (got.path, got.body, got.headers["webhook-id"]) == ("/a?b=c%20d", b"{}", "x")
    assert got.headers["host"] == f"127.0.0.1:{receiver.port}"
    assert receiver.connections == 1


async def test_name_is_resolved_at_each_sending_and_pinned() -> None:
    async with listening() as receiver:
        found = {"addresses": ["127.0.0.1"]}

        async def changing(host: str) -> list[str]:
            return found["addresses"]

        sender = GuardedSender(read_allowed(["127.0.0.1/32"], plain_http=True), lookups=Lookups(changing))
        url = f"http://hooks.example.com:{receiver.port}/"
        assert await sender.send("acme", url, {}, b"") == Answered(200)
        assert receiver.got[0].headers["host"] == f"hooks.example.com:{receiver.port}"
        found["addresses"] = ["127.0.0.2"]  # rebound to what is not allowed
        assert await sender.send("acme", url, {}, b"") == Unreached(f"the URL {NOWHERE.why}")
        assert receiver.connections == 1


@pytest.mark.parametrize("url", ["http://127.0.0.1:{port}/", "http://localhost:{port}/", "https://[::1]:{port}/"])
async def test_without_leave_nothing_is_even_connected(url: str) -> None:
    async with listening() as receiver:
        answer = await GuardedSender(Allowed(plain_http=True)).send("acme", url.format(port=receiver.port), {}, b"")
    assert isinstance(answer, Unreached)
    assert receiver.connections == 0


async def test_proxy_of_the_environment_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:1")
    async with listening() as receiver:
        assert await GuardedSender(LOOPBACK).send("acme", f"http://127.0.0.1:{receiver.port}/", {}, b"") == Answered(
            200
        )


async def test_connection_that_is_cut_is_an_outcome() -> None:
    async with listening(lambda _: CUT) as receiver:
        answer = await GuardedSender(LOOPBACK).send("acme", f"http://127.0.0.1:{receiver.port}/", {}, b"")
    assert answer == Unreached("the connection broke before an answer")


async def test_nobody_there_is_an_outcome() -> None:
    async with listening() as receiver:
        port = receiver.port
    assert await GuardedSender(LOOPBACK).send("acme", f"http://127.0.0.1:{port}/", {}, b"") == Unreached(
        "no connection"
    )


async def test_next_address_is_tried_when_one_cannot_be_connected_to() -> None:
    async with listening() as receiver:  # it listens on 127.0.0.1 alone
        sender = GuardedSender(LOOPBACK, lookups=Lookups(names("127.0.0.9", "127.0.0.1")))
        assert await sender.send("acme", f"http://hooks.example.com:{receiver.port}/", {}, b"") == Answered(200)


async def test_silence_ends_in_time() -> None:
    async with listening(lambda _: SILENT) as receiver:
        sender = GuardedSender(LOOPBACK, timeout_s=0.2)
        answer = await sender.send("acme", f"http://127.0.0.1:{receiver.port}/", {}, b"")
    assert answer == Unreached("no answer within 5 s")


@pytest.mark.parametrize(
    "answer",
    [b"HTTP/1.1 200 X\r\n\r\n" + b"x" * 1_000_000, b"HTTP/1.1 200 X\r\nContent-Length: 9\r\n\r\nshort",
     b"HTTP/1.1 200 X\r\nTransfer-Encoding: chunked\r\n\r\nFFFFFFFF\r\nx"],
    ids=["long", "broken off", "endless"],
)  # fmt: skip
async def test_status_counts_whatever_follows_it(answer: bytes) -> None:
    async with listening(lambda _: answer) as receiver:
        sender = GuardedSender(LOOPBACK, timeout_s=2)
        assert await sender.send("acme", f"http://127.0.0.1:{receiver.port}/", {}, b"") == Answered(200)


async def test_answer_whose_end_does_not_come_counts_by_its_status() -> None:
    async with listening(lambda _: SLOW) as receiver:
        sender = GuardedSender(LOOPBACK, timeout_s=1.0)
        assert await sender.send("acme", f"http://127.0.0.1:{receiver.port}/", {}, b"") == Answered(200)


async def test_answer_without_an_end_is_not_read_for_long() -> None:
    async with asyncio.timeout(10), listening(lambda _: ENDLESS) as receiver:
        sender = GuardedSender(LOOPBACK, timeout_s=60)
        assert await sender.send("acme", f"http://127.0.0.1:{receiver.port}/", {}, b"") == Answered(200)


@pytest.mark.parametrize("answer", [b"\x00\x01garbage\r\n\r\n", b"HTTP/1.1 200 X\r\n" + b"A: b\r\n" * 100_000, b""])
async def test_what_is_no_answer_is_an_outcome(answer: bytes) -> None:
    async with listening(lambda _: answer) as receiver:
        outcome = await GuardedSender(LOOPBACK).send("acme", f"http://127.0.0.1:{receiver.port}/", {}, b"")
    assert isinstance(outcome, Unreached)


@pytest.mark.parametrize(("header", "seconds"), [("120", 120.0), ("soon", None), ("-1", None), ("9" * 30, None)])
async def test_retry_after_is_read_when_it_is_in_seconds(header: str, seconds: float | None) -> None:
    answer = f"HTTP/1.1 503 X\r\nRetry-After: {header}\r\nContent-Length: 0\r\n\r\n".encode()
    async with listening(lambda _: answer) as receiver:
        outcome = await GuardedSender(LOOPBACK).send("acme", f"http://127.0.0.1:{receiver.port}/", {}, b"")
    assert outcome == Answered(503, seconds)


async def test_slow_lookup_is_an_attempt_whose_log_says_so() -> None:
    silent = asyncio.Event()

    async def slow(host: str) -> list[str]:
        await silent.wait()
        return ["127.0.0.1"]

    async with listening() as receiver:
        sender = GuardedSender(LOOPBACK, lookups=Lookups(slow, within_s=0.1))
        outcome = await sender.send("acme", f"http://hooks.example.com:{receiver.port}/", {}, b"")
        assert outcome == Unreached("the lookup of the host's name timed out")
        assert isinstance(judge(outcome, 1, 0.0, 0.0), AgainAt)
        silent.set()
        assert await sender.send("acme", f"http://hooks.example.com:{receiver.port}/", {}, b"") == Answered(200)


async def test_body_is_bounded() -> None:
    with pytest.raises(ValueError, match="65,536"):
        await GuardedSender(LOOPBACK).send("acme", "http://127.0.0.1:9/", {}, b"x" * (MAX_BODY_BYTES + 1))


async def test_url_is_looked_at_when_it_is_saved_as_when_it_is_used() -> None:
    refused = await refusal_of("http://hooks.example.com/", LOOPBACK, names("10.0.0.1"))
    assert refused == NOWHERE


# ---- TLS goes by the name


def certificate(folder: Path, name: str) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """Return what a server of this name needs, and a client that trusts it."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(subject).issuer_name(subject).public_key(key.public_key()).serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1)).not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )  # fmt: skip
    pem = folder / f"{name}.pem"
    text = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()) + made.public_bytes(Encoding.PEM)
    pem.write_bytes(text)
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(pem)
    return server, ssl.create_default_context(cafile=str(pem))


async def test_certificate_is_that_of_the_name_and_the_name_is_told(tmp_path: Path) -> None:
    server, client = certificate(tmp_path, "hooks.example.com")
    told: list[str | None] = []
    server.sni_callback = lambda socket, name, context: told.append(name)
    async with listening(tls=server) as receiver:
        sender = GuardedSender(LOOPBACK, lookups=Lookups(names("127.0.0.1")), verify=client)
        assert await sender.send("acme", f"https://hooks.example.com:{receiver.port}/", {}, b"{}") == Answered(200)
        assert told == ["hooks.example.com"]
        other = await sender.send("acme", f"https://other.example.com:{receiver.port}/", {}, b"{}")
        assert other == Unreached("the certificate is not valid for the host")
        stranger = GuardedSender(LOOPBACK, lookups=Lookups(names("127.0.0.1")))  # trusts the public authorities only
        refused = await stranger.send("acme", f"https://hooks.example.com:{receiver.port}/", {}, b"{}")
        assert refused == Unreached("the certificate is not valid for the host")
    assert len(receiver.got) == 1
