"""What a step is remembered by, and what is told of one that was reused."""

from __future__ import annotations

import json
from typing import Any

import pytest
from making import stored_file

from flik.domain.dag.memo import Made, key_of, reused

RUN: dict[str, Any] = {
    "task_type": "IMAGE", "version": "v1", "payload": {"prompt": "rain", "seed": 7}, "inputs": (stored_file(0),),
}  # fmt: skip


def test_the_order_of_parameters_does_not_matter() -> None:
    assert key_of(**{**RUN, "payload": {"seed": 7, "prompt": "rain"}}) == key_of(**RUN)


@pytest.mark.parametrize(
    "changes",
    [
        {"task_type": "VIDEO"},
        {"version": "v2"},
        {"payload": {"prompt": "rain", "seed": 8}},
        {"payload": {"prompt": "rain", "seed": None}},
        {"inputs": ()},
        {"inputs": (stored_file(1),)},
        {"inputs": (stored_file(0), stored_file(0))},
    ],
    ids=["type", "version", "seed", "no seed", "no input", "another input", "an input twice"],
)
def test_whatever_goes_into_a_run_makes_its_key(changes: dict[str, Any]) -> None:
    assert key_of(**{**RUN, **changes}) != key_of(**RUN)


def test_where_an_input_lies_does_not_matter() -> None:
    assert key_of(**{**RUN, "inputs": (stored_file(0, key="elsewhere"),)}) == key_of(**RUN)


def test_what_is_reused_says_where_it_is_from_and_what_it_saved() -> None:
    made = Made("t1", '{"text": "rain", "metadata": {"seed": 7}}', (), 4.25)
    assert json.loads(reused(made, "0.010")) == {
        "text": "rain",
        "metadata": {"seed": 7},
        "reused": {"from": "t1", "saved": {"seconds": 4.25, "usd": "0.010"}},
    }
