"""Names and what stands for them in data: codes of currencies (ISO 4217), languages (ISO 639-1) and countries
(ISO 3166-1), and the time zones of cities (the IANA database, as far as this machine has it).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Final
from zoneinfo import available_timezones

from router.planner.rules.params import Param

_CURRENCIES: Final = {
    "USD": "us dollar,u.s. dollar,american dollar,united states dollar,dollar",
    "EUR": "euro",
    "GBP": "british pound,pound sterling,uk pound,sterling,pound",
    "JPY": "japanese yen,yen",
    "CNY": "chinese yuan,yuan,renminbi",
    "INR": "indian rupee,rupee",
    "AUD": "australian dollar",
    "CAD": "canadian dollar",
    "NZD": "new zealand dollar",
    "CHF": "swiss franc",
    "SEK": "swedish krona,swedish kronor",
    "NOK": "norwegian krone,norwegian kroner",
    "DKK": "danish krone,danish kroner",
    "PLN": "polish zloty,zloty",
    "CZK": "czech koruna",
    "HUF": "hungarian forint,forint",
    "KRW": "south korean won,korean won",
    "MXN": "mexican peso",
    "BRL": "brazilian real",
    "ZAR": "south african rand",
    "TRY": "turkish lira",
    "RUB": "russian ruble,russian rouble",
    "SGD": "singapore dollar",
    "HKD": "hong kong dollar",
    "THB": "thai baht,baht",
    "ILS": "israeli shekel,shekel",
    "BTC": "bitcoin",
    "ETH": "ethereum,ether",
}
_LANGUAGES: Final = {
    "en": "english",
    "es": "spanish",
    "fr": "french",
    "de": "german",
    "it": "italian",
    "pt": "portuguese",
    "nl": "dutch",
    "sv": "swedish",
    "no": "norwegian",
    "da": "danish",
    "fi": "finnish",
    "pl": "polish",
    "cs": "czech",
    "hu": "hungarian",
    "ro": "romanian",
    "el": "greek",
    "tr": "turkish",
    "ru": "russian",
    "uk": "ukrainian",
    "ar": "arabic",
    "he": "hebrew",
    "fa": "persian,farsi",
    "hi": "hindi",
    "bn": "bengali",
    "ur": "urdu",
    "zh": "chinese,mandarin",
    "ja": "japanese",
    "ko": "korean",
    "th": "thai",
    "vi": "vietnamese",
    "id": "indonesian",
}
_COUNTRIES: Final = {
    "US": "united states of america,united states,usa,america",
    "GB": "united kingdom,great britain,uk,england,britain",
    "DE": "germany",
    "FR": "france",
    "ES": "spain",
    "IT": "italy",
    "PT": "portugal",
    "NL": "netherlands,holland",
    "BE": "belgium",
    "CH": "switzerland",
    "AT": "austria",
    "SE": "sweden",
    "NO": "norway",
    "DK": "denmark",
    "FI": "finland",
    "PL": "poland",
    "IE": "ireland",
    "GR": "greece",
    "TR": "turkey",
    "RU": "russia",
    "UA": "ukraine",
    "CA": "canada",
    "MX": "mexico",
    "BR": "brazil",
    "AR": "argentina",
    "AU": "australia",
    "NZ": "new zealand",
    "JP": "japan",
    "CN": "china",
    "IN": "india",
    "KR": "south korea,korea",
    "SG": "singapore",
    "TH": "thailand",
    "VN": "vietnam",
    "ID": "indonesia",
    "ZA": "south africa",
    "EG": "egypt",
    "NG": "nigeria",
    "IL": "israel",
    "AE": "united arab emirates",
    "SA": "saudi arabia",
}


Table = tuple[str, re.Pattern[str], dict[str, str]]
"""How codes look, the pattern of names, and names to codes."""


def _table(shape: str, names: dict[str, str]) -> Table:
    longest = sorted(names, key=lambda name: (-len(name), name))
    return shape, re.compile(rf"(?<!\w)({'|'.join(map(re.escape, longest))})s?(?!\w)", re.IGNORECASE), names


def _listed(codes: dict[str, str]) -> dict[str, str]:
    return {name: code for code, listed in codes.items() for name in listed.split(",")}


@cache
def _zones() -> Table:
    """The zones of the cities that zones are named for."""
    zones = sorted(zone for zone in available_timezones() if zone.count("/") == 1 and zone[:3] != "Etc")
    cities = {zone.rpartition("/")[2].replace("_", " ").lower(): zone for zone in zones}
    return _table(r"[A-Z]\w+/\w+", cities | {"utc": "UTC", "gmt": "UTC"})


_TABLES: Final = {
    "currenc": _table(r"[A-Z]{3}", _listed(_CURRENCIES)),
    "languag": _table(r"[a-z]{2}", _listed(_LANGUAGES)),
    "lang": _table(r"[a-z]{2}", _listed(_LANGUAGES)),
    "countri": _table(r"[A-Z]{2}", _listed(_COUNTRIES)),
}
"""By a stem of a parameter's name."""


def _table_of(param: Param) -> Table | None:
    if "timezon" in param.names or {"time", "zone"} <= set(param.names):
        return _zones()
    return next((_TABLES[name] for name in param.names if name in _TABLES), None)


@dataclass(frozen=True, slots=True)
class Code:
    """A code for what a request names.

    :param asked: the parameter says that it wants codes.
    """

    code: str
    start: int
    end: int
    asked: bool


def coded(param: Param, text: str) -> Iterator[Code]:
    """Codes for what a text names, where a parameter is about such."""
    table = _table_of(param)
    if table is None:
        return
    shape, pattern, codes = table
    if any(codes.get(example.lower(), example) != example for example in param.examples):
        return  # it wants the names themselves
    asked = bool(param.about & {"iso", "iana", "code", "abbrevi"} or "code" in param.names)
    asked = asked or any(re.fullmatch(shape, example) for example in param.examples)
    for match in pattern.finditer(text):
        yield Code(codes[match[1].lower()], match.start(), match.end(), asked)


def is_code(param: Param, text: str) -> bool:
    """Whether a text looks like the codes that a parameter is about."""
    table = _table_of(param)
    return table is not None and re.fullmatch(table[0], text) is not None
