"""The states of a task and how it may move between them."""

from __future__ import annotations

import pickle

import pytest

from flik.domain.task import TERMINAL, TRANSITIONS, Completed, Grant, Status, StoredArtifact


def test_every_state_has_its_row_of_moves() -> None:
    assert set(TRANSITIONS) == set(Status)


@pytest.mark.parametrize("status", sorted(TERMINAL))
def test_only_a_failed_task_moves_on_from_the_end(status: Status) -> None:
    assert TRANSITIONS[status] == ({Status.QUEUED} if status is Status.FAILED else frozenset())


def test_every_state_can_be_reached_and_every_task_can_end() -> None:
    reached = {Status.PENDING, Status.QUEUED} | {after for moves in TRANSITIONS.values() for after in moves}
    assert reached == set(Status)
    for status in set(Status) - TERMINAL:
        assert TRANSITIONS[status] & TERMINAL


def test_what_travels_between_processes_survives_pickling() -> None:
    grant = Grant("t1", "token", "acme", "TEXT", 1, 1, "{}", 1.0, 2.0)
    outcome = Completed("t1", "token", "é", {"a": [1]}, (StoredArtifact(0, "k", "image/png", 1, "00"),))
    assert pickle.loads(pickle.dumps((grant, outcome))) == (grant, outcome)
