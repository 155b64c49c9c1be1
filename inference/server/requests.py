"""From a checked body to engine requests: prompts to tokens, grammars to matchers."""

from __future__ import annotations

import asyncio
import time
import uuid
from dataclasses import replace

from inference.errors import BadRequestError, ContextTooLongError
from inference.grammar.adaptive import AdaptiveCompiler
from inference.runner import ModelRunner
from inference.sequence import Request
from inference.server.protocol import Call
from inference.tokenizer import Tokenizer

LONG_TEXT = 20_000  # characters from which tokenising leaves the event loop


class RequestBuilder:
    """Makes the engine requests of a call. `name`: the model's, as clients may say it."""

    def __init__(
        self, name: str, runner: ModelRunner, tokenizer: Tokenizer, grammars: AdaptiveCompiler
    ) -> None:
        self.name, self.runner, self.tokenizer, self.grammars = name, runner, tokenizer, grammars

    @property
    def limit(self) -> int:
        """Tokens, prompt and output together, that one request may have."""
        return min(self.runner.context, self.runner.pages * self.runner.page_size)

    async def build(self, call: Call) -> tuple[list[Request], int]:
        """Engine requests of a call, n for each prompt, and the prompt tokens in all.

        :raises BadRequestError: the model is another one, a prompt has no tokens, a grammar cannot be compiled.
        """
        if call.model not in (None, self.name, "default"):
            raise BadRequestError(
                f"The model {call.model!r} is not served here; {self.name!r} is.",
                param="model",
                code="model_not_found",
            )
        if call.chat:
            prompts = [await self._conversation(call)]
        else:
            prompts = [await self._tokens(call, p) for p in call.prompts]
        requests = []
        for prompt in prompts:
            params = replace(call.params, max_tokens=call.max_tokens or self._room(prompt))
            for k in range(call.n):
                own = params if params.seed is None or not k else replace(params, seed=params.seed + k)
                matcher = None
                if call.grammar is not None:
                    matcher = await asyncio.to_thread(
                        self.grammars.matcher, call.grammar, again=own.seed is not None
                    )
                deadline = None if call.deadline_ms is None else time.monotonic() + call.deadline_ms / 1000
                requests.append(
                    Request(
                        uuid.uuid4().hex,
                        tuple(prompt),
                        own,
                        namespace=call.namespace,
                        priority=call.priority,
                        deadline=deadline,
                        matcher=matcher,
                        hints=call.hints,
                    )
                )
        return requests, sum(len(p) for p in prompts)

    async def _conversation(self, call: Call) -> list[int]:
        tools = list(call.tool_choice.tools) if call.tool_choice.mode != "none" else None
        assert call.messages is not None
        text = self.tokenizer.chat(call.messages, tools, call.template_arguments)
        return await self._tokens(call, text)

    async def _tokens(self, call: Call, prompt: str | list[int]) -> list[int]:
        if isinstance(prompt, list):
            vocabulary = self.runner.model_config.vocabulary
            if max(prompt) >= vocabulary:
                raise BadRequestError(
                    f"token id {max(prompt)} is outside of the vocabulary of {vocabulary}", param="prompt"
                )
            return prompt
        special = not (call.chat and self.tokenizer.has_template)
        if len(prompt) < LONG_TEXT:
            tokens = self.tokenizer.encode(prompt, special=special)
        else:
            tokens = await asyncio.to_thread(self.tokenizer.encode, prompt, special=special)
        if not tokens:
            raise BadRequestError("The prompt is empty: send at least one token.", param="prompt")
        return tokens

    def _room(self, prompt: list[int]) -> int:
        """max_tokens where the client names none: what context and cache leave."""
        room = self.limit - len(prompt)
        if room < 1:
            raise ContextTooLongError(
                f"The prompt of {len(prompt)} tokens leaves no room in the context of {self.runner.context} "
                f"tokens and the KV cache of {self.runner.pages * self.runner.page_size}. Shorten it."
            )
        return room
