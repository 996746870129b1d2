"""What a gateway knows of keys and tenants: never older than 4 s, read together, cheap to look at."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest
from making import EPOCH, Clock
from memory_identity import MemoryIdentity, MemoryKeys, MemoryTenants

from flik.domain import key as keys
from flik.domain.identity import Caller, Limits, OwnLimits, Scope, Tenant, TenantRecord
from flik.domain.key import ApiKey, Kind
from flik.errors import Unavailable
from flik.pipeline import lookup
from flik.pipeline.directory import USED_EVERY_S, Directory
from flik.pipeline.lookup import Lookup

KEY, OTHER = keys.make(Kind.LIVE, bytes(32)), keys.make(Kind.LIVE, b"\x01" * 32)
UNKNOWN = keys.make(Kind.TEST, b"\x02" * 32)
BOUND_S = 5.0  # what is promised


@pytest.fixture
def memory() -> MemoryIdentity:
    memory = MemoryIdentity()
    memory.tenants["acme"] = TenantRecord("acme", "Acme", EPOCH, EPOCH, OwnLimits(burst=7))
    for number, text in enumerate((KEY, OTHER)):
        memory.keys[keys.digest(text)] = ApiKey(
            f"k{number}", "acme", keys.shown(text), "", frozenset({Scope.READ}), EPOCH, last_used_at=EPOCH
        )
    return memory


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def directory(memory: MemoryIdentity, clock: Clock) -> AsyncIterator[Directory]:
    directory = Directory(
        MemoryKeys(memory), MemoryTenants(memory), Limits(rate_per_s=50), now=clock, clock=clock, gather_s=0
    )
    yield directory
    await directory.close()


def change_key(memory: MemoryIdentity, **fields: Any) -> None:
    memory.keys[keys.digest(KEY)] = replace(memory.keys[keys.digest(KEY)], **fields)


async def settled() -> None:
    """Let everything run that is ready to."""
    for _ in range(20):
        await asyncio.sleep(0)


# ---- keys


async def test_key_stands_for_its_tenant_and_scopes(directory: Directory) -> None:
    assert await directory.caller_of(KEY) == Caller("acme", frozenset({Scope.READ}), "k0")


async def test_second_look_reads_nothing(directory: Directory, memory: MemoryIdentity) -> None:
    assert await directory.caller_of(KEY) is await directory.caller_of(KEY)
    assert len(memory.reads) == 1


@pytest.mark.parametrize(
    "change", [{"revoked_at": EPOCH}, {"scopes": frozenset({Scope.SUBMIT})}, {"expires_at": EPOCH}]
)
@pytest.mark.parametrize("looks_every_s", [0.1, 0.7, 1.9, 3.9, 4.5, 6.0])
async def test_change_of_a_key_holds_within_the_bound(
    directory: Directory, memory: MemoryIdentity, clock: Clock, change: dict[str, Any], looks_every_s: float
) -> None:
    before = await directory.caller_of(KEY)
    for _ in range(50):  # in use all the time, so that it is read again and again
        clock.forward(looks_every_s)
        assert await directory.caller_of(KEY) == before
        await settled()
    change_key(memory, **change)
    changed_at = missed_at = clock.now
    while await directory.caller_of(KEY) == before:
        missed_at = clock.now
        await settled()
        clock.forward(looks_every_s)
    assert missed_at - changed_at < BOUND_S


@pytest.mark.parametrize("looks_every_s", [0.1, 0.7, 1.9, 3.9, 4.5])
async def test_end_of_a_key_holds_within_the_bound_for_who_showed_it_before(
    directory: Directory, memory: MemoryIdentity, clock: Clock, looks_every_s: float
) -> None:
    caller = await directory.caller_of(KEY)
    assert caller is not None
    for _ in range(20):
        clock.forward(looks_every_s)
        assert await directory.still_works(caller)
        await settled()
    change_key(memory, revoked_at=EPOCH)
    changed_at = missed_at = clock.now
    while await directory.still_works(caller):
        missed_at = clock.now
        await settled()
        clock.forward(looks_every_s)
    assert missed_at - changed_at < BOUND_S


async def test_expiry_needs_no_read(directory: Directory, memory: MemoryIdentity, clock: Clock) -> None:
    change_key(memory, expires_at=EPOCH + 1)
    assert await directory.caller_of(KEY) is not None
    clock.forward(0.999)
    assert await directory.caller_of(KEY) is not None
    clock.forward(0.001)
    assert await directory.caller_of(KEY) is None
    assert len(memory.reads) == 1


async def test_key_in_use_is_read_again_before_anybody_has_to_wait(
    directory: Directory, memory: MemoryIdentity, clock: Clock
) -> None:
    await directory.caller_of(KEY)
    for _ in range(20):
        clock.forward(lookup.REFRESH_AFTER_S)
        fresh = directory.caller_of(KEY)
        with pytest.raises(StopIteration):
            fresh.send(None)  # it ends without waiting for anything
        await settled()
    assert len(memory.reads) == 21


async def test_keys_that_fall_due_together_are_read_together(
    directory: Directory, memory: MemoryIdentity, clock: Clock
) -> None:
    await directory.caller_of(KEY)
    await directory.caller_of(OTHER)
    clock.forward(lookup.REFRESH_AFTER_S)
    await directory.caller_of(KEY)
    await directory.caller_of(OTHER)
    await settled()
    assert [len(read) for read in memory.reads] == [1, 1, 2]


async def test_five_hundred_looks_at_once_are_one_read(directory: Directory, memory: MemoryIdentity) -> None:
    found = await asyncio.gather(*(directory.caller_of(KEY) for _ in range(500)))
    assert {caller.key_id for caller in found if caller} == {"k0"}
    assert len(memory.reads) == 1


async def test_what_is_asked_during_a_read_shares_the_next(directory: Directory, memory: MemoryIdentity) -> None:
    many = [keys.make(Kind.LIVE, number.to_bytes(32)) for number in range(100, 200)]
    await asyncio.gather(*(directory.caller_of(text) for text in (KEY, OTHER, UNKNOWN, *many)))
    assert sum(len(read) for read in memory.reads) == 103
    assert len(memory.reads) <= 2


@pytest.mark.parametrize("text", ["", "demo", "flik_live_x", KEY[:-1] + "x", KEY + "x", "\0", "é" * 59])
async def test_garbage_is_refused_without_a_read(directory: Directory, memory: MemoryIdentity, text: str) -> None:
    assert await directory.caller_of(text) is None
    assert memory.reads == []


async def test_unknown_key_is_remembered_for_two_seconds(
    directory: Directory, memory: MemoryIdentity, clock: Clock
) -> None:
    for _ in range(3):
        assert await directory.caller_of(UNKNOWN) is None
    assert len(memory.reads) == 1
    memory.keys[keys.digest(UNKNOWN)] = replace(memory.keys[keys.digest(KEY)], key_id="new")
    clock.forward(1.999)
    assert await directory.caller_of(UNKNOWN) is None
    clock.forward(0.001)
    assert await directory.caller_of(UNKNOWN) is not None


async def test_absence_that_is_asked_for_again_and_again_makes_nobody_wait(
    directory: Directory, memory: MemoryIdentity, clock: Clock
) -> None:
    await directory.tenant("nobody")
    for _ in range(10):
        clock.forward(lookup.REFRESH_ABSENCE_AFTER_S)
        fresh = directory.tenant("nobody")
        with pytest.raises(StopIteration):
            fresh.send(None)  # it ends without waiting for anything
        await settled()
    assert len(memory.reads) == 11


async def test_one_that_gives_up_waiting_takes_nobody_with_it(directory: Directory) -> None:
    first, second = (asyncio.create_task(directory.caller_of(KEY)) for _ in range(2))
    await asyncio.sleep(0)
    first.cancel()
    assert (await second) is not None


# ---- PostgreSQL is away


async def test_known_key_works_for_four_seconds_and_then_callers_come_back(
    directory: Directory, memory: MemoryIdentity, clock: Clock
) -> None:
    await directory.caller_of(KEY)
    memory.away = True
    clock.forward(3.999)
    assert await directory.caller_of(KEY) is not None
    await settled()
    clock.forward(0.001)
    with pytest.raises(Unavailable):
        await directory.caller_of(KEY)
    memory.away = False
    assert await directory.caller_of(KEY) is not None


async def test_all_who_wait_are_told(directory: Directory, memory: MemoryIdentity) -> None:
    memory.away = True
    found = await asyncio.gather(
        directory.caller_of(KEY), directory.caller_of(KEY), directory.tenant("acme"), return_exceptions=True
    )
    assert [type(each) for each in found] == [Unavailable] * 3


# ---- last use


async def test_use_is_noted_at_most_once_a_minute_and_off_the_path(
    directory: Directory, memory: MemoryIdentity, clock: Clock
) -> None:
    clock.forward(USED_EVERY_S)
    await directory.caller_of(KEY)
    await settled()
    assert memory.touched == [(["k0"], clock.now)]
    for _ in range(59):
        clock.forward(1.0)
        await directory.caller_of(KEY)
        await settled()
    assert len(memory.touched) == 1
    clock.forward(5.0)
    await directory.caller_of(KEY)
    await settled()
    assert len(memory.touched) == 2


async def test_use_of_a_key_that_opens_nothing_is_not_noted(
    directory: Directory, memory: MemoryIdentity, clock: Clock
) -> None:
    clock.forward(USED_EVERY_S)
    change_key(memory, revoked_at=EPOCH)
    assert await directory.caller_of(KEY) is None
    await settled()
    assert memory.touched == []


# ---- tenants


async def test_tenant_has_its_own_limits_over_the_defaults(directory: Directory) -> None:
    assert await directory.tenant("acme") == Tenant("acme", "Acme", Limits(rate_per_s=50, burst=7))
    assert await directory.tenant("nobody") is None


async def test_change_of_a_limit_holds_within_the_bound(
    directory: Directory, memory: MemoryIdentity, clock: Clock
) -> None:
    await directory.tenant("acme")
    memory.tenants["acme"] = replace(memory.tenants["acme"], limits=OwnLimits(burst=1))
    clock.forward(lookup.TRUST_S)
    found = await directory.tenant("acme")
    assert found is not None and found.limits.burst == 1


async def test_change_made_here_holds_at_once(directory: Directory, memory: MemoryIdentity) -> None:
    assert await directory.tenant("new") is None
    memory.tenants["new"] = TenantRecord("new", "", EPOCH, EPOCH)
    assert await directory.tenant("new") is None
    directory.forget_tenant("new")
    assert await directory.tenant("new") is not None


# ---- the memory


async def test_memory_is_bounded_and_made_up_keys_do_not_push_out_real_ones() -> None:
    reads: list[list[int]] = []

    async def read(numbers: Any) -> dict[int, str]:
        reads.append(list(numbers))
        return {number: "row" for number in numbers if number < 5}

    memory: Lookup[int, str] = Lookup(read, clock=Clock(), capacity=10)
    for number in range(1000):
        await memory.get(number)
    assert len(memory) == 15
    for number in range(5):
        assert memory.fresh(number) == "row"
    assert memory.fresh(999) is None
    assert memory.fresh(100) is lookup.UNKNOWN


async def test_what_nobody_uses_goes_first() -> None:
    async def read(numbers: Any) -> dict[int, str]:
        return dict.fromkeys(numbers, "row")

    clock = Clock()
    memory: Lookup[int, str] = Lookup(read, clock=clock, gather_s=0, capacity=2)
    await memory.get(1)
    await memory.get(2)
    clock.forward(lookup.REFRESH_AFTER_S)
    assert memory.fresh(1) == "row"  # used, so it is read again and goes to the end
    await settled()
    await memory.get(3)
    assert (memory.fresh(1), memory.fresh(2), memory.fresh(3)) == ("row", lookup.UNKNOWN, "row")


async def test_fault_of_ours_reaches_the_one_who_asked_and_the_next_read_works() -> None:
    faults = [RuntimeError("broken")]

    async def read(numbers: Any) -> dict[int, str]:
        if faults:
            raise faults.pop()
        return dict.fromkeys(numbers, "row")

    memory: Lookup[int, str] = Lookup(read)
    with pytest.raises(RuntimeError, match="broken"):
        await memory.get(1)
    assert await memory.get(1) == "row"
