"""What a command was called with besides its own arguments: which gateway, as whom, for whose eyes.

`--url`, `--api-key`, `--tenant` and `--json` are understood before the command and after it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from flik.client import FlikClient
    from flik.client.admin import FlikAdmin
    from flik.client.webhooks import FlikWebhooks

F = TypeVar("F", bound=Callable[..., Any])
T = TypeVar("T")


@dataclass(slots=True)
class Invocation:
    """Filled in while click reads the command line; None is what was not given."""

    url: str | None = None
    api_key: str | None = None
    tenant: str | None = None
    as_json: bool = False

    def run(self, work: Callable[[FlikClient], Awaitable[T]]) -> T:
        """Run `work` with a client, on an event loop of its own."""
        return asyncio.run(self._run(work))

    async def _run(self, work: Callable[[FlikClient], Awaitable[T]]) -> T:
        from flik.client import FlikClient  # noqa: PLC0415  # httpx costs a third of a second

        try:
            client = FlikClient(self.url, self.api_key, self.tenant)
        except ValueError as error:
            raise click.UsageError(str(error)) from None
        async with client:
            return await work(client)

    def run_admin(self, work: Callable[[FlikAdmin], Awaitable[T]]) -> T:
        """Run `work` with an operator's client, on an event loop of its own."""
        return asyncio.run(self._run_admin(work))

    async def _run_admin(self, work: Callable[[FlikAdmin], Awaitable[T]]) -> T:
        from flik.client.admin import FlikAdmin  # noqa: PLC0415  # httpx costs a third of a second

        try:
            client = FlikAdmin(self.url, self.api_key)
        except ValueError as error:
            raise click.UsageError(str(error)) from None
        async with client:
            return await work(client)

    def run_webhooks(self, work: Callable[[FlikWebhooks], Awaitable[T]]) -> T:
        """Run `work` with a client for webhooks, on an event loop of its own."""
        return asyncio.run(self._run_webhooks(work))

    async def _run_webhooks(self, work: Callable[[FlikWebhooks], Awaitable[T]]) -> T:
        from flik.client.webhooks import FlikWebhooks  # noqa: PLC0415  # httpx costs a third of a second

        try:
            client = FlikWebhooks(self.url, self.api_key)
        except ValueError as error:
            raise click.UsageError(str(error)) from None
        async with client:
            return await work(client)


def _remember(name: str) -> Callable[[click.Context, click.Parameter, Any], None]:
    def callback(ctx: click.Context, _: click.Parameter, value: Any) -> None:
        invocation = ctx.ensure_object(Invocation)
        if value:
            setattr(invocation, name, value)

    return callback


def with_json(command: F) -> F:
    """Give a command `--json`."""
    return click.option(
        "--json", is_flag=True, expose_value=False, callback=_remember("as_json"), help="Write JSON to stdout."
    )(command)


def connected(command: F) -> F:
    """Give a command what it needs to speak to a gateway, and `--json`."""
    for name, field, about in (
        ("--tenant", "tenant", "Whose tasks; in lists a filter.  [env: FLIK_TENANT; default: demo]"),
        ("--api-key", "api_key", "Better kept in the environment or the data folder.  [env: FLIK_API_KEY]"),
        ("--url", "url", "The gateway.  [env: FLIK_URL; default: http://127.0.0.1:8080]"),
    ):
        command = click.option(name, expose_value=False, callback=_remember(field), help=about)(command)
    return with_json(command)


pass_invocation = click.make_pass_decorator(Invocation, ensure=True)
