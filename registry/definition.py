"""What a definition is, whatever its layout: the hash by which versions of a tool are told apart."""

from __future__ import annotations

import hashlib
import json
from typing import Final, NoReturn

import msgspec

# A float keeps its spelling: rounding could hide a change, and one beyond 1.8e308 has no float.
_decode: Final = msgspec.json.Decoder(float_hook=lambda text: msgspec.Raw(text.encode())).decode


def _refuse_constant(text: str) -> NoReturn:
    raise ValueError(f"{text} is not JSON")


def _spelling(text: str) -> msgspec.Raw:
    return msgspec.Raw(text.encode())


def definition_hash(data: bytes) -> str:
    """SHA-256 over the canonical form of a definition, in hex.

    Canonical: UTF-8, no white space, keys sorted, strings unescaped as far as JSON allows, the
    last of duplicate keys. Integers of any length count by value; fractions and exponents count by
    spelling, so 1.0 and 1.00 differ: taking a respelling for a change costs one needless question,
    taking a change beyond float precision for none would hide it.

    Raises msgspec.DecodeError or ValueError for what is not JSON in UTF-8, RecursionError for what
    nests too deep.
    """
    try:
        value = _decode(data)
    except msgspec.ValidationError:  # integers of more than some hundred digits
        value = json.loads(data, parse_int=_spelling, parse_float=_spelling, parse_constant=_refuse_constant)
    return hashlib.sha256(msgspec.json.encode(value, order="deterministic")).hexdigest()
