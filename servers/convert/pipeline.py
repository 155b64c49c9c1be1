"""The whole way from a source to a manifest."""

from __future__ import annotations

import json
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Sequence, Set
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import msgspec

from servers.convert import distribution as distributions
from servers.convert import docstrings, environment, repair, review, select, source, suggest, tools
from servers.convert.distribution import Distribution
from servers.errors import ConversionFailed, EnvironmentFailed, WorkerFailed
from servers.manifest.records import Dropped, Evidence, Limits, Manifest, Permissions, Repair, Source, Tool
from servers.process import Place, WorkerHung, WorkerProcess
from servers.version import VERSION

IMPORT_SECONDS: Final = 20.0
SURVEY_SECONDS: Final = 60.0
_ROUNDS: Final = 4
_MOST_HIDDEN: Final = 3000
_REVIEWED: Final = 64
Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Options:
    """How to convert.

    :ivar extras: requirements to add to the environment, besides what is found to be needed.
    :ivar review_seconds: how long the shown tools may be tried.
    :ivar model: what proposes names, descriptions and examples; nothing does by default.
    """

    level: str
    name: str | None = None
    extras: tuple[str, ...] = ()
    review_seconds: float = 15.0
    permissions: Permissions = field(default_factory=Permissions)
    limits: Limits = field(default_factory=Limits)
    model: suggest.Endpoint | None = None


@dataclass(slots=True)
class _Built:
    """An environment with what was found in it."""

    lock: environment.Lock
    path: Path
    distribution: Distribution
    survey: dict[str, Any]
    scripts: list[dict[str, Any]]
    repairs: list[Repair]


def convert(spec: str, options: Options, say: Say) -> Manifest:
    """Convert a source.

    :param say: told of each step, one line.
    :raises ServersError: it cannot be fetched, built or imported, or offers nothing.
    """
    scratch = Path(tempfile.mkdtemp(prefix="toolyard-source-"))
    try:
        say(f"preparing {spec}")
        prepared = source.prepare(spec, scratch, options.level)
        asked = [Repair(extra, "asked for with --extra", "asked") for extra in options.extras]
        built = _build(prepared, options, asked, say)
        manifest, missing = _manifest(prepared, built, options, say)
        more = _new(built.repairs, repair.needed(built.distribution, missing, "a call in review"))
        if more:
            say("adding " + ", ".join(each.requirement for each in more))
            built = _build(prepared, options, [*built.repairs, *more], say)
            manifest, _ = _manifest(prepared, built, options, say)
        return manifest
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _new(known: Sequence[Repair], found: Sequence[Repair]) -> list[Repair]:
    have = {each.requirement for each in known}
    return [each for each in found if each.requirement not in have]


def _build(prepared: source.Prepared, options: Options, repairs: list[Repair], say: Say) -> _Built:
    """Build the environment and look into it, again with each repair that the evidence asks for."""
    optional: list[Repair] = []
    refused: set[str] = set()
    for _ in range(_ROUNDS):
        wanted = [prepared.requirement, *(_requirement(each, prepared) for each in repairs)]
        say("resolving and building the environment")
        try:
            lock = environment.resolve(wanted, options.level, wheels_only=bool(optional))
            path = environment.build(lock, options.level)
        except EnvironmentFailed:
            if not optional:
                raise
            # an extra that the package can do without, and that cannot be had here
            refused |= {each.requirement for each in optional}
            repairs = [each for each in repairs if each not in optional]
            optional = []
            continue
        site = environment.site_packages(path)
        distribution = distributions.read(site, prepared.name)
        place = Place(path, options.level, options.permissions, options.limits)
        say(f"looking into {distribution.name} {distribution.version}")
        survey, scripts = _look(place, distribution)
        found = _evidence(distribution, survey, scripts)
        more = _new(repairs, found)
        optional = []
        if not more:
            optional = [
                each
                for each in _new(repairs, repair.offered(distribution, survey["missing"]))
                if each.requirement not in refused
            ]
            more = optional
        if not more:
            return _Built(lock, path, distribution, survey, scripts, repairs)
        say("adding " + ", ".join(f"{each.requirement} ({each.evidence})" for each in more))
        repairs = [*repairs, *more]
    return _Built(lock, path, distribution, survey, scripts, repairs)


