"""Ray's DAG API is leaving Ray: one file of Flik walks its graphs, one other only hands two of its names on."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

FLIK = Path(__file__).parents[2] / "flik"
WALKS, HANDS_ON = "dags/compile.py", "dags/__init__.py"


def names_of_ray_dag(path: Path) -> Iterator[str]:
    """Yield what a file knows of `ray.dag`: names that it imports, and uses of it as an attribute."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.startswith("ray.dag"))
        elif isinstance(node, ast.ImportFrom) and node.module is not None and not node.level:
            for alias in node.names:
                if f"{node.module}.{alias.name}".startswith("ray.dag"):
                    yield alias.name
        elif isinstance(node, ast.Attribute) and ast.unparse(node).startswith("ray.dag"):
            yield ast.unparse(node)


def test_one_file_knows_the_graphs_of_ray() -> None:
    knows = {str(path.relative_to(FLIK)): set(names_of_ray_dag(path)) for path in FLIK.rglob("*.py")}
    found = {path: names for path, names in knows.items() if names}
    assert set(found) == {WALKS, HANDS_ON}
    assert found[HANDS_ON] == {"InputNode", "MultiOutputNode"}


def test_a_graph_is_never_executed_by_ray() -> None:
    for path in (FLIK / "dags").glob("*.py"):
        called = {node.attr for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Attribute)}
        assert not called & {"execute", "experimental_compile", "execute_async"}, path
