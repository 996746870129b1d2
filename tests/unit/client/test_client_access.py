"""Arguments go before the environment, and the environment before the data folder and the defaults."""

from __future__ import annotations

from pathlib import Path

import pytest

from flik.client.access import resolve


def test_without_anything_the_demo_of_this_machine_is_meant() -> None:
    access = resolve(environ={"FLIK_DATA_DIR": "/nonexistent"})

    assert (access.base_url, access.api_key, access.tenant) == ("http://127.0.0.1:8080", "demo", "demo")


def test_the_key_in_the_data_folder_is_used_until_the_environment_names_another(tmp_path: Path) -> None:
    (tmp_path / "admin_key").write_text("flik_kept\n")
    env = {"FLIK_DATA_DIR": str(tmp_path)}

    assert resolve(environ=env).api_key == "flik_kept"
    assert resolve(environ={**env, "FLIK_API_KEY": "flik_env"}).api_key == "flik_env"
    assert resolve(api_key="flik_given", environ={**env, "FLIK_API_KEY": "flik_env"}).api_key == "flik_given"


def test_the_key_in_the_working_folder_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".flik").mkdir()
    (tmp_path / ".flik" / "admin_key").write_text("flik_kept\n")
    monkeypatch.chdir(tmp_path)
    assert resolve(environ={}).api_key == "flik_kept"


@pytest.mark.parametrize("url", ["http://127.0.0.1:9000", "http://localhost", "http://[::1]:8080"])
def test_the_key_in_the_data_folder_is_sent_to_this_machine(tmp_path: Path, url: str) -> None:
    (tmp_path / "admin_key").write_text("flik_kept")
    assert resolve(url, environ={"FLIK_DATA_DIR": str(tmp_path)}).api_key == "flik_kept"


@pytest.mark.parametrize("url", ["https://flik.test", "http://127.0.0.1.evil.test", "http://localhost.evil.test"])
def test_the_key_in_the_data_folder_is_sent_to_no_other_machine(tmp_path: Path, url: str) -> None:
    (tmp_path / "admin_key").write_text("flik_kept")
    assert resolve(environ={"FLIK_DATA_DIR": str(tmp_path), "FLIK_URL": url}).api_key == "demo"


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
