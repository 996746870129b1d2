"""`make fuzz`: starts a Flik of its own, fuzzes it, prints the figures, and stops it."""

from __future__ import annotations

import os
import random
import shutil
import sys
import tempfile
from pathlib import Path

from tests.acceptance.running import RunningFlik
from tests.fuzz.fuzzing import fuzz

REQUESTS = 200_000
EXAMPLES = 200


def main() -> int:
    """Return 1 if anything failed. FLIK_FUZZ_SEED repeats a run, FLIK_FUZZ_REQUESTS makes it shorter or longer."""
    seed = int(os.environ.get("FLIK_FUZZ_SEED") or random.randrange(2**31))
    print(f"FLIK_FUZZ_SEED={seed}", flush=True)
    folder = Path(tempfile.mkdtemp(prefix="flik-fuzz-"))
    folder.chmod(0o755)
    flik = RunningFlik(folder / "data", FLIK_PROVIDER="noop").start()
    try:
        requests = int(os.environ.get("FLIK_FUZZ_REQUESTS") or REQUESTS)
        figures = fuzz(flik, requests=requests, examples=EXAMPLES, seed=seed)
    finally:
        flik.stop()
        shutil.rmtree(folder, ignore_errors=True)
    print(figures.summary)
    print(f"make fuzz: {figures} (FLIK_FUZZ_SEED={seed})")
    return 1 if figures.failures else 0


if __name__ == "__main__":
    sys.exit(main())
