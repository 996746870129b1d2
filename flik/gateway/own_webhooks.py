"""A task's own webhook, as a submit brings it: read, and looked at as one of a tenant is when it is saved.

The form of the URL is looked at with the rest of the document. Where its name leads is asked after a replay was looked
for, which needs no name server, and before the door, so that a refusal costs no token; and again at each sending.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from starlette.requests import Request

from flik import schemas
from flik.domain.dag.graph import NewDag
from flik.domain.task import NewTask
from flik.domain.webhook.own import OwnWebhook, receiver_id
from flik.domain.webhook.target import Allowed, Refused, read_url
from flik.errors import FieldError, InvalidRequest
from flik.gateway.parts import parts_of
from flik.outbound.sender import refusal_of


def read(
    wanted: schemas.TaskWebhook | schemas.DagWebhook, tenant_id: str, allowed: Allowed, pointer: str
) -> OwnWebhook:
    """Return the webhook that a task or dag of this tenant asks for; `pointer` is where that stands in the body.

    Raises:
        InvalidRequest: a webhook may not have this URL.
    """
    target = read_url(wanted.url, allowed)
    if isinstance(target, Refused):
        raise InvalidRequest((FieldError(f"{pointer}/webhook/url", target.why),))
    kinds = tuple(dict.fromkeys(wanted.kinds))
    return OwnWebhook(receiver_id(tenant_id, target.origin), target.url, kinds, wanted.secret)


async def refusals(request: Request, tasks: Mapping[str, NewTask | NewDag]) -> dict[str, InvalidRequest]:
    """Return why for those of the tasks or dags, by their pointers, to whose webhooks nothing would be sent."""
    hooks = {pointer: task.webhook for pointer, task in tasks.items() if task.webhook is not None}
    urls = {hook.receiver_id: hook.url for hook in hooks.values()}  # one question for all that lead to one host
    allowed = parts_of(request).webhook_targets
    found = dict(zip(urls, await asyncio.gather(*(refusal_of(url, allowed) for url in urls.values())), strict=True))
    return {
        pointer: InvalidRequest((FieldError(f"{pointer}/webhook/url", refused.why),))
        for pointer, hook in hooks.items()
        if isinstance(refused := found[hook.receiver_id], Refused)
    }
