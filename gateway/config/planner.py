"""The table `[planner]` of config.toml: what makes plans."""

from __future__ import annotations

from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta

Use = Literal["auto", "rules", "model", "sampling"]


class PlannerSettings(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """What makes plans, and how our own engine is run where it is the one.

    :param use: ``auto`` is a model where one is named below, else rules; ``sampling`` is the client's model.
    :param model: a Hugging Face folder, for an engine that the gateway starts with the first plan.
    :param url: instead, an OpenAI-compatible endpoint.
    :param name: the model's name there; empty for the first it lists.
    :param token_env: the environment variable that holds the endpoint's bearer token.
    :param strings: what a model may write as text: anything, or what it copies from the request.
    :param seconds: what one plan by a model may take.
    :param memory: whether plans that worked are remembered, by shape, as examples for like requests.
    :param idle: seconds without a plan after which the engine is ended; 0 for never.
    :param start: seconds the engine may take to load its model.
    :param threads: CPU threads of the engine; 0 for one a core.
    :param kv_tokens: tokens that its cache holds.
    """

    use: Use = "auto"
    model: str = ""
    url: Annotated[str, Meta(pattern="^(|https?://[^/\\s].*)$")] = ""
    name: str = ""
    token_env: str = "TOOLYARD_MODEL_TOKEN"
    strings: Literal["free", "copied"] = "free"
    seconds: Annotated[float, Meta(gt=0, le=3600)] = 60.0
    memory: bool = True
    idle: Annotated[float, Meta(ge=0, le=1e9)] = 600.0
    start: Annotated[float, Meta(gt=0, le=3600)] = 180.0
    quantize: Literal["none", "int8", "int4"] = "none"
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    device: Literal["cpu", "cuda"] = "cpu"
    threads: Annotated[int, Meta(ge=0, le=4096)] = 0
    kv_tokens: Annotated[int, Meta(gt=0)] = 32768

    def __post_init__(self) -> None:
        if self.model and self.url:
            raise ValueError("model and url exclude each other")


EXPECTED: Final = {
    "planner": "a table, written [planner], with model or url and not both",
    "planner.use": 'one of "auto", "rules", "model", "sampling"',
    "planner.model": "a Hugging Face folder, as a string",
    "planner.url": 'an address, as "http://127.0.0.1:8000"',
    "planner.name": "the name of a model, as a string",
    "planner.token_env": "the name of an environment variable",
    "planner.strings": '"free" or "copied"',
    "planner.seconds": "seconds, a number over 0",
    "planner.memory": "true or false",
    "planner.idle": "seconds, a number of 0 or more",
    "planner.start": "seconds, a number over 0",
    "planner.quantize": '"none", "int8" or "int4"',
    "planner.dtype": '"auto", "float32" or "bfloat16"',
    "planner.device": '"cpu" or "cuda"',
    "planner.threads": "an integer of 0 or more",
    "planner.kv_tokens": "an integer over 0",
}
"""What each key wants, for whoever wrote something else."""
