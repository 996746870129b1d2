"""Kinds of arguments that click does not know: task ids, times, JSON payloads."""

from __future__ import annotations

import json
import re
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NoReturn

import click

from flik.client.answers import TASK_ID

MAX_PAYLOAD_BYTES = 1024 * 1024  # the gateway reads no larger body
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


class TaskId(click.ParamType[str]):
    """Something that could be a task id; whether it is one, the gateway knows."""

    name = "ID"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return the id without the blanks around it."""
        task_id = value.strip()
        if not TASK_ID.fullmatch(task_id):
            self.fail(f"{value!r} is not a task id.", param, ctx)
        return task_id


class Moment(click.ParamType[datetime]):
    """A time: ISO 8601 (without a zone: local), or how long ago: 30s, 10m, 2h, 7d."""

    name = "TIME"

    def convert(self, value: str | datetime, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        """Return the time in UTC."""
        if isinstance(value, datetime):
            return value
        try:
            ago = re.fullmatch(r"(\d{1,9})([smhd])", value.strip())
            if ago:
                return datetime.now(UTC) - timedelta(**{_UNITS[ago[2]]: int(ago[1])})
            return datetime.fromisoformat(value.strip()).astimezone(UTC)
        except (ValueError, OverflowError):
            self.fail(f"{value!r} is neither a time like 2026-01-31T08:00 nor an age like 10m or 2h.", param, ctx)


class Payload(click.ParamType[dict[str, Any]]):
    """A JSON object: written out, in a file (@file), or on stdin (-)."""

    name = "JSON|@FILE|-"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> dict[str, Any]:
        """Return the object."""
        if isinstance(value, dict):
            return value
        try:
            payload = json.loads(_read(value), parse_constant=_refuse_constant)
        except OSError as error:
            self.fail(f"cannot read {value[1:]!r}: {error.strerror}.", param, ctx)
        except (ValueError, RecursionError) as error:
            self.fail(f"not JSON: {error}.", param, ctx)
        if not isinstance(payload, dict):
            self.fail("a payload is a JSON object.", param, ctx)
        return payload


def _read(value: str) -> str | bytes:
    if value == "-":
        return _bounded(sys.stdin.buffer.read(MAX_PAYLOAD_BYTES + 1))
    if value.startswith("@"):
        with Path(value[1:]).open("rb") as file:
            return _bounded(file.read(MAX_PAYLOAD_BYTES + 1))
    return value


def _bounded(content: bytes) -> bytes:
    if len(content) > MAX_PAYLOAD_BYTES:
        raise ValueError(f"larger than {MAX_PAYLOAD_BYTES:,} bytes")
    return content


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON number")
