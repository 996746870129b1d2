"""The operator's key at the start of a region: found in the data folder, or made and put there.

`flik up` and the builder of the gateway both ask, so there is a key however Flik was started.
When the file is gone, or its key opens nothing any more, a new one is made. The old key stays
valid: it may be in use elsewhere, and `flik keys revoke` takes it away.

Beside it lies the same key as a header, for `curl -H @file`: what stands in the arguments of a
command can be seen by everybody on the machine.
"""

from __future__ import annotations

import time
from functools import partial
from pathlib import Path

from flik.embedded.secret import keep_secret, read_secret
from flik.storage.bootstrap import AdminKey, ensure_admin_key

__all__ = ["FILE_NAME", "HEADER_FILE_NAME", "AdminKey", "ensure_operator"]
FILE_NAME = "admin_key"
HEADER_FILE_NAME = "admin_key.header"


def ensure_operator(database_url: str, data_dir: Path) -> AdminKey:
    """Return the key in `admin_key` of the data folder, which has the scope `admin`; the schema must be there.

    Its header is in `admin_key.header` then.

    Raises:
        Unavailable: PostgreSQL is away.
        StartupRefused: the file cannot be read or written.
    """
    path = data_dir / FILE_NAME
    admin = ensure_admin_key(database_url, read_secret(path), partial(keep_secret, path), time.time())
    _keep_header(data_dir / HEADER_FILE_NAME, f"Authorization: Bearer {admin.key}")
    return admin


def _keep_header(path: Path, header: str) -> None:
    if read_secret(path) != header:
        keep_secret(path, header)
