"""What a caller may do and see, and which limits hold for a tenant."""

from __future__ import annotations

from dataclasses import fields

import pytest

from flik.domain.identity import ANYONE, LIMIT_NAMES, Caller, Limits, OwnLimits, Scope
from flik.domain.task import TaskFilter

OWNER = Caller("acme", frozenset({Scope.SUBMIT, Scope.READ}), "k1")
READER = Caller("acme", frozenset({Scope.READ}), "k2")
OPERATOR = Caller("acme", frozenset({Scope.ADMIN}), "k3")
NOBODY = Caller(None, frozenset({Scope.READ}))  # nothing makes one; it must see nothing


@pytest.mark.parametrize(
    ("caller", "scopes"),
    [(OWNER, {Scope.SUBMIT, Scope.READ}), (READER, {Scope.READ}), (OPERATOR, set(Scope)), (ANYONE, set(Scope))],
)
def test_caller_may_what_is_granted_and_an_operator_all(caller: Caller, scopes: set[Scope]) -> None:
    assert {scope for scope in Scope if caller.may(scope)} == scopes


@pytest.mark.parametrize(
    ("caller", "tenant", "sees"),
    [(OWNER, "acme", True), (OWNER, "zebra", False), (OWNER, "ACME", False), (OPERATOR, "zebra", True),
     (ANYONE, "zebra", True), (NOBODY, "zebra", False)],
)  # fmt: skip
def test_caller_sees_its_own_tenant_and_an_operator_all(caller: Caller, tenant: str, sees: bool) -> None:
    assert caller.sees(tenant) is sees


@pytest.mark.parametrize(
    ("caller", "asked", "reached"),
    [(OWNER, None, "acme"), (OWNER, "acme", "acme"), (OPERATOR, "zebra", "zebra"), (OPERATOR, None, None),
     (ANYONE, None, None)],
)  # fmt: skip
def test_filter_is_narrowed_to_what_the_caller_sees(caller: Caller, asked: str | None, reached: str | None) -> None:
    narrowed = caller.narrow(TaskFilter(asked, status="FAILED", limit=7))
    assert narrowed == TaskFilter(reached, status="FAILED", limit=7)


@pytest.mark.parametrize(("caller", "asked"), [(OWNER, "zebra"), (NOBODY, None), (NOBODY, "acme")])
def test_filter_of_another_tenant_reaches_nothing(caller: Caller, asked: str | None) -> None:
    assert caller.narrow(TaskFilter(asked)) is None


def test_own_limits_go_before_the_defaults() -> None:
    defaults = Limits(rate_per_s=10.0, burst=20, max_queued=5)
    assert OwnLimits().over(defaults) == defaults
    own = OwnLimits(rate_per_s=1.5, max_running=0, highest_priority=0)
    assert own.over(defaults) == Limits(rate_per_s=1.5, burst=20, max_queued=5, max_running=0, highest_priority=0)


def test_every_limit_can_be_set_for_a_tenant() -> None:
    assert tuple(each.name for each in fields(Limits)) == LIMIT_NAMES


def test_actor_is_the_credential_or_anyone() -> None:
    assert (OWNER.actor, ANYONE.actor) == ("k1", "anyone")
