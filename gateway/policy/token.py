"""The bearer token of a state directory."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from gateway.errors import StateError


def load_token(path: Path) -> str:
    """The token in the file, made on first use; the file is readable by its owner alone (0600).

    Raises StateError where the file cannot be used or others can read it.
    """
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return _read(path)
    except OSError as error:
        raise StateError(f"Cannot write the token file {path}: {error.strerror}.") from None
    token = secrets.token_urlsafe(32)
    with os.fdopen(descriptor, "w", encoding="ascii") as file:
        file.write(token + "\n")
        file.flush()
        os.fsync(file.fileno())
    return token


def _read(path: Path) -> str:
    try:
        mode = path.stat().st_mode
        token = path.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise StateError(
            f"Cannot read the token file {path}: {error}.", "Delete it to get a new token."
        ) from None
    if os.name == "posix" and mode & 0o077:
        raise StateError(
            f"The token file {path} can be read by others.",
            f"Run: chmod 600 {path}, or delete it for a new token.",
        )
    if len(token) < 16:
        raise StateError(f"The token file {path} holds no token.", "Delete it to get a new one.")
    return token
