"""How often a process that carries tasks looks for garbage.

Python's collector looks after every 700 new objects, and one burst of tasks makes thousands, all
of them in use. In gateway and worker it took a quarter of the CPU (measured 2026-11). What
Flik makes by the thousand holds no cycles, so it goes by reference count; the collector is
for the rest, which comes slowly.
"""

from __future__ import annotations

import gc

NEW_OBJECTS = 50_000  # looked at when so many more were made than freed; a look takes a few milliseconds


def collect_seldom() -> None:
    """Leave alone what is there now, which stays for the life of the process, and look seldom at the rest."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(NEW_OBJECTS, 20, 50)
