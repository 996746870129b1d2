"""What tenants may do with workers: their shares, and how many of their tasks run at a time.

Shares come from the settings, caps from nowhere; what the table of tenants says goes before
both, and is read again every few seconds (`flik/pipeline/housekeeping.py`). A cap counts the
running tasks of this region.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from flik.domain.identity import WorkLimits


class TenantLimits:
    """The limits in force. `weights` are those of the settings; a tenant without one weighs 1."""

    def __init__(self, weights: Mapping[str, int]) -> None:
        self._settings = dict(weights)
        self._weights = dict(weights)
        self.caps: Mapping[str, int] = {}

    def weight_of(self, tenant_id: str) -> int:
        """Return the tenant's share."""
        return self._weights.get(tenant_id, 1)

    def replace(self, limits: Iterable[WorkLimits]) -> bool:
        """Take over what the table says; return whether a cap changed."""
        rows = list(limits)
        self._weights = {**self._settings, **{row.tenant_id: row.weight for row in rows if row.weight is not None}}
        before = self.caps
        self.caps = {row.tenant_id: row.max_running for row in rows if row.max_running is not None}
        return before != self.caps
