"""Model back ends, one file each. `build` is the one explicit table of them.

A back end is imported when it is built: numpy, Pillow and PyAV cost 50 MB of memory, and most
processes make nothing (measured 2026-11).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from flik.errors import SettingInvalid
from flik.providers.base import Provider
from flik.providers.noop import NoopProvider


def _simulated(speed: float) -> Provider:
    from flik.providers.simulated import SimulatedProvider  # noqa: PLC0415  # see above

    return SimulatedProvider(speed)


PROVIDERS: Mapping[str, Callable[[float], Provider]] = {
    "simulated": _simulated,
    "noop": lambda speed: NoopProvider(),
}


def build(name: str, *, speed: float) -> Provider:
    """Return the provider called `name`; `speed` divides the simulated provider's durations.

    Raises:
        SettingInvalid: there is no such provider, or the speed is not a positive number.
    """
    if name not in PROVIDERS:
        raise SettingInvalid("FLIK_PROVIDER", f"there is no provider {name!r}; choose from {', '.join(PROVIDERS)}")
    if not speed > 0:
        raise SettingInvalid("FLIK_SIMULATED_SPEED", "the speed must be above 0")
    return PROVIDERS[name](speed)
