"""How many may follow, and that they stop when their credential does."""

from __future__ import annotations

from collections.abc import Collection

import pytest
from making import Clock

from flik.domain.identity import ANYONE, Caller, Scope
from flik.errors import FlikError, GatewayStops, TooManyFollowers, TooManyStrangers, Unauthenticated, Unavailable
from flik.pipeline.followers import CHECK_S, Followers
from flik.pipeline.lookup import TRUST_S

READ = frozenset({Scope.READ})


class KeysFake:
    def __init__(self) -> None:
        self.works: set[str] = {"k1", "k2"}
        self.asked: list[set[str]] = []
        self.away = False

    async def working(self, key_ids: Collection[str], now: float) -> set[str]:
        self.asked.append(set(key_ids))
        if self.away:
            raise Unavailable("postgresql")
        return self.works & set(key_ids)


@pytest.fixture
def keys() -> KeysFake:
    return KeysFake()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def followers(keys: KeysFake, clock: Clock) -> Followers:
    return Followers(keys, most=3, most_of_key=2, now=clock)


def caller(key_id: str | None = "k1", expires_at: float | None = None) -> Caller:
    return Caller("acme", READ, key_id, expires_at)


def nothing(error: FlikError) -> None:
    raise AssertionError(error)


def test_a_credential_and_a_gateway_hold_so_many(followers: Followers) -> None:
    with followers.counted(caller(), nothing), followers.counted(caller(), nothing):
        with pytest.raises(TooManyFollowers, match="this credential"), followers.counted(caller(), nothing):
            pass
        with (
            followers.counted(caller("k2"), nothing),
            pytest.raises(TooManyFollowers, match="this gateway"),
            followers.counted(caller("k3"), nothing),
        ):
            pass
        assert len(followers) == 2
    assert len(followers) == 0


def test_a_credential_follows_so_many_things_over_all_of_its_connections(followers: Followers) -> None:
    with followers.counted(caller(), nothing), followers.following(caller()), followers.following(caller()):
        with (
            pytest.raises(TooManyFollowers, match="this credential follows tasks with 2 streams and subscriptions"),
            followers.following(caller()),
        ):
            pass
        with followers.following(caller("k2")):
            assert len(followers) == 1
    with followers.following(caller()):  # there is room again
        pass


def test_strangers_have_a_bound_of_their_own(keys: KeysFake) -> None:
    followers = Followers(keys, most=1, most_of_key=1, most_strangers=2)
    with followers.counted(caller(), nothing), followers.stranger(), followers.stranger():
        with pytest.raises(TooManyStrangers, match="the gateway has 2 WebSockets"), followers.stranger():
            pass
        assert (len(followers), followers.strangers) == (1, 2)
    with followers.stranger():
        assert followers.strangers == 1
    assert followers.strangers == 0


def test_a_gateway_that_stops_takes_no_strangers(followers: Followers) -> None:
    followers.stop(GatewayStops("the gateway"))
    with pytest.raises(GatewayStops), followers.stranger():
        pass


def test_the_bounds_are_those_that_are_documented(keys: KeysFake) -> None:
    followers = Followers(keys)
    assert (followers.most, followers.most_of_key, followers.most_strangers) == (10_000, 1_000, 256)


async def test_one_query_looks_at_all_keys_and_ends_those_that_are_gone(followers: Followers, keys: KeysFake) -> None:
    ended: list[FlikError] = []
    with (
        followers.counted(caller(), ended.append),
        followers.counted(caller(), ended.append),
        followers.counted(caller("k2"), nothing),
    ):
        await followers.check()
        assert ended == []
        keys.works.discard("k1")
        await followers.check()
    assert [type(error) for error in ended] == [Unauthenticated, Unauthenticated]
    assert keys.asked == [{"k1", "k2"}, {"k1", "k2"}]


async def test_what_has_expired_ends_without_a_look(followers: Followers, keys: KeysFake, clock: Clock) -> None:
    ended: list[FlikError] = []
    with followers.counted(caller("jwt:somebody", clock() + 5), ended.append):
        await followers.check()
        assert ended == []
        clock.forward(5)
        await followers.check()
    assert len(ended) == 1
    assert keys.asked == []


async def test_while_postgresql_is_away_all_stay(followers: Followers, keys: KeysFake) -> None:
    keys.away = True
    with followers.counted(caller(), nothing):
        await followers.check()


async def test_in_open_mode_nobody_is_looked_at(followers: Followers, keys: KeysFake) -> None:
    with followers.counted(ANYONE, nothing):
        await followers.check()
    assert keys.asked == []


def test_a_key_that_is_revoked_opens_nothing_and_follows_nothing_five_seconds_later() -> None:
    assert TRUST_S + CHECK_S < 5.0
