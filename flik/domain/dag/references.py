"""Values of a step's payload that its parents make: `{"$from": "draft", "path": "metadata.words"}`.

A reference stands in the place of a value and names a step and a path into what it makes:

    text             what it wrote; the default
    metadata.a.b     a member of its result's metadata; a number counts the items of a list
    artifacts        all files it made; the default under `input`
    artifacts.2      the file with the index 2

Files are no values: they are named under the payload's key `input` alone, by one reference or a list of up to 100,
and reach the provider beside the payload. A payload without an `input` starts from all files of its parents but
texts; one without a `prompt` is prompted by their texts, a blank line between each two.

Three readers: `find` tells at submit which references there are and which are malformed, `masked` what of the payload
can be checked at submit, and `fill` puts in what the parents made, when the step runs.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import orjson

from flik.domain.task import StoredArtifact
from flik.errors import FieldError, InputError

FROM, PATH = "$from", "path"
INPUT, PROMPT = "input", "prompt"
TEXT, ARTIFACTS, METADATA = "text", "artifacts", "metadata"
MASK = "x"  # a value that a field for text takes
MAX_DEPTH = 32  # as of a body
MAX_INPUTS = 100  # references under `input`
MAX_PATH_CHARS = 500
_PATH = re.compile(rf"{TEXT}|{ARTIFACTS}(?:\.(?:0|[1-9][0-9]{{0,3}}))?|{METADATA}(?:\.[^.]+)+")


class Reference(NamedTuple):
    """One reference: the JSON pointer of its place in the payload, the step it names, and the path."""

    pointer: str
    step_id: str
    path: str

    @property
    def of_files(self) -> bool:
        """Whether it leads to files."""
        return self.path.partition(".")[0] == ARTIFACTS


class Output(NamedTuple):
    """What one parent made."""

    step_id: str
    text: str | None
    metadata: Mapping[str, Any]
    artifacts: tuple[StoredArtifact, ...]


class Filled(NamedTuple):
    """A payload with what references gave in their places, and the files that go with it."""

    payload: dict[str, Any]
    inputs: tuple[StoredArtifact, ...]


def outputs_of(text: str) -> tuple[Output, ...]:
    """Return the outputs of a step's parents from the JSON text that a grant carries, in their order there.

    It is a list of {"step_id", "text", "metadata", "artifacts"}, each artifact with the fields of a `StoredArtifact`.
    """
    return tuple(
        Output(
            each["step_id"],
            each["text"],
            each["metadata"] or {},
            tuple(StoredArtifact(**file) for file in each["artifacts"] or ()),
        )
        for each in orjson.loads(text)
    )


# ---- at submit


def find(payload: Mapping[str, Any]) -> tuple[list[Reference], list[FieldError]]:
    """Return the references in a payload, in the order in which they stand, and what is wrong with malformed ones."""
    if FROM in payload:
        return [], [FieldError("", "must hold fields, not be a reference")]
    found = [each for name, value in payload.items() for each in _in_field(name, value)]
    references = [each for each in found if isinstance(each, Reference)]
    return references, [each for each in found if isinstance(each, FieldError)]


def masked(payload: Mapping[str, Any]) -> dict[str, Any]:
    """Return the payload with a short text in the place of each reference, and without `input`.

    Held against the model of its type, what is given literally shows all its errors in their places. Errors in the
    place of a reference mean nothing, but for one: that the model has no such field.
    """
    return {name: _masked(value) for name, value in payload.items() if name != INPUT}


def _in_field(name: str, value: Any) -> Iterator[Reference | FieldError]:
    pointer = f"/{_escape(name)}"
    if name != INPUT:
        yield from _in_value(value, pointer, 2)
    elif isinstance(value, list):
        for index, item in enumerate(value[:MAX_INPUTS]):
            yield from _in_input(item, f"{pointer}/{index}")
        if len(value) > MAX_INPUTS:
            yield FieldError(pointer, f"may hold up to {MAX_INPUTS} references")
    elif value is not None:
        yield from _in_input(value, pointer)


def _in_input(value: Any, pointer: str) -> Iterator[Reference | FieldError]:
    if not _is_reference(value):
        yield FieldError(pointer, f'must be a reference to files: {{"{FROM}": "<step id>"}}')
        return
    for each in _read(value, pointer, ARTIFACTS):
        if isinstance(each, Reference) and not each.of_files:
            yield FieldError(f"{pointer}/{PATH}", f"must be {ARTIFACTS} or {ARTIFACTS}.<index> here")
        else:
            yield each


def _in_value(value: Any, pointer: str, depth: int) -> Iterator[Reference | FieldError]:
    if _is_reference(value):
        for each in _read(value, pointer, TEXT):
            if isinstance(each, Reference) and each.of_files:
                yield FieldError(f"{pointer}/{PATH}", f"leads to files, which only {INPUT} takes")
            else:
                yield each
    elif isinstance(value, dict | list):
        if depth > MAX_DEPTH:
            yield FieldError(pointer, f"is nested deeper than {MAX_DEPTH} levels")
            return
        for name, item in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _in_value(item, f"{pointer}/{_escape(str(name))}", depth + 1)


def _read(value: Mapping[str, Any], pointer: str, default: str) -> Iterator[Reference | FieldError]:
    """Yield a reference, or all that is wrong with it."""
    step_id, path = value[FROM], value.get(PATH)
    path = default if path is None else path
    errors = [FieldError(f"{pointer}/{_escape(name)}", "is not a known field") for name in value.keys() - {FROM, PATH}]
    if not isinstance(step_id, str):
        errors.append(FieldError(f"{pointer}/{FROM}", "must be the id of a step"))
    if not isinstance(path, str) or len(path) > MAX_PATH_CHARS or not _PATH.fullmatch(path):
        known = f"{TEXT}, {METADATA}.<name>, {ARTIFACTS} or {ARTIFACTS}.<index>"
        errors.append(FieldError(f"{pointer}/{PATH}", f"must be {known}"))
    if errors:
        yield from sorted(errors, key=lambda error: error.pointer)
    else:
        yield Reference(pointer, step_id, path)


def _is_reference(value: Any) -> bool:
    return isinstance(value, dict) and FROM in value


def _masked(value: Any) -> Any:
    if _is_reference(value):
        return MASK
    if isinstance(value, dict):
        return {name: _masked(item) for name, item in value.items()}
    return [_masked(item) for item in value] if isinstance(value, list) else value


def _escape(key: str) -> str:
    return key[:200].replace("~", "~0").replace("/", "~1")  # RFC 6901, section 3


# ---- when the step runs


def fill(payload: Mapping[str, Any], outputs: Sequence[Output], *, max_prompt_chars: int) -> Filled:
    """Return the payload with what the parents made, and the files that the generation starts from.

    A prompt that the parents wrote ends after `max_prompt_chars`; if all they wrote is blank there is none.

    Raises:
        InputError: a path leads nowhere.
    """
    by_step = {output.step_id: output for output in outputs}
    filled = {name: _filled(value, by_step) for name, value in payload.items() if name != INPUT}
    if payload.get(PROMPT) is None:
        filled[PROMPT] = "\n\n".join(output.text for output in outputs if output.text and not output.text.isspace())
    if not _is_literal(payload.get(PROMPT)) and isinstance(filled[PROMPT], str):
        filled[PROMPT] = filled[PROMPT].strip()[:max_prompt_chars] or None
    return Filled(filled, _inputs(payload.get(INPUT), outputs, by_step))


def _is_literal(value: Any) -> bool:
    return value is not None and not _is_reference(value)


def _filled(value: Any, by_step: Mapping[str, Output]) -> Any:
    if _is_reference(value):
        return _value(_checked(value, TEXT), by_step)
    if isinstance(value, dict):
        return {name: _filled(item, by_step) for name, item in value.items()}
    return [_filled(item, by_step) for item in value] if isinstance(value, list) else value


def _inputs(given: Any, outputs: Sequence[Output], by_step: Mapping[str, Output]) -> tuple[StoredArtifact, ...]:
    if given is None:
        made = (file for output in outputs for file in output.artifacts)
        return tuple(file for file in made if not file.content_type.startswith("text/"))
    references = given if isinstance(given, list) else [given]
    return tuple(file for each in references for file in _files(_checked(each, ARTIFACTS), by_step))


def _checked(value: Any, default: str) -> Reference:
    """Return a reference; it was well-formed when it was submitted."""
    found = next(_read(value, "", default)) if _is_reference(value) else FieldError(f"/{INPUT}", "is none")
    if isinstance(found, FieldError):
        raise InputError(f"{found.pointer} of a reference {found.detail}")
    return found


def _output(reference: Reference, by_step: Mapping[str, Output]) -> Output:
    if reference.step_id not in by_step:
        raise InputError(f"nothing is known of what the step {reference.step_id} made")
    return by_step[reference.step_id]


def _value(reference: Reference, by_step: Mapping[str, Output]) -> Any:
    output = _output(reference, by_step)
    kind, _, rest = reference.path.partition(".")
    if kind == METADATA:
        return _member(output, rest)
    if kind == ARTIFACTS or output.text is None:
        raise InputError(f"the step {output.step_id} has no {reference.path}")
    return output.text


def _member(output: Output, path: str) -> Any:
    value: Any = output.metadata
    for name in path.split("."):
        if isinstance(value, Mapping) and name in value:
            value = value[name]
        elif isinstance(value, list) and re.fullmatch("[0-9]{1,9}", name) and int(name) < len(value):
            value = value[int(name)]
        else:
            raise InputError(f"the metadata of the step {output.step_id} has nothing at {path}")
    return value


def _files(reference: Reference, by_step: Mapping[str, Output]) -> tuple[StoredArtifact, ...]:
    output = _output(reference, by_step)
    kind, _, index = reference.path.partition(".")
    found = tuple(file for file in output.artifacts if not index or file.index == int(index))
    if kind != ARTIFACTS or not found:
        raise InputError(f"the step {output.step_id} has no {reference.path}")
    return found
