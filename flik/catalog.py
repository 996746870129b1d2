"""What Flik can be asked for: each task type with its input, provider, price and time limits.

To add a task type: write its models here and add a row to `TASK_TYPES`.

Each type has two models. That of a step of a chain is the wider one: what its parents made can
stand in for a prompt, and there can be something to act on. That of a plain task, which starts
from its payload alone, narrows it.

Models are strict: an unknown or mistyped field is refused with its JSON pointer. On the wire
their names are camelCase; snake_case is understood as well.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator
from pydantic.alias_generators import to_camel
from pydantic_core import ErrorDetails

from flik.domain import chat
from flik.errors import InputError
from flik.schemas import STORABLE, WHOLE, Whole

MAX_PROMPT_CHARS = 32_000
MAX_OUTPUTS = 8
MAX_SEED = 2**63 - 1
MAX_FILM_PIXELS = 2**30  # all frames of all outputs: 30 s of 1280x720 at 30 fps, about a minute of CPU when simulated
MAX_NAMED = 5  # broken rules in one message
UPSCALED_PIXELS = 4  # an upscaled picture is twice as wide and twice as high

Prompt = Annotated[
    str, Field(min_length=1, max_length=MAX_PROMPT_CHARS, description="What to make.", json_schema_extra=STORABLE)
]
Seed = Annotated[int, Field(ge=0, le=MAX_SEED, description="The same seed gives the same bytes."), WHOLE]
Style = Annotated[
    str,
    Field(
        min_length=1,
        max_length=200,
        description="For instance photorealistic or watercolor.",
        json_schema_extra=STORABLE,
    ),
]
Side = Annotated[int, Field(ge=64, le=2048, description="Pixels."), WHOLE]
ChatId = Annotated[str, Field(min_length=1, max_length=chat.MAX_ID_CHARS, json_schema_extra=STORABLE)]
ErrorCode = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,63}$")]


def _no_action(value: Any) -> None:
    if value is not None:
        raise ValueError("needs an input to act on, which only a step of a chain has")


Action = Annotated[
    Literal["upscale", "watermark"],
    Field(description="What to do to the input, or to what the prompt asks for: double its size, or mark a corner."),
]
NoAction = Annotated[None, BeforeValidator(_no_action), Field(description="Only a step of a chain can have one.")]


class _Strict(BaseModel):
    model_config = ConfigDict(
        extra="forbid",
        strict=True,
        frozen=True,
        alias_generator=to_camel,
        validate_by_alias=True,
        validate_by_name=True,
    )


class ScriptedFailure(_Strict):
    """One failure the simulated provider is told to have; `provider_unavailable` is the back end that is away."""

    code: ErrorCode = "scripted_failure"
    message: str = Field(default="a failure that was asked for", max_length=500, json_schema_extra=STORABLE)
    retryable: bool = True
    calls: Whole = Field(
        default=1,
        ge=1,
        le=1000,
        description="With provider_unavailable: so many calls in one process find it away, the next one works.",
    )


class Script(_Strict):
    """Tells the simulated provider how to behave; other providers refuse it."""

    duration_s: float | None = Field(
        default=None, ge=0, le=7200, description="Seconds of work, before the speed setting."
    )
    failures: list[ScriptedFailure] = Field(
        default_factory=list, max_length=20, description="Attempt 1 fails with the first, attempt 2 with the second ..."
    )
    fail_at: float = Field(default=0.5, ge=0, le=1, description="How far an attempt gets before it fails.")
    progress_steps: Whole = Field(default=5, ge=0, le=100, description="Progress events an attempt emits.")


class ChatPart(_Strict):
    """A chat of the earlier streaming system: the text is written as so many messages."""

    feature_id: ChatId
    chat_id: ChatId
    messages: Whole = Field(default=chat.MESSAGES, ge=1, le=1000)


class TextStep(_Strict):
    """Payload of a TEXT step of a chain."""

    prompt: Prompt | None = None
    style: Style | None = None
    max_words: Whole = Field(default=160, ge=1, le=4000)
    chat: ChatPart | None = None
    seed: Seed | None = None
    script: Script | None = None


class TextPayload(TextStep):
    """Input of a TEXT task."""

    prompt: Prompt


class ImageStep(_Strict):
    """Payload of an IMAGE step of a chain; with an action each picture among its inputs is acted on."""

    prompt: Prompt | None = None
    action: Action | None = None
    style: Style | None = None
    width: Side = 768
    height: Side = 768
    num_outputs: Whole = Field(default=1, ge=1, le=MAX_OUTPUTS)
    output_format: Literal["png", "jpg", "webp"] = "png"
    seed: Seed | None = None
    script: Script | None = None


class ImagePayload(ImageStep):
    """Input of an IMAGE task."""

    prompt: Prompt
    action: NoAction = None


class VideoStep(_Strict):
    """Payload of a VIDEO step of a chain; with an action each film among its inputs is acted on."""

    prompt: Prompt | None = None
    action: Action | None = None
    style: Style | None = None
    width: Side = 640
    height: Side = 360
    length_s: float = Field(default=3.0, ge=0.5, le=30, description="Length of the film in seconds.")
    fps: Whole = Field(default=24, ge=1, le=60)
    num_outputs: Whole = Field(default=1, ge=1, le=MAX_OUTPUTS)
    seed: Seed | None = None
    script: Script | None = None

    @model_validator(mode="after")
    def _can_be_made(self) -> Self:
        pixels = int(self.width * self.height * self.fps * self.length_s * self.num_outputs)
        pixels *= UPSCALED_PIXELS if self.action == "upscale" else 1
        if pixels > MAX_FILM_PIXELS:
            upscaled = " upscaled" if self.action == "upscale" else ""
            raise ValueError(
                f"width x height x fps x lengthS x numOutputs{upscaled} is {pixels:,} pixels;"
                f" the most is {MAX_FILM_PIXELS:,}"
            )
        return self


class VideoPayload(VideoStep):
    """Input of a VIDEO task."""

    prompt: Prompt
    action: NoAction = None


@dataclass(frozen=True, slots=True)
class TaskType:
    """One row of the catalog. Prices are US dollars: of a completed task, and of a replica for an hour.

    `payload` is the input of a plain task, `step` that of a step of a chain. `writes`: what it makes is text, which can
    be followed while it is written.
    """

    name: str
    payload: type[_Strict]
    step: type[_Strict]
    price_usd: Decimal
    replica_price_usd_per_hour: Decimal
    writes: bool = False


TASK_TYPES: Mapping[str, TaskType] = {
    row.name: row
    for row in (
        TaskType("TEXT", TextPayload, TextStep, Decimal("0.001"), Decimal("0.50"), writes=True),
        TaskType("IMAGE", ImagePayload, ImageStep, Decimal("0.010"), Decimal("2.00")),
        TaskType("VIDEO", VideoPayload, VideoStep, Decimal("0.100"), Decimal("8.00")),
    )
}


def step_model(task_type: str, payload: Mapping[str, Any], *, has_parents: bool) -> type[BaseModel]:
    """Return the model that a step's payload is held against when it is submitted.

    One without parents is held against that of a plain task, unless it has an action, to be done to what it makes.
    """
    row = TASK_TYPES[task_type]
    return row.step if has_parents or payload.get("action") is not None else row.payload


def read_payload(task_type: str, payload: Mapping[str, Any]) -> dict[str, Any]:
    """Return the stored payload of a task or a step as the provider sees it: snake_case, defaults filled in.

    Raises:
        InputError: it breaks a rule; what was checked when it was submitted can do so by what a step's parents gave.
    """
    try:
        return TASK_TYPES[task_type].step.model_validate(payload).model_dump()
    except ValidationError as error:
        broken = error.errors(include_url=False, include_context=False, include_input=False)
        raise InputError("the payload breaks a rule: " + "; ".join(map(_said, broken[:MAX_NAMED]))) from None


def _said(broken: ErrorDetails) -> str:
    pointer = "".join(f"/{part}" for part in broken["loc"])
    return f"{pointer or '/'}: {broken['msg'].removeprefix('Value error, ')}"
