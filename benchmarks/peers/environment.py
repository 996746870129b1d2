"""The peer's own virtual environment, made on demand from pinned requirements, without Flik in it."""

from __future__ import annotations

import subprocess
import sys
import venv
from hashlib import sha256
from pathlib import Path

HERE = Path(__file__).parent
FOLDER = HERE / ".venv"
REQUIREMENTS = HERE / "requirements.txt"


class EnvironmentNotMade(Exception):
    """The peer's packages could not be installed: (the end of what pip said)."""

    def __init__(self, said: str) -> None:
        super().__init__(said)

    def __str__(self) -> str:
        return f"the peer's packages could not be installed: {self.args[0]}"


def python() -> Path:
    """Return the interpreter that has the peer's packages; makes the environment when it is missing or stale.

    Raises:
        EnvironmentNotMade: pip failed, for example without a network.
    """
    interpreter, stamp = FOLDER / "bin" / "python", FOLDER / "made-from"
    wanted = sha256(REQUIREMENTS.read_bytes()).hexdigest()
    if not interpreter.exists() or not stamp.exists() or stamp.read_text() != wanted:
        print("installing the peer's packages ...", file=sys.stderr, flush=True)
        venv.create(FOLDER, with_pip=True, clear=True)
        _install(interpreter)
        stamp.write_text(wanted)
    return interpreter


def _install(interpreter: Path) -> None:
    command = [str(interpreter), "-m", "pip", "install", "--quiet", "--require-hashes", "-r", str(REQUIREMENTS)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    if done.returncode != 0:
        raise EnvironmentNotMade(done.stderr.strip()[-500:])
