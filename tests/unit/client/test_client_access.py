"""Arguments go before the environment, and the environment before the data folder and the defaults."""

from __future__ import annotations

from pathlib import Path

import pytest

from flik.client.access import resolve


def test_without_anything_the_demo_of_this_machine_is_meant() -> None:
    access = resolve(environ={"FLIK_DATA_DIR": "/nonexistent"})

    assert (access.base_url, access.api_key, access.tenant) == ("http://127.0.0.1:8080", "demo", "demo")


def test_the_key_in_the_data_folder_is_used_until_the_environment_names_another(tmp_path: Path) -> None:
    (tmp_path / "api_key").write_text("flik_kept\n")
    env = {"FLIK_DATA_DIR": str(tmp_path)}

    assert resolve(environ=env).api_key == "flik_kept"
    assert resolve(environ={**env, "FLIK_API_KEY": "flik_env"}).api_key == "flik_env"
    assert resolve(api_key="flik_given", environ={**env, "FLIK_API_KEY": "flik_env"}).api_key == "flik_given"


def test_the_key_stays_out_of_the_repr() -> None:
    assert "flik_secret" not in repr(resolve(api_key="flik_secret", environ={}))


def test_a_slash_at_the_end_of_the_url_makes_no_difference() -> None:
    assert resolve("https://flik.test/base/", environ={}).base_url == "https://flik.test/base"


@pytest.mark.parametrize(
    "url", ["flik.test", "ftp://flik.test", "http://", "http://x:99999", "http://[::1", "http://x:0", "http://u:p@x"]
)
def test_what_is_no_url_of_a_gateway_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="URL"):
        resolve(url, environ={})


@pytest.mark.parametrize("key", ["two\nlines", "ключ", "a b", "x" * 5000])
def test_a_key_that_no_header_can_carry_is_refused_without_repeating_it(key: str) -> None:
    with pytest.raises(ValueError, match="API key") as caught:
        resolve(api_key=key, environ={})

    assert key not in str(caught.value)
