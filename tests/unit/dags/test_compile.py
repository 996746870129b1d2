"""Graphs of Ray's as steps, and the way back: the same plan comes out."""

from __future__ import annotations

from typing import Any

import pytest
import ray
from hypothesis import given, settings
from hypothesis import strategies as st
from ray.dag import DAGNode

from flik.dags import InputNode, MultiOutputNode, graph_of, output, step, steps_of
from flik.domain.dag.plan import Plan, StepSpec, plan
from flik.errors import InvalidRequest

describe, draw, film = step("TEXT", id="describe"), step("IMAGE", id="draw"), step("VIDEO", id="film")


def ref(step_id: str, **others: Any) -> dict[str, Any]:
    return {"$from": step_id, **others}


# ---- from a graph to steps


def test_the_chain_of_the_readme() -> None:
    with InputNode() as inp:
        text = describe.bind(prompt=inp.prompt)
        picture = draw.bind(prompt=text, width=512)
        dag = film.bind(prompt=text, input=picture)

    assert steps_of(dag, {"prompt": "a harbour"}) == (
        StepSpec("describe", "TEXT", {"prompt": "a harbour"}, ()),
        StepSpec("draw", "IMAGE", {"prompt": ref("describe"), "width": 512}, ()),
        StepSpec("film", "VIDEO", {"prompt": ref("describe"), "input": ref("draw")}, ()),
    )


def test_what_has_no_name_is_a_step_to_come_after() -> None:
    text, picture = describe.bind(prompt="x"), draw.bind(prompt="y")

    made = steps_of(film.bind(picture, text, lengthS=2))

    assert [each.step_id for each in made] == ["draw", "describe", "film"]
    assert made[-1] == StepSpec("film", "VIDEO", {"lengthS": 2}, ("draw", "describe"))


def test_several_ends_share_what_leads_to_them_and_stand_in_the_order_given() -> None:
    text = describe.bind(prompt="x")
    picture, movie = draw.bind(text), film.bind(text)

    made = steps_of(MultiOutputNode([movie, picture, text]))

    assert [each.step_id for each in made] == ["describe", "film", "draw"]


def test_steps_without_an_id_are_called_by_their_place_and_can_be_bound_often() -> None:
    write = step("TEXT")

    made = steps_of(write.bind(write.bind(prompt="1"), write.bind(prompt="2")))

    assert [(each.step_id, each.depends_on) for each in made] == [
        ("step-1", ()),
        ("step-2", ()),
        ("step-3", ("step-1", "step-2")),
    ]


def test_one_node_used_twice_is_one_step() -> None:
    text = step("TEXT").bind(prompt="x")

    assert len(steps_of(step("TEXT").bind(text, prompt=text, more=[text, {"deep": (text,)}]))) == 2


def test_inputs_are_read_as_ray_reads_them() -> None:
    with InputNode() as inp:
        by_name = describe.bind(prompt=inp.prompt, style=inp["style"])
        by_place = describe.bind(prompt=inp[0], style=inp[1])
        whole = describe.bind(prompt=inp)

    wanted = {"prompt": "a", "style": "b"}
    assert steps_of(by_name, {"prompt": "a", "style": "b"})[0].payload == wanted
    assert steps_of(by_name, {"prompt": "a"}, style="b")[0].payload == wanted
    assert steps_of(by_name, prompt="a", style="b")[0].payload == wanted
    assert steps_of(by_place, "a", "b")[0].payload == wanted
    assert steps_of(by_place, ["a", "b"])[0].payload == wanted
    assert steps_of(whole, "a")[0].payload == {"prompt": "a"}
    with InputNode() as only:
        first = describe.bind(prompt=only[0])
    assert steps_of(first, "a text")[0].payload == {"prompt": "a text"}


# ---- what no dag can be made of


class Actor:
    def work(self, *_: Any) -> None: ...


def plain(*_: Any, **__: Any) -> None: ...


def with_input() -> DAGNode:
    with InputNode() as inp:
        return describe.bind(prompt=inp.prompt)


def long_chain(count: int) -> DAGNode:
    node = step("TEXT").bind(prompt="x")
    for _ in range(count - 1):
        node = step("TEXT").bind(node)
    return node


