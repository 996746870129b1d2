"""A dag as an SVG picture: a box a step, one row a depth, parents above children."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape

from flik.domain.dag.plan import Plan
from flik.domain.task import Status

BOX_WIDTH = 190
BOX_HEIGHT = 52
GAP_X = 28
GAP_Y = 56
MARGIN = 16
SHOWN_CHARS = 24  # of a word that has to fit into a box; the whole one is its title
COLOURS: Mapping[str, tuple[str, str]] = {
    Status.COMPLETED: ("#d8f0dc", "#2c7a3f"),
    Status.PROCESSING: ("#d9edf7", "#22698c"),
    Status.FAILED: ("#f8d7da", "#a02834"),
    Status.CANCELLED: ("#f8d7da", "#a02834"),
    Status.EXPIRED: ("#f8d7da", "#a02834"),
}
NEUTRAL = ("#f4f4f2", "#5b5b57")

Point = tuple[float, float]


def svg(plan: Plan, states: Mapping[str, str]) -> str:
    """Return the picture, without a line break at its end."""
    rows = _rows(plan)
    widest = max(map(len, rows))
    width = 2 * MARGIN + widest * BOX_WIDTH + (widest - 1) * GAP_X
    height = 2 * MARGIN + len(rows) * BOX_HEIGHT + (len(rows) - 1) * GAP_Y
    corners = {place: corner for depth, row in enumerate(rows) for place, corner in _corners(row, depth, width)}
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}" '
        f'role="img" font-family="sans-serif" font-size="13">'
    ]
    for place, step in enumerate(plan.steps):
        lines += [_line(corners[parent], corners[place]) for parent in step.parents]
    for place, step in enumerate(plan.steps):
        lines.append(_box(corners[place], step.step_id, step.spec.task_type, states.get(step.step_id, "")))
    return "\n".join([*lines, "</svg>"])


def _rows(plan: Plan) -> list[list[int]]:
    """Return the places by depth; each row in the order of where the parents of its steps stand, on average."""
    depths: dict[int, int] = {}
    rows: list[list[int]] = []
    for place in plan.order:
        depths[place] = max((depths[parent] + 1 for parent in plan.steps[place].parents), default=0)
        if depths[place] == len(rows):
            rows.append([])
        rows[depths[place]].append(place)
    stands: dict[int, float] = {}
    for row in rows:
        row.sort(key=lambda place: (_middle(plan, place, stands), place))
        stands |= {place: (n + 0.5) / len(row) for n, place in enumerate(row)}
    return rows


def _middle(plan: Plan, place: int, stands: Mapping[int, float]) -> float:
    parents = plan.steps[place].parents
    return sum(stands[parent] for parent in parents) / len(parents) if parents else 0.0


def _corners(row: list[int], depth: int, width: int) -> list[tuple[int, Point]]:
    """Return the upper left corners of a row of boxes, which stands in the middle."""
    left = (width - len(row) * BOX_WIDTH - (len(row) - 1) * GAP_X) / 2
    top = MARGIN + depth * (BOX_HEIGHT + GAP_Y)
    return [(place, (left + n * (BOX_WIDTH + GAP_X), top)) for n, place in enumerate(row)]


def _line(parent: Point, child: Point) -> str:
    x, y = parent[0] + BOX_WIDTH / 2, parent[1] + BOX_HEIGHT
    to_x, to_y = child[0] + BOX_WIDTH / 2, child[1]
    bend = (y + to_y) / 2
    return (
        f'<path d="M {x:g} {y:g} C {x:g} {bend:g} {to_x:g} {bend:g} {to_x:g} {to_y:g}" '
        f'fill="none" stroke="{NEUTRAL[1]}"/>'
    )


def _box(corner: Point, step_id: str, task_type: str, state: str) -> str:
    x, y = corner
    fill, stroke = COLOURS.get(state.partition(" ")[0], NEUTRAL)
    below = f"{task_type} {state}".strip()
    return (
        f"<g><title>{_safe(step_id, 64)}: {_safe(below, 200)}</title>"
        f'<rect x="{x:g}" y="{y:g}" width="{BOX_WIDTH}" height="{BOX_HEIGHT}" rx="6" fill="{fill}" stroke="{stroke}"/>'
        f'<text x="{x + 10:g}" y="{y + 21:g}" font-weight="bold">{_safe(step_id, SHOWN_CHARS)}</text>'
        f'<text x="{x + 10:g}" y="{y + 40:g}" fill="{stroke}">{_safe(below, SHOWN_CHARS)}</text></g>'
    )


def _safe(words: str, most_chars: int) -> str:
    """Return words as XML can hold them, cut where they are too long."""
    kept = words if len(words) <= most_chars else words[: most_chars - 1] + "…"
    return escape("".join(char for char in kept if char.isprintable()))
