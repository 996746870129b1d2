"""The description says what is accepted, as far as JSON Schema has words for it; tests/fuzz sends what it says."""

from __future__ import annotations

import re
from typing import Any

import httpx
import pytest
from gateway_parts import body

from flik.catalog import TASK_TYPES
from flik.gateway.headers import EXPOSED


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


def headers_of(document: dict[str, Any], method: str, path: str, status: str) -> set[str]:
    return set(document["paths"][path][method]["responses"][status].get("headers", {})) - {"X-Request-ID"}


RATE = {"RateLimit", "RateLimit-Policy"}


@pytest.mark.parametrize(
    ("method", "path", "status", "expected"),
    [
        ("post", "/api/v1/tasks", "202", {"Location", "Retry-After", "Idempotency-Replayed", *RATE}),
        ("post", "/api/v1/tasks", "429", {"Retry-After", *RATE}),
        ("post", "/api/v1/tasks", "503", {"Retry-After"}),
        ("post", "/api/v1/tasks", "409", {"Retry-After"}),
        ("post", "/api/v1/tasks/{task_id}/cancel", "409", set()),
        ("post", "/api/v1/tasks:batch", "207", {"Idempotency-Replayed", *RATE}),
        ("post", "/api/v1/tasks/{task_id}/retry", "202", RATE),
        ("post", "/api/v1/dead-letters:replay", "200", RATE),
        ("post", "/api/tasks/image/generate", "202", {"Location", "Idempotency-Replayed", *RATE}),
        ("get", "/api/v1/tasks/{task_id}", "200", {"Retry-After"}),
        ("get", "/api/v1/tasks", "200", set()),
        ("post", "/api/v1/keys", "201", {"Location"}),
        ("post", "/api/v1/tenants", "201", {"Location"}),
        ("get", "/health", "503", {"Retry-After"}),
    ],
)
def test_headers_of_answers_are_described_where_they_are_sent(
    document: dict[str, Any], method: str, path: str, status: str, expected: set[str]
) -> None:
    assert headers_of(document, method, path, status) == expected


def test_every_answer_tells_the_id_of_the_request_and_every_described_header_is_there(
    document: dict[str, Any],
) -> None:
    known = document["components"]["headers"]
    assert set(known) == set(EXPOSED)
    for operations in document["paths"].values():
        for operation in operations.values():
            for answer in operation["responses"].values():
                assert "X-Request-ID" in answer["headers"]
                assert all(each["$ref"].rpartition("/")[2] in known for each in answer["headers"].values())


async def test_headers_are_as_they_are_described(document: dict[str, Any], client: httpx.AsyncClient) -> None:
    answer = await client.post("/api/v1/tasks", json=body(), headers={"Idempotency-Key": "once"})
    again = await client.post("/api/v1/tasks", json=body(), headers={"Idempotency-Key": "once"})
    sent = {**answer.headers, "idempotency-replayed": again.headers["idempotency-replayed"]}
    for name, header in document["components"]["headers"].items():
        schema, value = header["schema"], sent[name.lower()]
        if schema["type"] == "integer":
            assert int(value) >= schema["minimum"]
        else:
            assert re.search(schema.get("pattern", "."), value)
            assert schema.get("const", value) == value
