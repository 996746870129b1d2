"""The worker: a task that does nothing. Redis is broker (database 0) and result store (database 1).

Celery's defaults where the choice is the user's: a message is acknowledged when a worker
takes it, so a worker that is killed loses it.
"""

import os

from celery import Celery  # type: ignore[import-not-found,unused-ignore]

REDIS_URL = os.environ["PEER_REDIS_URL"]

celery = Celery("peer", broker=f"{REDIS_URL}/0", backend=f"{REDIS_URL}/1")
celery.conf.update(
    task_serializer="json",
    result_serializer="json",
    accept_content=["json"],
    broker_connection_retry_on_startup=True,
    worker_send_task_events=False,
)


@celery.task(name="process")  # type: ignore[untyped-decorator,unused-ignore]
def process(task_type: str, payload: dict[str, object]) -> dict[str, object]:
    return {"taskType": task_type, "done": True}
