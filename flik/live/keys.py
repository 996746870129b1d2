"""Every key Flik keeps in Redis.

flik:result:{taskId}    string  a completed task as JSON        expires after FLIK_HOT_TTL_S
flik:progress:{taskId}  string  how far a running attempt is    expires after 30 s
flik:ticket:{sha256}    string  whom a ticket stands for        expires after 30 s; deleted when it is used
flik:chunks:{taskId}    stream  the text of a task as it is written  expires FLIK_STREAM_TTL_S after its end
stream:{tenantId}:{featureId}:{chatId}  stream  the text of a chat, as the earlier streaming system had it; as above
flik:events             channel what happens to all tasks, as it happens
flik:news:{region}      channel what the queue of a region is told of its tasks by other regions
flik:metrics:{region}   hash    metrics of the region's gateway replicas, by replica    expires after 60 s
flik:rate:epoch         hash    what Redis knows of itself and of the regions, for the rate limits; stays
flik:rate:holder:{id}   hash    the last call of a region's limiter     expires after 60 s
flik:rate:bucket:{tenantId}  hash  tokens of a tenant, and who holds some  expires when it is full again

In the parts of the name of a chat's stream a colon is `%3A` and a percent sign `%25`, so that no two tenants
can meet in one.
`chunks.lua` tells what is in the streams, `buckets.lua` what is in the last three.
"""

from flik.domain.chat import Chat, escaped

PROGRESS_TTL_S = 30
EVENTS = "flik:events"
RATE_EPOCH = "flik:rate:epoch"


def result(task_id: str) -> str:
    """Return the key of a completed task."""
    return f"flik:result:{task_id}"


def progress(task_id: str) -> str:
    """Return the key of a running task's progress."""
    return f"flik:progress:{task_id}"


def chunks(task_id: str) -> str:
    """Return the key of the stream of a task's text."""
    return f"flik:chunks:{task_id}"


def chat(tenant_id: str, feature_id: str, chat_id: str) -> str:
    """Return the key of a chat's stream."""
    return f"stream:{escaped(tenant_id)}:{Chat(feature_id, chat_id).stream_key}"


def metrics(region: str) -> str:
    """Return the key of the metrics of a region's gateway replicas."""
    return f"flik:metrics:{region}"


def news(region: str) -> str:
    """Return the channel that the queue of a region listens to."""
    return f"flik:news:{region}"


def ticket(digest: str) -> str:
    """Return the key of a ticket."""
    return f"flik:ticket:{digest}"


def rate_holder(holder: str) -> str:
    """Return the key of a limiter's last call."""
    return f"flik:rate:holder:{holder}"


def rate_bucket(tenant_id: str) -> str:
    """Return the key of a tenant's bucket."""
    return f"flik:rate:bucket:{tenant_id}"
