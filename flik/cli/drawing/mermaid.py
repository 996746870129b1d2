"""A dag as a flowchart of Mermaid, which many forges and editors draw in Markdown."""

from __future__ import annotations

from collections.abc import Mapping

from flik.domain.dag.plan import Plan
from flik.domain.task import Status

CLASSES: Mapping[str, tuple[str, str]] = {
    Status.COMPLETED: ("completed", "fill:#d8f0dc,stroke:#2c7a3f"),
    Status.PROCESSING: ("processing", "fill:#d9edf7,stroke:#22698c"),
    Status.FAILED: ("failed", "fill:#f8d7da,stroke:#a02834"),
    Status.CANCELLED: ("failed", "fill:#f8d7da,stroke:#a02834"),
    Status.EXPIRED: ("failed", "fill:#f8d7da,stroke:#a02834"),
}


def mermaid(plan: Plan, states: Mapping[str, str]) -> str:
    """Return the flowchart, without a line break at its end."""
    lines = ["flowchart TD"]
    styles = {}
    for place, step in enumerate(plan.steps):
        state = states.get(step.step_id, "")
        words = (step.step_id, step.spec.task_type, state)
        name, style = CLASSES.get(state.partition(" ")[0], ("", ""))
        styles.update({name: style} if name else {})
        label = "<br/>".join(_safe(word) for word in words if word)
        lines.append(f'    s{place}["{label}"]' + (f":::{name}" if name else ""))
    for place, step in enumerate(plan.steps):
        lines += [f"    s{place} --> s{child}" for child in step.children]
    return "\n".join(lines + [f"    classDef {name} {style}" for name, style in styles.items()])


def _safe(word: str) -> str:
    """Return a word with all that Mermaid could read as its own written as a code."""
    return "".join(char if char.isalnum() or char in " -_.%" else f"#{ord(char)};" for char in word)
