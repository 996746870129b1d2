"""How many connections fit into the files that a process may have open, and how many of them may follow.

HAProxy takes so many connections and lets all others wait before the door. So those that stay, followers, must leave
room for those that come and go.
"""

from __future__ import annotations

import resource
from dataclasses import dataclass

from flik.settings import Settings

SPARE = 500  # what a process has open besides
ROOM = 4_096  # connections beside those of followers; a quarter of all where that is less


@dataclass(frozen=True, slots=True)
class Connections:
    """What HAProxy takes at once (`most`), and how many followers each gateway does (`followers`)."""

    most: int
    followers: int


def most_open_files() -> int:
    """Return how many files a process may have open at most; Ray raises its own limit to that."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    return 1 << 20 if hard == resource.RLIM_INFINITY else hard


def connections(settings: Settings, open_files: int) -> Connections:
    """Return what fits. HAProxy counts two and a half files for each: two sockets, and a pipe for every fourth."""
    fitting = max(16, (open_files - SPARE) * 2 // 5)
    followers = min(settings.followers, max(1, fitting * 3 // 4 // settings.gateway_replicas))
    return Connections(min(fitting, followers * settings.gateway_replicas + ROOM), followers)


def shortage(settings: Settings, open_files: int) -> str | None:
    """Return what to do where not all followers fit that the settings allow; None where they do."""
    followers = connections(settings, open_files).followers
    if followers == settings.followers:
        return None
    needed = -(-settings.followers * settings.gateway_replicas * 10 // 3) + SPARE + 5
    return (
        f"raise the hard limit of open files (ulimit -Hn) to {needed:,}, "
        f"or only {followers:,} can follow at a gateway, not {settings.followers:,}"
    )
