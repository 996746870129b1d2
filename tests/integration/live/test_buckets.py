"""The script of the tenants' buckets, on a real server and a virtual clock; and the connection to it, on a real one."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from redis import Redis

from flik.domain.rate import (
    GRACE_S,
    LEASE_S,
    MARGIN_S,
    QUIET_S,
    SILENT_S,
    Block,
    Contact,
    Line,
    Standing,
)
from flik.embedded import EmbeddedValkey
from flik.errors import Unavailable
from flik.live import buckets, keys
from flik.live.buckets import LiveBuckets

START = 1_700_000_000.0
COUNTED_S = LEASE_S + MARGIN_S
RATE, BURST = 10.0, 60


class Shelf:
    """A server whose clock the test sets, and the regions that call it."""

    def __init__(self, server: Redis, script: str = buckets.SCRIPT) -> None:
        server.flushall()
        self.server = server
        self.now = START
        self.run = "first"
        self._script = server.register_script(script)

    def region(self, name: str = "east") -> Region:
        return Region(self, name, f"{name}-{self.now}")

    def call(self, contact: Contact) -> Standing:
        raw = self._script(buckets.key_names(contact), buckets.arguments(contact, self.run, self.now))
        return buckets.standing_of(raw)

    def wait(self, seconds: float, *regions: Region) -> None:
        """Let time pass, with the calls that are due."""
        for _ in range(4):
            self.now += seconds / 4
            for region in regions:
                region.call()

    def settle(self, *regions: Region) -> None:
        """Let the first epoch begin, and all buckets fill up."""
        for _ in range(40):
            for region in regions:
                region.call()
            self.now += 0.25


class Region:
    """A limiter; what it holds is for the test to say."""

    def __init__(self, shelf: Shelf, name: str, holder: str) -> None:
        self.shelf = shelf
        self.name = name
        self.holder = holder
        self.number = self.heard = self.epoch = 0
        self.settles_in_s = 0.0

    def call(self, *lines: Line, local: bool = False, heard: bool = True) -> list[Block]:
        self.number += 1
        contact = Contact(self.name, self.holder, self.number, self.heard, self.epoch, local, list(lines))
        standing = self.shelf.call(contact)
        if heard:
            self.heard, self.epoch, self.settles_in_s = self.number, standing.epoch, standing.settles_in_s
        return standing.blocks

    def take(self, want: float, held: float = 0, returned: float = 0, **more: float) -> float:
        """Ask for tokens of acme; return how many there were."""
        [block] = self.call(line(want, held, returned, **more))
        return block.granted


def line(want: float, held: float = 0, returned: float = 0, **more: float) -> Line:
    unit = more.get("unit", 1.0)
    return Line("acme", more.get("rate", RATE), int(more.get("burst", BURST)), held, returned, want, unit)


@pytest.fixture(scope="module")
def server(valkey_url: str) -> Iterator[Redis]:
    with Redis.from_url(valkey_url) as opened:
        yield opened
        opened.flushall()


@pytest.fixture
def shelf(server: Redis) -> Shelf:
    return Shelf(server)


@pytest.fixture
def east(shelf: Shelf) -> Region:
    """A region at a server whose buckets are full."""
    region = shelf.region()
    shelf.settle(region)
    return region


def test_empty_server_lends_nothing_for_a_second_and_then_what_comes_in(shelf: Shelf) -> None:
    east = shelf.region()
    assert east.call(line(5)) == []
    assert east.settles_in_s == pytest.approx(GRACE_S)
    shelf.now += GRACE_S
    assert east.take(5) == 0
    shelf.now += 0.55
    assert east.take(60) == 5


def test_bucket_holds_its_burst_and_no_more(shelf: Shelf, east: Region) -> None:
    assert east.take(BURST + 100) == BURST
    shelf.now += 0.1
    assert east.take(5) == 0


def test_less_than_is_of_use_is_not_lent(shelf: Shelf, east: Region) -> None:
    assert east.take(20) == 20
    assert east.call(line(50, held=20, unit=41)) == [Block(20, 0, 40)]


def test_held_tokens_take_room_so_nothing_comes_in_behind_them(shelf: Shelf, east: Region) -> None:
    west = shelf.region("west")
    west.call()
    held = east.take(BURST)
    for _ in range(40):
        shelf.now += 0.25
        assert east.take(0, held=held) == 0
        assert west.take(1) == 0


def test_tokens_of_a_holder_that_is_silent_are_lost_and_come_in_again_at_the_rate(shelf: Shelf, east: Region) -> None:
    west = shelf.region("west")
    west.call()
    east.take(BURST)
    taken = 0.0
    for _ in range(16):
        shelf.now += 0.25
        taken += west.take(BURST)
    assert taken == pytest.approx(RATE * (4.0 - COUNTED_S), abs=1)


def test_spent_tokens_make_room_from_when_it_is_told(shelf: Shelf, east: Region) -> None:
    east.take(BURST)
    shelf.now += 0.5
    assert east.take(BURST, held=0) == 0
    shelf.now += 0.5
    assert east.take(BURST) == RATE * 0.5


def test_returned_tokens_are_there_for_another_region_at_once(shelf: Shelf, east: Region) -> None:
    west = shelf.region("west")
    west.call()
    east.take(BURST)
    east.take(0, held=10, returned=50)
    assert west.take(BURST) == 50


def test_nobody_keeps_or_returns_more_than_was_lent_to_it(shelf: Shelf, east: Region) -> None:
    east.take(5)
    shelf.now += 0.1
    assert east.call(line(0, held=40)) == [Block(5, 0, BURST - 5)]
    assert east.call(line(0, held=0, returned=40)) == [Block(0, 0, BURST)]


def test_restarted_limiter_is_lent_nothing_for_what_its_predecessor_held(shelf: Shelf, east: Region) -> None:
    east.take(BURST)
    shelf.now += 0.2
    successor = Region(shelf, "east", "another")
    assert successor.call(line(BURST, held=BURST)) == [Block(0, 0, 0)]


def test_call_that_comes_after_a_later_one_changes_nothing(shelf: Shelf, east: Region) -> None:
    late = Contact("east", east.holder, east.number + 1, east.heard, east.epoch, False, [line(0, held=0)])
    east.number += 1
    held = east.take(BURST)
    with pytest.raises(Unavailable):
        shelf.call(late)
    shelf.now += 0.3
    assert east.call(line(BURST, held=held)) == [Block(held, 0, 0)]


def test_smaller_burst_holds_at_once_also_for_what_is_held(shelf: Shelf, east: Region) -> None:
    held = east.take(40)
    assert east.call(line(5, held=held, burst=15)) == [Block(15, 0, 0)]


def test_larger_burst_fills_up_at_the_rate(shelf: Shelf, east: Region) -> None:
    east.take(0, burst=BURST)
    assert east.take(500, burst=500) == BURST
    shelf.now += 0.5
    assert east.take(500, burst=500) == RATE * 0.5


def test_rate_changes_from_now_on_not_for_the_past(shelf: Shelf, east: Region) -> None:
    east.take(BURST)
    east.take(0, held=0)
    shelf.now += 0.5
    assert east.take(BURST, rate=100) == RATE * 0.5
    east.take(0, held=0, rate=100)
    shelf.now += 0.3
    assert east.take(BURST, rate=100) == pytest.approx(30, abs=1)


def test_rate_of_zero_lends_nothing(east: Region) -> None:
    assert east.take(1, rate=0, burst=5) == 0


def test_huge_limits_are_counted_exactly(shelf: Shelf, east: Region) -> None:
    lent = east.call(Line("big", 1e12, 10**12, 0, 0, 10**12, 1))
    assert lent == [Block(0, 10**12, 0)]


def test_bucket_that_is_full_and_of_which_nothing_is_held_is_forgotten(shelf: Shelf, east: Region) -> None:
    east.take(BURST)
    lives_s = shelf.server.pttl(keys.rate_bucket("acme")) / 1000
    assert BURST / RATE < lives_s <= BURST / RATE + COUNTED_S + 0.1
    shelf.now += lives_s
    shelf.server.delete(keys.rate_bucket("acme"))
    shelf.settle(east)
    assert east.take(BURST) == BURST


def lose_data(shelf: Shelf) -> None:
    shelf.server.flushall()


def change_server(shelf: Shelf) -> None:
    shelf.run = "a server that took over"


def turn_back_clock(shelf: Shelf) -> None:
    shelf.now -= 3_600


@pytest.mark.parametrize("loss", [lose_data, change_server, turn_back_clock])
def test_server_that_may_know_less_starts_with_empty_buckets(
    shelf: Shelf, east: Region, loss: Callable[[Shelf], None]
) -> None:
    loss(shelf)
    assert east.call(line(5)) == []
    assert east.settles_in_s == pytest.approx(GRACE_S)
    shelf.wait(GRACE_S + 0.3, east)
    assert east.take(BURST, held=BURST) == 3


def test_clock_that_is_a_little_behind_stands_still(shelf: Shelf, east: Region) -> None:
    east.take(BURST)
    shelf.now -= 0.5
    assert east.take(1) == 0
    assert east.settles_in_s <= 0


def test_after_a_silence_a_bucket_holds_no_more_than_regions_left_room_for(shelf: Shelf, east: Region) -> None:
    west = shelf.region("west")
    west.call()  # nobody says that its answer was heard: the silence began with east's last call, 0.25 s ago
    shelf.now += 2.0
    assert east.call(line(5)) == []
    shelf.now += GRACE_S
    assert east.take(BURST) == int(BURST - RATE * (0.25 + 2.0 + GRACE_S - QUIET_S))


def test_nothing_comes_in_during_a_silence(shelf: Shelf, east: Region) -> None:
    east.take(50)
    east.take(0, held=0)
    shelf.now += 2.0
    east.call()
    shelf.now += GRACE_S
    assert east.take(BURST) == 10


def test_epoch_settles_at_once_when_every_region_says_that_it_did_not_admit_by_its_share(
    shelf: Shelf, east: Region
) -> None:
    west = shelf.region("west")
    west.call()
    shelf.now += SILENT_S + 0.1
    east.call()
    east.call()
    assert east.settles_in_s > 0, "west was not heard of"
    west.call()
    assert west.settles_in_s > 0, "west did not know of the epoch"
    west.call()
    assert west.settles_in_s <= 0
    assert west.take(5) == 5


def test_epoch_does_not_settle_early_while_a_region_admits_by_its_share(shelf: Shelf, east: Region) -> None:
    shelf.now += 2.0
    east.call(local=True)
    east.call(local=True)
    assert east.settles_in_s > 0


def test_server_that_nobody_heard_of_late_settles_no_epoch(shelf: Shelf, east: Region) -> None:
    """It does what it is told, but all its answers come too late."""
    shelf.now += 2.0
    for _ in range(8):
        east.call(heard=False)
        shelf.now += 0.4
    east.call()
    assert east.settles_in_s == pytest.approx(GRACE_S)


# Each safeguard is needed: without it, more is there to be spent than the burst.


def both_hold(shelf: Shelf) -> float:
    """East holds the whole burst; return what is held when west asks too."""
    east, west = shelf.region("east"), shelf.region("west")
    shelf.settle(east, west)
    held = east.take(BURST)
    for _ in range(12):
        shelf.now += 0.25
        east.take(0, held=held)
        west.call()
    shelf.now += 0.9
    return held + west.take(BURST)


def emptied(shelf: Shelf) -> float:
    """East holds the whole burst when the server loses its data."""
    east, west = shelf.region("east"), shelf.region("west")
    shelf.settle(east, west)
    held = east.take(BURST)
    shelf.server.flushall()
    return held + sum(block.granted for block in west.call(line(BURST)))


def silent(shelf: Shelf) -> float:
    """Nobody calls for 8 s; regions hold their shares, 60 together, and spend them before the epoch settles."""
    east, west = shelf.region("east"), shelf.region("west")
    shelf.settle(east, west)
    shelf.now += 8.0
    held = min(BURST, RATE * (8.0 - QUIET_S))
    blocks = west.call(line(BURST), local=True)
    shelf.wait(GRACE_S, west)
    return held + sum(block.granted for block in blocks) + west.take(BURST)


def restarted(shelf: Shelf) -> float:
    """Gateways still hold what a limiter lent that was killed while it admitted by its share."""
    east = shelf.region("east")
    shelf.settle(east)
    shelf.now += 3.0
    held = RATE * (3.0 - QUIET_S)
    successor = Region(shelf, "east", "another")
    successor.call()
    successor.call()
    shelf.now += 0.6
    return held + successor.take(BURST)


SAFEGUARDS = [
    (both_hold, {"bucket.burst - out)": "bucket.burst)", "bucket.burst - others)": "bucket.burst)"}),
    (emptied, {"settles = now + grace_s, void = now + grace_s, early = 0": "settles = now, void = now, early = 0",
               "quiet = now, base = now,": "quiet = now, base = now - 1e6,"}),
    (silent, {"if now - epoch.last > silent_s then": "if false then"}),
    (silent, {"math.min(bucket.tokens, bucket.burst - shares)": "bucket.tokens"}),
    (restarted, {"if shares > 0 and epoch.void > epoch.settles then": "if false then"}),
]  # fmt: skip


@pytest.mark.parametrize(("story", "changes"), SAFEGUARDS)
def test_no_more_than_the_burst_is_ever_there_and_each_safeguard_is_needed(
    server: Redis, story: Callable[[Shelf], float], changes: dict[str, str]
) -> None:
    assert story(Shelf(server)) <= BURST
    careless = buckets.SCRIPT
    for safeguard, without in changes.items():
        assert careless.count(safeguard) == 1
        careless = careless.replace(safeguard, without)
    assert story(Shelf(server, careless)) > BURST


# The connection


@pytest.fixture
def own_server() -> Iterator[EmbeddedValkey]:
    folder = Path(tempfile.mkdtemp(prefix="flik-test-"))
    server = EmbeddedValkey(folder)
    yield server
    server.stop()
    shutil.rmtree(folder)


def contact(number: int) -> Contact:
    return Contact("east", "me", number, number - 1, 0, False, [line(1)])


async def test_killed_server_is_unavailable_and_its_successor_begins_an_epoch(own_server: EmbeddedValkey) -> None:
    live = LiveBuckets(own_server.start())
    first = await live.contact(contact(1))
    assert own_server.pid is not None
    os.kill(own_server.pid, signal.SIGKILL)
    with pytest.raises(Unavailable):
        await live.contact(contact(2))
    own_server.stop()
    own_server.start()
    again = await live.contact(contact(3))
    assert again.epoch != first.epoch
    assert again.settles_in_s == pytest.approx(GRACE_S)
    await live.close()


async def test_server_that_forgot_the_script_is_told_it_again(valkey_url: str, server: Redis) -> None:
    server.flushall()
    live = LiveBuckets(valkey_url)
    await live.contact(contact(1))
    server.script_flush()
    with pytest.raises(Unavailable):
        await live.contact(contact(2))
    assert (await live.contact(contact(3))).epoch > 0
    await live.close()
