"""Drawings of dags: what joins what can be seen, and nothing that was named steers what reads them."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flik.cli.drawing import FORMATS, mermaid, svg, text
from flik.domain.dag.plan import Plan, StepSpec, plan

DIAMOND = plan(
    [
        StepSpec("top", "TEXT"),
        StepSpec("left", "IMAGE", {}, ("top",)),
        StepSpec("right", "IMAGE", {}, ("top",)),
        StepSpec("bottom", "VIDEO", {}, ("left", "right")),
    ]
)
STATES = {"top": "COMPLETED", "left": "PROCESSING 40%", "right": "FAILED boom: it broke"}


def lines(*drawn: str) -> str:
    return "\n".join(drawn)


def test_a_chain_is_a_step_a_line() -> None:
    chain = plan([StepSpec("describe", "TEXT"), StepSpec("draw", "IMAGE"), StepSpec(None, "VIDEO")])

    assert text(chain, {}) == lines(
        "○ describe  TEXT",
        "○ draw      IMAGE",
        "○ step-3    VIDEO",
    )


def test_a_diamond_has_rails_and_states() -> None:
    assert text(DIAMOND, STATES) == lines(
        "●   top     TEXT   COMPLETED",
        "├─╮",
        "◐ │ left    IMAGE  PROCESSING 40%",
        "│ ✗ right   IMAGE  FAILED boom: it broke",
        "├─╯",
        "○   bottom  VIDEO",
    )


def test_steps_that_have_nothing_to_do_with_one_another_are_apart() -> None:
    apart = plan([StepSpec("a", "TEXT", {}, ()), StepSpec("b", "TEXT"), StepSpec("c", "IMAGE", {}, ("b",))])

    assert text(apart, {}) == lines("○ a  TEXT", "", "○ b  TEXT", "○ c  IMAGE")


def test_rails_pass_behind_one_another() -> None:
    crossing = plan(
        [
            StepSpec("a", "TEXT"),
            StepSpec("b", "TEXT"),
            StepSpec("c", "IMAGE", {}, ("a", "b")),
            StepSpec("d", "IMAGE", {}, ("a",)),
            StepSpec("e", "VIDEO", {}, ("b", "d")),
        ]
    )

    assert text(crossing, {}) == lines(
        "○       a  TEXT",
        "├─╮",
        "│ │ ○   b  TEXT",
        "│ │ ├─╮",
        "├─│─╯ │",
        "○ │   │ c  IMAGE",
        "  ○   │ d  IMAGE",
        "  ├───╯",
        "  ○     e  VIDEO",
    )


def test_more_than_twelve_rails_become_a_list() -> None:
    wide = plan([StepSpec("a", "TEXT", {}, ()), *(StepSpec(f"b{n}", "IMAGE", {}, ("a",)) for n in range(13))])

    drawn = text(wide, {"a": "COMPLETED"}).splitlines()

    assert drawn[0] == "● a    TEXT   COMPLETED" and drawn[-1] == "○ b12  IMAGE  after a" and len(drawn) == 14


def test_mermaid_names_steps_by_place_and_colours_states() -> None:
    assert mermaid(DIAMOND, STATES) == lines(
        "flowchart TD",
        '    s0["top<br/>TEXT<br/>COMPLETED"]:::completed',
        '    s1["left<br/>IMAGE<br/>PROCESSING 40%"]:::processing',
        '    s2["right<br/>IMAGE<br/>FAILED boom#58; it broke"]:::failed',
        '    s3["bottom<br/>VIDEO"]',
        "    s0 --> s1",
        "    s0 --> s2",
        "    s1 --> s3",
        "    s2 --> s3",
        "    classDef completed fill:#d8f0dc,stroke:#2c7a3f",
        "    classDef processing fill:#d9edf7,stroke:#22698c",
        "    classDef failed fill:#f8d7da,stroke:#a02834",
    )


def boxes(drawn: str) -> dict[str, tuple[float, float]]:
    """Return the corners of the boxes by their titles."""
    found = {}
    for group in ElementTree.fromstring(drawn).iter("{http://www.w3.org/2000/svg}g"):
        title, box = group[0], group[1]
        found[(title.text or "").partition(":")[0]] = (float(box.get("x", "")), float(box.get("y", "")))
    return found


def test_svg_puts_children_below_and_siblings_side_by_side() -> None:
    found = boxes(svg(DIAMOND, STATES))

    assert found["top"][1] < found["left"][1] == found["right"][1] < found["bottom"][1]
    assert found["left"][0] + 190 < found["right"][0] and found["top"][0] == found["bottom"][0]


HOSTILE = 'x"]; click s0 "javascript:1"\n</text><script>\x00\x1b[2J\u202e'


@pytest.mark.parametrize("drawn_as", FORMATS)
def test_what_a_server_says_steers_nothing(drawn_as: str) -> None:
    drawn = FORMATS[drawn_as](plan([StepSpec("a", HOSTILE)]), {"a": HOSTILE})

    if drawn_as == "svg":
        assert len(boxes(drawn)) == 1 and "<script" not in drawn
    if drawn_as == "mermaid":
        assert len(drawn.splitlines()) == 2 and drawn.count('"') == 2 and "<script" not in drawn


@st.composite
def plans(draw: st.DrawFn) -> Plan:
    count = draw(st.integers(1, 12))
    parents = [tuple({draw(st.integers(0, place - 1)) for _ in range(draw(st.integers(0, 3)))} if place else ())
               for place in range(count)]  # fmt: skip
    return plan([StepSpec(f"s{n}", "TEXT", {}, tuple(f"s{p}" for p in each)) for n, each in enumerate(parents)])


def joined(drawn: list[str]) -> set[tuple[str, str]]:
    """Read the edges back from a drawing: follow each rail from the step above to the one below."""
    edges: set[tuple[str, str]] = set()
    rails: dict[int, set[str]] = {}
    for line in drawn:
        cells = dict(enumerate(line))
        named = re.search(r"(s\d+) ", line)
        rail_part = line[: named.start()] if named else line
        if named:
            own = rail_part.index("○")
            edges |= {(above, named[1]) for above in rails.get(own, set())}
            rails = {n: above for n, above in rails.items() if cells.get(n) == "│"}
            rails[own] = {named[1]}
        elif "├" in rail_part:
            own = rail_part.index("├")
            corners = [n for n, char in enumerate(rail_part) if char in "╮┬╯┴"]
            assert own < min(corners) and " " not in rail_part[own : max(corners)]
            for n, char in enumerate(rail_part):
                if char in "╮┬":
                    rails[n] = set(rails[own])
                elif char in "╯┴":
                    rails[own] = rails[own] | rails.pop(n)
        else:
            rails = {n: above for n, above in rails.items() if cells.get(n) == "│"}
    return edges


@settings(max_examples=500, deadline=None)
@given(plans())
def test_the_edges_of_any_dag_can_be_read_back_from_its_drawing(drawn: Plan) -> None:
    shown = text(drawn, {})
    if "after" in shown:
        return
    wanted = {(f"s{parent}", step.step_id) for step in drawn.steps for parent in step.parents}
    assert joined([f"{line} " for line in shown.splitlines()]) == wanted
    assert len(boxes(svg(drawn, {}))) == len(drawn.steps)
    assert mermaid(drawn, {}).count("-->") == len(wanted)
