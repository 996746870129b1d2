"""What the clients of the command line share: answers of the gateway as it sent them, lists read to their end."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

from flik.client.access import resolve
from flik.client.failures import UnreadableAnswer
from flik.client.transport import Transport

MAX_PAGE = 100
Document = dict[str, Any]


class DocumentClient:
    """A hand on one gateway; an async context manager.

    Methods raise what those of `FlikClient` raise.
    """

    def __init__(self, base_url: str | None = None, api_key: str | None = None, timeout_s: float = 30.0) -> None:
        self.access = resolve(base_url, api_key)
        self._transport = Transport(self.access, timeout_s)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._transport.close()

    async def _send(self, method: str, path: str, body: Document | None = None) -> Document:
        answer = await self._transport.call(method, path, body=body)
        return self._object(answer.document)

    async def _all(self, path: str, filters: Mapping[str, Any], most: int | None = None) -> list[Document]:
        """Return the items of all pages, or the first `most` of them."""
        found: list[Document] = []
        cursor: str | None = None
        while True:
            params = {**filters, "limit": min(MAX_PAGE, most or MAX_PAGE), "cursor": cursor}
            page = self._object((await self._transport.call("GET", path, params=params)).document)
            items, following = page.get("items"), page.get("nextCursor")
            if not isinstance(items, list) or following == cursor is not None:
                raise UnreadableAnswer(self.access.base_url, "it is not a page of a list")
            found += [self._object(item) for item in items]
            if following is None or (most is not None and len(found) >= most):
                return found[:most]
            cursor = following

    def _object(self, document: Any) -> Document:
        if not isinstance(document, dict):
            raise UnreadableAnswer(self.access.base_url, "it is not a JSON object")
        return document
