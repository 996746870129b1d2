"""Steps to put together with Ray's `.bind()`.

picture = draw.bind(prompt=text, width=512)     # the payload by name; a step in it stands for what it will give
picture = draw.bind(text, width=512)            # comes after `text`, whose text is the prompt, as there is none
film = film.bind(input=output(picture, "artifacts.0"))
"""

from __future__ import annotations

from typing import Any, get_args

import ray

from flik.domain.dag.plan import STEP_ID, OnFailure, StepSpec
from flik.domain.dag.references import FROM

MARK = "flik_step"  # the attribute of a function that makes it a step; its value describes it


def step(
    task_type: str,
    *,
    id: str | None = None,
    priority: int | None = None,
    start_deadline_s: float | None = None,
    max_attempts: int | None = None,
    on_failure: OnFailure = "fail",
    reuse: bool = False,
) -> Any:
    """Return a remote function of Ray that stands for a step; `.bind()` makes a node of it, as often as is wanted.

    A step with an id can be in a graph once. One without is called by its place: step-1, step-2. What is left out
    is for Flik to decide. `start_deadline_s` counts from when the step may start; `on_failure="skip"` lets the dag
    complete without this step.

    Raises:
        ValueError: `id` or `on_failure` is none that Flik knows.
    """
    if id is not None and not STEP_ID.fullmatch(id):
        raise ValueError(f"{id!r} is no id of a step: 1 to 64 letters, digits, - and _, of which the first is a letter")
    if on_failure not in get_args(OnFailure):
        raise ValueError(f"on_failure is fail or skip, not {on_failure!r}")

    def run(*_: Any, **__: Any) -> None:
        raise RuntimeError("a step is run by Flik, not by Ray: give the graph to FlikClient.run_dag")

    described = StepSpec(
        id, task_type, priority=priority, start_deadline_s=start_deadline_s, max_attempts=max_attempts,
        on_failure=on_failure, reuse=reuse,
    )  # fmt: skip
    setattr(run, MARK, described)
    run.__name__ = id or task_type.lower()
    return ray.remote(run)


def output(node: Any, path: str) -> dict[str, Any]:
    """Return a part of what a step will give, for a payload: "text", "artifacts.0", "metadata.seed"."""
    return {FROM: node, "path": path}
