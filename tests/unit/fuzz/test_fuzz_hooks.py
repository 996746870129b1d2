"""What the fuzzing lets pass: only a refusal that states a rule JSON Schema cannot say, on a route that has it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from tests.fuzz import hooks

TOO_LARGE = {"pointer": "/payload", "detail": "width x height ... is 9 pixels; the most is 1,073,741,824"}
OTHER = {"pointer": "/payload/prompt", "detail": "is required"}
NOBODY = {"pointer": "/steps/3/dependsOn/0", "detail": "there is no step nobody"}
CYCLE = {"pointer": "/steps/0/payload/prompt", "detail": "these steps wait for one another: a -> b -> a"}


def problem(code: str, *broken: dict[str, str]) -> dict[str, Any]:
    return {"code": code, "errors": list(broken)} if broken else {"code": code}


@pytest.mark.parametrize(
    ("operation", "said", "passes"),
    [
        ("submitTask", problem("invalid_request", TOO_LARGE), True),
        ("submitTask", problem("invalid_request", TOO_LARGE, OTHER), False),
        ("submitTask", problem("invalid_request", OTHER), False),
        ("submitTask", problem("invalid_request", {**TOO_LARGE, "pointer": "/region"}), False),
        ("generateText", problem("invalid_parameters", TOO_LARGE), False),
        ("generateText", problem("idempotency_key_reused"), True),
        ("listTasks", problem("idempotency_key_reused"), False),
        ("submitTask", problem("malformed_body"), False),
        ("submitDag", problem("invalid_request", NOBODY), True),
        ("submitDag", problem("invalid_request", NOBODY, CYCLE), True),
        ("submitDag", problem("invalid_request", NOBODY, {**CYCLE, "pointer": "/steps/0/taskType"}), False),
        ("submitDag", problem("invalid_request", {**NOBODY, "detail": "must be a string"}), False),
        ("submitDag", problem("invalid_request", {**TOO_LARGE, "pointer": "/steps/1/payload/width"}), False),
        ("submitDag", problem("invalid_request", {**TOO_LARGE, "pointer": "/steps/1/payload"}), True),
        ("submitTask", problem("invalid_request", NOBODY), False),
    ],
)
def test_only_the_rule_itself_on_its_own_route_passes(operation: str, said: dict[str, Any], *, passes: bool) -> None:
    assert hooks._is_unsaid(operation, said) is passes


def a_case(operation: str, body: Any = None, **path: str) -> Any:
    definition = SimpleNamespace(raw={"operationId": operation})
    return SimpleNamespace(
        operation=SimpleNamespace(definition=definition), body=body, path_parameters=path, headers={}, meta=None
    )


def test_the_run_s_own_tenants_and_keys_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hooks, "OWN_KEYS", frozenset({"0199a1b2-0000-7000-8000-000000000001"}))
    monkeypatch.setattr(hooks, "SPARE_KEY", "spare")
    revoke = a_case("revokeKey", key_id="0199A1B2-0000-7000-8000-000000000001")
    change = a_case("changeTenant", tenant_id=hooks.OWNER)
    for case in (revoke, change):
        hooks.before_call(None, case, {})
    assert revoke.path_parameters == {"key_id": "spare"}
    assert change.path_parameters == {"tenant_id": hooks.SPARE}


def test_tasks_are_of_the_run_s_tenant_and_what_is_no_id_stays() -> None:
    case = a_case("submitBatch", {"tasks": [{"tenantId": "x"}, {"tenantId": "-"}, {"tenantId": {}}, 5]})
    hooks.before_call(None, case, {})
    assert case.body == {"tasks": [{"tenantId": hooks.OWNER}, {"tenantId": "-"}, {"tenantId": {}}, 5]}


def a_dag(*, is_positive: bool) -> Any:
    steps = [
        {"id": "a", "dependsOn": ["b"], "payload": {"prompt": None}},
        {"id": "a", "dependsOn": ["x"], "payload": {"prompt": "y", "seed": {"$from": "z"}}},
    ]
    case = a_case("submitDag", {"tenantId": "x", "steps": steps})
    case.meta = SimpleNamespace(generation=SimpleNamespace(mode=SimpleNamespace(is_positive=is_positive)))
    return case


def test_steps_that_fit_the_description_are_joined_to_a_graph(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hooks, "_texts", iter(["1", "1"]))
    case = a_dag(is_positive=True)
    hooks.before_call(None, case, {})
    assert case.body["tenantId"] == hooks.OWNER
    assert case.body["steps"] == [
        {"id": "a-0", "dependsOn": [], "payload": {"prompt": "x"}},
        {"id": "a-1", "dependsOn": ["a-0"], "payload": {"prompt": "y", "seed": {"$from": "a-0"}}},
    ]


def test_steps_that_are_wrong_on_purpose_stay_so() -> None:
    case = a_dag(is_positive=False)
    hooks.before_call(None, case, {})
    assert case.body["steps"] == a_dag(is_positive=False).body["steps"]
