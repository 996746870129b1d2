"""A gateway for tests of the client and the command line: real HTTP on a free port, tasks and dags in dicts.

A task's life is a script: each look at it takes the next status; so is a dag's, whose steps are named in it.
`answer_next` puts answers before what would be said; `requests` holds what was asked.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import socket
import threading
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Self

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

PICTURE = b"\x89PNG\r\n" + bytes(range(256)) * 40
KEY = "demo"


def task_id(number: int) -> str:
    return f"0193a1b2-0000-7000-8000-{number:012d}"


def dag_id(number: int) -> str:
    return f"0193a1b2-1111-7000-8000-{number:012d}"


@dataclass
class Asked:
    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: Any


@dataclass
class FakeGateway:
    tasks: dict[str, dict[str, Any]] = field(default_factory=dict)
    scripts: dict[str, deque[dict[str, Any]]] = field(default_factory=dict)
    dags: dict[str, dict[str, Any]] = field(default_factory=dict)
    requests: list[Asked] = field(default_factory=list)
    next_answers: deque[Response] = field(default_factory=deque)
    picture: bytes = PICTURE
    looks_forever: bool = False

    def __enter__(self) -> Self:
        self._socket = socket.socket()
        self._socket.bind(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}"
        config = uvicorn.Config(
            self._app(), log_level="critical", lifespan="off", ws="none", timeout_graceful_shutdown=1
        )
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._serve)
        self._socket.listen()  # from here on connections wait rather than fail
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.should_exit = True
        self._thread.join()
        self._socket.close()

    def reset(self) -> None:
        for kept in (self.tasks, self.scripts, self.dags, self.requests, self.next_answers):
            kept.clear()
        self.picture, self.looks_forever = PICTURE, False

    def add(self, number: int = 1, *steps: dict[str, Any], **fields: Any) -> str:
        """Put a task there; each of `steps` is what one further look finds changed."""
        created = f"2026-01-31T08:{number // 60 % 60:02d}:{number % 60:02d}Z"
        fresh = {"taskId": task_id(number), "tenantId": "demo", "status": "QUEUED", "taskType": "IMAGE"}
        self.tasks[task_id(number)] = {**fresh, "priority": 1, "attempt": 0, "createdAt": created, **fields}
        self.scripts[task_id(number)] = deque(steps)
        return task_id(number)

    def add_finished(self, number: int = 1, count: int = 1, **result: Any) -> str:
        artifacts = [self.artifact(index) for index in range(count)]
        whole = {"url": artifacts[0]["url"] if count else None, "artifacts": artifacts, "metadata": {}, **result}
        return self.add(number, status="COMPLETED", completedAt="2026-01-31T09:00:00Z", result=whole)

    def add_dag(self, number: int, types: dict[str, str], *looks: dict[str, Any], **fields: Any) -> str:
        """Put a chain there, of steps with their types. A look changes steps by their ids, or the dag's own fields."""
        names = list(types)
        tasks = [
            {
                "taskId": task_id(100 * number + n),
                "stepId": name,
                "taskType": types[name],
                "attempt": 0,
                "maxAttempts": 4,
            }
            | {"status": "PENDING" if n else "QUEUED", "dependsOn": names[n - 1 : n] if n else []}
            for n, name in enumerate(names)
        ]
        created = f"2026-01-31T08:{number // 60 % 60:02d}:{number % 60:02d}Z"
        fresh = {"dagId": dag_id(number), "tenantId": "demo", "status": "RUNNING", "priority": 1, "region": "local"}
        self.dags[dag_id(number)] = {**fresh, "createdAt": created, "tasks": tasks, **fields}
        self.scripts[dag_id(number)] = deque(looks)
        return dag_id(number)

    def artifact(self, index: int = 0) -> dict[str, Any]:
        digest = hashlib.sha256(PICTURE).hexdigest()
        about = {"contentType": "image/png", "sizeBytes": len(PICTURE), "sha256": digest, "status": "STORED"}
        return {"url": f"/artifacts/{index}?sig=secret", "width": 64, "height": 64, **about}

    def answer_next(self, *answers: Response) -> None:
        self.next_answers.extend(answers)

    def paths(self) -> list[str]:
        return [f"{asked.method} {asked.path}" for asked in self.requests]

    def _serve(self) -> None:
        asyncio.run(self._server.serve(sockets=[self._socket]))

    def _app(self) -> Starlette:
        return Starlette(routes=[Route("/{path:path}", self._answer, methods=["GET", "POST", "PATCH", "DELETE"])])

    async def _answer(self, request: Request) -> Response:
        raw = await request.body()
        body = json.loads(raw) if raw else None
        asked = Asked(request.method, request.url.path, dict(request.query_params), dict(request.headers), body)
        self.requests.append(asked)
        if self.next_answers:
            return self.next_answers.popleft()
        if asked.path.startswith("/artifacts/"):
            return Response(self.picture, media_type="image/png")
        if asked.path == "/health":
            return JSONResponse({"status": "UP", "components": {"queue": "UP", "postgresql": {"status": "UP"}}})
        if asked.headers.get("authorization") != f"Bearer {KEY}":
            return problem(401, "unauthenticated", "no such key")
        return self._route(asked)

    def _route(self, asked: Asked) -> Response:  # noqa: PLR0911, PLR0912  # a route a line
        match asked.method, asked.path.removeprefix("/api/v1/").split("/"):
            case "POST", ["tasks"]:
                return self._submit(asked.body)
            case "POST", ["tasks:batch"]:
                return JSONResponse({"items": [self._batch_item(task) for task in asked.body["tasks"]]}, 207)
            case "POST", ["dead-letters:replay"]:
                found = len(self._matching(asked.body, failed=True))
                most = asked.body.get("limit", 1_000)
                return JSONResponse({"replayed": min(found, most), "more": found > most})
            case "GET", ["tasks"]:
                return self._page(asked.query, failed=False)
            case "GET", ["dead-letters"]:
                return self._page(asked.query, failed=True)
            case "GET", ["tasks", wanted] if wanted in self.tasks:
                return JSONResponse(self._look(wanted))
            case "POST", ["tasks", wanted, "cancel"] if wanted in self.tasks:
                return self._move(wanted, {"QUEUED", "PROCESSING", "PENDING"}, "CANCELLED", 200)
            case "POST", ["tasks", wanted, "retry"] | ["dead-letters", wanted, "replay"] if wanted in self.tasks:
                return self._move(wanted, {"FAILED"}, "QUEUED", 202)
            case "POST", ["dags"]:
                return self._submit_dag(asked.body)
            case "GET", ["dags"]:
                return self._dag_page(asked.query)
            case "GET", ["dags", wanted] if wanted in self.dags:
                return JSONResponse(self._look_at_dag(wanted))
            case "POST", ["dags", wanted, "cancel"] if wanted in self.dags:
                return self._move_dag(wanted, "RUNNING", "CANCELLED", 200)
            case "POST", ["dags", wanted, "resume"] if wanted in self.dags:
                return self._move_dag(wanted, "FAILED", "RUNNING", 202)
            case _, ["dags", wanted, *_]:
                return problem(404, "dag_not_found", f"no dag {wanted}")
            case _, [_, wanted, *_]:
                return problem(404, "task_not_found", f"no task {wanted}")
        return problem(404, "not_found", "no such route")

    def _submit(self, body: dict[str, Any]) -> Response:
        errors = self._errors(body)
        if errors:
            return problem(422, "invalid_request", "1 field is wrong", errors=errors)
        answer = self._accept(body)
        return JSONResponse(answer, 202, headers={"Location": answer["statusUrl"], "X-Request-ID": "r-1"})

    def _batch_item(self, body: dict[str, Any]) -> dict[str, Any]:
        errors = self._errors(body)
        if errors:
            wrong = {"code": "invalid_request", "detail": "1 field is wrong", "errors": errors}
            return {"status": 422, "problem": wrong}
        return {"status": 202, "task": self._accept(body)}

    def _errors(self, body: dict[str, Any]) -> list[dict[str, str]]:
        if body["taskType"] not in ("TEXT", "IMAGE", "VIDEO"):
            return [{"pointer": "/taskType", "detail": "is not one of TEXT, IMAGE, VIDEO"}]
        return [] if body["payload"].get("prompt") else [{"pointer": "/payload/prompt", "detail": "is missing"}]

    def _accept(self, body: dict[str, Any]) -> dict[str, Any]:
        number = len(self.tasks) + 1
        made = {"TEXT": {"text": "rain on the roof"}, "IMAGE": {"artifacts": [self.artifact()]}}
        steps = [{}, {"status": "PROCESSING", "attempt": 1, "progress": 0.5}]
        if body["payload"].get("prompt") == "fail":
            steps.append({"status": "FAILED", "error": {"code": "boom", "message": "it broke"}})
        elif not self.looks_forever:
            steps.append({"status": "COMPLETED", "result": made.get(body["taskType"], {})})
        new = self.add(number, *steps, taskType=body["taskType"], payload=body["payload"])
        url = f"{self.url}/api/v1/tasks/{new}"
        urls = {"statusUrl": url, "resultUrl": url, "cancelUrl": f"{url}/cancel", "eventsUrl": f"{url}/events"}
        return {"taskId": new, "status": "QUEUED", "createdAt": self.tasks[new]["createdAt"], **urls}

    def _look(self, wanted: str) -> dict[str, Any]:
        if self.scripts[wanted]:
            self.tasks[wanted] |= self.scripts[wanted].popleft()
        return self.tasks[wanted]

    def _move(self, wanted: str, allowed: Iterable[str], to: str, status: int) -> Response:
        if self.tasks[wanted]["status"] not in allowed:
            said = f"a task that is {self.tasks[wanted]['status']} cannot be moved"
            return problem(409, "state_conflict", said)
        self.tasks[wanted]["status"] = to
        return JSONResponse(self.tasks[wanted], status)

    def _submit_dag(self, body: dict[str, Any]) -> Response:
        """Take any steps for a chain; the one whose prompt is "fail" fails, and those after it never run."""
        types, looks, failed = {}, [], ""
        for n, step in enumerate(body["steps"]):
            name = step.get("id", f"step-{n + 1}")
            types[name] = step["taskType"]
            if failed:
                looks.append({name: {"status": "CANCELLED", "error": {"code": "parent_failed", "message": failed}}})
                continue
            looks.append({name: {"status": "PROCESSING", "attempt": 1, "progress": 0.5}})
            if step.get("payload", {}).get("prompt") == "fail":
                failed = f"{name} failed"
                looks.append({name: {"status": "FAILED", "error": {"code": "boom", "message": "it broke"}}})
            else:
                looks.append({name: {"status": "COMPLETED", "progress": 1, "result": self._made(step["taskType"])}})
        error = {"error": {"code": "step_failed", "message": failed, "stepId": failed.split()[0]}} if failed else {}
        end = {"status": "FAILED" if failed else "COMPLETED", **error}
        new = self.add_dag(len(self.dags) + 1, types, {}, *looks, *([] if self.looks_forever else [end]))
        url = f"{self.url}/api/v1/dags/{new}"
        urls = {"statusUrl": url, "cancelUrl": f"{url}/cancel", "resumeUrl": f"{url}/resume"}
        return JSONResponse({**self.dags[new], **urls, "eventsUrl": f"{url}/events"}, 202, headers={"Location": url})

    def _made(self, task_type: str) -> dict[str, Any]:
        return {"text": "rain on the roof"} if task_type == "TEXT" else {"artifacts": [self.artifact()]}

    def _look_at_dag(self, wanted: str) -> dict[str, Any]:
        dag = self.dags[wanted]
        look = self.scripts[wanted].popleft() if self.scripts[wanted] else {}
        for task in dag["tasks"]:
            task.update(look.get(task["stepId"], {}))
        dag |= {name: value for name, value in look.items() if not isinstance(value, dict) or name == "error"}
        return dag

    def _move_dag(self, wanted: str, allowed: str, to: str, status: int) -> Response:
        if self.dags[wanted]["status"] != allowed:
            return problem(409, "state_conflict", f"a dag that is {self.dags[wanted]['status']} cannot be moved")
        self.dags[wanted]["status"] = to
        return JSONResponse(self.dags[wanted], status)

    def _dag_page(self, query: dict[str, str]) -> Response:
        found = sorted(self.dags.values(), key=lambda dag: dag["createdAt"], reverse=True)
        found = [dag for dag in found if query.get("status") in (None, dag["status"])]
        start, size = int(query.get("cursor", 0)), int(query.get("limit", 100))
        more = str(start + size) if start + size < len(found) else None
        return JSONResponse({"items": list(map(_in_a_list, found[start : start + size])), "nextCursor": more})

    def _page(self, query: dict[str, str], failed: bool) -> Response:
        found = self._matching(query, failed)
        start, size = int(query.get("cursor", 0)), int(query.get("limit", 100))
        more = str(start + size) if start + size < len(found) else None
        return JSONResponse({"items": found[start : start + size], "nextCursor": more})

    def _matching(self, query: dict[str, Any], failed: bool) -> list[dict[str, Any]]:
        found = sorted(self.tasks.values(), key=lambda task: task["createdAt"], reverse=True)
        for name in ("status", "taskType", "tenantId"):
            found = [task for task in found if query.get(name) in (None, task[name])]
        return [task for task in found if not failed or task["status"] == "FAILED"]


def _in_a_list(dag: dict[str, Any]) -> dict[str, Any]:
    states = [task["status"] for task in dag["tasks"]]
    still_open = sum(state in ("PENDING", "QUEUED", "PROCESSING") for state in states)
    counts = {"total": len(states), "completed": states.count("COMPLETED"), "open": still_open}
    return {**{name: value for name, value in dag.items() if name != "tasks"}, "steps": counts}


def problem(status: int, code: str, detail: str, *, headers: dict[str, str] | None = None, **others: Any) -> Response:
    body = {"type": "about:blank", "title": code, "status": status, "detail": detail, "code": code, "requestId": "r-9"}
    return JSONResponse({**body, **others}, status, headers, media_type="application/problem+json")


def busy(status: int = 503, retry_after: str = "0") -> Response:
    return problem(status, "unavailable", "postgresql is not available", headers={"Retry-After": retry_after})
