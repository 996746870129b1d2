"""The catalog: strict payloads with defaults, and limits on what one task may cost."""

from typing import Any

import pytest
from pydantic import ValidationError

from flik import catalog
from flik.errors import InputError


def checked(task_type: str, payload: dict[str, Any]) -> None:
    """Hold the payload of a plain task against its model, as a submit does."""
    catalog.TASK_TYPES[task_type].payload.model_validate(payload)


def fields(refused: pytest.ExceptionInfo[ValidationError]) -> list[Any]:
    return [error["loc"][0] for error in refused.value.errors()]


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
        checked(task_type, payload)
    assert fields(refused) == [field]


def test_a_film_that_would_take_hours_is_refused_with_the_sum() -> None:
    huge = {"prompt": "x", "width": 2048, "height": 2048, "fps": 60, "lengthS": 30.0, "numOutputs": 8}
    with pytest.raises(ValidationError, match="60,397,977,600 pixels; the most is 1,073,741,824"):
        checked("VIDEO", huge)


def test_half_a_minute_of_720p_is_accepted() -> None:
    assert catalog.read_payload("VIDEO", {"prompt": "x", "width": 1280, "height": 720, "fps": 30, "lengthS": 30.0})


# ---- steps of chains


@pytest.mark.parametrize("task_type", ["IMAGE", "VIDEO"])
@pytest.mark.parametrize("action", ["upscale", "watermark"])
def test_a_plain_task_has_nothing_to_act_on_and_is_told_so(task_type: str, action: str) -> None:
    with pytest.raises(ValidationError, match="needs an input to act on, which only a step of a chain has") as refused:
        checked(task_type, {"prompt": "x", "action": action})
    assert fields(refused) == ["action"]
    checked(task_type, {"prompt": "x", "action": None})


def test_what_a_plain_task_is_told_to_send_has_a_prompt_and_no_action() -> None:
    schema = catalog.TASK_TYPES["IMAGE"].payload.model_json_schema()
    assert schema["required"] == ["prompt"]
    assert schema["properties"]["action"]["type"] == "null"
    step = catalog.TASK_TYPES["IMAGE"].step.model_json_schema()
    assert "required" not in step
    assert step["properties"]["action"]["anyOf"][0]["enum"] == ["upscale", "watermark"]


@pytest.mark.parametrize("task_type", list(catalog.TASK_TYPES))
def test_a_step_needs_no_prompt_when_its_parents_may_make_one(task_type: str) -> None:
    catalog.step_model(task_type, {}, has_parents=True).model_validate({})
    with pytest.raises(ValidationError) as refused:
        catalog.step_model(task_type, {}, has_parents=False).model_validate({})
    assert fields(refused) == ["prompt"]


@pytest.mark.parametrize("task_type", ["IMAGE", "VIDEO"])
def test_a_step_that_acts_needs_no_prompt(task_type: str) -> None:
    for payload in ({"action": "upscale"}, {"action": "watermark", "prompt": "x"}):
        catalog.step_model(task_type, payload, has_parents=False).model_validate(payload)


def test_a_text_has_no_action_and_an_unknown_one_is_refused() -> None:
    for task_type, action in (("TEXT", "upscale"), ("IMAGE", "sharpen")):
        payload = {"prompt": "x", "action": action}
        with pytest.raises(ValidationError) as refused:
            catalog.step_model(task_type, payload, has_parents=True).model_validate(payload)
        assert fields(refused) == ["action"]


def test_an_upscaled_film_counts_four_times() -> None:
    film = {"prompt": "x", "width": 1280, "height": 720, "fps": 30, "lengthS": 30.0}
    catalog.TASK_TYPES["VIDEO"].step.model_validate({**film, "action": "watermark"})
    with pytest.raises(ValidationError, match="numOutputs upscaled is 3,317,760,000 pixels; the most is"):
        catalog.TASK_TYPES["VIDEO"].step.model_validate({**film, "action": "upscale"})


def test_a_provider_sees_the_action_and_whether_there_is_a_prompt() -> None:
    assert catalog.read_payload("IMAGE", {"action": "upscale"})["action"] == "upscale"
    assert catalog.read_payload("IMAGE", {"prompt": "x"})["action"] is None
    assert catalog.read_payload("TEXT", {})["prompt"] is None


def test_a_stored_payload_that_breaks_a_rule_is_no_input_and_says_where() -> None:
    with pytest.raises(InputError) as refused:
        catalog.read_payload("TEXT", {"prompt": 5, "chat": {"featureId": "f"}})
    assert not refused.value.retryable
    assert refused.value.message == (
        "the payload breaks a rule: /prompt: Input should be a valid string; /chat/chatId: Field required"
    )
    with pytest.raises(InputError, match="rule: /: width x height"):
        catalog.read_payload("VIDEO", {"fps": 60, "lengthS": 30.0, "width": 2048, "height": 2048})
