"""References: found with their places, masked for the check at submit, filled with what the parents made."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from making import stored_file

from flik.domain.dag import references
from flik.domain.dag.references import MASK, Output, Reference, fill, find, masked, outputs_of
from flik.domain.task import StoredArtifact
from flik.errors import InputError

PICTURES = (stored_file(0), stored_file(1), stored_file(2))
NOTE = stored_file(0, key="note/0", content_type="text/plain; charset=utf-8")
DRAFT = Output("draft", "a harbour in fog", {"words": 4, "seen": [{"boat": "red"}], "x.y": 1, "": 2}, (NOTE,))
SKETCH = Output("sketch", None, {"seed": 7}, PICTURES)


def ref(step_id: str = "draft", path: str | None = None) -> dict[str, Any]:
    return {"$from": step_id} if path is None else {"$from": step_id, "path": path}


def filled(payload: Mapping[str, Any], *outputs: Output, most: int = 100) -> references.Filled:
    return fill(payload, outputs or (DRAFT, SKETCH), max_prompt_chars=most)


def errors_of(payload: Mapping[str, Any]) -> dict[str, str]:
    _, errors = find(payload)
    assert errors
    return {error.pointer: error.detail for error in errors}


# ---- find


def test_references_are_found_in_every_place_with_their_default_paths() -> None:
    payload = {
        "prompt": ref(),
        "style": "plain",
        "seed": ref("sketch", "metadata.seed"),
        "script": {"failures": [{"message": ref("draft", "text")}, {}]},
        "a/b~c": [ref("sketch", "metadata.a.0")],
        "input": [ref("sketch"), ref("draft", "artifacts.0")],
    }
    assert find(payload) == (
        [
            Reference("/prompt", "draft", "text"),
            Reference("/seed", "sketch", "metadata.seed"),
            Reference("/script/failures/0/message", "draft", "text"),
            Reference("/a~1b~0c/0", "sketch", "metadata.a.0"),
            Reference("/input/0", "sketch", "artifacts"),
            Reference("/input/1", "draft", "artifacts.0"),
        ],
        [],
    )


def test_one_reference_is_an_input_by_itself_and_none_or_an_empty_list_is_none() -> None:
    assert find({"input": ref("sketch", "artifacts.12")})[0] == [Reference("/input", "sketch", "artifacts.12")]
    assert find({"input": None}) == find({"input": []}) == find({}) == ([], [])


@pytest.mark.parametrize(
    ("payload", "pointer", "said"),
    [
        ({"prompt": {"$from": 5}}, "/prompt/$from", "must be the id of a step"),
        ({"prompt": {"$from": None}}, "/prompt/$from", "must be the id of a step"),
        ({"prompt": {"$from": "a", "pth": "text"}}, "/prompt/pth", "is not a known field"),
        ({"prompt": {"$from": "a", "path": 5}}, "/prompt/path", "must be text, metadata.<name>"),
        ({"prompt": {"$from": "a", "path": ""}}, "/prompt/path", "must be text"),
        ({"prompt": {"$from": "a", "path": "txt"}}, "/prompt/path", "must be text"),
        ({"prompt": {"$from": "a", "path": "text.0"}}, "/prompt/path", "must be text"),
        ({"prompt": {"$from": "a", "path": "text\n"}}, "/prompt/path", "must be text"),
        ({"prompt": {"$from": "a", "path": "metadata"}}, "/prompt/path", "must be text"),
        ({"prompt": {"$from": "a", "path": "metadata."}}, "/prompt/path", "must be text"),
        ({"prompt": {"$from": "a", "path": "metadata.a..b"}}, "/prompt/path", "must be text"),
        ({"prompt": {"$from": "a", "path": "metadata." + "a" * 500}}, "/prompt/path", "must be text"),
        ({"prompt": {"$from": "a", "path": "artifacts"}}, "/prompt/path", "leads to files, which only input takes"),
        ({"script": {"failures": [ref("a", "artifacts.0")]}}, "/script/failures/0/path", "leads to files"),
        ({"input": {"$from": "a", "path": "text"}}, "/input/path", "must be artifacts or artifacts.<index> here"),
        ({"input": [ref("a"), ref("a", "metadata.b")]}, "/input/1/path", "must be artifacts or"),
        ({"input": ref("a", "artifacts.-1")}, "/input/path", "must be text"),
        ({"input": ref("a", "artifacts.01")}, "/input/path", "must be text"),
        ({"input": ref("a", "artifacts.\u0661")}, "/input/path", "must be text"),
        ({"input": "picture.png"}, "/input", "must be a reference to files"),
        ({"input": {"from": "a"}}, "/input", "must be a reference to files"),
        ({"input": [ref("a"), 5]}, "/input/1", "must be a reference to files"),
        ({"input": [[ref("a")]]}, "/input/0", "must be a reference to files"),
        ({"input": [ref("a")] * 101}, "/input", "may hold up to 100 references"),
        ({"$from": "a"}, "", "must hold fields, not be a reference"),
    ],
)
def test_malformed_reference_is_named(payload: dict[str, Any], pointer: str, said: str) -> None:
    errors = errors_of(payload)
    assert list(errors) == [pointer]
    assert errors[pointer].startswith(said)


def test_all_that_is_wrong_is_named_at_once() -> None:
    assert list(errors_of({"prompt": {"$from": 1, "path": 2, "b": 3, "a": 4}, "input": 5})) == [
        "/prompt/$from", "/prompt/a", "/prompt/b", "/prompt/path", "/input",
    ]  # fmt: skip


def test_what_is_nested_too_deep_is_not_walked() -> None:
    deep: Any = ref()
    for _ in range(31):
        deep = [deep]
    assert find({"a": deep})[0]
    assert list(errors_of({"a": [deep]}).values()) == ["is nested deeper than 32 levels"]


# ---- masked


def test_a_mask_stands_for_what_references_give_and_the_rest_stays() -> None:
    payload = {"prompt": ref(), "width": 5, "script": {"failures": [ref(), {"code": "x"}]}, "input": ref("sketch")}
    assert masked(payload) == {"prompt": MASK, "width": 5, "script": {"failures": [MASK, {"code": "x"}]}}


# ---- fill


def test_references_get_what_the_parents_made() -> None:
    payload = {
        "prompt": ref(),
        "style": ref("draft", "metadata.seen.0.boat"),
        "script": {"progressSteps": ref("draft", "metadata.words"), "failures": [ref("draft", "metadata.seen.0")]},
        "input": [ref("sketch", "artifacts.2"), ref("draft"), ref("sketch", "artifacts.0")],
    }
    assert filled(payload) == (
        {
            "prompt": "a harbour in fog",
            "style": "red",
            "script": {"progressSteps": 4, "failures": [{"boat": "red"}]},
        },
        (PICTURES[2], NOTE, PICTURES[0]),
    )


def test_without_a_prompt_the_parents_texts_are_it_in_their_order() -> None:
    second = Output("second", "\n a lighthouse ", {}, ())
    blank = Output("blank", " \n", {}, ())
    assert filled({}, second, SKETCH, blank, DRAFT).payload == {"prompt": "a lighthouse \n\na harbour in fog"}
    assert filled({"prompt": None}, DRAFT).payload == {"prompt": "a harbour in fog"}
    assert filled({"prompt": "mine"}, DRAFT).payload == {"prompt": "mine"}


def test_without_texts_there_is_no_prompt() -> None:
    assert filled({}, SKETCH).payload == {"prompt": None}
    assert filled({"prompt": ref("blank")}, Output("blank", "", {}, ())).payload == {"prompt": None}


def test_a_prompt_that_parents_wrote_is_cut_and_one_that_was_given_is_not() -> None:
    assert filled({}, DRAFT, most=9).payload == {"prompt": "a harbour"}
    assert filled({"prompt": ref()}, DRAFT, most=9).payload == {"prompt": "a harbour"}
    assert filled({"prompt": " as it is "}, DRAFT, most=3).payload == {"prompt": " as it is "}


def test_without_an_input_all_files_of_the_parents_but_texts_are_it() -> None:
    film = Output("film", None, {}, (stored_file(0, content_type="video/mp4"),))
    assert filled({}, DRAFT, film, SKETCH).inputs == (*film.artifacts, *PICTURES)
    assert filled({"input": None}, SKETCH).inputs == PICTURES
    assert filled({"input": []}, SKETCH).inputs == ()


@pytest.mark.parametrize(
    ("payload", "said"),
    [
        ({"prompt": ref("sketch")}, "the step sketch has no text"),
        ({"prompt": ref("nobody")}, "nothing is known of what the step nobody made"),
        ({"seed": ref("draft", "metadata.seed")}, "the metadata of the step draft has nothing at seed"),
        ({"seed": ref("draft", "metadata.words.0")}, "has nothing at words.0"),
        ({"seed": ref("draft", "metadata.seen.1")}, "has nothing at seen.1"),
        ({"seed": ref("draft", "metadata.seen.-1")}, "has nothing at seen.-1"),
        ({"seed": ref("draft", "metadata.x.y")}, "has nothing at x.y"),
        ({"input": ref("sketch", "artifacts.3")}, "the step sketch has no artifacts.3"),
        ({"input": ref("nobody")}, "nothing is known"),
        ({"input": ref("empty")}, "the step empty has no artifacts"),
        ({"prompt": ref("draft", "artifacts.0")}, "the step draft has no artifacts.0"),
        ({"input": ref("draft", "text")}, "the step draft has no text"),
        ({"input": "picture.png"}, "/input of a reference is none"),
        ({"prompt": {"$from": 5}}, "/$from of a reference must be the id of a step"),
    ],
)
def test_a_path_that_leads_nowhere_is_no_input(payload: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError) as refused:
        filled(payload, DRAFT, SKETCH, Output("empty", None, {}, ()))
    assert said in refused.value.message
    assert (refused.value.error_code, refused.value.retryable) == ("input_unusable", False)


def test_what_parents_made_is_not_taken_for_a_reference() -> None:
    sly = Output("sly", None, {"a": ref("draft")}, ())
    assert filled({"style": ref("sly", "metadata.a")}, sly).payload["style"] == ref("draft")


# ---- outputs_of


def test_outputs_come_out_of_the_json_of_a_grant() -> None:
    rows = [
        {**each._asdict(), "artifacts": [dataclasses.asdict(file) for file in each.artifacts]}
        for each in (DRAFT, SKETCH)
    ]
    assert outputs_of(json.dumps(rows)) == (DRAFT, SKETCH)
    assert outputs_of('[{"step_id": "a", "text": null, "metadata": null, "artifacts": null}]') == (
        Output("a", None, {}, ()),
    )


# ---- properties

step_ids = st.from_regex(r"[a-z][a-z0-9]{0,3}", fullmatch=True)
names = st.text(st.characters(blacklist_characters=".", blacklist_categories=["Cs"]), min_size=1, max_size=4)
keys = names.filter(lambda name: name != "$from")
plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=3),
    max_leaves=8,
)
value_references = st.builds(
    ref, step_ids, st.none() | st.just("text") | st.lists(names, min_size=1, max_size=3).map(
        lambda parts: ".".join(["metadata", *parts])
    )
)  # fmt: skip
values = st.recursive(
    value_references | plain,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=3),
    max_leaves=8,
)
file_references = st.builds(ref, step_ids, st.sampled_from([None, "artifacts", "artifacts.0", "artifacts.7"]))
payloads = st.fixed_dictionaries(
    {}, optional={"prompt": values, "style": values, "input": file_references | st.lists(file_references, max_size=4)}
)
anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["$from", "path", "input", "prompt", "a"]), inner, max_size=3)
    ),
    max_leaves=12,
)


def at(value: Any, pointer: str) -> Any:
    for part in pointer.split("/")[1:]:
        name = part.replace("~1", "/").replace("~0", "~")
        value = value[int(name)] if isinstance(value, list) else value[name]
    return value


def held(value: Any) -> int:
    """Count the references in a value."""
    if isinstance(value, dict):
        return 1 if "$from" in value else sum(map(held, value.values()))
    return sum(map(held, value)) if isinstance(value, list) else 0


@given(payloads)
def test_each_well_formed_reference_is_found_where_it_stands(payload: dict[str, Any]) -> None:
    found, errors = find(payload)
    assert not errors
    assert len(found) == held(payload)
    for each in found:
        there = at(payload, each.pointer)
        assert there["$from"] == each.step_id
        assert there.get("path", each.path) == each.path
        assert each.of_files == each.pointer.startswith("/input")


@given(payloads)
def test_a_masked_payload_holds_no_reference_and_else_what_was_there(payload: dict[str, Any]) -> None:
    hidden = masked(payload)
    assert not held(hidden)
    for each in find(payload)[0]:
        if not each.of_files:
            assert at(hidden, each.pointer) == MASK
    assert masked(hidden) == hidden


@given(st.dictionaries(keys.filter(lambda name: name != "input"), plain, max_size=4))
def test_a_payload_without_references_stays_as_it_is(payload: dict[str, Any]) -> None:
    assert masked(payload) == payload
    assert find(payload) == ([], [])
    assert fill({"prompt": "p"} | payload, (), max_prompt_chars=9).payload == {"prompt": "p"} | payload | (
        {"prompt": None} if payload.get("prompt", "p") is None else {}
    )


@given(payloads, plain, st.text(max_size=12))
def test_what_references_name_comes_in_their_places(payload: dict[str, Any], value: Any, text: str) -> None:
    found, _ = find(payload)
    outputs: dict[str, Output] = {}
    for each in found:
        made = outputs.setdefault(each.step_id, Output(each.step_id, text, {}, (stored_file(0), stored_file(7))))
        kind, *parts = each.path.split(".")
        if kind == "metadata":
            put(made.metadata, parts, value)
    try:
        done = fill(payload, list(outputs.values()), max_prompt_chars=6)
    except InputError:
        assert any(each.path.startswith("metadata") for each in found)  # two paths of which one runs through the other
        return
    assert not isinstance(done.payload["prompt"], str) or payload.get("prompt") == done.payload["prompt"] or (
        len(done.payload["prompt"]) <= 6
    )  # fmt: skip
    for each in found:
        if each.path == "text" and each.pointer != "/prompt":
            assert at(done.payload, each.pointer) == text
    if "input" in payload:
        wanted = [each.path for each in found if each.of_files]
        assert len(done.inputs) == sum(2 if path == "artifacts" else 1 for path in wanted)


def put(metadata: Any, parts: list[str], value: Any) -> None:
    for part in parts[:-1]:
        metadata = metadata.setdefault(part, {})
        if not isinstance(metadata, dict):
            return
    metadata.setdefault(parts[-1], value)


@given(st.dictionaries(st.sampled_from(["input", "prompt", "a", "$from"]), anything, max_size=4))
def test_any_payload_is_read_and_is_filled_or_refused(payload: dict[str, Any]) -> None:
    found, errors = find(payload)
    files: tuple[StoredArtifact, ...] = (stored_file(0),)
    outputs = [Output(each.step_id, "t", {"a": 1}, files) for each in found]
    if not errors:
        fill(payload, outputs, max_prompt_chars=9)
    elif "$from" not in payload:
        with suppress(InputError):
            fill(payload, outputs, max_prompt_chars=9)
