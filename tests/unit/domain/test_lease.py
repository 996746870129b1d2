"""Who works on what, and until when."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from flik.domain.lease import Lease, Leases

LEASE = Lease("t1", "token1", "w1", "TEXT", 1, "acme", 0.0, 1, 4, expires_at=3.0, hard_deadline_at=1800.0)


def leases_of(*held: Lease) -> Leases:
    leases = Leases(3.0)
    for lease in held:
        leases.hold(replace(lease))
    return leases


def test_a_lease_lapses_exactly_when_it_was_not_renewed() -> None:
    leases = leases_of(LEASE)
    assert leases.lapsed(2.999) == []
    assert [lease.task_id for lease in leases.lapsed(3.0)] == ["t1"]


def test_a_beat_renews_for_a_whole_lease_from_now() -> None:
    leases = leases_of(LEASE)
    assert leases.renew([("t1", "token1")], 2.5) == []
    assert leases.lapsed(5.4) == []
    assert len(leases.lapsed(5.5)) == 1


def test_a_beat_learns_which_tokens_are_not_current() -> None:
    leases = leases_of(LEASE, replace(LEASE, task_id="t2", token="token2"))
    assert leases.renew([("t1", "token1"), ("t2", "old"), ("t3", "token3")], 2.5) == ["t2", "t3"]
    assert [lease.task_id for lease in leases.lapsed(3.0)] == ["t2"]


def test_only_the_current_token_gets_or_releases_a_lease() -> None:
    leases = leases_of(LEASE)
    assert leases.get("t1", "old") is None
    assert leases.release("t1", "old") is None
    assert "t1" in leases
    assert leases.release("t1", "token1") is not None
    assert ("t1" in leases, len(leases)) == (False, 0)


def test_without_a_token_the_lease_is_released_whoever_holds_it() -> None:
    leases = leases_of(LEASE)
    assert leases.release("t1") == LEASE
    assert leases.release("t1") is None


def test_a_new_lease_of_a_task_supersedes_the_old_one() -> None:
    leases = leases_of(LEASE, replace(LEASE, token="token2"))
    assert len(leases) == 1
    assert leases.get("t1", "token1") is None
    assert leases.get("t1", "token2") is not None


def test_overdue_are_those_past_the_hard_deadline_however_alive_their_worker_is() -> None:
    leases = leases_of(LEASE)
    leases.renew([("t1", "token1")], 1799.9)
    assert leases.overdue(1799.9) == []
    assert [lease.task_id for lease in leases.overdue(1800.0)] == ["t1"]
    assert leases.lapsed(1800.0) == []


def test_time_in_which_nothing_was_heard_is_given_to_all() -> None:
    leases = leases_of(LEASE, replace(LEASE, task_id="t2", expires_at=4.0))
    leases.extend(10.0)
    assert leases.lapsed(12.9) == []
    assert [lease.task_id for lease in leases.lapsed(13.0)] == ["t1"]


def test_running_counts_by_type() -> None:
    leases = leases_of(LEASE, replace(LEASE, task_id="t2"), replace(LEASE, task_id="t3", task_type="IMAGE"))
    assert (leases.running("TEXT"), leases.running("IMAGE"), leases.running("VIDEO")) == (2, 1, 0)


@given(st.lists(st.tuples(st.sampled_from(["hold", "renew", "release"]), st.integers(0, 3), st.integers(0, 2))))
def test_leases_agree_with_a_dictionary(steps: list[tuple[str, int, int]]) -> None:
    leases, model = Leases(3.0), dict[str, tuple[str, float]]()
    for now, (what, task, token) in enumerate(steps):
        task_id, name = f"t{task}", f"token{token}"
        current = task_id in model and model[task_id][0] == name
        if what == "hold":
            leases.hold(replace(LEASE, task_id=task_id, token=name, expires_at=now + 3.0))
            model[task_id] = (name, now + 3.0)
        elif what == "renew":
            assert leases.renew([(task_id, name)], now) == ([] if current else [task_id])
            if current:
                model[task_id] = (name, now + 3.0)
        else:
            assert (leases.release(task_id, name) is not None) == current
            if current:
                del model[task_id]
        assert {lease.task_id for lease in leases.lapsed(now)} == {t for t, (_, until) in model.items() if until <= now}
        assert len(leases) == len(model)
