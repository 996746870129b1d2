"""How dags go on: whatever their steps do in whatever order, all end, and those run that should."""

from __future__ import annotations

import os
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flik.domain.dag.progress import DagEnd, DagStatus, Moves, StepState, Stop, advance, ready_again
from flik.domain.task import TERMINAL, Status

GRAPHS = int(os.environ.get("FLIK_GRAPHS", "2000"))
OUTCOMES = (Status.COMPLETED, Status.COMPLETED, Status.COMPLETED, Status.FAILED, Status.CANCELLED, Status.EXPIRED)


def step(
    name: str, status: str = "PENDING", *parents: int, on_failure: str = "fail", code: str | None = None
) -> StepState:
    return StepState(name, status, parents, on_failure, code, None)


def random_graph(chance: random.Random) -> list[StepState]:
    """Steps of which each may depend on any of those before it, listed in any order."""
    order = list(range(chance.randint(1, 30)))
    chance.shuffle(order)
    steps: dict[int, StepState] = {}
    for rank, place in enumerate(order):
        parents = chance.sample(order[:rank], chance.randint(0, min(rank, 4)))
        policy = chance.choice(["fail", "fail", "skip"])
        steps[place] = StepState(f"s{place}", "PENDING" if parents else "QUEUED", tuple(parents), policy)
    return [steps[place] for place in range(len(order))]


def moved(steps: list[StepState], moves: Moves) -> list[StepState]:
    after = list(steps)
    for place in moves.released:
        after[place] = after[place]._replace(status="QUEUED")
    for place, stop in moves.stopped.items():
        after[place] = after[place]._replace(
            status="CANCELLED", error_code=stop.error_code, error_message=stop.error_message
        )
    return after


@settings(max_examples=GRAPHS)
@given(st.integers(0, 2**63))  # hypothesis chooses the seed only: drawing graphs step by step takes it 50 times as long
def test_every_dag_ends_and_a_step_runs_if_all_before_it_completed(seed: int) -> None:
    chance = random.Random(seed)
    graph = steps = random_graph(chance)
    ran: set[int] = set()
    turns = 0
    while waiting := [place for place, each in enumerate(steps) if each.status == Status.QUEUED]:
        turns += 1
        assert turns <= 30
        steps = list(steps)
        for place in chance.sample(waiting, min(len(waiting), chance.randint(1, 3))):
            steps[place] = steps[place]._replace(status=chance.choice(OUTCOMES))
            ran.add(place)
        moves = advance(steps)
        steps = moved(steps, moves)
        assert advance(steps) == Moves([], {}, moves.end), "looking twice gives the same"
    assert all(each.status in TERMINAL for each in steps)
    assert moves.end is not None

    def completed(place: int) -> bool:
        return steps[place].status == Status.COMPLETED

    should_run = {place for place, each in enumerate(graph) if all(map(completed, each.parents))}
    assert ran == should_run
    failed = any(
        each.status != Status.COMPLETED and each.on_failure == "fail"
        for place, each in enumerate(steps)
        if place in ran
    )
    assert moves.end.status is (DagStatus.FAILED if failed else DagStatus.COMPLETED)
    for place, each in enumerate(steps):
        if place not in ran:
            assert each.error_code in {"parent_failed", "parent_skipped"}
            guilty = (each.error_message or "").split()[1]
            assert int(guilty[1:]) in ran, "the step that is named is one that ran"

    again = ready_again(steps)
    assert set(again) == {place for place in range(len(steps)) if not completed(place)}
    assert all(status is Status.PENDING or all(map(completed, steps[place].parents)) for place, status in again.items())


def test_a_step_is_released_when_the_last_of_its_parents_has_completed() -> None:
    a, b, c = step("a", "COMPLETED"), step("b", "PROCESSING"), step("c", "PENDING", 0, 1)
    assert advance([a, b, c]) == Moves([], {}, None)
    assert advance([a, b._replace(status="COMPLETED"), c]) == Moves([2], {}, None)


def test_what_follows_a_failed_step_never_runs_and_says_why() -> None:
    steps = [step("write", "FAILED", code="refused"), step("draw", "PENDING", 0), step("film", "PENDING", 1)]
    stop = Stop("parent_failed", "step write is FAILED (refused)")
    end = DagEnd(DagStatus.FAILED, "write", "step_failed", "step write is FAILED (refused)")
    assert advance(steps) == Moves([], {1: stop, 2: stop}, end)


def test_a_failure_that_is_to_be_skipped_leaves_the_dag_whole() -> None:
    steps = [
        step("write", "COMPLETED"),
        step("draw", "FAILED", 0, on_failure="skip", code="x"),
        step("film", "PENDING", 1),
    ]
    moves = advance(steps)
    assert moves.stopped == {2: Stop("parent_skipped", "step draw is FAILED (x)")}
    assert moves.end == DagEnd(DagStatus.COMPLETED)


def test_a_failure_that_counts_goes_before_one_that_is_skipped() -> None:
    steps = [
        step("a", "FAILED", on_failure="skip", code="x"), step("b", "FAILED", code="y"), step("c", "PENDING", 0, 1),
    ]  # fmt: skip
    assert advance(steps).stopped == {2: Stop("parent_failed", "step b is FAILED (y)")}


@pytest.mark.parametrize("status", ["CANCELLED", "EXPIRED"])
def test_a_step_that_was_cancelled_or_expired_has_failed(status: str) -> None:
    end = advance([step("a", status)]).end
    assert end == DagEnd(DagStatus.FAILED, "a", "step_failed", f"step a is {status}")


def test_a_step_that_found_a_file_gone_takes_its_parents_along_when_it_is_resumed() -> None:
    steps = [
        step("write", "COMPLETED"), step("draw", "COMPLETED", 0), step("film", "FAILED", 1, code="input_gone"),
        step("other", "COMPLETED", 1), step("last", "CANCELLED", 2, code="parent_failed"), step("away", "FAILED", 3),
    ]  # fmt: skip
    assert ready_again(steps) == {1: "QUEUED", 2: "PENDING", 4: "PENDING", 5: "QUEUED"}
    steps[2] = steps[2]._replace(parents=(0, 1))
    assert ready_again(steps) == {0: "QUEUED", 1: "PENDING", 2: "PENDING", 4: "PENDING", 5: "QUEUED"}
    steps[2] = steps[2]._replace(error_code="input_unusable")
    assert ready_again(steps) == {2: "QUEUED", 4: "PENDING", 5: "QUEUED"}


def test_a_cancelled_dag_is_cancelled_whatever_its_steps_became() -> None:
    steps = [step("a", "COMPLETED"), step("b", "CANCELLED", 0), step("c", "PENDING", 1)]
    moves = advance(steps, cancelled=True)
    assert (list(moves.stopped), moves.end) == ([2], DagEnd(DagStatus.CANCELLED))
