"""Opaque cursors: where the last page ended, in a form that callers hand back unread."""

from __future__ import annotations

import base64
import binascii
import uuid

from flik.errors import FieldError, InvalidRequest


def encode(task_id: str) -> str:
    """Return the cursor that continues after `task_id`."""
    return base64.urlsafe_b64encode(uuid.UUID(task_id).bytes).rstrip(b"=").decode()


def encode_name(name: str) -> str:
    """Return the cursor that continues after a name, in a list that is in the order of names."""
    return base64.urlsafe_b64encode(name.encode()).rstrip(b"=").decode()


def decode_name(cursor: str) -> str:
    """Return the name a cursor continues after.

    Raises:
        InvalidRequest: it is not a cursor that Flik gave out.
    """
    try:
        name = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True).decode()
    except (ValueError, binascii.Error):
        name = "\0"
    if not name.isprintable():
        raise InvalidRequest((FieldError("/cursor", "is not a cursor that an earlier page returned"),))
    return name


def decode(cursor: str) -> str:
    """Return the task id a cursor continues after.

    Raises:
        InvalidRequest: it is not a cursor that Flik gave out.
    """
    try:
        return str(uuid.UUID(bytes=base64.b64decode(cursor + "==", altchars=b"-_", validate=True)))
    except (ValueError, binascii.Error):
        raise InvalidRequest((FieldError("/cursor", "is not a cursor that an earlier page returned"),)) from None
