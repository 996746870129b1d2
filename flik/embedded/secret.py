"""Secrets that are made once and kept in the data folder, readable by its owner only."""

from __future__ import annotations

import os
import secrets
import threading
from pathlib import Path

from flik.errors import StartupRefused


def kept_secret(path: Path) -> bytes:
    """Return the secret in `path`, made at the first call: 256 random bits in hex.

    Two processes that make it at the same moment get the same one.
    """
    if not path.exists():
        draft = _draft(path, secrets.token_hex(32))
        try:
            os.link(draft, path)  # fails when somebody else was first; their secret holds
        except FileExistsError:
            pass
        finally:
            draft.unlink()
    return path.read_bytes()


def read_secret(path: Path) -> str | None:
    """Return the text in `path` without blanks around it; None when there is no such file.

    Raises:
        StartupRefused: it is there and cannot be read.
    """
    try:
        return path.read_bytes().decode(errors="replace").strip()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise StartupRefused(f"{path} cannot be read: {error.strerror}") from error


def keep_secret(path: Path, text: str) -> None:
    """Put a line of text into `path`, readable by its owner only, whole or not at all.

    Raises:
        StartupRefused: it cannot be written.
    """
    try:
        draft = _draft(path, text + "\n")
        draft.replace(path)
    except OSError as error:
        raise StartupRefused(f"{path} cannot be written: {error.strerror}") from error


def _draft(path: Path, text: str) -> Path:
    """Write a file beside `path`, readable by its owner only from its first moment on."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{os.getpid()}-{threading.get_native_id()}")
    draft.unlink(missing_ok=True)  # left by a crash, perhaps with another mode
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(text.encode())
    return draft