def _requirement(repaired: Repair, prepared: source.Prepared) -> str:
    """A repair as a requirement; an extra of the converted distribution keeps its pin or its wheel."""
    match = re.fullmatch(r"([\w.-]+)\[([\w.-]+)\]", repaired.requirement)
    if match is None or repaired.rule != "extra":
        return repaired.requirement
    name, extra = match.groups()
    if "@" in prepared.requirement:
        return f"{name}[{extra}] @ {prepared.requirement.partition('@')[2].strip()}"
    pin = re.search(r"(===|==|>=|<=|~=|!=|<|>).*", prepared.requirement)
    return f"{name}[{extra}]{pin.group(0) if pin else ''}"


def _look(place: Place, distribution: Distribution) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Survey the package and its scripts; a module that hangs or kills its process is left out."""
    skip: list[str] = []
    for _ in range(6):
        with WorkerProcess(place) as worker:
            progress = Path(worker.scratch) / "importing"
            try:
                survey = worker.ask(
                    "discover", SURVEY_SECONDS + IMPORT_SECONDS, packages=list(distribution.packages), skip=skip,
                    import_seconds=IMPORT_SECONDS, total_seconds=SURVEY_SECONDS, progress=str(progress),
                )  # fmt: skip
            except WorkerFailed:
                culprit = progress.read_text() if progress.is_file() else ""
                if not culprit or culprit in skip:
                    raise
                skip.append(culprit)
                continue
        return survey, _scripts(place, distribution)
    raise ConversionFailed(
        f"Importing '{distribution.name}' ends its process again and again ({', '.join(skip)}).",
        "Look at what its modules do when they are imported.",
    )


def _scripts(place: Place, distribution: Distribution) -> list[dict[str, Any]]:
    with WorkerProcess(place) as worker:
        try:
            answer = worker.ask("scripts", 60.0, distribution=distribution.name, seconds=IMPORT_SECONDS)
        except WorkerHung:
            return []
        except WorkerFailed:
            # a script that ends its process without ceremony: its scripts take free arguments
            return [
                {"script": name, "entry": None, "framework": "free", "commands": []}
                for name in distribution.scripts
            ]
    found: list[dict[str, Any]] = answer["commands"]
    return found


def _evidence(
    distribution: Distribution, survey: dict[str, Any], scripts: list[dict[str, Any]]
) -> list[Repair]:
    found: list[Repair] = []
    failed: dict[str, str] = survey["failed"]
    for name, text in failed.items():
        module = repair.missing_in(text)
        if module is None:
            continue
        made = repair.needed(distribution, [module], f"importing {name}")
        if name not in distribution.packages:  # a part that most users never see: only what it declares
            made = [each for each in made if each.rule == "extra" and repair.is_light(distribution, each)]
        found += _new(found, made)
    for script in scripts:
        if script.get("error"):
            module = repair.missing_in(script["error"]) or script.get("module") or ""
            found += _new(found, repair.needed(distribution, [module], f"starting {script['script']}"))
    return found


def _manifest(
    prepared: source.Prepared, built: _Built, options: Options, say: Say
) -> tuple[Manifest, list[str]]:
    distribution, survey = built.distribution, built.survey
    site = environment.site_packages(built.path)
    namer = tools.Namer()
    found, dropped = tools.python_tools(survey["callables"], site, namer, distribution.summary)
    commands = tools.command_tools(built.scripts, namer)
    if not found and not commands:
        raise _nothing(distribution, survey["failed"])
    mentions = select.Mentions(
        distribution.readme, prepared.folder, [record["doc"] for record in survey["callables"]]
    )
    thin = select.is_thin(survey["callables"], distribution.packages[0])
    shown_in_readme = docstrings.examples(distribution.readme, "readme")
    examples: dict[str, list[docstrings.Example]] = {}
    scored: list[tuple[Tool, float]] = []
    quiet: set[str] = set()
    for tool, record in [*commands, *found]:
        mine = _examples(tool, record, shown_in_readme)
        examples[tool.name] = mine
        points = select.score(tool, record, mentions, distribution.packages[0], thin, bool(mine))
        scored.append((tool, points))
        if not mine and select.is_quiet(tool, record, mentions, distribution.packages[0]):
            quiet.add(tool.name)
    scored.sort(key=lambda each: (-each[1], each[0].name))
    kept, cut = scored[: _MOST_HIDDEN + select.MOST], scored[_MOST_HIDDEN + select.MOST :]
    dropped += [
        Dropped(tool.qualname, "the package offers too many, and nothing speaks for it") for tool, _ in cut
    ]
    first = select.choose(kept, _REVIEWED)
    by_name = {tool.name: tool for tool, _ in kept}
    proposals: dict[str, suggest.Proposal] = {}
    if options.model is not None:
        asked = [by_name[name] for name in first[: select.MOST]]
        proposals = suggest.propose(asked, distribution.name, options.model, say)
        for tool in asked:
            examples[tool.name] += suggest.examples_of(tool, proposals.get(tool.name, suggest.Proposal()))
    say(f"trying {len(first)} of {len(kept)} callables")
    place = Place(built.path, options.level, options.permissions, options.limits)
    preload = [distribution.packages[0]] if distribution.packages[0] in survey["modules"] else []
    reviewed = review.run(
        place, preload, [by_name[name] for name in first], examples, options.review_seconds, select.MOST + 2
    )
    decided = _decided(kept, reviewed, quiet)
    late = [tool for tool in decided if tool.exposed and not tool.reviewed]
    if late:  # they took the places of what did not answer
        reviewed.add(review.run(place, preload, late, examples, options.review_seconds / 3, len(late)))
        decided = _decided(kept, reviewed, quiet)
    made = suggest.applied(decided, proposals)
    return (
        Manifest(
            name=options.name or prepared.name,
            source=Source(
                kind=prepared.kind,
                spec=prepared.spec,
                name=distribution.name,
                version=distribution.version,
                digest=prepared.digest or f"sha256:{built.lock.hash}",
                commit=prepared.commit,
                homepage=distribution.homepage,
            ),
            environment=environment.record(built.lock, built.repairs),
            tools=tuple(_placeless(tool, built.path) for tool in made),
            description=distribution.summary,
            licence=distribution.licence,
            permissions=options.permissions,
            limits=options.limits,
            sandbox="L1" if options.level == "L1" else "L2",
            preload=tuple(preload),
            import_seconds=round(float(survey["import_seconds"]), 3),
            dropped=tuple(dropped[:400]),
            found=len(survey["callables"]) + len(commands),
            converter=VERSION,
        ),
        reviewed.missing,
    )


def _nothing(distribution: Distribution, failed: dict[str, str]) -> ConversionFailed:
    """Why there is nothing to call: it cannot be imported, or has no public names."""
    if not failed:
        return ConversionFailed(
            f"'{distribution.name}' offers nothing that can be called: no public function, class or command.",
            "Names that begin with an underscore, and those of tests, are not offered.",
        )
    why = "; ".join(f"{name}: {text}" for name, text in list(failed.items())[:3])
    if any(repair.missing_in(text) for text in failed.values()):
        hint = "Name the distribution that has the missing module with --extra."
    elif any(text.startswith(("SyntaxError", "IndentationError", "TabError")) for text in failed.values()):
        hint = f"Mend the file; it has to be readable by Python {environment.python_version()}."
    else:
        hint = "Importing it must come to an end, and leave its process alive."
    return ConversionFailed(f"'{distribution.name}' cannot be imported ({why}).", hint)


def _examples(
    tool: Tool, record: dict[str, Any], readme: list[docstrings.Example]
) -> list[docstrings.Example]:
    """The examples that call this tool: its own doctests, then the README's."""
    if tool.kind == "cli":
        return []
    path = tool.qualname.partition(":")[2]
    name = path.rpartition(".")[2]
    own = (
        docstrings.examples(record["doc"], "doctest")
        if ">>>" in record["doc"] or "::" in record["doc"]
        else []
    )
    return [
        each for each in (*own, *readme) if each.name == name and (len(name) > 3 or each.source == "doctest")
    ]


