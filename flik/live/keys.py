"""Every key Flik keeps in Redis.

flik:result:{taskId}    string  a completed task as JSON        expires after FLIK_HOT_TTL_S
flik:progress:{taskId}  string  how far a running attempt is    expires after 30 s
"""

PROGRESS_TTL_S = 30


def result(task_id: str) -> str:
    """Return the key of a completed task."""
    return f"flik:result:{task_id}"


def progress(task_id: str) -> str:
    """Return the key of a running task's progress."""
    return f"flik:progress:{task_id}"
