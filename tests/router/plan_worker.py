"""Plans a few requests in a process of its own, and prints the plans and what would be learned from them."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from datetime import date
from typing import Any

from router.plan import Definition, to_json
from router.planner.rules.choose import Matrix
from router.planner.rules.planner import RulesPlanner
from router.planner.rules.practice import refusals
from router.planner.rules.train import call_rows, rarity_of, split_rows, tool_rows, value_rows
from router.planner.rules.weights import weights


def tool(name: str, description: str, needed: str, **properties: Any) -> dict[str, Any]:
    schema = {"type": "object", "properties": properties, "required": needed.split()}
    return {"name": name, "description": description, "inputSchema": schema}


def text(description: str) -> dict[str, Any]:
    return {"type": "string", "description": description}


TOOLS = [
    tool("get_weather", "Get the current weather in a city.", "city", city=text("The city, e.g. Oslo")),
    tool("weather_report", "Get a report of the current weather in a city.", "city", city=text("The city")),
    tool("forecast", "Forecast the weather of the next days for a city", "city days", city=text("City"),
         days={"type": "integer", "description": "Number of days"}),
    tool("send_email", "Send an email message to a person", "to subject", to=text("Address of the recipient"),
         subject=text("Subject of the email"), body=text("Text of the message")),
    tool("send_message", "Send a text message to a person or a group", "to text", to=text("Name of the person"),
         text=text("Text of the message")),
    tool("convert_currency", "Convert an amount of money from one currency to another", "amount to",
         amount={"type": "number"}, to=text("Code of the target currency, e.g. USD")),
    tool("book_table", "Reserve a table at a restaurant", "restaurant people", restaurant=text("Name of it"),
         people={"type": "integer", "description": "Number of people"}, date=text("Date, YYYY-MM-DD")),
]  # fmt: skip
REQUESTS = [
    "What is the current weather in the city of Rome?",
    "Give me a report of the weather in Paris and London, and the forecast for Oslo for the next 3 days.",
    "Send an email to ann@example.com with the subject 'Lunch', then send a text message to Bob saying see you there",
    "Convert 250 dollars to euros and tell me the weather in Madrid",
    "Reserve a table for four people at Chez Anne on March 9th, and send Bob a message about it",
    "Who painted the ceiling of the chapel?",
    "Forecast for Lima",
]


def similar(asked: Sequence[str], tools: Sequence[str]) -> Matrix:
    """Stands for closeness in meaning: the share of letters in a row that two texts have in common."""

    def pieces(line: str) -> frozenset[str]:
        return frozenset(line.lower()[at : at + 3] for at in range(len(line) - 2))

    return [[len(pieces(a) & pieces(b)) / (1 + len(pieces(a) | pieces(b))) for b in tools] for a in asked]


def main() -> None:
    definitions = [Definition.of(value, hash="-") for value in TOOLS]
    plans = []
    for closeness in (None, similar):
        planner = RulesPlanner(
            weights(), closeness, guess=closeness is not None, today=lambda: date(2024, 5, 3)
        )
        plans += [to_json(planner.plan(request, definitions)) for request in REQUESTS]
    records = [
        {"source": "s", "request": request, "tools": TOOLS, "plan": plan["plan"], "labels": ["args"]}
        for request, plan in zip(REQUESTS, plans, strict=False)
    ]
    every = [*records, *refusals(records, share=1.0)]
    rarity = {**weights().rarity, **rarity_of(every * 20)}
    rows = [
        tool_rows(every, similar, rarity),
        value_rows(every, similar, rarity),
        call_rows(every, similar, weights()),
        split_rows(every, similar, weights()),
    ]
    learned = [[part.x, part.y, part.w] for part in rows]
    json.dump({"plans": plans, "rarity": list(rarity.items()), "learned": learned}, sys.stdout)


if __name__ == "__main__":
    main()