_WORTH: Final = {"answer": 2.0, "refusal": -1.5, "hang": -8.0, "crash": -8.0, "unreviewed": 0.0}


_MISFIT: Final = re.compile(
    r"AttributeError: '(str|int|float|list|dict|bool|NoneType|bytes)' object has no attribute"
    r"|TypeError: (string indices must be|'(str|int|list|dict)' object (does not support|is not subscriptable|cannot be interpreted))"
)
"""What code says that was given JSON where it wants an object of its own."""


def _decided(kept: Sequence[tuple[Tool, float]], reviewed: review.Review, quiet: Set[str]) -> list[Tool]:
    """The tools with their evidence; the best of those that answered are shown."""
    evidence = reviewed.evidence
    final: list[tuple[Tool, float]] = []
    for known, points in kept:
        tool = reviewed.repaired.get(known.name, known)
        found = evidence.get(tool.name)
        if found is not None and found.outcome in ("crash", "hang"):
            # reachable still, so that a caller with better arguments can use it, but never offered
            points = min(points, -5.0)
        worth = _WORTH[found.outcome] if found is not None else -0.5
        if found is not None and found.outcome == "refusal" and review.names_the_value(found):
            worth = 0.0  # it works, and says which value it has no use for
        final.append((tool, points + worth))
    shown = set(
        select.choose(
            [(tool, points) for tool, points in final if _worthy(evidence.get(tool.name), points)],
            quiet=quiet,
        )
    )
    made = []
    for tool, points in sorted(final, key=lambda each: (-each[1], each[0].name)):
        found = evidence.get(tool.name)
        tried = found is not None and found.outcome != "unreviewed"
        made.append(
            msgspec.structs.replace(
                _promising(tool, found),
                exposed=tool.name in shown,
                reviewed=tried,
                review=found if tried else None,
                score=round(points, 2),
            )
        )
    return made


