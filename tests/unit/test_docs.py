"""Holds the documents and the code together: what a document names must be there, and the other way round."""

from __future__ import annotations

import ast
import re
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from flik import settings
from flik.cli.commands import COMMANDS

ROOT = Path(__file__).parents[2]
GUIDES = ("README.md", "ARCHITECTURE.md", "CONTRIBUTING.md")
NOT_A_VALUE = ("not set", "empty")
UNITS = {"_per_sec": "requests/s", "_per_hour": "USD/h", "_s": "s", "_num_cpus": "CPUs", "_workers": "replicas"}

# What the requirements document owes at this milestone.
OWED = [
    *(f"S0-{n}" for n in (*range(10, 23), *range(26, 46), *range(47, 51), 77, 98, 99, 100, 106)),
    *(f"S1-{n:02}" for n in (1, 2, 3, 6, 7, 9, 10, 11, 12, 14, 18, 20, 21, 27, 30)),
    *(f"S2-{n:02}" for n in (2, 3, 4, 5, 6, 8, *range(9, 20))),
    *(f"S3-{n:02}" for n in (*range(1, 14), 19)),
    *(f"S4-{n}" for n in (16, *range(17, 21), *range(22, 29), *range(31, 35))),
    *("I4", "I5", "I7", "I10", "I12", "I13", "I14", "I15", "I17", "X-10", "N-2"),
]


