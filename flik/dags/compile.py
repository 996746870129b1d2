"""Reads a graph of Ray's into steps, and makes a graph of steps; the insides of `ray.dag` are known here alone.

Without a cluster, and without `DAGNode.execute()`: the nodes are walked. A node that was given without a name is a
parent to come after, one inside the payload becomes a reference, `{"$from": "describe"}`, and the input is filled in.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from ray.dag import DAGNode, FunctionNode, InputAttributeNode, InputNode, MultiOutputNode

from flik.dags.compose import MARK, step
from flik.domain.dag.plan import MAX_STEPS, PlannedStep, StepSpec, default_id, plan, references_in
from flik.domain.dag.references import FROM

SENT_AS = {
    "step_id": "id",
    "task_type": "taskType",
    "payload": "payload",
    "depends_on": "dependsOn",
    "priority": "priority",
    "start_deadline_s": "startDeadlineS",
    "max_attempts": "maxAttempts",
    "on_failure": "onFailure",
    "reuse": "reuse",
}
"""What the fields of a step are called in `POST /api/v1/dags`."""


def steps_of(graph: DAGNode, *inputs: Any, **named: Any) -> tuple[StepSpec, ...]:
    """Return the steps of a graph, parents first, from its last node or from a `MultiOutputNode` of several.

    The input is read as Ray reads it: `inp` is the one value given; `inp.prompt` and `inp["prompt"]` are a value
    given by that name, or stand in the one object given; `inp[0]` is the first value, or the first of the one list.

    Raises:
        ValueError: a node is no step, two have one id, there are more than 100, an input is missing.
    """
    nodes = _steps_before(_ends_of(graph))
    ids = _ids_of(nodes)
    given = _Input(inputs, named)
    return tuple(_step_of(node, ids, given) for node in nodes)


def graph_of(steps: Sequence[StepSpec | Mapping[str, Any]]) -> DAGNode:
    """Return the graph of the steps: its last node, or a `MultiOutputNode` of those that no other waits for.

    Steps may be objects as they are sent (`taskType`, `dependsOn` ...), too.

    Raises:
        InvalidRequest: the steps are no dag.
        ValueError: a payload has a field that Ray's `bind` cannot take (`self`), or a step one that none has.
    """
    found = plan([each if isinstance(each, StepSpec) else _read(each) for each in steps])
    nodes: dict[str, DAGNode] = {}
    for place in found.order:
        planned = found.steps[place]
        parents = [found.steps[parent].step_id for parent in planned.parents]
        nodes[planned.step_id] = _node_of(planned, parents, nodes)
    ends = [nodes[planned.step_id] for planned in found.steps if not planned.children]
    return ends[0] if len(ends) == 1 else MultiOutputNode(ends)


class _Input:
    """What a graph was given to run with."""

    def __init__(self, inputs: Sequence[Any], named: Mapping[str, Any]) -> None:
        self._inputs = inputs
        self._named = named

    def read(self, node: DAGNode) -> Any:
        """Return the value that an input node stands for."""
        if isinstance(node, InputNode):
            if len(self._inputs) != 1 or self._named:
                raise ValueError("the graph takes its input as one value; give it one")
            return self._inputs[0]
        key = node.key
        whole = self._inputs[0] if len(self._inputs) == 1 else None
        if isinstance(key, str):
            found = {**(whole if isinstance(whole, Mapping) else {}), **self._named}
        else:
            found = dict(enumerate(whole if isinstance(whole, list | tuple) else self._inputs))
        if key not in found:
            raise ValueError(f"the graph reads {key!r} of its input, which was not given")
        return found[key]


def _ends_of(graph: Any) -> list[Any]:
    if not isinstance(graph, DAGNode):
        raise ValueError(f"a dag is made of nodes, which bind() returns; this is a {type(graph).__name__}")
    return list(graph.get_args()) if isinstance(graph, MultiOutputNode) else [graph]


def _steps_before(ends: Iterable[Any]) -> list[FunctionNode]:
    """Return the nodes that lead to the ends, these included, each after those that it is made of."""
    found: dict[FunctionNode, None] = {}
    for end in ends:
        way = [(end, iter(_parents_of(end)))]
        while way:
            _, parents = way[-1]
            parent = next((each for each in parents if each not in found), None)
            if parent is None:
                found[way.pop()[0]] = None
            else:
                way.append((parent, iter(_parents_of(parent))))
            if len(way) > MAX_STEPS or len(found) > MAX_STEPS:
                raise ValueError(f"a dag has at most {MAX_STEPS} steps")
    return list(found)


def _parents_of(node: Any) -> list[Any]:
    """Return the nodes that a step comes after or reads; what has no name must be a step."""
    _described(node)
    after = list(node.get_args())
    for each in after:
        _described(each)
    return after + [each for value in node.get_kwargs().values() for each in _steps_in(value)]


def _steps_in(value: Any) -> Iterator[DAGNode]:
    if isinstance(value, DAGNode):
        if not isinstance(value, InputNode | InputAttributeNode):
            yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from _steps_in(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _steps_in(item)


def _described(node: Any) -> StepSpec:
    """Return what `step` said of a node's function."""
    if not isinstance(node, DAGNode):
        raise ValueError(f"a payload goes by name, bind(prompt=...); what has no name is a step, not {node!r:.60}")
    if isinstance(node, InputNode | InputAttributeNode):
        raise ValueError("an input goes by name, bind(prompt=inp.prompt); it is no step")
    if isinstance(node, MultiOutputNode):
        raise ValueError("a MultiOutputNode is the end of a graph and stands nowhere else in it")
    described = getattr(node._body, MARK, None) if isinstance(node, FunctionNode) else None
    if not isinstance(described, StepSpec):
        raise ValueError(f"only what flik.dags.step() makes can be in a dag of Flik, not {_name_of(node)}")
    if node.get_options():
        raise ValueError(f"options of Ray ({', '.join(node.get_options())}) mean nothing to a step; step() has its own")
    return described


