"""The catalog: strict payloads with defaults, and limits on what one task may cost."""

from typing import Any

import pytest
from pydantic import ValidationError

from flik import catalog


@pytest.mark.parametrize("task_type", list(catalog.TASK_TYPES))
def test_a_prompt_is_enough_and_defaults_are_filled_in(task_type: str) -> None:
    payload = catalog.read_payload(task_type, {"prompt": "tea"})
    assert payload["prompt"] == "tea"
    assert payload["seed"] is None
    assert payload["script"] is None


def test_names_are_read_in_both_spellings_and_given_back_in_snake_case() -> None:
    assert catalog.read_payload("TEXT", {"prompt": "x", "maxWords": 7})["max_words"] == 7
    assert catalog.read_payload("TEXT", {"prompt": "x", "max_words": 7})["max_words"] == 7


def test_a_script_keeps_its_failures_in_order() -> None:
    script = {"failures": [{"code": "a"}, {"code": "b", "retryable": False}], "failAt": 0.25}
    read = catalog.read_payload("IMAGE", {"prompt": "x", "script": script})["script"]
    assert [failure["code"] for failure in read["failures"]] == ["a", "b"]
    assert (read["fail_at"], read["duration_s"], read["progress_steps"]) == (0.25, None, 5)


@pytest.mark.parametrize(
    ("task_type", "payload", "field"),
    [
        ("TEXT", {}, "prompt"),
        ("TEXT", {"prompt": ""}, "prompt"),
        ("TEXT", {"prompt": 5}, "prompt"),
        ("TEXT", {"prompt": "x", "maxWords": "9"}, "maxWords"),
        ("TEXT", {"prompt": "x", "colour": "red"}, "colour"),
        ("TEXT", {"prompt": "x", "chat": {"featureId": "f"}}, "chat"),
        ("TEXT", {"prompt": "x", "chat": {"featureId": "f", "chatId": ""}}, "chat"),
        ("IMAGE", {"prompt": "x", "width": 63}, "width"),
        ("IMAGE", {"prompt": "x", "outputFormat": "gif"}, "outputFormat"),
        ("IMAGE", {"prompt": "x", "seed": -1}, "seed"),
        ("IMAGE", {"prompt": "x", "numOutputs": True}, "numOutputs"),
        ("VIDEO", {"prompt": "x", "fps": 0}, "fps"),
        ("VIDEO", {"prompt": "x", "lengthS": float("nan")}, "lengthS"),
        ("VIDEO", {"prompt": "x", "script": {"failAt": 2}}, "script"),
    ],
)
def test_a_bad_field_is_named(task_type: str, payload: dict[str, Any], field: str) -> None:
    with pytest.raises(ValidationError) as refused:
        catalog.read_payload(task_type, payload)
    assert [error["loc"][0] for error in refused.value.errors()] == [field]


def test_a_film_that_would_take_hours_is_refused_with_the_sum() -> None:
    huge = {"prompt": "x", "width": 2048, "height": 2048, "fps": 60, "lengthS": 30.0, "numOutputs": 8}
    with pytest.raises(ValidationError, match="60,397,977,600 pixels; the most is 1,073,741,824"):
        catalog.read_payload("VIDEO", huge)


def test_half_a_minute_of_720p_is_accepted() -> None:
    assert catalog.read_payload("VIDEO", {"prompt": "x", "width": 1280, "height": 720, "fps": 30, "lengthS": 30.0})
