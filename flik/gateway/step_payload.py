"""The payload of a step of a chain, checked as far as it can be before its parents have made anything.

What is given literally is held against the catalog now, what references give when the step runs.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from flik import catalog
from flik.domain.dag import references
from flik.domain.dag.references import INPUT, PROMPT, Reference
from flik.errors import FieldError, InvalidRequest
from flik.gateway.body import field_errors


def read_step_payload(
    task_type: str, payload: Mapping[str, Any], pointer: str, *, has_parents: bool
) -> list[Reference]:
    """Return the references in a step's payload; `pointer` is where the payload stands in the body.

    `has_parents`: the step depends on others, whether or not its payload names them.

    Raises:
        InvalidRequest: names every field that breaks a rule.
    """
    found, malformed = references.find(payload)
    if malformed:
        raise InvalidRequest(tuple(FieldError(f"{pointer}{each.pointer}", each.detail) for each in malformed))
    if INPUT in payload and not (found or has_parents):
        raise InvalidRequest((FieldError(f"{pointer}/{INPUT}", "takes what parents made, and this step has none"),))
    has_parents = has_parents or bool(found)
    if not has_parents and payload.get(PROMPT) is None:
        raise InvalidRequest((FieldError(f"{pointer}/{PROMPT}", "is required: the step has no parents to write it"),))
    model = catalog.step_model(task_type, payload, has_parents=has_parents)
    try:
        model.model_validate(references.masked(payload))
    except ValidationError as error:
        wrong = field_errors(error, pointer, [f"{pointer}{each.pointer}" for each in found])
        if wrong:
            raise InvalidRequest(wrong) from None
    return found
