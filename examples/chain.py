"""A text becomes a picture and a film, put together with Ray's `bind()`.

python examples/chain.py films
flik dag run examples/chain.py --input prompt="a harbour in the morning fog" --out films

Where Flik is, and the key, come from FLIK_URL and FLIK_API_KEY or the data folder, as with the command line. Ray is
not started: Flik runs the steps.
"""

from __future__ import annotations

import sys
from pathlib import Path

from flik.client import Dag, SyncFlikClient
from flik.dags import InputNode, step

describe = step("TEXT", id="describe")
draw = step("IMAGE", id="draw")
film = step("VIDEO", id="film")

with InputNode() as inp:
    text = describe.bind(prompt=inp.prompt, maxWords=40, seed=11)
    picture = draw.bind(prompt=text, width=512, height=512, seed=11)
    dag = film.bind(prompt=text, input=picture, lengthS=2, seed=11)

inputs = {"prompt": "a harbour in the morning fog"}  # what `flik dag run` takes where it is given nothing else


def tell(seen: Dag) -> None:
    """Print how the steps stand."""
    print("  ".join(f"{each.step_id} {each.task.status}" for each in seen.steps), flush=True)


def main(folder: Path) -> int:
    """Run the chain, and keep what its last step made."""
    with SyncFlikClient() as client:
        ended = client.run_dag(dag, inputs, metadata={"example": "chain"}, wait=True, on_change=tell)
        if not ended.is_completed:
            print(ended.error, file=sys.stderr)
            return 1
        folder.mkdir(parents=True, exist_ok=True)
        print(client.download(ended.task("film").artifacts[0], folder / "film.mp4"))
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1] if len(sys.argv) > 1 else ".")))
