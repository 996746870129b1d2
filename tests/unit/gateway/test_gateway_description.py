"""The description says what is accepted, as far as JSON Schema has words for it; tests/fuzz sends what it says."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from flik.catalog import TASK_TYPES


@pytest.fixture
async def document(client: httpx.AsyncClient) -> dict[str, Any]:
    found: dict[str, Any] = (await client.get("/openapi.json")).json()
    return found


def parameters(document: dict[str, Any], method: str, path: str) -> dict[str, Any]:
    return {each["name"]: each["schema"] for each in document["paths"][path][method]["parameters"]}


def test_a_task_is_of_one_type_with_its_own_payload(document: dict[str, Any]) -> None:
    schemas = document["components"]["schemas"]
    kinds = [schemas[each["$ref"].rpartition("/")[2]] for each in schemas["TaskRequest"]["oneOf"]]
    assert [kind["properties"]["taskType"]["const"] for kind in kinds] == list(TASK_TYPES)
    assert schemas["TaskRequest"]["discriminator"]["mapping"]["IMAGE"] == "#/components/schemas/ImageTaskRequest"
    for kind, row in zip(kinds, TASK_TYPES.values(), strict=True):
        assert kind["properties"]["payload"] == {"$ref": f"#/components/schemas/{row.payload.__name__}"}
        assert kind["additionalProperties"] is False
        assert kind["required"] == ["taskType", "payload"]
    assert schemas["VideoPayload"]["properties"]["fps"]["maximum"] == 60


def test_regions_are_those_of_this_service(document: dict[str, Any]) -> None:
    region = document["components"]["schemas"]["TextTaskRequest"]["properties"]["region"]
    assert region["anyOf"] == [{"type": "string", "enum": ["us-east"]}, {"type": "null"}]


def test_texts_that_are_stored_hold_no_nul(document: dict[str, Any]) -> None:
    schemas = document["components"]["schemas"]
    for model, name in (("TextPayload", "prompt"), ("NewKey", "name"), ("TenantChange", "name")):
        assert schemas[model]["properties"][name]["pattern"] == r"^[^\u0000]*$"


def test_replay_wants_a_filter_that_is_not_null(document: dict[str, Any]) -> None:
    replay = document["components"]["schemas"]["ReplayRequest"]
    assert [each["required"][0] for each in replay["anyOf"]] == [
        "taskType", "tenantId", "priority", "errorCode", "createdAfter", "createdBefore", "all",
    ]  # fmt: skip
    assert replay["anyOf"][-1]["properties"] == {"all": {"const": True}}
    assert replay["properties"]["taskType"]["anyOf"][0]["enum"] == list(TASK_TYPES)


@pytest.mark.parametrize(
    ("method", "path", "name"),
    [("get", "/api/v1/tasks/{task_id}", "task_id"), ("delete", "/api/v1/keys/{key_id}", "key_id"),
     ("post", "/api/v1/dead-letters/{task_id}/replay", "task_id"), ("delete", "/api/tasks/{task_id}", "task_id")],
)  # fmt: skip
def test_ids_in_paths_are_uuids(document: dict[str, Any], method: str, path: str, name: str) -> None:
    schema = parameters(document, method, path)[name]
    assert (schema["type"], schema["format"]) == ("string", "uuid")


def test_queries_tell_types_bounds_and_words(document: dict[str, Any]) -> None:
    query = parameters(document, "get", "/api/v1/tasks")
    assert query["limit"] == {"type": "integer", "minimum": 1, "maximum": 100, "default": 50}
    assert query["status"]["enum"] == [
        "PENDING", "QUEUED", "PROCESSING", "COMPLETED", "FAILED", "CANCELLED", "EXPIRED",
    ]  # fmt: skip
    assert query["createdAfter"]["format"] == "date-time"
    assert query["cursor"]["pattern"] != parameters(document, "get", "/api/v1/tenants")["cursor"]["pattern"]
    assert parameters(document, "get", "/api/tasks/failed")["tenant_id"] == query["tenantId"]
