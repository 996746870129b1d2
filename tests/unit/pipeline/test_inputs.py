"""What a step starts from: its parents' words in the payload, their files read once and checked."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from making import stored_file

from flik import catalog
from flik.artifacts.store import open_store
from flik.catalog import MAX_PROMPT_CHARS
from flik.domain.dag.references import Output
from flik.domain.task import StoredArtifact
from flik.errors import ArtifactNotFound, InputError, InputGone, Unavailable
from flik.pipeline import inputs
from flik.pipeline.inputs import gather
from flik.providers.base import Artifact, Context, Input, Request
from flik.providers.simulated import SimulatedProvider


class FilesFake:
    """Gives the key of a file as its bytes; counts."""

    def __init__(self, error: Exception | None = None) -> None:
        self.error = error
        self.read: list[str] = []

    async def get(self, stored: StoredArtifact) -> bytes:
        self.read.append(stored.key)
        if self.error:
            raise self.error
        return stored.key.encode()


def made(*outputs: Output) -> str:
    return json.dumps([
        {**each._asdict(), "artifacts": [asdict(file) for file in each.artifacts]} for each in outputs
    ])  # fmt: skip


async def test_words_come_into_the_payload_and_files_beside_it() -> None:
    film = stored_file(1, content_type="video/mp4", size_bytes=99, duration_s=2.5)
    outputs = made(Output("a", "night", {"n": 3}, ()), Output("b", None, {}, (stored_file(0), film)))
    payload, found = await gather({"seed": {"$from": "a", "path": "metadata.n"}}, outputs, FilesFake())
    assert payload == {"seed": 3, "prompt": "night"}
    assert found == (
        Input("image/png", 10, f"{0:064x}", b"key/0", 8, 4, None),
        Input("video/mp4", 99, f"{1:064x}", b"key/1", 8, 4, 2.5),
    )


async def test_a_file_that_is_named_often_is_read_once_and_counts_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inputs, "MAX_INPUT_BYTES", 10)
    files = FilesFake()
    one = {"$from": "b", "path": "artifacts.0"}
    _, found = await gather({"input": [one, one, one]}, made(Output("b", None, {}, (stored_file(0),))), files)
    assert files.read == ["key/0"]
    assert [each.data for each in found] == [b"key/0"] * 3


async def test_files_that_are_too_large_together_are_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inputs, "MAX_INPUT_BYTES", 1_999)
    files = FilesFake()
    large = tuple(stored_file(index, size_bytes=1_000) for index in range(2))
    with pytest.raises(InputError, match="the inputs have 2,000 bytes together; the most is 1,999"):
        await gather({}, made(Output("b", None, {}, large)), files)
    assert files.read == []


async def test_a_prompt_of_parents_is_no_longer_than_the_catalog_takes() -> None:
    payload, _ = await gather({}, made(Output("a", "x" * 40_000, {}, ())), FilesFake())
    assert len(payload["prompt"]) == MAX_PROMPT_CHARS


async def test_a_file_that_is_gone_is_no_input_and_a_store_that_is_away_is_told() -> None:
    outputs = made(Output("b", None, {}, (stored_file(0),)))
    with pytest.raises(InputGone, match="it is gone; resume the dag, and what made it runs again"):
        await gather({}, outputs, FilesFake(ArtifactNotFound("it is gone")))
    with pytest.raises(Unavailable):
        await gather({}, outputs, FilesFake(Unavailable("artifacts")))


async def test_files_come_out_of_the_store_as_they_were_put_there(tmp_path: Path) -> None:
    store = open_store(tmp_path.as_uri())
    stored = await store.put("task-1", 1, Artifact(0, "image/png", b"picture", 3, 2))
    _, [found] = await gather({}, made(Output("a", None, {}, (stored,))), store)
    assert (found.data, found.sha256, found.width) == (b"picture", stored.sha256, 3)
    with pytest.raises(InputGone, match="not what was stored"):
        await gather({}, made(Output("a", None, {}, (replace(stored, sha256="0" * 64),))), store)


async def test_a_picture_that_one_step_drew_is_upscaled_by_the_next(tmp_path: Path) -> None:
    store, provider = open_store(tmp_path.as_uri()), SimulatedProvider(1e6)
    drawing = Request("task-1", "IMAGE", catalog.read_payload("IMAGE", {"prompt": "a lake", "width": 64, "height": 80}))
    [drawn] = [each async for each in provider.generate(drawing, Context("v1", "w")) if isinstance(each, Artifact)]
    outputs = made(Output("draw", None, {}, (await store.put("task-1", 1, drawn),)))
    payload, found = await gather({"action": "upscale", "input": {"$from": "draw"}}, outputs, store)
    scaling = Request("task-2", "IMAGE", catalog.read_payload("IMAGE", payload), 1, found)
    [large] = [each async for each in provider.generate(scaling, Context("v1", "w")) if isinstance(each, Artifact)]
    assert (large.width, large.height) == (128, 160)
