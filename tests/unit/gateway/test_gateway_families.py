"""Routes below /api/tasks: the same tasks in other words, and broken rules answered with 400."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from gateway_parts import Fakes, task_id, view

from flik import schemas
from flik.domain.task import Status, StoredArtifact
from flik.errors import FieldError
from flik.gateway import family_models as models
from flik.gateway.family_words import WORD_OF, in_their_words, priority_of

SUBMIT = "/api/tasks/image/generate"


def asked(**fields: Any) -> dict[str, Any]:
    return {"tenant_id": "acme", "parameters": {"prompt": "a harbour"}, **fields}


def refused(answer: httpx.Response) -> list[str]:
    assert answer.status_code == 400, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    said = schemas.Problem.model_validate(answer.json())
    assert (said.code, said.status) == ("invalid_parameters", 400)
    return [error.pointer for error in said.errors]


# ---- words


@pytest.mark.parametrize(
    ("urgency", "priority"),
    [(1, 2), (2, 2), (3, 2), (4, 1), (5, 1), (6, 1), (7, 1), (8, 0), (9, 0), (10, 0)],
)
def test_ten_priorities_become_three(urgency: int, priority: int) -> None:
    assert priority_of(urgency) == priority


def test_every_state_has_a_word() -> None:
    assert {status: WORD_OF[status] for status in Status} == {
        Status.PENDING: "pending",
        Status.QUEUED: "pending",
        Status.PROCESSING: "running",
        Status.COMPLETED: "completed",
        Status.FAILED: "failed",
        Status.CANCELLED: "failed",
        Status.EXPIRED: "failed",
    }


@pytest.mark.parametrize(
    ("native", "own"),
    [
        ("/payload", "/parameters"),
        ("/payload/prompt", "/parameters/prompt"),
        ("/payload/lengthS", "/parameters/length_s"),
        ("/payload/numOutputs", "/parameters/numOutputs"),
        ("/payload/oddName", "/parameters/oddName"),
        ("/payload/script/failures/0/code", "/parameters/script/failures/0/code"),
        ("/tenantId", "/tenant_id"),
    ],
)
def test_field_is_named_as_the_caller_named_it(native: str, own: str) -> None:
    sent = {"numOutputs": 9, "oddName": 1, "script": {}, "length_s": -1}
    assert in_their_words(FieldError(native, "is wrong"), sent) == FieldError(own, "is wrong")


# ---- submit


@pytest.mark.parametrize("family", ["text", "image", "video"])
async def test_each_family_stores_a_task_of_its_type(fakes: Fakes, client: httpx.AsyncClient, family: str) -> None:
    answer = await client.post(f"/api/tasks/{family}/generate", json=asked(priority=8))
    assert answer.status_code == 202
    said = models.TaskSubmitResponse.model_validate(answer.json())
    (task,) = fakes.tasks.stored
    assert (task.task_id, task.task_type, task.tenant_id, task.priority) == (said.task_id, family.upper(), "acme", 0)
    assert (said.status, said.task_type, said.priority) == ("pending", family, 9)
    assert said.status_url == answer.headers["location"] == f"http://flik.test/api/tasks/status/{said.task_id}"
    assert (await client.get(said.status_url)).status_code == 200


async def test_priority_is_interactive_by_default_and_parameters_are_snake_case(
    fakes: Fakes, client: httpx.AsyncClient
) -> None:
    parameters = {"prompt": "x", "num_outputs": 2, "output_format": "webp"}
    assert (await client.post(SUBMIT, json=asked(parameters=parameters))).json()["priority"] == 5
    assert fakes.tasks.stored[0].priority == 1
    assert '"num_outputs":2' in fakes.tasks.stored[0].payload


@pytest.mark.parametrize(
    ("body", "pointers"),
    [
        (asked(priority=0), ["/priority"]),
        (asked(priority=11), ["/priority"]),
        (asked(priority="5"), ["/priority"]),
        (asked(priority=None), ["/priority"]),
        ({"tenant_id": "acme"}, ["/parameters"]),
        (asked(parameters=[]), ["/parameters"]),
        (asked(parameters={}), ["/parameters/prompt"]),
        (asked(parameters={"prompt": "x", "num_outputs": 9}), ["/parameters/num_outputs"]),
        (asked(parameters={"prompt": "x", "numOutputs": 9}), ["/parameters/numOutputs"]),
        (asked(parameters={"prompt": "x", "colour": "red"}), ["/parameters/colour"]),
        (asked(parameters={"prompt": "x" * (256 * 1024)}), ["/parameters"]),
        (asked(tenant_id="a b"), ["/tenant_id"]),
        (asked(tenantId="acme"), ["/tenantId"]),
        (asked(payload={}), ["/payload"]),
        ({"parameters": {"prompt": "x"}}, ["/tenant_id"]),
        ([], [""]),
        ("text", [""]),
    ],
)
async def test_broken_rule_is_answered_with_400_and_stores_nothing(
    fakes: Fakes, client: httpx.AsyncClient, body: Any, pointers: list[str]
) -> None:
    assert refused(await client.post(SUBMIT, json=body)) == pointers
    assert not fakes.tasks.stored


@pytest.mark.parametrize("path", ["/api/tasks/audio/generate", "/api/tasks/image/resize", "/api/tasks/image"])
async def test_family_or_task_that_is_not_there(client: httpx.AsyncClient, path: str) -> None:
    answer = await client.post(path, json=asked())
    assert answer.status_code in (404, 405)
    assert answer.headers["content-type"] == "application/problem+json"


async def test_body_that_cannot_be_read_is_told_apart_from_a_broken_rule(client: httpx.AsyncClient) -> None:
    answer = await client.post(SUBMIT, content=b"{", headers={"Content-Type": "application/json"})
    assert (answer.status_code, answer.json()["code"]) == (400, "malformed_body")
    answer = await client.post(SUBMIT, content=b"x", headers={"Content-Type": "text/plain"})
    assert (answer.status_code, answer.json()["code"]) == (415, "unsupported_media_type")


async def test_idempotency_key_works_here_too(fakes: Fakes, client: httpx.AsyncClient) -> None:
    headers = {"Idempotency-Key": "once"}
    first, second = [await client.post(SUBMIT, json=asked(), headers=headers) for _ in range(2)]
    assert (second.status_code, second.content) == (202, first.content)
    assert second.headers["idempotency-replayed"] == "true"
    assert len(fakes.tasks.stored) == 1


# ---- read


async def test_completed_task_is_shown_in_snake_case_with_its_result(fakes: Fakes, client: httpx.AsyncClient) -> None:
    artifact = StoredArtifact(0, f"{task_id(1)}/1-0.png", "image/png", 12, "ab" * 32, width=64, height=32)
    fakes.tasks.rows[task_id(1)] = view(
        task_id=task_id(1), task_type="IMAGE", status="COMPLETED", priority=2, attempt=1, started_at=5.0,
        completed_at=6.5, worker_id="w-1", result={"text": "rain", "metadata": {"modelName": "m"}},
        artifacts=(artifact,),
    )  # fmt: skip
    answer = await client.get(f"/api/tasks/status/{task_id(1)}")
    said = models.TaskStatusResponse.model_validate(answer.json())
    assert (said.status, said.state, said.task_type, said.priority, said.attempts) == (
        "completed", "COMPLETED", "image", 2, 1,
    )  # fmt: skip
    assert answer.json()["completed_at"] == "1970-01-01T00:00:06.500Z"
    assert said.result is not None
    (made,) = said.result["artifacts"]
    assert (made["content_type"], made["size_bytes"]) == ("image/png", 12)
    assert (await client.get(made["url"])).json()["code"] == "artifact_not_found"  # signed; the file is not there
    assert said.result["metadata"] == {"modelName": "m"}  # the provider's own words stay
    assert "error_code" not in answer.json()


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"status": "QUEUED"}, {"status": "pending", "state": "QUEUED"}),
        ({"status": "PROCESSING", "started_at": 1.0}, {"status": "running", "progress": 0.25}),
        (
            {"status": "FAILED", "error_code": "boom", "error_message": "it broke"},
            {"status": "failed", "error_code": "boom", "error_message": "it broke"},
        ),
        ({"status": "CANCELLED"}, {"status": "failed", "state": "CANCELLED"}),
        ({"status": "EXPIRED"}, {"status": "failed", "state": "EXPIRED"}),
    ],
)
async def test_state_is_told_in_a_word_and_in_flik_s_own(
    fakes: Fakes, client: httpx.AsyncClient, fields: dict[str, Any], expected: dict[str, Any]
) -> None:
    fakes.tasks.rows[task_id(1)] = view(task_id=task_id(1), **fields)
    fakes.hot.fractions[task_id(1)] = 0.25
    answer = (await client.get(f"/api/tasks/status/{task_id(1)}")).json()
    assert expected.items() <= answer.items()
    assert "result" not in answer


@pytest.mark.parametrize(
    ("method", "path"), [("GET", "/api/tasks/status/{}"), ("DELETE", "/api/tasks/{}"), ("POST", "/api/tasks/{}/retry")]
)
async def test_id_that_is_unknown_or_none(client: httpx.AsyncClient, method: str, path: str) -> None:
    answer = await client.request(method, path.format(task_id(7)))
    assert (answer.status_code, answer.json()["code"]) == (404, "task_not_found")
    assert refused(await client.request(method, path.format("17"))) == ["/task_id"]


# ---- lists


@pytest.fixture
def seven(fakes: Fakes) -> None:
    fakes.tasks.rows |= {task_id(number): view(task_id=task_id(number)) for number in range(1, 8)}


async def test_pages_are_numbered_and_the_newest_comes_first(client: httpx.AsyncClient, seven: None) -> None:
    seen: list[list[str]] = []
    for page in (1, 2, 3, 4):
        raw = (await client.get("/api/tasks/list", params={"page": page, "page_size": 3})).json()
        said = models.TaskListResponse.model_validate(raw)
        seen.append([task.task_id for task in said.tasks])
        assert (said.page, said.page_size, said.has_more) == (page, 3, page < 3)
    assert seen == [
        [task_id(7), task_id(6), task_id(5)], [task_id(4), task_id(3), task_id(2)], [task_id(1)], [],
    ]  # fmt: skip


async def test_page_of_everything_is_not_said_to_have_more(client: httpx.AsyncClient, seven: None) -> None:
    assert (await client.get("/api/tasks/list?page_size=7")).json()["has_more"] is False
    assert (await client.get("/api/tasks/list?page_size=6")).json()["has_more"] is True


@pytest.mark.parametrize(
    ("path", "states"),
    [
        ("/api/tasks/list", [None]),
        ("/api/tasks/list?status=pending", ["PENDING", "QUEUED"]),
        ("/api/tasks/list?status=running", ["PROCESSING"]),
        ("/api/tasks/list?status=completed", ["COMPLETED"]),
        ("/api/tasks/list?status=failed", ["FAILED", "CANCELLED", "EXPIRED"]),
        ("/api/tasks/pending", ["PENDING", "QUEUED"]),
        ("/api/tasks/failed", ["FAILED", "CANCELLED", "EXPIRED"]),
    ],
)
async def test_word_asks_for_all_its_states(
    fakes: Fakes, client: httpx.AsyncClient, path: str, states: list[str | None]
) -> None:
    assert (await client.get(path)).status_code == 200
    assert [wanted.status for wanted in fakes.tasks.asked] == states
    assert {wanted.limit for wanted in fakes.tasks.asked} == {51}


async def test_states_of_a_word_are_merged_by_age(
    fakes: Fakes, client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [view(task_id=task_id(n), status=("FAILED", "CANCELLED", "EXPIRED")[n % 3]) for n in range(9, 0, -1)]

    async def find(wanted: Any) -> list[Any]:
        return [row for row in rows if row.status == wanted.status][: wanted.limit]

    monkeypatch.setattr(fakes.tasks, "find", find)
    tasks = (await client.get("/api/tasks/failed?page_size=4&page=2")).json()["tasks"]
    assert [task["task_id"] for task in tasks] == [task_id(n) for n in (5, 4, 3, 2)]


@pytest.mark.parametrize(
    ("query", "pointer"),
    [
        ("page=0", "/page"), ("page=-1", "/page"), ("page=x", "/page"), ("page=", "/page"), ("page=²", "/page"),
        (f"page={'9' * 5000}", "/page"), ("page=21&page_size=50", "/page"), ("page_size=0", "/page_size"),
        ("page_size=101", "/page_size"), ("page=1&page=2", "/page"), ("status=QUEUED", "/status"),
        ("status=", "/status"), ("status=failed&status=pending", "/status"), ("limit=5", "/limit"),
        ("a/b=1", "/a~1b"), ("tenant_id=%00", "/tenant_id"), ("tenant_id=", "/tenant_id"),
    ],
)  # fmt: skip
async def test_wrong_parameter_is_named(fakes: Fakes, client: httpx.AsyncClient, query: str, pointer: str) -> None:
    assert refused(await client.get(f"/api/tasks/list?{query}")) == [pointer]
    assert not fakes.tasks.asked


async def test_lists_of_one_word_take_no_other(client: httpx.AsyncClient) -> None:
    assert refused(await client.get("/api/tasks/pending?status=failed")) == ["/status"]


# ---- moves and health


async def test_task_is_cancelled_once(fakes: Fakes, client: httpx.AsyncClient) -> None:
    fakes.tasks.rows[task_id(1)] = view(task_id=task_id(1))
    answer = await client.delete(f"/api/tasks/{task_id(1)}")
    assert (answer.status_code, answer.json()["status"], answer.json()["state"]) == (200, "failed", "CANCELLED")
    again = await client.delete(f"/api/tasks/{task_id(1)}")
    assert (again.status_code, again.json()["code"]) == (409, "state_conflict")


@pytest.mark.parametrize("word", ["list", "pending", "failed", "health"])
async def test_what_is_no_task_cannot_be_deleted(client: httpx.AsyncClient, word: str) -> None:
    for method in ("DELETE", "OPTIONS"):
        answer = await client.request(method, f"/api/tasks/{word}")
        assert (answer.status_code, answer.json()["code"]) == (405, "method_not_allowed")
        assert answer.headers["allow"] == "GET, HEAD"
    assert refused(await client.delete(f"/api/tasks/{word}s")) == ["/task_id"]


async def test_failed_task_is_retried(fakes: Fakes, client: httpx.AsyncClient) -> None:
    fakes.tasks.rows[task_id(1)] = view(task_id=task_id(1), status="FAILED")
    answer = await client.post(f"/api/tasks/{task_id(1)}/retry")
    assert (answer.status_code, answer.json()["status"]) == (202, "pending")
    again = await client.post(f"/api/tasks/{task_id(1)}/retry")
    assert (again.status_code, again.json()["code"]) == (409, "state_conflict")


async def test_fault_of_the_database_is_a_problem_without_a_traceback(fakes: Fakes, client: httpx.AsyncClient) -> None:
    fakes.tasks.fault = RuntimeError("password=hunter2")
    answer = await client.get("/api/tasks/list")
    assert (answer.status_code, answer.json()["code"]) == (500, "internal")
    assert "hunter2" not in answer.text


async def test_health_is_told_in_their_words(fakes: Fakes, client: httpx.AsyncClient) -> None:
    answer = await client.get("/api/tasks/health")
    assert answer.status_code == 200
    assert models.HealthResponse.model_validate(answer.json()).status == "healthy"
    fakes.tasks.away = True
    answer = await client.get("/api/tasks/health")
    assert (answer.status_code, answer.json()["components"]["postgresql"]) == (503, "unhealthy")
    assert answer.headers["retry-after"] == "1"


async def test_each_family_describes_its_own_parameters(client: httpx.AsyncClient) -> None:
    paths = (await client.get("/openapi.json")).json()["paths"]
    for family, field in (("text", "max_words"), ("image", "num_outputs"), ("video", "length_s")):
        body = paths[f"/api/tasks/{family}/generate"]["post"]["requestBody"]["content"]["application/json"]["schema"]
        assert field in body["properties"]["parameters"]["properties"]
        assert body["required"] == ["parameters"]
