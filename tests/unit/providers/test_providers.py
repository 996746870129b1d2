"""The table of providers, and the one that does nothing."""

import pytest

from flik import providers
from flik.errors import ProviderError, SettingInvalid
from flik.providers.base import Context, Request, Result


@pytest.mark.parametrize("name", list(providers.PROVIDERS))
async def test_every_provider_of_the_table_ends_with_one_result(name: str) -> None:
    provider = providers.build(name, speed=1e6)
    request = Request("task-1", "TEXT", {"prompt": "tea", "max_words": 20})
    found = [output async for output in provider.generate(request, Context("v1", "w"))]
    assert [type(output) for output in found].index(Result) == len(found) - 1


def test_an_unknown_provider_is_refused_with_the_names_there_are() -> None:
    with pytest.raises(SettingInvalid, match="simulated, noop") as refused:
        providers.build("dall-e", speed=1)
    assert refused.value.name == "FLIK_PROVIDER"


@pytest.mark.parametrize("speed", [0.0, -1.0, float("nan")])
def test_a_speed_that_is_not_positive_is_refused(speed: float) -> None:
    with pytest.raises(SettingInvalid, match="above 0"):
        providers.build("simulated", speed=speed)


async def test_noop_makes_an_empty_result_and_nothing_else() -> None:
    provider = providers.build("noop", speed=1)
    found = [output async for output in provider.generate(Request("t", "IMAGE", {"prompt": "x"}), Context("v1", "w"))]
    assert found == [Result(text="", metadata={})]


async def test_noop_refuses_a_script_it_would_not_follow() -> None:
    scripted = Request("t", "TEXT", {"prompt": "x", "script": {"failures": []}})
    with pytest.raises(ProviderError) as refused:
        [output async for output in providers.build("noop", speed=1).generate(scripted, Context("v1", "w"))]
    assert not refused.value.retryable