def text_of(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def rows_of(name: str) -> Iterator[list[str]]:
    """Yield the cells of every table row, headings and rules included."""
    for line in text_of(name).splitlines():
        if line.startswith("|"):
            yield [cell.strip() for cell in line.strip("|").split("|")]


def setting_rows() -> dict[str, tuple[str, str]]:
    """Return (default, unit) by variable, from the table of settings, which alone has four columns."""
    return {row[0].strip("`"): (row[1].strip("`"), row[2]) for row in rows_of("README.md") if len(row) == 4}


@pytest.fixture
def no_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Work in an empty folder, with no setting in the environment."""
    monkeypatch.chdir(tmp_path)
    for field in settings.Settings.model_fields:
        monkeypatch.delenv(settings.variable(field), raising=False)


@pytest.mark.parametrize("field", settings.Settings.model_fields)
def test_readme_has_each_setting_with_its_default_and_unit(
    field: str, no_settings: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    default, unit = setting_rows()[settings.variable(field)]
    real: Any = getattr(settings.load(), field)
    if default in NOT_A_VALUE:
        assert not real
    else:
        monkeypatch.setenv(settings.variable(field), default)
        assert getattr(settings.load(), field) == real
    expected = next((word for ending, word in UNITS.items() if field.endswith(ending)), None)
    assert expected is None or unit == expected


def test_readme_has_no_setting_that_is_not_there() -> None:
    named = {name for name in setting_rows() if re.fullmatch(r"[A-Z_]+", name)}
    assert named == {settings.variable(field) for field in settings.Settings.model_fields}


@pytest.mark.parametrize("command", COMMANDS)
def test_readme_has_each_command(command: str) -> None:
    assert any(row[0] == f"`flik {command}`" for row in rows_of("README.md"))


@pytest.mark.parametrize("guide", GUIDES)
def test_each_command_that_a_guide_calls_is_there(guide: str) -> None:
    called = set(re.findall(r"(?:^|[`(/])flik ([a-z][a-z-]*)", text_of(guide), re.MULTILINE))
    assert called <= set(COMMANDS)


@pytest.mark.parametrize("guide", GUIDES)
def test_each_path_that_a_guide_names_is_there(guide: str) -> None:
    paths = set(re.findall(r"`((?:flik|tests|docs|benchmarks|requirements)(?:/[\w.-]+)*/?)`", text_of(guide)))
    paths -= {"flik"}  # the command
    assert paths
    assert [path for path in sorted(paths) if not (ROOT / path).exists()] == []


@pytest.mark.parametrize("guide", [*GUIDES, "CHANGELOG.md", "docs/requirements.md", "docs/errors.md"])
def test_each_link_that_a_guide_makes_leads_somewhere(guide: str) -> None:
    links = re.findall(r"\]\(([^)#:]+)\)", text_of(guide))
    assert [link for link in links if not ((ROOT / guide).parent / link).exists()] == []


@pytest.mark.parametrize("guide", [*GUIDES, "CHANGELOG.md"])
def test_each_make_target_that_a_guide_names_is_there(guide: str) -> None:
    targets = set(re.findall(r"^([a-z]+):", text_of("Makefile"), re.MULTILINE))
    named = set(re.findall(r"`make ([a-z]+)`", text_of(guide)))
    assert named <= targets


def test_contributing_has_each_make_target() -> None:
    targets = set(re.findall(r"^([a-z]+):.*##", text_of("Makefile"), re.MULTILINE))
    assert targets <= set(re.findall(r"`make ([a-z]+)`", text_of("CONTRIBUTING.md")))


def test_architecture_says_where_to_change_enough_things() -> None:
    table = text_of("ARCHITECTURE.md").partition("## To change X, open Y")[2].partition("\n## ")[0]
    rows = [line for line in table.splitlines() if line.startswith("| ") and "`" in line]
    assert len(rows) >= 20


def test_each_status_is_in_the_table_of_states() -> None:
    named = {row[0] for row in rows_of("ARCHITECTURE.md")}
    assert {"PENDING", "QUEUED", "PROCESSING", "COMPLETED", "FAILED", "CANCELLED", "EXPIRED"} <= named


def test_decisions_are_numbered_without_a_gap() -> None:
    numbers = sorted(int(path.name[:4]) for path in (ROOT / "docs" / "adr").glob("*.md"))
    assert numbers == list(range(1, len(numbers) + 1))


@cache
def functions_in(path: str) -> frozenset[str]:
    """Return the names of the functions in a file."""
    functions = (ast.FunctionDef, ast.AsyncFunctionDef)
    return frozenset(node.name for node in ast.walk(ast.parse(text_of(path))) if isinstance(node, functions))


def test_each_test_that_the_requirements_name_is_there() -> None:
    named = re.findall(r"`(tests/[\w/.]+\.py)::(\w+)`", text_of("docs/requirements.md"))
    assert len(named) > 50
    assert [
        f"{path}::{test}" for path, test in named if not (ROOT / path).exists() or test not in functions_in(path)
    ] == []


@pytest.mark.parametrize("row", OWED)
def test_each_row_that_is_owed_has_a_test_or_says_why_not(row: str) -> None:
    cells = {cells[0]: cells for cells in rows_of("docs/requirements.md")}[row]
    assert "::" in cells[2] or cells[2].startswith(("not yet:", "`make lint`:"))


def test_count_of_the_requirements_is_right() -> None:
    proofs = [cells[2] for cells in rows_of("docs/requirements.md") if re.match(r"S\d-", cells[0])]
    missing = sum(proof.startswith("not yet:") for proof in proofs)
    partly = sum("not yet:" in proof for proof in proofs) - missing
    proved = len(proofs) - partly - missing
    said = f"{len(proofs)} rows: {proved} proved, {partly} in part, {missing} not yet."
    assert said in text_of("docs/requirements.md")


def test_every_dependency_of_the_one_build_file_is_locked() -> None:
    build = tomllib.loads(text_of("pyproject.toml"))
    wanted = {"run": build["project"]["dependencies"], "dev": build["dependency-groups"]["dev"]}
    for file, requirements in wanted.items():
        locked = set(re.findall(r"^([a-z0-9-]+)==", text_of(f"requirements/{file}.txt"), re.MULTILINE))
        assert {canonicalize_name(Requirement(one).name) for one in requirements} <= locked
