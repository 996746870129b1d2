"""Where Flik is and as whom to speak to it: arguments first, then the environment, then defaults.

| what   | environment    | default                                                    |
|--------|----------------|------------------------------------------------------------|
| URL    | `FLIK_URL`     | `http://127.0.0.1:8080`                                    |
| key    | `FLIK_API_KEY` | `admin_key` in `FLIK_DATA_DIR` (or `.flik`), else `demo`   |
| tenant | `FLIK_TENANT`  | `demo`                                                     |

The key in the data folder opens everything, so it is sent to this machine only (a loopback address):
a gateway elsewhere needs a key that was named for it.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urljoin, urlsplit

DEFAULT_URL = "http://127.0.0.1:8080"
DEFAULT_KEY = "demo"
DEFAULT_TENANT = "demo"
MAX_KEY_CHARS = 4096
_THIS_MACHINE = frozenset({"127.0.0.1", "::1", "localhost"})


@dataclass(frozen=True, slots=True)
class Access:
    """One gateway (URL without a slash at its end), a key that may speak to it, and a tenant."""

    base_url: str
    api_key: str = field(repr=False)
    tenant: str

    def absolute(self, url: str) -> str:
        """Return a link of an answer with its address; one that cannot be read stays as it is."""
        try:
            return urljoin(self.base_url + "/", url)
        except ValueError:
            return url


def resolve(
    base_url: str | None = None,
    api_key: str | None = None,
    tenant: str | None = None,
    environ: Mapping[str, str] | None = None,
) -> Access:
    """Fill in what was not given.

    Raises:
        ValueError: the URL is not one of http or https, or the key cannot be sent in a header.
    """
    env = os.environ if environ is None else environ
    url = _checked_url(base_url or env.get("FLIK_URL") or DEFAULT_URL)
    kept = _kept_key(env) if urlsplit(url).hostname in _THIS_MACHINE else None
    return Access(
        base_url=url,
        api_key=_checked_key(api_key or env.get("FLIK_API_KEY") or kept or DEFAULT_KEY),
        tenant=tenant or env.get("FLIK_TENANT") or DEFAULT_TENANT,
    )


def _kept_key(env: Mapping[str, str]) -> str | None:
    path = Path(env.get("FLIK_DATA_DIR") or ".flik").expanduser() / "admin_key"
    try:
        with path.open("rb") as file:
            return file.read(MAX_KEY_CHARS + 1).decode(errors="replace").strip()
    except OSError:
        return None


def _checked_url(url: str) -> str:
    try:
        parts = urlsplit(url.strip())
        port = parts.port
    except ValueError:
        raise ValueError(f"{url!r} is not a URL") from None
    if parts.scheme not in ("http", "https") or not parts.hostname or port == 0:
        raise ValueError(f"{url!r} is not a URL of a gateway; it should look like {DEFAULT_URL}")
    if parts.username or parts.query or parts.fragment:
        raise ValueError("the URL of a gateway has no user, query or fragment; a key goes into FLIK_API_KEY")
    return url.strip().rstrip("/")


def _checked_key(key: str) -> str:
    key = key.strip()
    if len(key) > MAX_KEY_CHARS or not all("!" <= char <= "~" for char in key):
        raise ValueError("the API key holds characters that no key has")
    return key
