"""The steps of a dag as a graph: what is accepted runs, what is refused is named by its place in the body."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flik.domain.dag.plan import MAX_DEPTH, MAX_STEPS, STEP_ID, Plan, StepSpec, plan, references_in
from flik.errors import FieldError, InvalidRequest


def spec(step_id: str | None = None, *parents: str, payload: Mapping[str, Any] | None = None) -> StepSpec:
    """A step of a graph."""
    return StepSpec(step_id, "TEXT", payload or {}, parents)


def link(step_id: str | None = None, **payload: Any) -> StepSpec:
    """A step of a chain."""
    return StepSpec(step_id, "TEXT", payload)


def ref(step_id: Any, **others: Any) -> dict[str, Any]:
    return {"$from": step_id, **others}


def parents_of(found: Plan) -> dict[str, list[str]]:
    return {step.step_id: [found.steps[parent].step_id for parent in step.parents] for step in found.steps}


def refused(*steps: StepSpec) -> list[tuple[str, str]]:
    with pytest.raises(InvalidRequest) as caught:
        plan(steps)
    return [(error.pointer, error.detail) for error in caught.value.errors]


# ---- what becomes whose parent


def test_steps_without_parents_are_a_chain_and_get_ids_by_place() -> None:
    found = plan([link(), link("draw"), link()])

    assert parents_of(found) == {"step-1": [], "draw": ["step-1"], "step-3": ["draw"]}
    assert [step.children for step in found.steps] == [(1,), (2,), ()]
    assert found.order == (0, 1, 2)


def test_one_step_with_parents_makes_it_a_graph_even_an_empty_list() -> None:
    assert parents_of(plan([link("a"), link("b"), spec("c")])) == {"a": [], "b": [], "c": []}


def test_parents_named_come_first_then_those_that_are_read_each_once() -> None:
    payload = {"prompt": ref("d"), "input": [ref("b", path="artifacts.1"), ref("c"), ref("b")]}

    found = plan([spec("a"), spec("b"), spec("c"), spec("d"), spec("e", "c", "a", "c", payload=payload)])

    assert parents_of(found)["e"] == ["c", "a", "d", "b"]


def test_a_chain_reads_from_steps_further_back_too() -> None:
    found = plan([link("a"), link("b"), link("c", prompt=ref("a"))])

    assert parents_of(found)["c"] == ["b", "a"]


def test_steps_stay_as_they_stand_and_the_order_puts_parents_first() -> None:
    found = plan([spec("last", "mid"), spec("mid", "first"), spec("other"), spec("first")])

    assert [step.step_id for step in found.steps] == ["last", "mid", "other", "first"]
    assert found.order == (2, 3, 1, 0)


def test_references_are_found_in_order_however_deep() -> None:
    payload = {"a/b": {"~": [1, ref("x", path="text")]}, "plain": {"from": "y"}, "input": (ref("z"),)}

    assert list(references_in(payload)) == [("/a~1b/~0/1", "x"), ("/input/0", "z")]


def test_the_most_steps_and_the_deepest_way_are_taken() -> None:
    wide = [spec(f"w-{n}") for n in range(MAX_STEPS - MAX_DEPTH)]
    deep = [spec("d-0"), *(spec(f"d-{n}", f"d-{n - 1}") for n in range(1, MAX_DEPTH))]

    assert len(plan(wide + deep).order) == MAX_STEPS


def test_a_plan_survives_pickling() -> None:
    found = plan([link("a", prompt="x"), link("b")])

    assert pickle.loads(pickle.dumps(found)) == found


# ---- what is refused


@pytest.mark.parametrize("count", [0, 101, 5_000])
def test_none_or_too_many_steps_are_refused(count: int) -> None:
    assert refused(*[spec()] * count) == [("/steps", f"must have 1 to 100 steps, not {count:,}")]


@pytest.mark.parametrize("step_id", ["", "1a", "-a", "a b", "a/b", "é", "a\n", "a" * 65])
def test_what_is_no_id_is_refused(step_id: str) -> None:
    ((pointer, detail),) = refused(spec("a"), spec(step_id))

    assert pointer == "/steps/1/id" and "64 letters" in detail


def test_an_id_that_is_there_twice_is_refused_where_it_was_written() -> None:
    assert refused(spec("a"), spec("b"), spec("a")) == [("/steps/2/id", "is the id of step 1 too: a")]
    assert refused(spec(), spec("step-1")) == [("/steps/1/id", "is the id of step 1 too: step-1")]
    assert refused(spec("step-2"), spec()) == [("/steps/0/id", "is the id of step 2 too: step-2")]


def test_every_parent_that_is_no_step_is_named() -> None:
    payload = {"prompt": ref("gone"), "input": [ref("b"), ref(7)]}

    assert refused(spec("a", "a", "b", "x"), spec("b", payload=payload)) == [
        ("/steps/0/dependsOn/0", "is the step itself: a"),
        ("/steps/0/dependsOn/2", "there is no step x"),
        ("/steps/1/payload/prompt", "there is no step gone"),
        ("/steps/1/payload/input/0", "is the step itself: b"),
        ("/steps/1/payload/input/1", "must name a step by its id"),
    ]


def test_a_refusal_names_no_more_than_a_hundred_rules() -> None:
    assert len(refused(spec("a", *(f"x{n}" for n in range(10_000))))) == 100


def test_a_cycle_is_named_and_what_hangs_on_it_is_not() -> None:
    steps = spec("before"), spec("behind", "c"), spec("a", "before", "c"), spec("b", "a"), spec("c", "b")

    assert refused(*steps) == [("/steps/4/dependsOn/0", "these steps wait for one another: c -> b -> a -> c")]


def test_a_chain_that_reads_from_a_later_step_is_a_cycle_pointed_at_where_it_reads() -> None:
    assert refused(link("a", prompt=ref("c")), link("b"), link("c")) == [
        ("/steps/0/payload/prompt", "these steps wait for one another: a -> c -> b -> a")
    ]


def test_a_way_of_more_than_fifty_steps_is_refused_where_it_gets_too_long() -> None:
    ((pointer, detail),) = refused(*(link() for _ in range(60)))

    assert pointer == "/steps/50" and "more than 49 steps before it" in detail


# ---- whatever comes

WRONG = ["", "9", "s0", "step-2", "ghost", 7]


@st.composite
def any_steps(draw: st.DrawFn) -> list[StepSpec]:
    """Steps that wait for earlier ones, of which some then get a parent, a reference or an id that may be wrong."""
    count = draw(st.integers(1, 12))
    ids = [draw(st.sampled_from([f"s{place}", None])) for place in range(count)]
    names = [step_id or f"step-{place + 1}" for place, step_id in enumerate(ids)]
    is_chain = draw(st.booleans())
    steps = []
    for place, step_id in enumerate(ids):
        earlier = st.lists(st.sampled_from(names[:place]), max_size=3) if place else st.just([])
        read = [ref(name) for name in draw(earlier)]
        payload = {"a/~b": [{"~1": read[:1]}, 0, *read[1:]]} if read else {}
        steps.append(StepSpec(step_id, "TEXT", payload, None if is_chain else tuple(draw(earlier))))
    for place in draw(st.lists(st.integers(0, count - 1), max_size=2)):
        steps[place] = steps[place]._replace(**draw(changes(names)))
    return steps


def changes(names: list[str]) -> st.SearchStrategy[dict[str, Any]]:
    name = st.sampled_from([*names, *WRONG])
    parents = st.lists(name.filter(lambda each: isinstance(each, str)), max_size=2).map(tuple)
    return st.one_of(
        st.builds(lambda step_id: {"step_id": str(step_id)}, name),
        st.builds(lambda named: {"depends_on": named}, parents),
        st.builds(lambda read: {"payload": {"input": ref(read)}}, name),
    )


def body_of(steps: list[StepSpec]) -> dict[str, Any]:
    return {
        "steps": [
            {
                "payload": step.payload,
                **({} if step.step_id is None else {"id": step.step_id}),
                **({} if step.depends_on is None else {"dependsOn": list(step.depends_on)}),
            }
            for step in steps
        ]
    }


def resolve(body: Any, error: FieldError) -> Any:
    """Return what a JSON pointer (RFC 6901) points at."""
    for part in error.pointer.split("/")[1:]:
        name = part.replace("~1", "/").replace("~0", "~")
        body = body[int(name)] if isinstance(body, list) else body[name]
    return body


@settings(max_examples=500, deadline=None)
@given(any_steps())
def test_what_is_accepted_can_run_and_what_is_refused_is_pointed_at(steps: list[StepSpec]) -> None:
    try:
        found = plan(steps)
    except InvalidRequest as error:
        assert error.errors
        for each in error.errors:
            resolve(body_of(steps), each)
        return
    assert sorted(found.order) == list(range(len(steps)))
    done: set[int] = set()
    for place in found.order:
        assert done.issuperset(found.steps[place].parents)  # so there is no cycle
        done.add(place)
    ids = [step.step_id for step in found.steps]
    assert len(set(ids)) == len(ids) and all(map(STEP_ID.fullmatch, ids))
    for place, step in enumerate(found.steps):
        assert len(set(step.parents)) == len(step.parents)
        assert all(place in found.steps[parent].children for parent in step.parents)
        assert all(place in found.steps[child].parents for child in step.children)
        wanted = {*(step.spec.depends_on or ()), *(step_id for _, step_id in references_in(step.spec.payload))}
        assert wanted <= {ids[parent] for parent in step.parents}
        assert step.spec._replace(step_id=None) == steps[place]._replace(step_id=None)
