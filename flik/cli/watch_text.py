"""The text of a task, printed as it is written."""

from __future__ import annotations

from flik.cli.exits import EXIT_FAILED, EXIT_OK
from flik.cli.output import complain, write_piece
from flik.client import Event, FlikClient


async def print_text(client: FlikClient, task_id: str) -> int:
    """Print a task's text up to its end, and return the exit code; what is no text goes to stderr."""
    has_text = False
    async for event in client.events(task_id, chunks=True):
        if event.kind == "chunk":
            write_piece(event.text or "")
            has_text = True
        elif event.kind == "restart" and has_text:
            write_piece("\n")
            complain("flik: what came so far does not hold; the text from its start:")
            has_text = False
        elif event.is_terminal:
            return _end(event, has_text=has_text)
    return EXIT_FAILED


def _end(event: Event, *, has_text: bool) -> int:
    if event.kind == "completed":
        write_piece("\n" if has_text else f"{event.text or ''}\n")
        return EXIT_OK
    write_piece("\n" if has_text else "")
    reason = f": {event.error.code}: {event.error.message}" if event.error else ""
    complain(f"flik: {(event.status or event.kind).lower()}{reason}")
    return EXIT_FAILED
