"""`--webhook` and `--webhook-secret`: what a task or a dag brings to be told of its end."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import click

from flik.client import TaskWebhook


def with_webhook(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command both options; it gets them as `webhook`, a `TaskWebhook` or None."""

    @click.option("--webhook", "target", metavar="URL", help="Tell this place how it ends, signed.")
    @click.option(
        "--webhook-secret",
        "secret",
        envvar="FLIK_WEBHOOK_SECRET",
        metavar="SECRET",
        show_envvar=True,
        help="What its messages are signed with: whsec_ and the base64 of 24 to 64 random bytes.",
    )
    @functools.wraps(command)
    def reading(*given: Any, target: str | None, secret: str | None, **named: Any) -> None:
        if target is not None and secret is None:
            raise click.UsageError("--webhook takes a secret: --webhook-secret, or better FLIK_WEBHOOK_SECRET.")
        webhook = None if target is None or secret is None else TaskWebhook(target, secret)
        command(*given, webhook=webhook, **named)

    return reading
