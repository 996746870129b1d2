"""Reads JSON bodies that may be huge, broken or hostile, and says which field is wrong.

Limits: 1 MiB a body (refused while it arrives, before it is parsed), depth 32, 50,000 values, no
NUL and no lone surrogates in any string, no name twice in an object. Everything else is up to the
schema. The worst body within the limits takes about 0.1 s of CPU.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator
from itertools import islice
from typing import Any, TypeVar

import orjson
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails
from starlette.requests import ClientDisconnect, Request

from flik.errors import BodyTooLarge, FieldError, InvalidRequest, MalformedBody, UnsupportedMediaType

MAX_BODY_BYTES = 1024 * 1024
MAX_DEPTH = 32
MAX_VALUES = 50_000  # a mebibyte of `{},{},{}` would hold up everybody else for half a second
MAX_FIELD_ERRORS = 50  # named in one answer
_Model = TypeVar("_Model", bound=BaseModel)


async def read_json(request: Request) -> Any:
    """Return the parsed body.

    Raises:
        UnsupportedMediaType: it is not declared as JSON.
        BodyTooLarge: it is larger than 1 MiB.
        MalformedBody: it is not JSON.
        InvalidRequest: it is too deep, holds a character that cannot be stored, or a name twice.
    """
    content_type = request.headers.get("content-type", "")
    media_type = content_type.partition(";")[0].strip().lower()
    if media_type != "application/json" and not (
        media_type.startswith("application/") and media_type.endswith("+json")
    ):
        raise UnsupportedMediaType(content_type[:100])
    body = await _read(request)
    document = _parse(body)
    if not _is_plain(document, body):
        refuse_unstorable(document)
        _refuse_repeated_names(body)
    return document


def _is_plain(document: Any, body: bytes) -> bool:
    """Return whether a body needs no closer look, as nearly all do.

    Without a backslash there is no escape, so no NUL and no surrogate, and each quotation mark
    delimits a string: when they are as many as the parsed strings ask for, no name was dropped
    because it stood there twice.
    """
    if b"\\" in body or not isinstance(document, dict):
        return False
    strings, values = 0, 1
    stack: list[tuple[dict[str, Any] | list[Any], int]] = [(document, 1)]
    while stack:
        value, depth = stack.pop()
        values += len(value)
        if depth > MAX_DEPTH or values > MAX_VALUES:
            return False
        if isinstance(value, dict):
            strings += len(value)
        for item in value.values() if isinstance(value, dict) else value:
            if isinstance(item, str):
                strings += 1
            elif isinstance(item, dict | list):
                stack.append((item, depth + 1))
    return 2 * strings == body.count(b'"')


async def _read(request: Request) -> bytes:
    declared = request.headers.get("content-length", "")
    if declared.isascii() and declared.isdigit() and (len(declared) > 18 or int(declared) > MAX_BODY_BYTES):
        raise BodyTooLarge(MAX_BODY_BYTES)
    body = bytearray()
    try:
        async for chunk in request.stream():
            body += chunk
            if len(body) > MAX_BODY_BYTES:
                raise BodyTooLarge(MAX_BODY_BYTES)
    except ClientDisconnect:
        raise MalformedBody("the connection ended before the body did") from None
    return bytes(body)


def _parse(body: bytes) -> Any:
    if not body:
        raise MalformedBody("the body is empty; send a JSON object")
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as error:
        broken = str(error)
    try:
        # The standard parser lets lone surrogates through; with it the field can be named.
        document = json.loads(body, parse_constant=_refuse_constant)
    except (ValueError, RecursionError):
        raise MalformedBody(f"the body is not valid JSON: {broken}"[:300]) from None
    refuse_unstorable(document)
    raise MalformedBody(f"the body is not valid JSON: {broken}"[:300])


def _refuse_constant(name: str) -> None:
    raise ValueError(name)


class _Pairs(list[tuple[str, Any]]):
    """An object with its names in the order and number in which they were sent."""


class _Repeated(Exception):  # never leaves this module
    pass


def _refuse_repeated_names(body: bytes) -> None:
    """Refuse an object with the same name twice: parsers disagree on which of them counts (RFC 8259, section 4)."""
    try:
        json.loads(body, object_pairs_hook=_require_unique, parse_int=len, parse_float=len)  # numbers don't matter here
    except _Repeated:
        pointer = _pointer_of_repeated(json.loads(body, object_pairs_hook=_Pairs, parse_int=len), "")
        raise InvalidRequest((FieldError(pointer or "", "stands there more than once"),)) from None


def _require_unique(pairs: list[tuple[str, Any]]) -> None:
    if len({name for name, _ in pairs}) < len(pairs):
        raise _Repeated


def _pointer_of_repeated(value: Any, pointer: str) -> str | None:
    if not isinstance(value, list):
        return None
    named = [(escape(name), item) for name, item in value] if isinstance(value, _Pairs) else list(enumerate(value))
    seen: set[Any] = set()
    for name, item in named:
        found = f"{pointer}/{name}" if name in seen else _pointer_of_repeated(item, f"{pointer}/{name}")
        if found is not None:
            return found
        seen.add(name)
    return None


def refuse_unstorable(document: Any) -> None:
    """Refuse a document deeper than 32, of more than 50,000 values, or with a NUL or lone surrogate in any string.

    Raises:
        InvalidRequest: names where.
    """
    stack: list[tuple[Any, str, int]] = [(document, "", 1)]
    values = 1
    while stack:
        value, pointer, depth = stack.pop()
        if isinstance(value, str):
            _refuse_text(value, pointer)
        elif isinstance(value, dict | list):
            if depth > MAX_DEPTH:
                raise InvalidRequest((FieldError(pointer, f"is nested deeper than {MAX_DEPTH} levels"),))
            values += len(value)
            if values > MAX_VALUES:
                raise InvalidRequest((FieldError(pointer, f"takes the body over {MAX_VALUES:,} values"),))
            stack.extend(_children(value, pointer, depth + 1))


def _children(value: dict[str, Any] | list[Any], pointer: str, depth: int) -> Iterator[tuple[Any, str, int]]:
    if isinstance(value, list):
        yield from ((item, f"{pointer}/{index}", depth) for index, item in enumerate(value))
        return
    for key, item in value.items():
        _refuse_text(key, pointer)
        yield item, f"{pointer}/{escape(key)}", depth


def _refuse_text(text: str, pointer: str) -> None:
    if "\x00" in text:
        raise InvalidRequest((FieldError(pointer, "holds a NUL character, which cannot be stored"),))
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError:
            safe = pointer.encode(errors="replace").decode()
            raise InvalidRequest((FieldError(safe, "holds a lone surrogate, which is not a character"),)) from None


def escape(key: str) -> str:
    """Return a key as a part of a JSON pointer (RFC 6901, section 3), at most 200 characters of it."""
    return key[:200].replace("~", "~0").replace("/", "~1")


def read_model(model: type[_Model], document: Any, pointer: str = "") -> _Model:
    """Return the document as `model`; `pointer` is where it stands in the body.

    Raises:
        InvalidRequest: names every field that breaks a rule.
    """
    try:
        return model.model_validate(document)
    except ValidationError as error:
        raise InvalidRequest(field_errors(error, pointer)) from None


def field_errors(error: ValidationError, pointer: str, unknown: Collection[str] = ()) -> tuple[FieldError, ...]:
    """Return the fields that break a rule, the first 50 of them.

    `unknown` are the pointers of values that only stand for what is not known yet: they break no rule, unless the model
    has no such field at all.
    """
    broken = error.errors(include_url=False, include_context=False, include_input=False)
    found = ((_field_error(details, pointer), details["type"]) for details in broken)
    wrong = (each for each, kind in found if kind == "extra_forbidden" or not _is_within(each.pointer, unknown))
    return tuple(islice(wrong, MAX_FIELD_ERRORS))


def _is_within(pointer: str, places: Collection[str]) -> bool:
    return any(pointer == place or pointer.startswith(f"{place}/") for place in places)


def _field_error(details: ErrorDetails, prefix: str) -> FieldError:
    pointer = prefix + "".join(f"/{escape(str(part))}" for part in details["loc"])
    if details["type"] == "extra_forbidden":
        return FieldError(pointer, "is not a known field")
    if details["type"] == "missing":
        return FieldError(pointer, "is required")
    return FieldError(pointer, details["msg"].removeprefix("Value error, "))
