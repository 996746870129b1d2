"""Opaque cursors: where the last page ended, in a form that callers hand back unread."""

from __future__ import annotations

import base64
import re
import uuid

from flik.errors import FieldError, InvalidRequest

# What OpenAPI says of cursors. A name is written in hexadecimal, so that the pattern can say exactly what is one.
OF_IDS = "^[A-Za-z0-9_-]{22}$"
OF_NAMES = "^(?:[2-6][0-9a-f]|7[0-9a-e]){1,128}$"  # printable ASCII


def encode(task_id: str) -> str:
    """Return the cursor that continues after `task_id`."""
    return base64.urlsafe_b64encode(uuid.UUID(task_id).bytes).rstrip(b"=").decode()


def encode_name(name: str) -> str:
    """Return the cursor that continues after a name, in a list that is in the order of names."""
    return name.encode().hex()


def decode_name(cursor: str) -> str:
    """Return the name a cursor continues after.

    Raises:
        InvalidRequest: it is not a cursor that Flik gave out.
    """
    return bytes.fromhex(_one(OF_NAMES, cursor)).decode()


def decode(cursor: str) -> str:
    """Return the task id a cursor continues after.

    Raises:
        InvalidRequest: it is not a cursor that Flik gave out.
    """
    return str(uuid.UUID(bytes=base64.urlsafe_b64decode(_one(OF_IDS, cursor) + "==")))


def _one(pattern: str, cursor: str) -> str:
    if not re.fullmatch(pattern[:-1], cursor):  # a `$` would let a line feed pass
        raise InvalidRequest((FieldError("/cursor", "is not a cursor that an earlier page returned"),))
    return cursor
