"""Text to tokens and back, and conversations to prompts, from the files of a checkpoint folder."""

from __future__ import annotations

import datetime
import json
from pathlib import Path
from typing import Any

import jinja2
import jinja2.sandbox
from tokenizers import Tokenizer as FastTokenizer

from inference.errors import BadRequestError, CheckpointError
from inference.loader import read_json

FALLBACK_TEMPLATE = (
    "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant:{% endif %}"
)


class Tokenizer:
    """tokenizer.json, plus the special tokens and the chat template of tokenizer_config.json."""

    def __init__(self, folder: Path | str) -> None:
        folder = Path(folder)
        path = folder / "tokenizer.json"
        try:
            self.fast = FastTokenizer.from_file(str(path))
        except Exception as problem:
            raise CheckpointError(f"{path} cannot be read: {problem}") from None
        config_path = folder / "tokenizer_config.json"
        config = read_json(config_path) if config_path.exists() else {}
        template = config.get("chat_template")
        if (file := folder / "chat_template.jinja").exists():
            template = file.read_text("utf-8")
        if isinstance(template, list):  # several named ones: the default is the conversation's
            template = next((t["template"] for t in template if t.get("name") == "default"), None)
        self.has_template = bool(template)
        self.specials = {
            name: value["content"] if isinstance(value, dict) else value
            for name, value in config.items()
            if name.endswith("_token") and isinstance(value, (str, dict))
        }
        self._specials: dict[int, str] | None = None
        self._byte_level = "ByteLevel" in repr(self.fast.decoder)
        self._template = _environment().from_string(template or FALLBACK_TEMPLATE)

    def encode(self, text: str, *, special: bool = True) -> list[int]:
        """`special`: whether the tokenizer adds its own begin token (not for rendered chat templates).

        :raises BadRequestError: the text holds half of a surrogate pair, which JSON can say and UTF-8 cannot.
        """
        try:
            ids: list[int] = self.fast.encode(text, add_special_tokens=special).ids
        except (UnicodeEncodeError, TypeError):
            raise BadRequestError("The text is not valid Unicode: it has a lone surrogate.") from None
        return ids

    def decode(self, tokens: list[int], *, skip_special: bool = True) -> str:
        text: str = self.fast.decode(tokens, skip_special_tokens=skip_special)
        return text

    def token_text(self, token: int) -> str:
        return self.decode([token], skip_special=False)

    def token_bytes(self, token: int) -> bytes:
        """What a token stands for, also where that is only a part of a character."""
        if self._specials is None:
            self._specials = {i: t.content for i, t in self.fast.get_added_tokens_decoder().items()}
        if token in self._specials:
            return self._specials[token].encode()
        piece = self.fast.id_to_token(token)
        if piece is None:  # the model's vocabulary is padded
            return b""
        if self._byte_level and all(c in _BYTE_OF for c in piece):
            return bytes(_BYTE_OF[c] for c in piece)
        if len(piece) == 6 and piece.startswith("<0x"):  # SentencePiece's fallback
            return bytes([int(piece[3:5], 16)])
        return piece.replace("\u2581", " ").encode()

    @property
    def vocabulary(self) -> int:
        size: int = self.fast.get_vocab_size(with_added_tokens=True)
        return size

    def id_of(self, text: str) -> int | None:
        found: int | None = self.fast.token_to_id(text)
        return found

    def chat(
        self, messages: list[dict[str, Any]], tools: list[Any] | None, variables: dict[str, Any] | None = None
    ) -> str:
        """Render a conversation, up to where the assistant goes on. `variables`: further ones of the template.

        :raises BadRequestError: the template refuses the conversation, or breaks on it.
        """
        try:
            return self._template.render(
                {
                    "add_generation_prompt": True,
                    **self.specials,
                    **(variables or {}),
                    "messages": messages,
                    "tools": tools,
                }
            )
        except (jinja2.TemplateError, TypeError, ValueError, AttributeError, KeyError) as problem:
            raise BadRequestError(
                f"The model's chat template does not accept these messages: {problem}", param="messages"
            ) from None


def _byte_alphabet() -> dict[str, int]:
    """Character to byte, as byte-level BPE spells them (Radford et al., GPT-2, 2019): printable ones stand for
    themselves, the others are moved up beyond 255."""
    plain = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    moved = [b for b in range(256) if b not in plain]
    return {chr(b): b for b in plain} | {chr(256 + i): b for i, b in enumerate(moved)}


_BYTE_OF = _byte_alphabet()


def _environment() -> jinja2.Environment:
    """A sandbox, since a template is code from a model folder; with the helpers that templates expect."""

    def refuse(message: str) -> None:
        raise jinja2.TemplateError(message)

    def to_json(value: Any, indent: int | None = None) -> str:
        return json.dumps(value, ensure_ascii=False, indent=indent)  # Jinja's own would escape for HTML

    environment = jinja2.sandbox.ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
    )
    environment.filters["tojson"] = to_json
    environment.globals["raise_exception"] = refuse
    environment.globals["strftime_now"] = lambda form: datetime.datetime.now().strftime(form)
    return environment
