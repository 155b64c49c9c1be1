"""Which planner makes the plans, and why: from config.toml and from what there is on this machine."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from gateway.config.planner import PlannerSettings
from gateway.planning.engine import folder_of, lacking


@dataclass(frozen=True, slots=True)
class Choice:
    """A planner, before anything of it is loaded.

    :param name: ``rules``, ``model`` or ``sampling``.
    :param why: why this one, in words that go on after its name.
    :param mend: what to do to have the one that was wanted; empty where this one was.
    :param folder: of the model, where our own engine is to serve it.
    """

    name: str
    why: str
    mend: str = ""
    folder: Path | None = None


_CONFIGURE: Final = "Set model or url in [planner] of config.toml, or use to rules."


def choose(settings: PlannerSettings, file: Path | None) -> Choice:
    """The planner to use. Looks for files and packages, and imports nothing.

    :param file: the config.toml that the settings are from.
    """
    if settings.use == "rules":
        return Choice("rules", "as config.toml says")
    if settings.use == "sampling":
        return Choice("sampling", "the client's own model, as config.toml says")
    if settings.url:
        if settings.token_env and settings.token_env != _TOKEN and settings.token_env not in os.environ:
            return Choice(
                "rules",
                f"because {settings.token_env}, which should hold the endpoint's token, is not set",
                f"Start the gateway with {settings.token_env} in its environment.",
            )
        return Choice("model", f"at {settings.url}")
    if settings.model:
        folder = folder_of(settings, file)
        if (found := lacking(folder)) is not None:
            return Choice("rules", f"because {found[0]}", found[1])
        return Choice("model", f"by an engine of the gateway's own, with {folder}", folder=folder)
    if settings.use == "model":
        return Choice("rules", "because no model is named", _CONFIGURE)
    return Choice("rules", "without a model, as none is named")


_TOKEN: Final = PlannerSettings().token_env


def token_of(settings: PlannerSettings) -> str | None:
    """The bearer token for the endpoint, from the environment."""
    return os.environ.get(settings.token_env) or None if settings.token_env else None


def shown(choice: Choice) -> dict[str, Any]:
    """The choice as JSON, for `doctor` and `status`."""
    return {"name": choice.name, "why": choice.why, "mend": choice.mend}
