"""Drawings of dags: as text, for Mermaid, as SVG; of a running one with the states of its steps."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from flik.cli.drawing.mermaid import mermaid
from flik.cli.drawing.svg import svg
from flik.cli.drawing.text import text
from flik.domain.dag.plan import Plan

FORMATS: Mapping[str, Callable[[Plan, Mapping[str, str]], str]] = {"text": text, "mermaid": mermaid, "svg": svg}
"""Each takes the plan, and what is known of the state of steps by their ids."""
