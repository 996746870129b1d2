"""The demo: one task of each type, followed to its end, and its files fetched."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

import click

from flik.cli.progress import follow
from flik.cli.results import extension_of
from flik.client import ClientError, FlikClient, Task

PROMPTS = {
    "TEXT": {"prompt": "a lighthouse keeper who paints the sea", "seed": 7},
    "IMAGE": {"prompt": "a lighthouse above the ocean at sunset", "style": "watercolor", "seed": 7},
    "VIDEO": {"prompt": "the ocean below mountains at sunset", "seed": 7},
}


def run_demo(url: str, key: str, folder: Path, stop: threading.Event) -> None:
    """Submit one task of each type, show their progress, and print where their files are.

    What keeps it from that is said, and nothing more comes of it: the service goes on.
    """
    folder.mkdir(parents=True, exist_ok=True)
    asyncio.run(_until_stopped(url, key, folder, stop))


async def _until_stopped(url: str, key: str, folder: Path, stop: threading.Event) -> None:
    work = asyncio.ensure_future(_run(url, key, folder))
    while not work.done() and not stop.is_set():
        await asyncio.wait({work}, timeout=0.2)
    if not work.done():
        work.cancel()
        return
    try:
        work.result()
    except (ClientError, OSError) as error:
        click.echo(f"  The demo came to nothing: {error}", err=True)


async def _run(url: str, key: str, folder: Path) -> None:
    click.echo("\nDemo: a text, an image and a video.")
    async with FlikClient(url, api_key=key, tenant="demo") as client:
        submitted = [await client.submit(kind, payload) for kind, payload in PROMPTS.items()]
        labels = {each.task_id: kind for each, kind in zip(submitted, PROMPTS, strict=True)}
        for task in await follow(client, submitted, labels=labels):
            if isinstance(task, Task):
                await _fetch(client, task, folder)


async def _fetch(client: FlikClient, task: Task, folder: Path) -> None:
    for artifact in task.artifacts:
        path = folder / f"{task.task_type.lower()}{extension_of(artifact)}"
        await client.download(artifact, path)
        click.echo(f"  {task.task_type:<6} {path}")
