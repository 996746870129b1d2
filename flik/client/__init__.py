"""Flik from Python: submit tasks, follow them, fetch what they made.

    async with FlikClient() as client:
        submitted = await client.submit("IMAGE", {"prompt": "a lighthouse"})
        task = await client.wait(submitted.task_id)
        await client.download(task.artifacts[0], "lighthouse.png")

`SyncFlikClient` has the same methods without `await`. Answers are read leniently: fields
this version does not know are kept in `raw` and otherwise ignored, so an older client
survives a newer server.

`verify_webhook` is for whoever receives webhooks: it says what is wrong with a message, None when nothing is.
"""

from flik.client.answers import (
    Artifact,
    Dag,
    DagFailure,
    DagStep,
    Event,
    Health,
    Page,
    Replayed,
    StepCounts,
    Submitted,
    Task,
    TaskFailure,
)
from flik.client.asynchronous import FlikClient, TaskRequest
from flik.client.blocking import SyncFlikClient
from flik.client.calls import TaskWebhook
from flik.client.failures import (
    ClientError,
    DownloadRefused,
    FlikApiError,
    FlikUnreachable,
    UnreadableAnswer,
    WaitTimedOut,
)
from flik.domain.dag.plan import StepSpec
from flik.domain.webhook.signature import verify as verify_webhook

__all__ = [
    "Artifact",
    "ClientError",
    "Dag",
    "DagFailure",
    "DagStep",
    "DownloadRefused",
    "Event",
    "FlikApiError",
    "FlikClient",
    "FlikUnreachable",
    "Health",
    "Page",
    "Replayed",
    "StepCounts",
    "StepSpec",
    "Submitted",
    "SyncFlikClient",
    "Task",
    "TaskFailure",
    "TaskRequest",
    "TaskWebhook",
    "UnreadableAnswer",
    "WaitTimedOut",
    "verify_webhook",
]
