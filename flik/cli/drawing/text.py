"""A dag as lines of text: a step a line, parents above children, joined by rails.

    ○ describe  TEXT
    ├─╮
    ○ │ draw    IMAGE
    │ ○ poster  IMAGE
    ├─╯
    ○ film      VIDEO

A rail leads from a step to a child, and what stands right below is one too; where a rail passes behind another one,
that one is drawn. A dag that would take more than 12 rails is a list, with the parents after each step.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

from flik.domain.dag.plan import Plan
from flik.domain.task import Status

MAX_RAILS = 12
MARKS: Mapping[str, str] = {
    Status.COMPLETED: "●",
    Status.PROCESSING: "◐",
    Status.FAILED: "✗",
    Status.CANCELLED: "✗",
    Status.EXPIRED: "✗",
}
WAITING = "○"


class _Row(NamedTuple):
    """A line: what is drawn, and the step that stands there; None: rails only."""

    drawn: str
    place: int | None = None


def text(plan: Plan, states: Mapping[str, str]) -> str:
    """Return the drawing, without a line break at its end."""
    rows = _rows(plan, states)
    wide = max(len(row.drawn) for row in rows)
    as_list = wide > 2 * MAX_RAILS
    if as_list:
        rows = [_Row(_mark(states.get(plan.steps[place].step_id)), place) for place in plan.order]
        wide = 1
    longest = max(len(step.step_id) for step in plan.steps)
    lines = []
    for drawn, place in rows:
        words = "" if place is None else _words(plan, place, states, longest, with_parents=as_list)
        lines.append(f"{drawn:<{wide}} {words}".rstrip())
    return "\n".join(lines)


def _words(plan: Plan, place: int, states: Mapping[str, str], longest: int, *, with_parents: bool) -> str:
    step = plan.steps[place]
    parents = ", ".join(plan.steps[parent].step_id for parent in step.parents)
    after = f"after {parents}" if with_parents and parents else ""
    words = f"{step.step_id:<{longest}}  {step.spec.task_type:<5}  {states.get(step.step_id, '')}".rstrip()
    return f"{words}  {after}".rstrip()


def _mark(state: str | None) -> str:
    return MARKS.get((state or "").partition(" ")[0], WAITING)


def _rows(plan: Plan, states: Mapping[str, str]) -> list[_Row]:
    rails: list[int | None] = []  # the step that each leads to; None: free
    rows: list[_Row] = []
    for place in plan.order:
        step = plan.steps[place]
        own, *joining = [n for n, to in enumerate(rails) if to == place] or [_free(rails, 0)]
        if not step.parents and rows and rows[-1].drawn[2 * own : 2 * own + 1].strip():
            rows.append(_Row(_rails(rails)))  # else it would look like a child of what stands above
        if joining:
            rows.append(_Row(_joint(rails, own, joining, "┴╯")))
        for rail in joining:
            rails[rail] = None
        rails[own] = place
        rows.append(_Row(_rails(rails, own, _mark(states.get(step.step_id))), place))
        rails[own] = step.children[0] if step.children else None
        forks = []
        for child in step.children[1:]:
            fork = _free(rails, own + 1)
            rails[fork] = child
            forks.append(fork)
        if forks:
            rows.append(_Row(_joint(rails, own, forks, "┬╮")))
    return rows


def _rails(rails: Sequence[int | None], own: int = -1, mark: str = "") -> str:
    return " ".join(mark if n == own else _rail(to) for n, to in enumerate(rails)).rstrip()


def _free(rails: list[int | None], first: int) -> int:
    """Return a free rail from `first` on; one is added when there is none."""
    for rail in range(first, len(rails)):
        if rails[rail] is None:
            return rail
    rails.append(None)
    return len(rails) - 1


def _joint(rails: Sequence[int | None], own: int, others: Collection[int], corners: str) -> str:
    """Draw how `own` and the rails in `others`, all to its right, meet."""
    last = max(others)
    drawn = ""
    for n, to in enumerate(rails):
        inside = own <= n < last
        if n == own:
            drawn += "├"
        elif n in others:
            drawn += corners[n == last]
        else:
            drawn += _rail(to) if to is not None or not inside else "─"
        drawn += "─" if inside else " "
    return drawn.rstrip()


def _rail(to: int | None) -> str:
    return " " if to is None else "│"
