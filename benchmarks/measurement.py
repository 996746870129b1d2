"""What a row measures: named values with a unit, and what turned out to be wrong on the way."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Measurement:
    """One figure. `value` None: it could not be measured, and `note` says why."""

    metric: str
    value: float | None
    unit: str
    note: str = ""


@dataclass(frozen=True)
class Outcome:
    """What one row brought: figures, and violations of correctness (an empty tuple when all is well)."""

    measurements: tuple[Measurement, ...] = ()
    violations: tuple[str, ...] = field(default=())


def percentile(values: Sequence[float], share: float) -> float | None:
    """Return the smallest value that at least `share` (0 to 1) of `values` do not exceed; None without values."""
    if not values:
        return None
    ordered = sorted(values)
    return ordered[max(0, -(-len(ordered) * round(share * 1000) // 1000) - 1)]


def p50_p99(metric: str, values: Sequence[float], note: str = "") -> tuple[Measurement, Measurement]:
    """Return the median and the 99th percentile of `values`, which are milliseconds."""
    note = f"{note + ', ' if note else ''}{len(values)} samples"
    return (
        Measurement(f"{metric}_p50_ms", percentile(values, 0.50), "ms", note),
        Measurement(f"{metric}_p99_ms", percentile(values, 0.99), "ms", note),
    )
