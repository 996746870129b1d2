"""The wire: camelCase, strict where callers write, open where they read."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from flik import catalog, schemas

TASK = {"tenantId": "acme", "taskType": "TEXT", "payload": {"prompt": "rain"}}
MODELS = [kind for kind in vars(schemas).values() if isinstance(kind, type) and issubclass(kind, schemas._Wire)]


def wrong(model: type[BaseModel], document: Any) -> set[tuple[Any, ...]]:
    with pytest.raises(ValidationError) as caught:
        model.model_validate(document)
    return {error["loc"] for error in caught.value.errors()}


def test_smallest_task_gets_defaults() -> None:
    read = schemas.TaskRequest.model_validate(TASK)
    assert (read.priority, read.region, read.start_deadline_s) == (1, None, None)


@pytest.mark.parametrize("tenant", ["a", "A-1_b.c:d@e", "0", "x" * 128])
def test_tenants_are_plain_names(tenant: str) -> None:
    assert schemas.TaskRequest.model_validate({**TASK, "tenantId": tenant}).tenant_id == tenant


@pytest.mark.parametrize("tenant", ["", "-a", "a b", "a/b", "ä", "a\n", "x" * 129, "@", "a\x00"])
def test_anything_else_is_no_tenant(tenant: str) -> None:
    assert wrong(schemas.TaskRequest, {**TASK, "tenantId": tenant}) == {("tenantId",)}


@pytest.mark.parametrize("priority", [-1, 3, "1", 1.5, 3.0, float("nan"), True, None, [1]])
def test_priority_is_one_of_three_whole_numbers(priority: Any) -> None:
    assert wrong(schemas.TaskRequest, {**TASK, "priority": priority}) == {("priority",)}


def test_whole_number_may_be_written_with_a_point_as_json_schema_allows() -> None:
    read = schemas.TaskRequest.model_validate({**TASK, "priority": 2.0})
    assert (read.priority, type(read.priority)) == (2, int)
    assert schemas.TenantLimits.model_validate({"burst": 5.0, "weight": None}).burst == 5
    assert wrong(schemas.TenantLimits, {"burst": 5.5, "maxQueued": 1e10}) == {("burst",), ("maxQueued",)}
    assert catalog.read_payload("IMAGE", {"prompt": "x", "width": 128.0})["width"] == 128


def test_bounds_of_optional_numbers_are_described() -> None:
    burst = schemas.TenantLimits.model_json_schema()["properties"]["burst"]["anyOf"][0]
    assert burst == {"type": "integer", "minimum": 1, "maximum": 10**9}


@pytest.mark.parametrize("deadline_s", [0.001, 1, 86_400.5, 30 * 86_400])
def test_deadline_may_be_whole_or_broken_seconds(deadline_s: float) -> None:
    assert schemas.TaskRequest.model_validate({**TASK, "startDeadlineS": deadline_s}).start_deadline_s == deadline_s


@pytest.mark.parametrize("deadline_s", [0, -1, 30 * 86_400 + 1, "5", True, float("nan"), float("inf")])
def test_impossible_deadline_is_refused(deadline_s: Any) -> None:
    assert wrong(schemas.TaskRequest, {**TASK, "startDeadlineS": deadline_s}) == {("startDeadlineS",)}


def test_unknown_fields_of_requests_are_refused() -> None:
    assert wrong(schemas.TaskRequest, {**TASK, "prio": 1}) == {("prio",)}
    assert wrong(schemas.ReplayRequest, {"status": "FAILED"}) == {("status",)}


def test_name_given_in_both_spellings_is_refused() -> None:
    assert wrong(schemas.TaskRequest, {**TASK, "tenant_id": "other"}) == {("tenant_id",)}


def test_wire_names_are_camel_case() -> None:
    for model in MODELS:
        names = model.model_json_schema(by_alias=True).get("properties", {})
        assert not [name for name in names if "_" in name], model


def test_payload_models_are_strict_and_camel_case() -> None:
    for row in catalog.TASK_TYPES.values():
        assert wrong(row.payload, {"prompt": "x", "colour": 1}) == {("colour",)}
        assert not [name for name in row.payload.model_json_schema()["properties"] if "_" in name]


@pytest.mark.parametrize("limit", [0, -1, schemas.MAX_REPLAY + 1, "5", 1.5])
def test_replay_is_bounded(limit: Any) -> None:
    assert wrong(schemas.ReplayRequest, {"limit": limit}) == {("limit",)}


def test_film_of_too_many_pixels_is_refused_before_it_is_made() -> None:
    film = {"prompt": "x", "width": 2048, "height": 2048, "lengthS": 30, "fps": 60, "numOutputs": 8}
    assert wrong(catalog.TASK_TYPES["VIDEO"].payload, film) == {()}
