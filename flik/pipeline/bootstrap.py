"""The operator's key at the start of a region: found in the data folder, or made and put there.

`flik up` and the builder of the gateway both ask, so there is a key however Flik was started.
When the file is gone, or its key opens nothing any more, a new one is made. The old key stays
valid: it may be in use elsewhere, and `flik keys revoke` takes it away.
"""

from __future__ import annotations

import time
from functools import partial
from pathlib import Path

from flik.embedded.secret import keep_secret, read_secret
from flik.storage.bootstrap import AdminKey, ensure_admin_key

__all__ = ["FILE_NAME", "AdminKey", "ensure_operator"]
FILE_NAME = "admin_key"


def ensure_operator(database_url: str, data_dir: Path) -> AdminKey:
    """Return the key in `admin_key` of the data folder, which has the scope `admin`; the schema must be there.

    Raises:
        Unavailable: PostgreSQL is away.
        StartupRefused: the file cannot be read or written.
    """
    path = data_dir / FILE_NAME
    return ensure_admin_key(database_url, read_secret(path), partial(keep_secret, path), time.time())
