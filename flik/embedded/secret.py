"""Secrets that are made once and kept in the data folder, readable by its owner only."""

from __future__ import annotations

import os
import secrets
from pathlib import Path


def kept_secret(path: Path) -> bytes:
    """Return the secret in `path`, made at the first call: 256 random bits in hex.

    Two processes that make it at the same moment get the same one.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists():
        draft = path.with_name(f".{path.name}.{os.getpid()}")
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
            file.write(secrets.token_hex(32).encode())
        try:
            os.link(draft, path)  # fails when somebody else was first; their secret holds
        except FileExistsError:
            pass
        finally:
            draft.unlink()
    return path.read_bytes()
