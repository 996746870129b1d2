"""A provider that does nothing, at once: what is left when it runs is Flik's own cost.

Benchmarks use it. It makes no artifacts and refuses a script, which it could not follow. Of what a
step of a chain starts from it notes the digests.
"""

from __future__ import annotations

from collections.abc import AsyncIterator

from flik.errors import ProviderError
from flik.providers.base import Context, Output, Request, Result, traced


class NoopProvider:
    """Ends every generation with an empty result."""

    async def generate(self, request: Request, context: Context) -> AsyncIterator[Output]:
        """Yield an empty result.

        Raises:
            ProviderError: the payload holds a script; not worth a retry.
        """
        if request.payload.get("script"):
            raise ProviderError("script_not_supported", "only the simulated provider follows a script", False)
        yield Result(text="", metadata=traced(request.inputs))
