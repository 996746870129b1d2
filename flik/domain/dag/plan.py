"""The steps of a dag as a graph: who is called what, who waits for whom, and in which order they can run.

A step that names no parents follows the one before it, as long as no step names any: then the list is a chain. As
soon as one step has `depends_on`, an empty one too, the list is a graph, and steps without it are roots. A reference
in a payload, `{"$from": "describe"}`, makes the step that it names a parent in any case.

    plan([StepSpec("describe", "TEXT", {"prompt": "a harbour"}), StepSpec("draw", "IMAGE"), StepSpec("film", "VIDEO")])

A dag has at most 100 steps, and at most 50 on any way through it. What breaks a rule is named by its place in the
body of a request, `/steps/2/dependsOn/0`; steps have the order of the caller throughout.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from heapq import heapify, heappop, heappush
from itertools import islice, pairwise
from typing import Any, Literal, NamedTuple

from flik.domain.dag.references import FROM
from flik.errors import FieldError, InvalidRequest

MAX_STEPS = 100
MAX_DEPTH = 50
MAX_NAMED = 100  # broken rules that one refusal names
STEP_ID = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,63}")

OnFailure = Literal["fail", "skip"]


class StepSpec(NamedTuple):
    """One step as a caller described it; None is what was left out."""

    step_id: str | None
    task_type: str
    payload: Mapping[str, Any] = {}
    depends_on: tuple[str, ...] | None = None
    priority: int | None = None
    start_deadline_s: float | None = None
    max_attempts: int | None = None
    on_failure: OnFailure = "fail"
    reuse: bool = False


class PlannedStep(NamedTuple):
    """A step with its id in `spec`, and the places of its parents and children.

    Parents are in the order of `dependsOn`, then of the references; that is the order in which a prompt is joined.
    """

    spec: StepSpec
    parents: tuple[int, ...]
    children: tuple[int, ...]

    @property
    def step_id(self) -> str:
        """The caller's id, or the default by place."""
        return str(self.spec.step_id)


class Plan(NamedTuple):
    """A dag that can run: its steps as the caller ordered them, and their places with parents before children."""

    steps: tuple[PlannedStep, ...]
    order: tuple[int, ...]


Edges = dict[int, str]
"""The parents of a step, each with what names it: the pointer; empty for the step before it in a chain."""


def plan(steps: Sequence[StepSpec]) -> Plan:
    """Return the graph of the steps.

    Raises:
        InvalidRequest: an id that is no id or is there twice, a parent that is unknown or the step itself, steps that
            wait for one another, none or more than 100 steps, more than 50 on one way.
    """
    if not 1 <= len(steps) <= MAX_STEPS:
        raise InvalidRequest((FieldError("/steps", f"must have 1 to {MAX_STEPS} steps, not {len(steps):,}"),))
    named = [step if step.step_id is not None else step._replace(step_id=default_id(n)) for n, step in enumerate(steps)]
    _refuse(_wrong_ids(steps, named))
    edges = _edges_of(named)
    order = _order_of(edges)
    if len(order) < len(named):
        _refuse(_cycle(named, edges, set(order)))
    _refuse(_too_deep(edges, order))
    children = [tuple(child for child, parents in enumerate(edges) if n in parents) for n in range(len(named))]
    return Plan(tuple(map(PlannedStep, named, map(tuple, edges), children)), order)


def default_id(place: int) -> str:
    """Return the id of a step without one: "step-1" for the first."""
    return f"step-{place + 1}"


