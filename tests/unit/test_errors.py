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
    errors.BodyTooLarge(1_048_576): "the body is larger than 1,048,576 bytes",
    errors.UnsupportedMediaType("text/plain"): "send application/json, not text/plain",
    errors.UnsupportedMediaType(""): "send application/json, not an undeclared type",
    errors.Unauthenticated("no token"): "no token",
    errors.TaskNotFound("17"): "no task 17",
    errors.ArtifactNotFound("it is gone"): "it is gone",
    errors.StateConflict("17", "COMPLETED", "cancelled"): "a task that is COMPLETED cannot be cancelled",
    errors.NotBuilt("live events"): "this version does not offer live events",
    errors.Unavailable("postgresql"): "postgresql is not available; try again in 1 s",
    errors.Unavailable("queue", 2.5): "queue is not available; try again in 2.5 s",
    errors.ProviderError("overloaded", "try later", True): "overloaded: try later",
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
    assert requests | {errors.Unavailable} == set(problems.TABLE)