def _name_of(node: DAGNode) -> str:
    if isinstance(node, FunctionNode):
        return f"the remote function {node._body.__name__}"
    return f"an actor or its method ({type(node).__name__})"


def _ids_of(nodes: Sequence[FunctionNode]) -> dict[FunctionNode, str]:
    ids = {node: _described(node).step_id or default_id(place) for place, node in enumerate(nodes)}
    seen: set[str] = set()
    for step_id in ids.values():
        if step_id in seen:
            raise ValueError(f"two steps are called {step_id}; a step() with an id can be in a graph once")
        seen.add(step_id)
    return ids


def _step_of(node: FunctionNode, ids: Mapping[FunctionNode, str], given: _Input) -> StepSpec:
    payload = {name: _plain(value, ids, given) for name, value in node.get_kwargs().items()}
    after = tuple(ids[parent] for parent in node.get_args())
    return _described(node)._replace(step_id=ids[node], payload=payload, depends_on=after)


def _plain(value: Any, ids: Mapping[FunctionNode, str], given: _Input) -> Any:
    """Return a value of a payload as JSON has it: steps as references, inputs as what was given."""
    if isinstance(value, InputNode | InputAttributeNode):
        return given.read(value)
    if isinstance(value, DAGNode):
        return {FROM: ids[value]}
    if isinstance(value, Mapping):
        part_of = value.get(FROM)  # output() puts a step there
        plain = {name: _plain(item, ids, given) for name, item in value.items()}
        return plain | {FROM: ids[part_of]} if isinstance(part_of, FunctionNode) else plain
    if isinstance(value, list | tuple):
        return [_plain(item, ids, given) for item in value]
    return value


def _read(step: Mapping[str, Any]) -> StepSpec:
    """Return a step as it is sent; what its values may be is for `plan` and the gateway to say."""
    unknown = sorted(set(step) - set(SENT_AS.values()))
    if unknown or "taskType" not in step:
        raise ValueError(f"a step has a taskType and {', '.join(sorted(SENT_AS.values()))}, not {unknown}")
    given = {name: step[sent] for name, sent in SENT_AS.items() if step.get(sent) is not None}
    if "depends_on" in given:
        given["depends_on"] = tuple(given["depends_on"])
    return StepSpec(**{"step_id": None, **given})


def _node_of(planned: PlannedStep, parents: Sequence[str], nodes: Mapping[str, DAGNode]) -> DAGNode:
    spec = planned.spec
    if "self" in spec.payload:
        raise ValueError("a payload with a field `self` cannot be bound")
    made = step(
        spec.task_type, id=spec.step_id, priority=spec.priority, start_deadline_s=spec.start_deadline_s,
        max_attempts=spec.max_attempts, on_failure=spec.on_failure, reuse=spec.reuse,
    )  # fmt: skip
    after = _unread(parents, [step_id for _, step_id in references_in(spec.payload)])
    payload = {name: _with_nodes(value, nodes) for name, value in spec.payload.items()}
    return made.bind(*(nodes[parent] for parent in after), **payload)


def _unread(parents: Sequence[str], read: Sequence[str]) -> Sequence[str]:
    """Return the parents that have to be named so that, with those that are read, all are there in their order."""
    for count in range(len(parents)):
        if list(dict.fromkeys([*parents[:count], *read])) == list(parents):
            return parents[:count]
    return parents


def _with_nodes(value: Any, nodes: Mapping[str, DAGNode]) -> Any:
    """Return a value of a payload with nodes where it refers to steps."""
    if isinstance(value, Mapping):
        if FROM in value:
            node = nodes[value[FROM]]
            return node if len(value) == 1 else {**value, FROM: node}
        return {name: _with_nodes(item, nodes) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_with_nodes(item, nodes) for item in value]
    return value
