"""A task's own webhook, as a submit brings it: read, and looked at as one of a tenant is when it is saved.

The form of the URL is looked at with the rest of the document. Where its name leads is asked after a replay was looked
for, which needs no name server, and before the door, so that a refusal costs no token; and again at each sending.
What bounds these questions is not the rate but how many of them a tenant has under way (`flik/outbound/lookups.py`),
and how many names one request may bring.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping

from starlette.requests import Request

from flik import schemas
from flik.domain.dag.graph import NewDag
from flik.domain.task import NewTask
from flik.domain.webhook.own import OwnWebhook, receiver_id
from flik.domain.webhook.target import Allowed, Refused, Target, read_url
from flik.errors import FieldError, FlikError, InvalidRequest, Unavailable
from flik.gateway.parts import parts_of
from flik.outbound.lookups import Lookups
from flik.outbound.resolve import answer_of, judge

MAX_NAMES = 32  # different ones; who sends thousands of tasks has them told to a few places
_TOO_MANY = Refused(f"names a host beyond the {MAX_NAMES} different ones that a request may name")
_Place = tuple[str, Target]  # with its tenant
_Name = tuple[str, str]  # a host with its tenant
_Answer = list[str] | Unavailable


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


async def refusals(request: Request, tasks: Mapping[str, NewTask | NewDag]) -> dict[str, FlikError]:
    """Return why not, for those of the tasks or dags, by their pointers, that are not taken because of their webhooks.

    InvalidRequest: nothing would be sent there. Unavailable: nobody tells now where its name leads.
    """
    parts = parts_of(request)
    allowed = parts.webhook_targets
    targets = {
        pointer: (task.tenant_id, target)
        for pointer, task in tasks.items()
        if task.webhook is not None and isinstance(target := read_url(task.webhook.url, allowed), Target)
    }
    answers = await _answers(parts.lookups, targets.values())
    said = {pointer: _refusal(place, allowed, answers) for pointer, place in targets.items()}
    return {
        pointer: InvalidRequest((FieldError(f"{pointer}/webhook/url", why.why),)) if isinstance(why, Refused) else why
        for pointer, why in said.items()
        if why is not None
    }


async def _answers(lookups: Lookups, places: Iterable[_Place]) -> dict[_Name, _Answer]:
    """Return what is known of the first `MAX_NAMES` names, each of which is asked for once."""
    names = list(dict.fromkeys((tenant_id, target.host) for tenant_id, target in places if target.address is None))
    asked = names[:MAX_NAMES]
    return dict(zip(asked, await asyncio.gather(*(_answer(lookups, *name) for name in asked)), strict=True))


async def _answer(lookups: Lookups, tenant_id: str, host: str) -> _Answer:
    try:
        return await answer_of(host, lookups.of(tenant_id))
    except Unavailable as error:
        return error


def _refusal(place: _Place, allowed: Allowed, answers: Mapping[_Name, _Answer]) -> Refused | Unavailable | None:
    tenant_id, target = place
    answer = () if target.address is not None else answers.get((tenant_id, target.host), _TOO_MANY)
    if isinstance(answer, Refused | Unavailable):
        return answer
    found = judge(target, allowed, answer)
    return found if isinstance(found, Refused) else None
