"""Turns itself into a server that dies with its parent. Run as a script, never imported.

    launch.py PARENT_PID DEATH_SIGNAL UID GID COMMAND...

A `preexec_fn` could do the same, but runs Python in a forked copy of a process with threads,
which can deadlock. The order matters: changing the user clears the death signal, so that
comes first; a parent that died before the signal was set is noticed by its pid.
"""

import ctypes
import os
import sys

PR_SET_PDEATHSIG = 1  # <linux/prctl.h>


def main(parent_pid: int, death_signal: int, uid: int, gid: int, command: list[str]) -> None:
    """Drop root, ask for the death signal, and execute `command`; does not return."""
    if os.geteuid() != uid:
        os.setgroups([gid])
        os.setgid(gid)
        os.setuid(uid)
    os.umask(0o077)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, death_signal, 0, 0, 0)
    if os.getppid() != parent_pid:
        sys.exit("the parent is gone")
    os.execv(command[0], command)  # noqa: S606 - the caller gives the path of a wheel's binary


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]), sys.argv[5:])
