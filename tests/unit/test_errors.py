"""Every exception survives pickling, says something, and has a code of its own."""

from __future__ import annotations

import copy
import inspect
import pickle

import pytest

from flik import errors
from flik.errors import FieldError, FlikError
from flik.gateway import problems

EXAMPLES: dict[FlikError, str] = {
    errors.MalformedBody("it is empty"): "it is empty",
    errors.InvalidRequest(
        (FieldError("/a", "is required"), FieldError("", "is wrong"))
    ): "/a: is required; /: is wrong",
    errors.InvalidParameters((FieldError("/priority", "must be from 1 to 10"),)): "/priority: must be from 1 to 10",
    errors.BodyTooLarge(1_048_576): "the body is larger than 1,048,576 bytes",
    errors.UnsupportedMediaType("text/plain"): "send application/json, not text/plain",
    errors.UnsupportedMediaType(""): "send application/json, not an undeclared type",
    errors.Unauthenticated("no token"): "no token",
    errors.Unauthenticated("not a key that works", True): "not a key that works",
    errors.ScopeMissing("admin"): "this takes a key with the scope admin",
    errors.TenantMismatch("acme"): "this key does not speak for acme",
    errors.TenantUnknown("acme"): "there is no tenant acme; POST /api/v1/tenants makes one",
    errors.TenantNotFound("acme"): "no tenant acme",
    errors.TenantExists("acme"): "there is a tenant acme already",
    errors.KeyNotFound("17"): "no key 17",
    errors.WebhookNotFound("17"): "no webhook 17",
    errors.DeliveryNotFound("17"): "no delivery 17",
    errors.TooManyWebhooks("acme", 10): "acme has 10 webhooks, which is the most; delete one first",
    errors.WebhookInactive("17", "PAUSED"): "the webhook is PAUSED; PATCH its status to ACTIVE first",
    errors.TaskNotFound("17"): "no task 17",
    errors.DagNotFound("18"): "no dag 18",
    errors.DagStateConflict("RUNNING", "resumed"): "a dag that is RUNNING cannot be resumed",
    errors.StepOfDag("18"): "the task is a step of the dag 18; resume that",
    errors.StreamNotFound("a:b"): "no stream a:b; it was not started, or is over",
    errors.ArtifactNotFound("it is gone"): "it is gone",
    errors.StateConflict("17", "COMPLETED", "cancelled"): "a task that is COMPLETED cannot be cancelled",
    errors.RateLimited("acme", 0.25, 300.0): "acme may send 300 tasks a second; try again in 0.25 s",
    errors.ExceedsBurst(2_000, 1_000): "a request of 2,000 tasks can never pass a limit of 1,000 at once; send fewer",
    errors.TenantQueueFull("acme", 5_000, 2.0): "acme may have 5,000 tasks waiting, and has; try again in 2 s",
    errors.PriorityNotAllowed(0, 1): "priority 0 is more urgent than this tenant may ask for, which is 1",
    errors.PayloadTooLarge(2_048, 1_024): "the payload has 2,048 bytes; this tenant may send 1,024",
    errors.QueueFull("the queue of priority 2", 12.345): "the queue of priority 2 is full; try again in 12.3 s",
    errors.IdempotencyKeyInvalid("it is long"): "Idempotency-Key: it is long",
    errors.IdempotencyKeyReused(
        "k"
    ): 'the idempotency key "k" stands for another request; take a new key for a new request',
    errors.IdempotencyInFlight(
        "k", 2.0
    ): 'the first request with the idempotency key "k" has no answer yet; send this one again',
    errors.TooManyFollowers("this credential", 1_000): (
        "this credential follows tasks with 1,000 connections, which is the most; close some, or poll"
    ),
    errors.TooManyFollowers("this credential", 1_000, "streams and subscriptions"): (
        "this credential follows tasks with 1,000 streams and subscriptions, which is the most; close some, or poll"
    ),
    errors.TooManyStrangers("the gateway", 256): (
        "the gateway has 256 WebSockets open whose client has not said who it is, which is the most; try again in 1 s,"
        " or show a key or a ticket in the handshake"
    ),
    errors.StreamMalformed("no header name"): "no header name",
    errors.StreamIdle(60.0): "nothing that goes on was followed for 60 s; open a connection when there is something",
    errors.StreamTooLarge("the body of a frame", 65_536): "the body of a frame has more than 65,536 bytes",
    errors.StreamTooLarge("a frame", 64, "headers"): "a frame has more than 64 headers",
    errors.StreamVersionUnknown(("1.0", "1.1", "1.2")): "the versions of STOMP spoken here are 1.0, 1.1, 1.2",
    errors.TooManySubscriptions(
        1_000
    ): "a connection may have 1,000 subscriptions, and has; end one, or open another connection",
    errors.NotBuilt("chains"): "this version does not offer chains",
    errors.Unavailable("postgresql"): "postgresql is not available; try again in 1 s",
    errors.Unavailable("queue", 2.5): "queue is not available; try again in 2.5 s",
    errors.GatewayStops("the gateway"): "the gateway is being stopped; come back in 1 s",
    errors.ProviderError("overloaded", "try later", True): "overloaded: try later",
    errors.ProviderUnavailable("it does not answer"): "provider_unavailable: it does not answer",
    errors.InputError("the step draft has no text"): "input_unusable: the step draft has no text",
    errors.InputGone("the picture is not there"): "input_gone: the picture is not there",
    errors.StartupRefused("the port is taken"): "the port is taken",
    errors.MigrationError("0001_tasks", "it was changed"): "migration 0001_tasks: it was changed",
    errors.SettingInvalid("FLIK_PORT", "is no number"): "FLIK_PORT: is no number",
}
ABSTRACT = {FlikError, errors.RequestError}


def all_kinds(kind: type[FlikError] = FlikError) -> set[type[FlikError]]:
    return {kind}.union(*(all_kinds(child) for child in kind.__subclasses__()))


def test_every_kind_has_an_example() -> None:
    mine = {kind for kind in all_kinds() if kind.__module__ == errors.__name__}
    assert mine - ABSTRACT == {type(example) for example in EXAMPLES}


@pytest.mark.parametrize("error", EXAMPLES, ids=lambda error: type(error).__name__)
def test_error_says_what_is_wrong(error: FlikError) -> None:
    assert str(error) == EXAMPLES[error]


@pytest.mark.parametrize("error", EXAMPLES, ids=lambda error: type(error).__name__)
def test_error_survives_pickling_and_copying(error: FlikError) -> None:
    for twin in (pickle.loads(pickle.dumps(error)), copy.copy(error)):
        assert type(twin) is type(error)
        assert (twin.args, vars(twin), str(twin)) == (error.args, vars(error), str(error))


@pytest.mark.parametrize("error", EXAMPLES, ids=lambda error: type(error).__name__)
def test_every_argument_travels(error: FlikError) -> None:
    signature = inspect.signature(type(error))
    assert list(signature.bind(*error.args).arguments) == list(signature.parameters)


def test_codes_are_stable_words_that_no_two_kinds_share() -> None:
    codes = [kind.code for kind in {type(example) for example in EXAMPLES}]
    assert len(set(codes)) == len(codes)
    assert all(code.islower() and code.replace("_", "").isalpha() for code in codes)


def test_every_request_error_has_an_answer_of_its_own() -> None:
    requests = {kind for kind in all_kinds(errors.RequestError) if kind.__module__ == errors.__name__} - ABSTRACT
    assert requests | {
        errors.Unavailable, errors.GatewayStops, errors.TooManyStrangers, errors.QueueFull
    } == set(problems.TABLE)  # fmt: skip
