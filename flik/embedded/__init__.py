"""PostgreSQL and Valkey from wheels, for whoever gives Flik no URL.

`Servers` is what `flik up` uses: it holds the data folder, starts what has no URL, restarts
what dies and stops all it started. `EmbeddedPostgres` and `EmbeddedValkey` are the single
servers, without supervision.

In the data folder: `postgres/` and `valkey/` (each also holds its unix socket, if the path is
short enough for one), `logs/` and `flik.lock`. Nothing listens on TCP.
"""

from flik.embedded.folder import FolderLock, prepare
from flik.embedded.postgres import EmbeddedPostgres
from flik.embedded.supervisor import Addresses, Servers
from flik.embedded.valkey import EmbeddedValkey

__all__ = ["Addresses", "EmbeddedPostgres", "EmbeddedValkey", "FolderLock", "Servers", "prepare"]