def _placeless(tool: Tool, path: Path) -> Tool:
    """The tool without this machine's directories in its texts; an answer that named one is not the same elsewhere."""
    scratch = re.escape(os.path.join(os.path.realpath(tempfile.gettempdir()), "toolyard-"))
    places = re.compile(f"{re.escape(str(path))}|{scratch}[A-Za-z0-9_]+(/run-[A-Za-z0-9_]+)?")
    text = msgspec.json.encode(tool).decode()
    if not places.search(text):
        return tool
    made = msgspec.json.decode(places.sub("~", text).encode(), type=Tool)
    if made.review is None or tool.review is None or made.review.result == tool.review.result:
        return made
    return msgspec.structs.replace(made, review=msgspec.structs.replace(made.review, deterministic=False))


def _worthy(found: Evidence | None, points: float) -> bool:
    """Whether a tool may be shown: it answered, or so much speaks for it that the arguments tried were to blame."""
    if found is not None and found.outcome == "answer":
        return points > -2.0
    if found is not None and _MISFIT.search(found.note or found.result):
        return points >= 8.0
    return points >= 3.5


def _promising(tool: Tool, found: Evidence | None) -> Tool:
    """The tool without its output schema where its real answer broke the promise."""
    if tool.output_schema is None or found is None or found.outcome != "answer":
        return tool
    if len(found.result) >= review.SHOWN:  # what is recorded is cut, and no JSON
        return tool
    from jsonschema import Draft202012Validator

    if Draft202012Validator(tool.output_schema).is_valid({"result": json.loads(found.result)}):
        return tool
    return msgspec.structs.replace(tool, output_schema=None)
