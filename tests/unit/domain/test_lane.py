"""The order in which waiting tasks are granted."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from making import ticket

from flik.domain.lane import Lane
from flik.domain.task import Ticket


def lane_of(*tickets: Ticket, now: float = 0.0, ageing_s: float = 0.0, weights: dict[str, int] | None = None) -> Lane:
    lane = Lane(ageing_s=ageing_s, weight_of=lambda tenant: (weights or {}).get(tenant, 1))
    for each in tickets:
        assert lane.add(each, now)
    return lane


def take_ids(lane: Lane, limit: int, now: float = 0.0) -> list[str]:
    return [each.task_id for each in lane.take(limit, now)]


# ---- classes


def test_with_one_slot_the_urgent_go_first_whatever_the_order_of_arrival() -> None:
    waiting = [ticket(n, priority=priority, at=n) for n, priority in enumerate([2, 1, 0, 2, 1, 0])]
    lane = lane_of(*waiting, now=10)
    assert [lane.take(1, 10)[0].priority for _ in range(6)] == [0, 0, 1, 1, 2, 2]


def test_an_urgent_ticket_that_arrives_late_goes_before_all_that_wait() -> None:
    lane = lane_of(*(ticket(n, priority=2) for n in range(100)))
    lane.take(10, 0)
    lane.add(ticket(500, priority=0, tenant="late"), 0)
    assert take_ids(lane, 1) == ["t000500"]


def test_one_take_goes_on_to_the_next_class_when_a_class_is_empty() -> None:
    lane = lane_of(ticket(1, priority=2), ticket(2, priority=1), ticket(3, priority=0))
    assert take_ids(lane, 10) == ["t000003", "t000002", "t000001"]


def test_take_returns_no_more_than_the_limit() -> None:
    lane = lane_of(*(ticket(n) for n in range(5)))
    assert take_ids(lane, 0) == []
    assert len(take_ids(lane, 3)) == 3
    assert len(take_ids(lane, 3)) == 2
    assert take_ids(lane, 3) == []


# ---- inside a tenant


def test_a_tenant_s_oldest_goes_first_also_when_it_arrived_last() -> None:
    lane = lane_of(ticket(3, at=3), ticket(1, at=1), ticket(2, at=2), now=5)
    assert take_ids(lane, 3, 5) == ["t000001", "t000002", "t000003"]


def test_tickets_of_one_moment_go_in_the_order_of_their_ids() -> None:
    lane = lane_of(ticket(2), ticket(3), ticket(1))
    assert take_ids(lane, 3) == ["t000001", "t000002", "t000003"]


def test_late_arrivals_take_their_places_among_thousands() -> None:
    in_order = [ticket(n, at=n) for n in range(0, 4000, 2)]
    late = [ticket(n, at=n) for n in (1001, 1, 3999, 2001, 5)]
    lane = lane_of(*in_order, *late, now=5000)
    for gone in (0, 2, 1001, 3998, 2000):
        assert lane.remove(f"t{gone:06}") is not None
    expected = sorted(({each.task_id for each in in_order + late}) - {f"t{n:06}" for n in (0, 2, 1001, 3998, 2000)})
    assert take_ids(lane, 5000, 5000) == expected


# ---- between tenants


@pytest.mark.parametrize(
    ("weights", "shares"),
    [
        ({}, {"a": 500, "b": 500}),
        ({"a": 3, "b": 1}, {"a": 750, "b": 250}),
        ({"a": 1, "b": 3}, {"a": 250, "b": 750}),
        ({"a": 5, "b": 3, "c": 2}, {"a": 500, "b": 300, "c": 200}),
    ],
)
@pytest.mark.parametrize("at_a_time", [1, 7, 1000])
def test_tenants_share_by_weight(weights: dict[str, int], shares: dict[str, int], at_a_time: int) -> None:
    lane = lane_of(*(ticket(n, tenant=t) for t in shares for n in _numbers(t, 1000)), weights=weights)
    taken: Counter[str] = Counter()
    while (left := 1000 - taken.total()) > 0:
        taken.update(each.tenant_id for each in lane.take(min(at_a_time, left), 0))
    for tenant, share in shares.items():
        assert taken[tenant] == pytest.approx(share, rel=0.1)


def _numbers(tenant: str, count: int) -> range:
    start = ord(tenant) * 10_000
    return range(start, start + count)


@pytest.mark.parametrize(("weights", "expected"), [({}, 500), ({"a": 3}, 750)])
def test_the_shares_hold_with_single_takes_between_adds(weights: dict[str, int], expected: int) -> None:
    lane = lane_of(ticket(1, tenant="a"), ticket(2, tenant="b"), weights=weights)
    taken: Counter[str] = Counter()
    for n in range(10, 1010):
        (got,) = lane.take(1, 0)
        taken[got.tenant_id] += 1
        lane.add(ticket(n, tenant=got.tenant_id), 0)  # its flow was empty for a moment
    assert taken["a"] == pytest.approx(expected, rel=0.1)


def test_weights_count_in_any_four_grants() -> None:
    lane = lane_of(*(ticket(n, tenant=t) for t in "ab" for n in _numbers(t, 100)), weights={"a": 3, "b": 1})
    taken = [each.tenant_id for each in lane.take(100, 0)]
    for start in range(0, 100, 4):
        assert Counter(taken[start : start + 4]) == {"a": 3, "b": 1}


def test_a_newcomer_waits_for_few_grants_behind_ten_thousand_of_another() -> None:
    lane = lane_of(*(ticket(n, tenant="flood") for n in range(10_000)))
    lane.take(500, 0)
    lane.add(ticket(20_000, tenant="newcomer"), 0)
    assert "t020000" in take_ids(lane, 2)


def test_a_newcomer_waits_for_about_one_grant_of_each_other_tenant() -> None:
    lane = lane_of(*(ticket(100 * t + n, tenant=f"tenant{t}") for t in range(20) for n in range(50)))
    lane.take(137, 0)
    lane.add(ticket(90_000, tenant="newcomer"), 0)
    assert "t090000" in take_ids(lane, 21)


def test_who_was_idle_has_saved_nothing_up() -> None:
    lane = lane_of(*(ticket(n, tenant="busy") for n in range(1000)))
    lane.take(500, 0)
    for n in range(2000, 2100):
        lane.add(ticket(n, tenant="idle"), 0)
    taken = Counter(each.tenant_id for each in lane.take(100, 0))
    assert taken["idle"] == pytest.approx(50, abs=2)


def test_sharing_in_one_class_does_not_count_in_another() -> None:
    lane = lane_of(*(ticket(n, tenant="a", priority=0) for n in range(100)))
    lane.take(100, 0)
    for n in range(200, 210):
        lane.add(ticket(n, tenant="a", priority=1), 0)
        lane.add(ticket(n + 100, tenant="b", priority=1), 0)
    assert Counter(each.tenant_id for each in lane.take(10, 0)) == {"a": 5, "b": 5}


# ---- ageing


def test_ageing_lifts_a_ticket_at_exact_times() -> None:
    lane = lane_of(ticket(1, priority=2), ageing_s=600)

    def goes_before(now: float, priority: int) -> bool:
        rival = ticket(1000 + int(now * 10) + priority, priority=priority, tenant="rival", at=now)
        lane.add(rival, now)
        (first,) = lane.take(1, now)
        lane.remove(rival.task_id)
        lane.add(ticket(1, priority=2), now)
        return first.task_id == "t000001"

    assert not goes_before(599, 1)
    assert goes_before(600, 2)
    assert not goes_before(1199, 0)
    assert goes_before(1200, 1)


def test_an_aged_ticket_stands_in_the_order_of_the_class_it_was_lifted_to() -> None:
    old = ticket(1, priority=2, tenant="a", at=0)
    lane = lane_of(old, ticket(2, priority=1, tenant="a", at=100), ageing_s=600, now=100)
    assert take_ids(lane, 1, 599) == ["t000002"]
    lane.add(ticket(3, priority=1, tenant="a", at=100), 599)
    assert take_ids(lane, 2, 600) == ["t000001", "t000003"]


def test_after_two_steps_a_background_ticket_goes_before_a_younger_urgent_one_of_its_tenant() -> None:
    lane = lane_of(ticket(1, priority=2, at=0), ageing_s=600)
    lane.add(ticket(2, priority=0, at=1100), 1100)
    assert take_ids(lane, 1, 1199) == ["t000002"]
    lane.add(ticket(2, priority=0, at=1100), 1199)
    assert take_ids(lane, 2, 1200) == ["t000001", "t000002"]


def test_a_ticket_that_arrives_old_is_aged_at_once() -> None:
    lane = lane_of(ticket(1, priority=2, at=0), ticket(2, priority=1, at=1000), now=1250, ageing_s=600)
    assert take_ids(lane, 2, 1250) == ["t000001", "t000002"]


def test_without_ageing_nothing_is_ever_lifted() -> None:
    lane = lane_of(ticket(1, priority=2, at=0), ageing_s=0)
    lane.add(ticket(2, priority=1, at=1e9), 1e9)
    assert take_ids(lane, 2, 1e9) == ["t000002", "t000001"]


def test_depth_counts_by_the_priority_that_was_submitted() -> None:
    lane = lane_of(ticket(1, priority=2), ticket(2, priority=1, due=50), ageing_s=10)
    assert lane.ready(100)
    assert [lane.depth(priority) for priority in (0, 1, 2)] == [0, 1, 1]


# ---- delays


def test_a_delayed_ticket_is_not_taken_before_its_time() -> None:
    lane = lane_of(ticket(1, due=5.0))
    assert take_ids(lane, 1, 4.999) == []
    assert not lane.ready(4.999)
    assert lane.ready(5.0)
    assert take_ids(lane, 1, 5.0) == ["t000001"]


def test_wakes_at_tells_the_next_delayed_ticket() -> None:
    lane = lane_of(ticket(1, due=9.0), ticket(2, due=5.0), ticket(3))
    assert lane.wakes_at(0.0) == 5.0
    lane.remove("t000002")
    assert lane.wakes_at(0.0) == 9.0
    lane.remove("t000001")
    assert lane.wakes_at(0.0) is None


def test_wakes_at_lies_ahead_also_when_nobody_takes_what_is_due() -> None:
    lane = lane_of(ticket(1, due=5.0), ticket(2, due=9.0))
    assert lane.wakes_at(6.0) == 9.0
    assert lane.wakes_at(10.0) is None
    assert take_ids(lane, 2, 10.0) == ["t000001", "t000002"]


def test_a_retry_keeps_its_place_by_submit_time() -> None:
    lane = lane_of(ticket(2, at=2.0), now=10)
    lane.add(ticket(1, at=1.0, due=12.0), 10)
    assert take_ids(lane, 1, 11) == ["t000002"]
    lane.add(ticket(3, at=3.0), 11)
    assert take_ids(lane, 2, 12) == ["t000001", "t000003"]


@pytest.mark.parametrize(("first_due", "then_due"), [(5.0, 20.0), (20.0, 5.0), (0.0, 20.0), (20.0, 1.0)])
def test_a_ticket_that_left_and_came_back_obeys_its_new_time(first_due: float, then_due: float) -> None:
    lane = lane_of(ticket(1, due=first_due))
    assert lane.remove("t000001") == ticket(1, due=first_due)
    lane.add(ticket(1, due=then_due), 0.0)
    assert take_ids(lane, 5, then_due - 0.5) == []
    assert take_ids(lane, 5, then_due) == ["t000001"]
    assert take_ids(lane, 5, 100) == []


# ---- membership


def test_a_ticket_is_held_once() -> None:
    lane = lane_of(ticket(1))
    assert not lane.add(ticket(1, due=9.0), 0)
    assert len(lane) == 1
    assert take_ids(lane, 5) == ["t000001"]


def test_removing_what_is_not_held_changes_nothing() -> None:
    lane = lane_of(ticket(1))
    assert lane.remove("t000009") is None
    assert (len(lane), "t000001" in lane) == (1, True)


def test_what_left_is_not_remembered_for_ever() -> None:
    lane = Lane(ageing_s=600)
    for n in range(20_000):
        lane.add(ticket(n, priority=2, tenant=f"tenant{n % 7}"), 0)
        lane.add(ticket(50_000 + n, due=500.0), 0)
        lane.take(1, 0)
        lane.remove(f"t{50_000 + n:06}")
    assert len(lane) == 0
    assert sum(map(len, lane._ageing.values())) < 100
    assert len(lane._delayed) < 100


# ---- against a naive model

TENANTS = ("a", "b", "c")
step = st.one_of(
    st.tuples(
        st.just("add"),
        st.integers(0, 15),
        st.sampled_from(TENANTS),
        st.integers(0, 2),
        st.sampled_from([0, 0, 3, 40]),
        st.sampled_from([0, 0, 0, 1, 7, 30]),
    ),
    st.tuples(st.just("remove"), st.integers(0, 15)),
    st.tuples(st.just("take"), st.integers(0, 4)),
    st.tuples(st.just("wait"), st.integers(1, 25)),
)


class NaiveLane:
    """A list; only which ticket of a tenant, and which class, goes first is checked."""

    def __init__(self, ageing_s: int) -> None:
        self.held: dict[str, Ticket] = {}
        self._ageing_s = ageing_s

    def level(self, each: Ticket, now: float) -> int:
        return (
            max(0, each.priority - int((now - each.queued_at) // self._ageing_s)) if self._ageing_s else each.priority
        )

    def check_taken(self, taken: list[Ticket], limit: int, now: float) -> None:
        for each in taken:
            ready = [other for other in self.held.values() if other.available_at <= now]
            level = min(self.level(other, now) for other in ready)
            mates = [other for other in ready if other.tenant_id == each.tenant_id and self.level(other, now) == level]
            assert each == min(mates, key=lambda other: (other.queued_at, other.task_id))
            del self.held[each.task_id]
        left = [other for other in self.held.values() if other.available_at <= now]
        assert len(taken) == limit or not left


@settings(max_examples=300, deadline=None)
@given(st.lists(step, max_size=60), st.sampled_from([0, 20]))
def test_lane_agrees_with_a_naive_model(steps: list[tuple[object, ...]], ageing_s: int) -> None:
    lane, model, now = Lane(ageing_s=ageing_s), NaiveLane(ageing_s), 0
    for what, *values in steps:
        match what, values:
            case "add", [int(number), str(tenant), int(priority), int(delay), int(age)]:
                new = ticket(number, tenant=tenant, priority=priority, at=now - age, due=now + delay)
                assert lane.add(new, now) == (new.task_id not in model.held)
                model.held.setdefault(new.task_id, new)
            case "remove", [int(number)]:
                assert lane.remove(f"t{number:06}") == model.held.pop(f"t{number:06}", None)
            case "take", [int(limit)]:
                model.check_taken(lane.take(limit, now), limit, now)
            case "wait", [int(seconds)]:
                now += seconds
        assert len(lane) == len(model.held)
        assert set(lane) == set(model.held.values())
        counts = Counter(each.priority for each in model.held.values())
        assert [lane.depth(priority) for priority in range(3)] == [counts[priority] for priority in range(3)]
        assert lane.ready(now) == any(each.available_at <= now for each in model.held.values())
        wakes = [each.available_at for each in model.held.values() if each.available_at > now]
        assert lane.wakes_at(now) == min(wakes, default=None)


# ---- caps of running tasks


class Caps:
    """Counts what is taken of each tenant against its cap."""

    def __init__(self, **caps: int) -> None:
        self.left = Counter(caps)
        self.capped = set(caps)

    def __call__(self, tenant_id: str) -> bool:
        if tenant_id not in self.capped:
            return True
        self.left[tenant_id] -= 1
        return self.left[tenant_id] >= 0


def test_a_tenant_at_its_cap_is_passed_over_and_the_others_get_its_place() -> None:
    lane = lane_of(
        *(ticket(n, tenant="capped") for n in range(10)), *(ticket(100 + n, tenant="free") for n in range(10))
    )

    taken = Counter(each.tenant_id for each in lane.take(8, 0, Caps(capped=2)))

    assert taken == {"capped": 2, "free": 6}
    assert len(lane) == 12


def test_a_capped_tenant_s_urgent_tasks_do_not_hold_up_less_urgent_ones() -> None:
    lane = lane_of(ticket(1, priority=0, tenant="capped"), ticket(2, priority=2, tenant="free"))

    assert [each.tenant_id for each in lane.take(2, 0, Caps(capped=0))] == ["free"]
    assert take_ids(lane, 2) == ["t000001"]


def test_nothing_is_taken_and_nothing_lost_while_all_are_at_their_caps() -> None:
    lane = lane_of(*(ticket(n, tenant=f"t{n % 3}") for n in range(9)))

    assert lane.take(9, 0, Caps(t0=0, t1=0, t2=0)) == []
    assert len(take_ids(lane, 9)) == 9


def test_time_spent_at_the_cap_earns_no_credit() -> None:
    lane = lane_of(
        *(ticket(n, tenant="capped") for n in range(100)), *(ticket(500 + n, tenant="free") for n in range(200))
    )
    lane.take(60, 0, Caps(capped=0))

    freed = Counter(each.tenant_id for each in lane.take(20, 0))

    assert abs(freed["capped"] - 10) <= 1


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 2), st.integers(0, 4)), max_size=60),
    st.lists(st.tuples(st.integers(0, 12), st.dictionaries(st.integers(0, 4), st.integers(0, 3))), max_size=12),
)
def test_caps_hold_and_every_ticket_comes_out_once(
    waiting: list[tuple[int, int]], rounds: list[tuple[int, dict[int, int]]]
) -> None:
    lane = lane_of(*(ticket(n, priority=p, tenant=f"t{tenant}") for n, (p, tenant) in enumerate(waiting)))
    out: list[str] = []
    for limit, caps in rounds:
        named = {f"t{tenant}": cap for tenant, cap in caps.items()}
        taken = lane.take(limit, 0, Caps(**named))
        by_tenant = Counter(each.tenant_id for each in taken)
        assert len(taken) <= limit
        assert all(by_tenant[tenant] <= cap for tenant, cap in named.items())
        if len(taken) < limit:  # only tenants at their caps are left
            assert all(by_tenant[each.tenant_id] == named.get(each.tenant_id, -1) for each in lane)
        out += [each.task_id for each in taken]
    out += take_ids(lane, 100)
    assert sorted(out) == sorted(f"t{n:06}" for n in range(len(waiting)))


def test_a_ticket_that_left_and_came_back_is_taken_once_and_counts_once() -> None:
    lane = lane_of(ticket(1), ticket(2))
    lane.remove("t000001")
    assert lane.add(ticket(1), 0)

    assert take_ids(lane, 5) == ["t000001", "t000002"]
    assert (len(lane), lane.depth(1)) == (0, 0)


def test_a_tenant_at_its_cap_that_comes_and_goes_leaves_nothing_behind() -> None:
    lane = lane_of(ticket(0, tenant="other"))
    for _ in range(200):
        lane.add(ticket(1, tenant="capped"), 0)
        lane.take(1, 0, Caps(capped=0, other=0))
        lane.remove("t000001")
    lane.add(ticket(1, tenant="capped"), 0)
    lane.take(1, 0, Caps(capped=0, other=0))

    assert sum(len(each._order) for each in lane._classes) <= 4