REFUSED = {
    "remote function": (lambda: ray.remote(plain).bind(1), "not the remote function plain"),
    "remote function in a payload": (lambda: draw.bind(prompt=[ray.remote(plain).bind()]), "remote function plain"),
    "actor": (lambda: draw.bind(prompt=ray.remote(Actor).bind()), "an actor or its method"),
    "method of an actor": (lambda: draw.bind(ray.remote(Actor).bind().work.bind()), "an actor or its method"),
    "id used twice": (lambda: draw.bind(draw.bind(prompt="x")), "two steps are called draw"),
    "default met": (lambda: step("TEXT").bind(step("TEXT", id="step-2").bind()), "two steps are called step-2"),
    "payload without a name": (lambda: draw.bind({"prompt": "x"}), "a payload goes by name"),
    "input without a name": (lambda: draw.bind(InputNode()), "an input goes by name"),
    "input that is missing": (with_input, "reads 'prompt' of its input, which was not given"),
    "input without a value": (lambda: draw.bind(prompt=InputNode()), "as one value; give it one"),
    "input as the end": (InputNode, "an input goes by name"),
    "ends inside": (lambda: draw.bind(prompt=MultiOutputNode([describe.bind()])), "the end of a graph"),
    "ends of ends": (lambda: MultiOutputNode([MultiOutputNode([describe.bind()])]), "the end of a graph"),
    "ends that are none": (lambda: MultiOutputNode([["x"]]), "a payload goes by name"),
    "options of Ray": (lambda: draw.options(num_gpus=1).bind(prompt="x"), r"options of Ray \(num_gpus\)"),
    "too many steps": (lambda: long_chain(101), "at most 100 steps"),
    "far too many steps": (lambda: long_chain(3_000), "at most 100 steps"),
    "too many ends": (lambda: MultiOutputNode([step("TEXT").bind() for _ in range(101)]), "at most 100 steps"),
    "no node": (lambda: draw, "this is a RemoteFunction"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_no_dag_can_be_made_of_is_refused_with_the_reason(case: str) -> None:
    make, reason = REFUSED[case]
    with pytest.raises(ValueError, match=reason):
        steps_of(make())


def test_the_most_steps_are_taken() -> None:
    assert len(steps_of(long_chain(100))) == 100


# ---- from steps to a graph, and back


def test_a_chain_becomes_a_graph_with_one_end() -> None:
    graph = graph_of([StepSpec("a", "TEXT", {"prompt": "x"}), StepSpec("b", "IMAGE"), StepSpec("c", "VIDEO")])

    assert not isinstance(graph, MultiOutputNode)
    assert [(each.step_id, each.depends_on) for each in steps_of(graph)] == [("a", ()), ("b", ("a",)), ("c", ("b",))]


def test_steps_that_nobody_waits_for_are_the_ends() -> None:
    graph = graph_of([StepSpec("b", "IMAGE", {}, ("a",)), StepSpec("a", "TEXT", {}), StepSpec("c", "TEXT")])

    assert isinstance(graph, MultiOutputNode) and len(graph.get_args()) == 2


def test_what_is_read_anyway_is_not_named_again() -> None:
    steps = [StepSpec("a", "TEXT"), StepSpec("b", "IMAGE", {"prompt": output("a", "text")}, ("a",))]

    assert steps_of(graph_of(steps))[-1].depends_on == ()


def test_what_is_named_first_and_not_read_stays_named() -> None:
    steps = [
        StepSpec("a", "TEXT"),
        StepSpec("b", "TEXT", {}, ()),
        StepSpec("c", "IMAGE", {"prompt": ref("b")}, ("a", "b")),
    ]

    assert steps_of(graph_of(steps))[-1].depends_on == ("a",)


def test_steps_that_are_no_dag_are_refused() -> None:
    with pytest.raises(InvalidRequest, match="there is no step ghost"):
        graph_of([StepSpec("a", "TEXT", {}, ("ghost",))])
    with pytest.raises(ValueError, match="field `self`"):
        graph_of([StepSpec("a", "TEXT", {"self": 1})])


def shape_of(found: Plan) -> dict[str, Any]:
    """All that a plan says, but for the order in which its steps were written down and what they name twice."""
    ids = [step.step_id for step in found.steps]
    return {
        step.step_id: (step.spec._replace(depends_on=None), [ids[parent] for parent in step.parents])
        for step in found.steps
    }


@st.composite
def dags(draw: st.DrawFn) -> list[StepSpec]:
    count = draw(st.integers(1, 10))
    names = [f"s{place}" for place in draw(st.permutations(range(count)))]
    is_chain = draw(st.booleans())
    made = []
    for place, name in enumerate(names):
        earlier = st.lists(st.sampled_from(names[:place]), max_size=3) if place else st.just([])
        read = [ref(other, **draw(PATHS)) for other in draw(earlier)]
        payload = draw(VALUES) | ({"read": [{"deep": read[:1]}, *read[1:]]} if read else {})
        parents = None if is_chain else tuple(draw(earlier))
        limits = (draw(st.none() | st.integers(0, 2)), draw(st.none() | st.just(2.5)), draw(st.none() | st.just(3)))
        policies = (draw(st.sampled_from(["fail", "skip"])), draw(st.booleans()))
        made.append(StepSpec(name, draw(TYPES), payload, parents, *limits, *policies))
    return made if is_chain else draw(st.permutations(made))


PATHS = st.sampled_from([{}, {"path": "artifacts.0"}, {"path": "text"}])
TYPES = st.sampled_from(["TEXT", "IMAGE", "VIDEO"])
LEAVES = st.none() | st.booleans() | st.integers() | st.text(max_size=5)
NAMES = st.text(max_size=5).filter(lambda name: name not in ("self", "$from"))
VALUES = st.dictionaries(
    NAMES, st.recursive(LEAVES, lambda inner: st.lists(inner, max_size=2), max_leaves=4), max_size=3
)


@settings(max_examples=300, deadline=None)
@given(dags())
def test_steps_that_go_through_a_graph_come_back_as_the_same_plan(steps: list[StepSpec]) -> None:
    found = plan(steps)
    back = steps_of(graph_of(steps))

    assert shape_of(plan(back)) == shape_of(found)
    assert plan(back).order == tuple(range(len(steps)))  # a graph is read parents first
    assert shape_of(plan(steps_of(graph_of(back)))) == shape_of(found)
