"""What crosses Ray arrives as it went."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from making import stored_file, ticket

from flik.actors import packing
from flik.domain.task import Completed, Failed, Grant, HandedBack, Outcome, Ticket, Upload, UploadStatus

GRANTS = [
    Grant("t1", "k1", "acme", "TEXT", 1, 2, '{"prompt": "é 猫 \\" \\\\"}', 60.0, 120.5, "r1", "t1"),
    Grant("00000000-0000-7000-8000-000000000001", "k2", "0012", "IMAGE", 0, 1, "{}", 1e-9, 1800.0, None, None),
    Grant("t3", "k3", "acme", "VIDEO", 2, 1, "{}", 1.0, 2.0, outputs='[{"step_id": "a", "text": "é \\u0000"}]'),
]
OUTCOMES: list[Outcome] = [
    Completed("t1", "k1"),
    Failed("t2", "k2", "overloaded", "a lone \ud800 and a \0", retryable=True),
    HandedBack("t3", "k3"),
    Completed("t4", "k4", "é", {"n": 2**70, "raw": b"\xff\0", "none": None, 5: (1, [2.5])}, (stored_file(),)),
    Completed("t6", "k6", uploads=(Upload(0, UploadStatus.STORED, 2, 10, 1.5, 2.25, "no \ud800 space"),), made_by="k5"),
    Failed("t5", "k5", "", "", retryable=False),
]
TICKETS = [ticket(1), ticket(2, tenant="", priority=0, at=1_700_000_000.123456, due=1_700_000_015.000001)]


@pytest.mark.parametrize(
    ("pack", "unpack", "batch"),
    [
        (packing.pack_tickets, packing.unpack_tickets, TICKETS),
        (packing.pack_grants, packing.unpack_grants, GRANTS),
        (packing.pack_outcomes, packing.unpack_outcomes, OUTCOMES),
    ],
)
def test_a_batch_arrives_as_it_went(pack: Callable[..., bytes], unpack: Callable[..., Any], batch: list[Any]) -> None:
    for each in (batch, batch[:1], []):
        arrived = unpack(pack(each))
        assert arrived == each
        assert list(map(type, arrived)) == list(map(type, each))


def test_ids_stay_strings() -> None:
    (arrived,) = packing.unpack_tickets(packing.pack_tickets([Ticket("0012", "12", "TEXT", 1, 1.0, 1.0)]))
    assert (arrived.task_id, arrived.tenant_id) == ("0012", "12")


def test_a_batch_is_small() -> None:
    assert len(packing.pack_tickets([ticket(n) for n in range(1000)])) < 60_000
