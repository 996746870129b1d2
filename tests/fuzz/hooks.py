"""What Schemathesis is told of Flik beyond its description; `schemathesis.toml` names this module.

Requests are changed as little as can be: they name the tenants of the run, so that they get past
the door, and leave alone what the run itself stands on. `UNSAID` lists the rules that JSON Schema
has no words for. Only a refusal that states one of them, on a route that has it, counts as right.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Collection, Iterator
from itertools import count
from typing import Any, NamedTuple

import schemathesis
from schemathesis.core.failures import Failure
from schemathesis.openapi.checks import IgnoredAuth, RejectedPositiveData

from flik.domain.identity import is_tenant_id

OWNER, STRANGER, SPARE = "fuzz", "fuzz-stranger", "fuzz-spare"
OWN_KEYS = frozenset(os.environ.get("FLIK_FUZZ_KEYS", "").split())  # ids of the keys that the run calls with
OWN_TENANTS = frozenset({OWNER, STRANGER})
KNOWN_TENANTS = OWN_TENANTS | {SPARE}
SPARE_KEY = os.environ.get("FLIK_FUZZ_SPARE_KEY", "")  # the id of a key that may be revoked
_SUBMITS = frozenset({"submitTask", "submitBatch", "generateText", "generateImage", "generateVideo", "submitDag"})
_STREAMS = frozenset({"streamChat", "startStream", "joinStream"})
_texts = (f"{os.getpid()}-{number}" for number in count())  # no other round on the same Flik has them


class Rule(NamedTuple):
    """A refusal that a request can meet though it fits the description.

    `pointer` is a pattern for the whole pointer; None: the code says it all.
    """

    operations: frozenset[str]
    code: str
    pointer: str | None = None
    detail: str = ""
    why: str = ""


_DAGS = frozenset({"submitDag"})
_VALUE = r"/steps/\d+/payload(?:/.*)?"
_PARENT = rf"/steps/\d+/dependsOn/\d+|{_VALUE}"

UNSAID = (
    Rule(_SUBMITS, "idempotency_key_reused", why="depends on what was sent before"),
    Rule(
        frozenset({"submitTask"}), "invalid_request", "/payload", "the most is 1,073,741,824",
        why="the pixels of a film are a product of five fields",
    ),
    Rule(
        frozenset({"generateVideo"}), "invalid_parameters", "/parameters", "the most is 1,073,741,824",
        why="the pixels of a film are a product of five fields",
    ),
    Rule(_DAGS, "invalid_request", r"/steps/\d+/id", "is the id of step", why="ids must differ"),
    Rule(_DAGS, "invalid_request", _PARENT, "there is no step", why="depends on the ids of the other steps"),
    Rule(_DAGS, "invalid_request", _PARENT, "is the step itself", why="depends on the id of the step"),
    Rule(_DAGS, "invalid_request", _PARENT, "wait for one another", why="a graph must have no cycle"),
    Rule(_DAGS, "invalid_request", r"/steps/\d+", "steps before it, one after another", why="how deep a graph is"),
    Rule(_DAGS, "invalid_request", "/metadata", "is larger than", why="the size of a document"),
    Rule(
        _DAGS, "invalid_request", r"(?s:/metadata/.*)", "which cannot be stored",
        why="schemas have no words for texts and names anywhere in a document",
    ),
    Rule(
        _DAGS, "invalid_request", r"/steps/\d+/payload/prompt", "is required: the step has no parents",
        why="depends on whether the step has parents",
    ),
    Rule(
        _DAGS, "invalid_request", r"/steps/\d+/payload/(?:prompt|action)",
        why="a step without parents is held against the model of a plain task",
    ),
    Rule(
        _DAGS, "invalid_request", r"/steps/\d+/payload/input", "takes what parents made",
        why="depends on whether the step has parents",
    ),
    Rule(
        _DAGS, "invalid_request", r"/steps/\d+/payload/.*/path", why="which paths there are, and where they may lead"
    ),
    Rule(
        _DAGS, "invalid_request", r"/steps/\d+/payload", "the most is 1,073,741,824",
        why="the pixels of a film are a product of five fields",
    ),
    Rule(
        frozenset({"createWebhook", "changeWebhook"}), "invalid_request", "/url",
        why="depends on how URLs are read, and on where names lead",
    ),
    Rule(
        frozenset({"submitTask", *_DAGS}), "invalid_request", "/webhook/url",
        why="depends on how URLs are read, and on where names lead",
    ),
    Rule(
        frozenset({"createKey"}), "invalid_request", "/expiresAt", "has passed already", why="depends on the clock"
    ),
    Rule(
        frozenset({"createKey"}), "invalid_request", "/tenantId", "is not a tenant",
        why="depends on which tenants there are",
    ),
    Rule(
        frozenset({"listFamilyTasks", "listPendingFamilyTasks", "listFailedFamilyTasks"}), "invalid_parameters",
        "/page", "reaches beyond the newest 1,000 tasks", why="a product of two parameters",
    ),
)  # fmt: skip


@schemathesis.hook
def before_call(context: Any, case: Any, kwargs: dict[str, Any]) -> None:
    """Keep a request off what the run stands on, and let it get past the door."""
    name = _operation_id(case)
    if name == "revokeKey" and str(case.path_parameters.get("key_id", "")).lower() in OWN_KEYS:
        case.path_parameters["key_id"] = SPARE_KEY
    if name == "createTenant" and isinstance(case.body, dict) and _is_one_of(case.body.get("tenantId"), KNOWN_TENANTS):
        case.body["tenantId"] += f"-{next(_texts)}"  # taken from an answer: as it is, it would nearly always be there
    if name == "changeTenant" and _is_one_of(case.path_parameters.get("tenant_id"), OWN_TENANTS):
        case.path_parameters["tenant_id"] = SPARE
    if name in _SUBMITS or name in ("createKey", "createWebhook"):
        for document in _documents(case.body):
            _name_tenant(document, SPARE if name == "createKey" else OWNER)
    if name in _SUBMITS:
        _renew_key(case.headers)
    if name in _DAGS and case.meta is not None and case.meta.generation.mode.is_positive:
        _join(case.body)
    if name in _STREAMS:
        _name_tenant(case.query, OWNER)


@schemathesis.hook
def filter_failure(context: Any, failure: Failure, case: Any, response: Any) -> bool:
    """Drop a refusal of schema-valid data that states a rule of `UNSAID`, and that a ticket opens what it is for."""
    if isinstance(failure, IgnoredAuth) and str((case.query or {}).get("ticket")).startswith("flik_ticket_"):
        return False
    if not isinstance(failure, RejectedPositiveData):
        return True
    try:
        problem = json.loads(response.content)
    except ValueError:
        return True
    return not _is_unsaid(_operation_id(case), problem)


def _is_unsaid(operation: str, problem: dict[str, Any]) -> bool:
    rules = [rule for rule in UNSAID if operation in rule.operations and rule.code == problem.get("code")]
    broken = problem.get("errors") or [{"pointer": None, "detail": ""}]
    return all(
        any(_fits(rule.pointer, each["pointer"]) and rule.detail in each["detail"] for rule in rules) for each in broken
    )


def _fits(pattern: str | None, pointer: str | None) -> bool:
    return pattern is pointer if pattern is None or pointer is None else bool(re.fullmatch(pattern, pointer))


def _is_one_of(value: Any, names: Collection[str]) -> bool:
    return isinstance(value, str) and value in names


def _operation_id(case: Any) -> str:
    return str(case.operation.definition.raw.get("operationId", ""))


def _documents(body: Any) -> Iterator[dict[str, Any]]:
    """Yield the objects of a body that can name a tenant: itself, and the tasks of a batch."""
    if not isinstance(body, dict):
        return
    yield body
    tasks = body.get("tasks")
    yield from (task for task in tasks if isinstance(task, dict)) if isinstance(tasks, list) else ()


def _name_tenant(document: dict[str, Any], tenant_id: str) -> None:
    """Replace the id of a tenant that nobody made; what is no id stays."""
    for name in ("tenantId", "tenant_id"):
        named = document.get(name)
        if isinstance(named, str) and is_tenant_id(named) and named not in OWN_TENANTS:
            document[name] = tenant_id


def _join(body: Any) -> None:
    """Make a graph of nine of ten lists of steps: as they come, nearly all would be refused for the same few rules."""
    steps = body.get("steps") if isinstance(body, dict) else None
    if not isinstance(steps, list) or not all(isinstance(step, dict) for step in steps) or next(_texts).endswith("0"):
        return
    ids: list[str] = []
    for place, step in enumerate(steps):
        if "id" in step and isinstance(step["id"], str):
            step["id"] = f"{step['id'][:50]}-{place}"
        if isinstance(step.get("dependsOn"), list):
            step["dependsOn"] = ids[: len(step["dependsOn"])]
        payload = step.get("payload")
        if isinstance(payload, dict):
            _refer(payload, ids)
            if payload.get("prompt") is None:
                payload["prompt"] = "x"
        ids.append(step.get("id") or f"step-{place + 1}")


def _refer(value: Any, ids: list[str]) -> None:
    """Have references name one of these steps, where there is one."""
    if isinstance(value, dict) and "$from" in value and ids:
        value["$from"] = ids[len(str(value["$from"])) % len(ids)]
    elif isinstance(value, dict | list):
        for each in value.values() if isinstance(value, dict) else value:
            _refer(each, ids)


def _renew_key(headers: Any) -> None:
    """Give most requests an idempotency key of their own: examples come again and again, with other bodies."""
    text = next(_texts)
    key = headers.get("Idempotency-Key")
    if isinstance(key, str) and 0 < len(key) < 200 and not text.endswith("0"):
        is_quoted = len(key) > 1 and key.endswith('"')
        headers["Idempotency-Key"] = f'{key[:-1]}-{text}"' if is_quoted else f"{key}-{text}"
