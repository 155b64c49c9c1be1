"""One assistant's own file: read, changed in one place, and replaced as a whole with a copy kept."""

from __future__ import annotations

import contextlib
import json
import os
import stat
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from gateway.config import edit, jsonc
from gateway.errors import ConfigError, GatewayError


@dataclass(frozen=True, slots=True)
class ClientFile:
    """The file as it was read. :param data: its bytes, or None where there is no file."""

    path: Path
    section: str
    data: bytes | None

    @classmethod
    def read(cls, path: Path, section: str) -> Self:
        """Read it, following links. Raises ConfigError."""
        path = Path(os.path.realpath(path))
        try:
            return cls(path, section, path.read_bytes())
        except FileNotFoundError:
            return cls(path, section, None)
        except OSError as error:
            raise ConfigError(f"{path} cannot be read: {error.strerror}.", "Make it readable.") from error

    @property
    def text(self) -> str:
        """Its text; of a file that is not there or is empty, an empty object. Raises ConfigError."""
        if self.data is None or not self.data.strip():
            return "{}\n"
        try:
            return self.data.decode()
        except UnicodeDecodeError:
            raise ConfigError(f"{self.path} is not UTF-8 text.", "Save it as UTF-8 first.") from None

    def entry(self, name: str) -> Any:
        """What stands under a name, or None. Raises ConfigError."""
        members = self._parsed(self.text).get(self.section)
        return members.get(name) if isinstance(members, dict) else None

    def entries(self) -> dict[str, Any]:
        """Everything in the section. Raises ConfigError."""
        members = self._parsed(self.text).get(self.section)
        return members if isinstance(members, dict) else {}

    def with_entry(self, name: str, entry: Mapping[str, Any]) -> str:
        """The text with an entry put in. Raises ConfigError where it has no place for one."""
        return self._changed(edit.put, name, entry)

    def without(self, name: str) -> str:
        """The text with an entry taken out. Raises ConfigError."""
        return self._changed(edit.remove, name)

    def _changed(self, change: Any, name: str, *entry: Mapping[str, Any]) -> str:
        try:
            text = edit.apply(self.text, change(self.text, self.section, name, *entry))
        except jsonc.JsoncError as error:
            raise self._refused(str(error)) from None
        except edit.CannotEdit as error:
            raise self._refused(str(error)) from None
        wanted = self._parsed(self.text)
        members = dict(wanted.get(self.section) or {})
        members.pop(name, None)
        if entry:
            members[name] = entry[0]
        found = self._parsed(text)
        if found.get(self.section, {}) != members or found.keys() - {self.section} != (
            wanted.keys() - {self.section}
        ):
            raise self._refused(" the change cannot be made safely in its present shape")
        return text

    def _parsed(self, text: str) -> dict[str, Any]:
        try:
            value = json.loads(text)  # such files grow to megabytes, most without a comment in them
        except (ValueError, RecursionError):
            try:
                value = jsonc.parse(text).value
            except jsonc.JsoncError as error:
                raise self._refused(str(error)) from None
        if not isinstance(value, dict):
            raise self._refused("1:1: the file holds no object")
        return value

    def _refused(self, why: str) -> ConfigError:
        return ConfigError(f"{self.path}:{why}.", "Correct that by hand; nothing was changed.")

    def write(self, text: str) -> Path | None:
        """Replace the file, keeping its mode and a copy beside it. Returns the copy's path.

        Raises GatewayError: it was changed meanwhile, or cannot be written. Then it is as it was.
        """
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            kept = None if self.data is None else self._keep(self.data)
            mode = 0o600 if self.data is None else stat.S_IMODE(self.path.stat().st_mode)
            self._replace(text.encode(), mode)
        except UnicodeEncodeError:
            raise GatewayError(
                f"{self.path} was not changed: a path in the entry is not UTF-8 text.",
                "Choose another place.",
            ) from None
        except OSError as error:
            raise GatewayError(
                f"{self.path} was not changed: {error.strerror or error}.", "Check its folder."
            ) from error
        return kept

    def _keep(self, data: bytes) -> Path:
        name = f"{self.path.name}.toolyard-backup-{time.strftime('%Y%m%d-%H%M%S')}"
        mode = stat.S_IMODE(self.path.stat().st_mode)
        for number in range(1, 1000):
            path = self.path.with_name(name if number == 1 else f"{name}-{number}")
            try:
                descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
            except FileExistsError:
                continue  # another change within the same second
            with open(descriptor, "wb") as file:
                file.write(data)
            os.chmod(path, mode)
            return path
        raise FileExistsError(17, "too many copies of this second", str(self.path))

    def _replace(self, data: bytes, mode: int) -> None:
        descriptor, temporary = tempfile.mkstemp(dir=self.path.parent, prefix=f".{self.path.name}.")
        try:
            with open(descriptor, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(descriptor)
            os.chmod(temporary, mode)
            if ClientFile.read(self.path, self.section).data != self.data:
                raise GatewayError(
                    f"{self.path} was not changed: its program wrote it at the same moment.", "Try again."
                )
            os.replace(temporary, self.path)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
            raise
