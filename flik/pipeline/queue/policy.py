"""The queue's settings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class QueuePolicy:
    """The queue's settings; see `flik.settings` for units and defaults."""

    task_types: tuple[str, ...]
    lease_s: float = 3.0
    retry_delays_s: tuple[float, ...] = (5.0, 15.0, 60.0)
    ageing_s: float = 600.0
    window: int = 50_000
    tenant_weights: Mapping[str, int] | None = None
    soft_timeout_s: float = 1500.0
    hard_timeout_s: float = 1800.0
    type_timeouts_s: Mapping[str, tuple[float, float]] | None = None

    def timeouts_s(self, task_type: str) -> tuple[float, float]:
        """Return the soft and the hard timeout of a task type."""
        return (self.type_timeouts_s or {}).get(task_type, (self.soft_timeout_s, self.hard_timeout_s))
