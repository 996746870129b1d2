"""Payloads of steps: what is given literally is checked at submit, what references give is not yet."""

from __future__ import annotations

from typing import Any

import pytest

from flik.domain.dag.references import Reference
from flik.errors import InvalidRequest
from flik.gateway.step_payload import read_step_payload

FROM_A = {"$from": "a", "path": "metadata.b"}


def errors_of(task_type: str, payload: dict[str, Any], *, has_parents: bool = True) -> dict[str, str]:
    with pytest.raises(InvalidRequest) as refused:
        read_step_payload(task_type, payload, "/steps/3/payload", has_parents=has_parents)
    return {error.pointer.removeprefix("/steps/3/payload"): error.detail for error in refused.value.errors}


def accepted(task_type: str, payload: dict[str, Any], *, has_parents: bool = True) -> list[Reference]:
    return read_step_payload(task_type, payload, "/steps/3/payload", has_parents=has_parents)


def test_references_are_returned_with_their_places_in_the_payload() -> None:
    payload = {"prompt": {"$from": "a"}, "input": {"$from": "b"}, "width": 64}
    assert accepted("IMAGE", payload) == [Reference("/prompt", "a", "text"), Reference("/input", "b", "artifacts")]


@pytest.mark.parametrize(
    ("task_type", "payload"),
    [
        ("TEXT", {"maxWords": FROM_A, "seed": FROM_A, "style": FROM_A}),
        ("TEXT", {"max_words": FROM_A}),
        ("TEXT", {"chat": {"featureId": FROM_A, "chatId": "c", "messages": FROM_A}}),
        ("TEXT", {"chat": FROM_A, "script": FROM_A}),
        ("IMAGE", {"script": {"failures": [FROM_A, {"code": FROM_A}], "failAt": FROM_A}}),
        ("IMAGE", {"action": FROM_A, "outputFormat": FROM_A}),
        ("VIDEO", {"fps": FROM_A, "lengthS": 30, "width": 2048, "height": 2048}),
        ("VIDEO", {"input": [{"$from": "a"}, {"$from": "b", "path": "artifacts.1"}]}),
    ],
)
def test_what_references_give_is_not_looked_at(task_type: str, payload: dict[str, Any]) -> None:
    assert accepted(task_type, payload, has_parents=False)


@pytest.mark.parametrize(
    ("task_type", "payload", "pointers"),
    [
        ("TEXT", {"prompt": FROM_A, "maxWords": 0}, ["/maxWords"]),
        ("TEXT", {"chat": {"featureId": FROM_A}}, ["/chat/chatId"]),
        ("TEXT", {"chat": {"featureId": FROM_A, "chatId": 5}}, ["/chat/chatId"]),
        ("TEXT", {"action": FROM_A}, ["/action"]),
        ("IMAGE", {"colour": FROM_A, "width": FROM_A}, ["/colour"]),
        ("IMAGE", {"script": {"failures": [FROM_A, {"code": 5, "calls": FROM_A}]}}, ["/script/failures/1/code"]),
        ("IMAGE", {"prompt": {"$from": "a", "path": "words"}}, ["/prompt/path"]),
        ("IMAGE", {"input": "x"}, ["/input"]),
        ("VIDEO", {"prompt": FROM_A, "fps": 60, "lengthS": 30, "width": 2048, "height": 2048}, [""]),
    ],
)
def test_what_is_given_literally_is_checked(task_type: str, payload: dict[str, Any], pointers: list[str]) -> None:
    assert list(errors_of(task_type, payload)) == pointers


def test_a_step_without_parents_needs_a_prompt_and_has_no_input() -> None:
    for payload in ({}, {"action": "upscale"}):
        assert list(errors_of("IMAGE", payload, has_parents=False)) == ["/prompt"]
    assert accepted("IMAGE", {"action": "upscale", "prompt": "x"}, has_parents=False) == []
    assert accepted("IMAGE", {}) == []
    for nothing in ([], None):
        assert list(errors_of("IMAGE", {"prompt": "x", "input": nothing}, has_parents=False)) == ["/input"]
        assert accepted("IMAGE", {"prompt": "x", "input": nothing}) == []


def test_no_more_than_fifty_errors_are_named_and_those_of_references_take_no_place() -> None:
    payload = {**{f"a{number}": 1 for number in range(60)}, "width": FROM_A, "height": FROM_A}
    assert len(errors_of("IMAGE", payload)) == 50
