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
        self._template = _environment().from_string(template or FALLBACK_TEMPLATE)

    def encode(self, text: str, *, special: bool = True) -> list[int]:
        """`special`: whether the tokenizer adds its own begin token (not for rendered chat templates)."""
        ids: list[int] = self.fast.encode(text, add_special_tokens=special).ids
        return ids

    def decode(self, tokens: list[int], *, skip_special: bool = True) -> str:
        text: str = self.fast.decode(tokens, skip_special_tokens=skip_special)
        return text

    def token_text(self, token: int) -> str:
        return self.decode([token], skip_special=False)

    @property
    def vocabulary(self) -> int:
        size: int = self.fast.get_vocab_size(with_added_tokens=True)
        return size

    def id_of(self, text: str) -> int | None:
        found: int | None = self.fast.token_to_id(text)
        return found

    def chat(self, messages: list[dict[str, Any]], tools: list[Any] | None, **variables: Any) -> str:
        """Render a conversation, up to where the assistant goes on.

        :raises BadRequestError: the template refuses the conversation, or breaks on it.
        """
        try:
            return self._template.render(
                messages=messages, tools=tools, add_generation_prompt=True, **self.specials, **variables
            )
        except (jinja2.TemplateError, TypeError, ValueError, AttributeError, KeyError) as problem:
            raise BadRequestError(
                f"The model's chat template does not accept these messages: {problem}", param="messages"
            ) from None


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
