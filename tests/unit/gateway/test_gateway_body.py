"""Bodies: how large, how deep, which characters, and which field is named."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from pydantic import BaseModel, ConfigDict
from starlette.requests import Request

from flik.errors import BodyTooLarge, InvalidRequest, MalformedBody, UnsupportedMediaType
from flik.gateway.body import MAX_BODY_BYTES, MAX_DEPTH, MAX_FIELD_ERRORS, MAX_VALUES, read_json, read_model

JSON = {"content-type": "application/json"}


def request(*chunks: bytes, headers: dict[str, str] = JSON, cut_off: bool = False) -> Request:
    """A request whose body arrives in chunks; `cut_off`: the connection ends in the middle."""
    messages: list[dict[str, Any]] = [{"type": "http.request", "body": chunk, "more_body": True} for chunk in chunks]
    messages.append({"type": "http.disconnect"} if cut_off else {"type": "http.request", "body": b""})
    arriving = iter(messages)

    async def receive() -> dict[str, Any]:
        return next(arriving)

    raw = [(name.encode(), value.encode("latin-1")) for name, value in headers.items()]
    return Request({"type": "http", "method": "POST", "path": "/", "headers": raw}, receive)


async def refused(*chunks: bytes, headers: dict[str, str] = JSON) -> InvalidRequest:
    with pytest.raises(InvalidRequest) as caught:
        await read_json(request(*chunks, headers=headers))
    return caught.value


def nested(depth: int) -> bytes:
    return b'{"a":' * (depth - 1) + b"{}" + b"}" * (depth - 1)


@pytest.mark.parametrize("content_type", ["application/json", "Application/JSON; charset=utf-8", "application/x+json"])
async def test_json_is_read_in_whatever_chunks_it_comes(content_type: str) -> None:
    found = await read_json(request(b'{"a"', b":", b'"\xc3\xa9"}', headers={"content-type": content_type}))
    assert found == {"a": "é"}


@pytest.mark.parametrize(
    "content_type", ["", "text/plain", "text/json", "application/xml", "multipart/form-data", "json"]
)
async def test_another_content_type_is_refused(content_type: str) -> None:
    with pytest.raises(UnsupportedMediaType):
        await read_json(request(b"{}", headers={"content-type": content_type}))


async def test_body_of_exactly_the_limit_is_read() -> None:
    text = "x" * (MAX_BODY_BYTES - 2)
    assert await read_json(request(json.dumps(text).encode())) == text


async def test_too_large_body_is_refused_while_it_arrives() -> None:
    arrived = 0

    async def chunks() -> AsyncIterator[dict[str, Any]]:
        nonlocal arrived
        while True:
            arrived += 65_536
            yield {"type": "http.request", "body": b"x" * 65_536, "more_body": True}

    endless = chunks()
    receive: Callable[[], Awaitable[Any]] = endless.__anext__
    scope = {"type": "http", "method": "POST", "path": "/", "headers": [(b"content-type", b"application/json")]}
    with pytest.raises(BodyTooLarge):
        await read_json(Request(scope, receive))
    assert arrived <= MAX_BODY_BYTES + 65_536


@pytest.mark.parametrize("length", [str(MAX_BODY_BYTES + 1), "9" * 18, "9" * 5_000])
async def test_body_that_declares_too_much_is_refused_before_it_arrives(length: str) -> None:
    unread = request(headers={**JSON, "content-length": length}, cut_off=True)
    with pytest.raises(BodyTooLarge):
        await read_json(unread)


@pytest.mark.parametrize("length", ["²", "-1", "1e3", "", "0", "2"])
async def test_length_that_lies_or_is_no_number_is_not_believed(length: str) -> None:
    headers = {**JSON, "content-length": length}
    assert await read_json(request(b"{}", headers=headers)) == {}
    with pytest.raises(BodyTooLarge):
        await read_json(request(b"x" * (MAX_BODY_BYTES + 1), headers=headers))


async def test_connection_that_ends_before_the_body_is_not_a_fault_of_ours() -> None:
    with pytest.raises(MalformedBody, match="ended before"):
        await read_json(request(b'{"a":', cut_off=True))


@pytest.mark.parametrize(
    "raw",
    [
        b"", b" ", b"{", b"{}{}", b"nul", b"{'a':1}", b'{"a":1,}', b"[1,]", b'{"a":NaN}', b"Infinity", b"-Infinity",
        b"1e400", b"1" * 5_000, b'"\xff"', b"\xef\xbb\xbf{}", '{"a":1}'.encode("utf-16"), '{"a":1}'.encode("utf-32"),
        b"[" * 100_000, b'"\x01"', b'{"a":01}', b"\x00",
    ],
)  # fmt: skip
async def test_what_is_not_json_is_refused(raw: bytes) -> None:
    with pytest.raises(MalformedBody):
        await read_json(request(raw))


async def test_depth_is_bounded() -> None:
    assert await read_json(request(nested(MAX_DEPTH)))
    error = await refused(nested(MAX_DEPTH + 1))
    assert error.errors[0].pointer == "/a" * MAX_DEPTH
    assert "deeper than 32" in error.errors[0].detail
    with pytest.raises(InvalidRequest, match="deeper than 32"):
        await read_json(request(b"[" * 1000 + b"]" * 1000))


async def test_number_of_values_is_bounded() -> None:
    most = {"a": [1] * (MAX_VALUES - 2)}
    assert await read_json(request(json.dumps(most).encode())) == most
    error = await refused(json.dumps({"a": [1] * (MAX_VALUES - 1)}).encode())
    assert error.errors[0].pointer == "/a"
    assert "50,000 values" in error.errors[0].detail


@pytest.mark.parametrize(
    ("raw", "pointer", "what"),
    [
        (rb'{"a":{"b":["x","\u0000"]}}', "/a/b/1", "NUL"),
        (rb'{"a":{"x\u0000":1}}', "/a", "NUL"),
        (rb'{"a":{"b":["x","\ud800"]}}', "/a/b/1", "surrogate"),
        (rb'{"a":{"\udfff":1}}', "/a", "surrogate"),
        (rb'["\ud83d"]', "/0", "surrogate"),
        (rb'{"a/b":{"c~d":"\u0000"}}', "/a~1b/c~0d", "NUL"),
    ],
)
async def test_text_that_cannot_be_stored_is_refused_by_name(raw: bytes, pointer: str, what: str) -> None:
    error = await refused(raw)
    assert error.errors[0].pointer == pointer
    assert what in error.errors[0].detail
    str(error).encode()


async def test_pair_of_surrogates_is_a_character() -> None:
    assert await read_json(request(rb'"\ud83d\ude00"')) == "😀"


@pytest.mark.parametrize(
    ("raw", "pointer"),
    [
        (b'{"a":1,"a":1}', "/a"),
        (b'{"a":{"b":[{},{"c":1,"d":2,"c":3}]}}', "/a/b/1/c"),
        (rb'{"a":1,"\u0061":2}', "/a"),
        (b'{"":1,"":2}', "/"),
    ],
)
async def test_name_that_stands_there_twice_is_refused(raw: bytes, pointer: str) -> None:
    assert (await refused(raw)).errors[0].pointer == pointer


async def test_equal_names_in_different_objects_are_fine() -> None:
    assert await read_json(request(b'{"a":{"a":[{"a":1},{"a":1e308}]},"b":"a"}'))


class Inner(BaseModel):
    model_config = ConfigDict(strict=True)
    size: int


class Outer(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)
    name: str
    inner: list[Inner] = []


def test_every_wrong_field_is_named_with_where_it_stands() -> None:
    with pytest.raises(InvalidRequest) as caught:
        read_model(Outer, {"inner": [{"size": 1}, {"size": "1"}], "a/b": 1}, "/payload")
    said = {error.pointer: error.detail for error in caught.value.errors}
    assert said == {
        "/payload/name": "is required",
        "/payload/inner/1/size": "Input should be a valid integer",
        "/payload/a~1b": "is not a known field",
    }


def test_answer_to_a_thousand_wrong_fields_stays_small() -> None:
    with pytest.raises(InvalidRequest) as caught:
        read_model(Outer, {f"{number}{'x' * 1000}": 1 for number in range(1000)})
    assert len(caught.value.errors) == MAX_FIELD_ERRORS
    assert max(len(error.pointer) for error in caught.value.errors) <= 201
