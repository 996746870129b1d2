"""Every key Flik keeps in Redis.

flik:result:{taskId}    string  a completed task as JSON        expires after FLIK_HOT_TTL_S
flik:progress:{taskId}  string  how far a running attempt is    expires after 30 s
flik:ticket:{sha256}    string  whom a ticket stands for        expires after 30 s; deleted when it is used
flik:events             channel what happens to all tasks, as it happens
flik:metrics:{region}   hash    metrics of the region's gateway replicas, by replica    expires after 60 s
flik:rate:epoch         hash    what Redis knows of itself and of the regions, for the rate limits; stays
flik:rate:holder:{id}   hash    the last call of a region's limiter     expires after 60 s
flik:rate:bucket:{tenantId}  hash  tokens of a tenant, and who holds some  expires when it is full again

`buckets.lua` tells what is in the last three.
"""

PROGRESS_TTL_S = 30
EVENTS = "flik:events"
RATE_EPOCH = "flik:rate:epoch"


def result(task_id: str) -> str:
    """Return the key of a completed task."""
    return f"flik:result:{task_id}"


def progress(task_id: str) -> str:
    """Return the key of a running task's progress."""
    return f"flik:progress:{task_id}"


def metrics(region: str) -> str:
    """Return the key of the metrics of a region's gateway replicas."""
    return f"flik:metrics:{region}"


def ticket(digest: str) -> str:
    """Return the key of a ticket."""
    return f"flik:ticket:{digest}"


def rate_holder(holder: str) -> str:
    """Return the key of a limiter's last call."""
    return f"flik:rate:holder:{holder}"


def rate_bucket(tenant_id: str) -> str:
    """Return the key of a tenant's bucket."""
    return f"flik:rate:bucket:{tenant_id}"
