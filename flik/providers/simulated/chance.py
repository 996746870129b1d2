"""Chance that can be repeated: every draw of the simulated provider starts from named parts.

The parts (a seed, a prompt, the name of what is drawn) are hashed with SHA-256, never with
`hash()`, whose value changes from process to process. Each thing drawn names its own
stream, so that one more draw in the sky leaves the mountains where they were.
"""

from __future__ import annotations

from hashlib import sha256

import numpy as np

Rng = np.random.Generator


def number(*parts: object) -> int:
    """Return 63 bits that depend on the parts, in order, and on nothing else."""
    digest = sha256()
    for part in parts:
        raw = str(part).encode("utf-8", "surrogatepass")
        digest.update(len(raw).to_bytes(8, "big") + raw)
    return int.from_bytes(digest.digest()[:8], "big") >> 1


def stream(*parts: object) -> Rng:
    """Return a generator of random numbers that depends on the parts alone."""
    return np.random.Generator(np.random.PCG64(number(*parts)))
