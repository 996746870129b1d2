"""The examples do what they say, here against the fake gateway; `tests/acceptance` runs them against a real one."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from fakes_gateway import KEY, PICTURE, FakeGateway, problem
from starlette.responses import JSONResponse

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"
needs_curl = pytest.mark.skipif(shutil.which("curl") is None, reason="the example calls curl")


def run(*command: str | Path, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        list(map(str, command)), cwd=ROOT, env={**os.environ, **environ}, text=True, capture_output=True, check=False
    )


def flik(*args: str | Path) -> subprocess.CompletedProcess[str]:
    return run(sys.executable, "-m", "flik", *args)


@needs_curl
def test_the_chain_with_curl_waits_for_the_film_and_keeps_it(gateway: FakeGateway, tmp_path: Path) -> None:
    new = gateway.add_dag(1, {"describe": "TEXT", "draw": "IMAGE", "film": "VIDEO"}, {"status": "RUNNING"})
    done = {"status": "COMPLETED", "result": {"artifacts": [gateway.artifact()]}}
    gateway.scripts[new].append({"film": done, "status": "COMPLETED"})
    gateway.answer_next(JSONResponse(gateway.dags[new], 202))

    ended = run(EXAMPLES / "chain.sh", tmp_path / "films", FLIK_API_KEY=KEY, FLIK_TENANT="acme")

    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout.splitlines()[0] == f"dag {new}" and "film COMPLETED" in ended.stdout
    assert (tmp_path / "films" / "film.mp4").read_bytes() == PICTURE
    submitted = gateway.requests[0]
    assert submitted.body["tenantId"] == "acme" and len(submitted.body["steps"]) == 3
    assert submitted.headers["authorization"] == f"Bearer {KEY}" and "idempotency-key" in submitted.headers


@needs_curl
def test_the_chain_with_curl_takes_the_key_of_the_data_folder(gateway: FakeGateway, tmp_path: Path) -> None:
    (tmp_path / "admin_key.header").write_text("Authorization: Bearer kept\n")
    gateway.answer_next(problem(422, "invalid_request", "a step is wrong"))

    ended = run(EXAMPLES / "chain.sh", tmp_path, FLIK_DATA_DIR=str(tmp_path))

    assert ended.returncode != 0 and "a step is wrong" in ended.stderr and "Traceback" not in ended.stderr
    assert gateway.requests[0].headers["authorization"] == "Bearer kept"


def test_the_chain_in_python_runs_and_keeps_the_film(gateway: FakeGateway, tmp_path: Path) -> None:
    ended = run(sys.executable, EXAMPLES / "chain.py", tmp_path)

    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout.splitlines()[-2:] == [
        "describe COMPLETED  draw COMPLETED  film COMPLETED",
        str(tmp_path / "film.mp4"),
    ]
    assert (tmp_path / "film.mp4").read_bytes() == PICTURE


@pytest.mark.parametrize("name", ["chain.yaml", "chain.py", "diamond.yaml"])
def test_each_file_is_run_and_drawn_by_the_command(gateway: FakeGateway, name: str) -> None:
    drawn, ran = flik("dag", "show", EXAMPLES / name), flik("dag", "run", EXAMPLES / name)

    assert (drawn.returncode, drawn.stderr) == (0, "") and drawn.stdout.startswith("○")
    assert (ran.returncode, ran.stderr) == (0, "") and ran.stdout.splitlines()[-1].endswith("COMPLETED")


def test_the_drawing_in_the_readme_is_that_of_the_diamond() -> None:
    (drawing,) = re.findall(r"```\n(○.*?)```", (EXAMPLES / "README.md").read_text(encoding="utf-8"), re.DOTALL)

    assert flik("dag", "show", EXAMPLES / "diamond.yaml").stdout == drawing


def test_the_lines_for_a_page_in_the_readme_are_those_of_the_example() -> None:
    (lines,) = re.findall(r"```js\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)

    assert lines in (EXAMPLES / "follow.js").read_text(encoding="utf-8")


def test_the_readme_has_each_example() -> None:
    named = re.findall(r"\]\(([^)]+)\)", (EXAMPLES / "README.md").read_text(encoding="utf-8"))

    assert sorted(named) == sorted(path.name for path in EXAMPLES.iterdir() if path.is_file() and path.suffix != ".md")