def references_in(value: Any, pointer: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the references in a payload in order, malformed ones too: where each stands, and what its `$from` is."""
    if isinstance(value, Mapping):
        if FROM in value:
            yield pointer, value[FROM]
            return
        for name, item in value.items():
            yield from references_in(item, f"{pointer}/{_escape(str(name))}")
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            yield from references_in(item, f"{pointer}/{index}")


def _refuse(errors: Iterator[FieldError]) -> None:
    found = tuple(islice(errors, MAX_NAMED))
    if found:
        raise InvalidRequest(found)


def _wrong_ids(given: Sequence[StepSpec], named: Sequence[StepSpec]) -> Iterator[FieldError]:
    places: dict[str, int] = {}
    for place, step in enumerate(named):
        step_id = str(step.step_id)
        if not STEP_ID.fullmatch(step_id):
            yield FieldError(
                f"/steps/{place}/id", "must be 1 to 64 letters, digits, - and _, of which the first is a letter"
            )
        elif step_id in places:
            first = places[step_id]
            later = place if given[place].step_id is not None else first  # a default cannot be pointed at
            yield FieldError(f"/steps/{later}/id", f"is the id of step {first + place - later + 1} too: {step_id}")
        places.setdefault(step_id, place)


def _edges_of(steps: Sequence[StepSpec]) -> list[Edges]:
    places = {str(step.step_id): place for place, step in enumerate(steps)}
    is_chain = all(step.depends_on is None for step in steps)
    edges: list[Edges] = []
    errors: list[FieldError] = []
    for place, step in enumerate(steps):
        parents: Edges = {place - 1: ""} if is_chain and place else {}
        for pointer, step_id in _parents_named_by(place, step):
            parent = places.get(step_id) if isinstance(step_id, str) else None
            if parent is None or parent == place:
                errors.append(FieldError(pointer, _why_no_parent(step_id, parent)))
            else:
                parents[parent] = parents.get(parent) or pointer
        edges.append(parents)
    _refuse(iter(errors))
    return edges


def _parents_named_by(place: int, step: StepSpec) -> Iterator[tuple[str, Any]]:
    for index, step_id in enumerate(step.depends_on or ()):
        yield f"/steps/{place}/dependsOn/{index}", step_id
    for pointer, step_id in references_in(step.payload):
        yield f"/steps/{place}/payload{pointer}", step_id


def _why_no_parent(step_id: Any, parent: int | None) -> str:
    if not isinstance(step_id, str):
        return "must name a step by its id"
    return f"there is no step {step_id[:64]}" if parent is None else f"is the step itself: {step_id}"


def _order_of(edges: Sequence[Edges]) -> tuple[int, ...]:
    """Return the places, parents first, and otherwise as they stand; those in a cycle or behind one are left out."""
    waits_for = [len(parents) for parents in edges]
    ready = [place for place, count in enumerate(waits_for) if not count]
    heapify(ready)
    order: list[int] = []
    while ready:
        done = heappop(ready)
        order.append(done)
        for child, parents in enumerate(edges):
            if done in parents:
                waits_for[child] -= 1
                if not waits_for[child]:
                    heappush(ready, child)
    return tuple(order)


def _cycle(steps: Sequence[StepSpec], edges: Sequence[Edges], ordered: set[int]) -> Iterator[FieldError]:
    """Yield one cycle among the steps that have no place in the order: each of those waits for another of them."""
    way = [next(place for place in range(len(steps)) if place not in ordered)]
    while way.count(way[-1]) < 2:
        way.append(next(parent for parent in edges[way[-1]] if parent not in ordered))
    cycle = way[way.index(way[-1]) :]
    names = " -> ".join(str(steps[place].step_id) for place in cycle)
    pointers = (edges[place][parent] for place, parent in pairwise(cycle))
    yield FieldError(next(filter(None, pointers)), f"these steps wait for one another: {names}")


def _too_deep(edges: Sequence[Edges], order: Sequence[int]) -> Iterator[FieldError]:
    depths: dict[int, int] = {}
    for place in order:
        depths[place] = 1 + max((depths[parent] for parent in edges[place]), default=0)
        if depths[place] > MAX_DEPTH:
            yield FieldError(f"/steps/{place}", f"has more than {MAX_DEPTH - 1} steps before it, one after another")
            return


def _escape(name: str) -> str:
    return name[:200].replace("~", "~0").replace("/", "~1")
