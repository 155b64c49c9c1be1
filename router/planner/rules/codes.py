"""Names and the codes that stand for them: currencies (ISO 4217), languages (ISO 639-1), countries (ISO 3166-1)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

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


def _table(codes: dict[str, str]) -> tuple[re.Pattern[str], dict[str, str]]:
    names = {name: code for code, listed in codes.items() for name in listed.split(",")}
    longest = sorted(names, key=lambda name: (-len(name), name))
    return re.compile(rf"(?<!\w)({'|'.join(map(re.escape, longest))})s?(?!\w)", re.IGNORECASE), names


_TABLES: Final = {
    "currenc": (r"[A-Z]{3}", *_table(_CURRENCIES)),
    "languag": (r"[a-z]{2}", *_table(_LANGUAGES)),
    "lang": (r"[a-z]{2}", *_table(_LANGUAGES)),
    "countri": (r"[A-Z]{2}", *_table(_COUNTRIES)),
}
"""By a stem of a parameter's name: how its codes look, the pattern of names, and names to codes."""


def coded(param: Param, text: str) -> Iterator[tuple[str, int, int, bool]]:
    """Codes for what a text names, where a parameter is about such: (code, start, end, whether codes are asked for)."""
    kind = next((name for name in param.names if name in _TABLES), None)
    if kind is None:
        return
    shape, pattern, codes = _TABLES[kind]
    asked = bool(param.about & {"iso", "code", "abbrevi"} or "code" in param.names)
    asked = asked or any(re.fullmatch(shape, example) for example in param.examples)
    for match in pattern.finditer(text):
        yield codes[match[1].lower()], match.start(), match.end(), asked
