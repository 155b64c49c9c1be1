"""What a package offers, found by importing and looking: every public callable, and every path to it."""

from __future__ import annotations

import abc
import enum
import functools
import inspect
import os
import sys
import types
from collections import Counter
from collections.abc import Iterator
from typing import Any

from . import contain, hints, importing, signature

_DOC = 6000
_METHODS = 150
_INSTANCES = 3
_ANSWERED = 400
_ASKING = 5.0
"""The most names that one object may answer to, and the seconds in which it has to be made."""
_ANYTHING: list[dict[str, Any]] = [
    {"name": "args", "kind": "varargs", "type": {"k": "any"}},
    {"name": "kwargs", "kind": "varkw", "type": {"k": "any"}},
]
"""The parameters of what does not say what it takes."""
_MOST = 6000


def survey(request: dict[str, Any]) -> dict[str, Any]:
    """Import ``packages`` with all their public modules and list what can be called.

    :param request: ``packages``; ``skip``: modules known to hang or crash; ``import_seconds`` for one
        module and ``total_seconds`` for all; ``progress``: a file that holds the name of the module
        being imported, for the case that this never returns.
    """
    watch = importing.Missing(tuple(request["packages"]))
    sys.meta_path.append(watch)
    try:
        with contain.quiet():
            modules, failed, seconds = importing.all_of(request)
            found = _Found(tuple(request["packages"]))
            for module in modules:
                found.module(module)
            found.methods()
    finally:
        sys.meta_path.remove(watch)
    return {
        "callables": found.records(),
        "modules": [module.__name__ for module in modules],
        "failed": failed,
        "missing": watch.missing,
        "import_seconds": seconds,
        "cut": found.cut,
    }


class _Found:
    """The callables met so far, one record an object, however many names it has."""

    def __init__(self, packages: tuple[str, ...]) -> None:
        self._packages = packages
        self._by_object: dict[Any, dict[str, Any]] = {}
        self._kept: list[Any] = []  # so that no id is used twice
        self._instances: Counter[type] = Counter()
        self._later: list[tuple[str, Any, bool]] = []
        self.cut = 0

    def records(self) -> list[dict[str, Any]]:
        """Everything found, with its paths sorted: the shortest is its name, the others are aliases."""
        made = []
        for record in self._by_object.values():
            home = record.pop("home")
            paths = sorted(record.pop("paths"), key=lambda path: self._rank(path, home))
            record["qualname"], record["aliases"] = paths[0], paths[1:20]
            made.append(record)
        return made

    def _rank(self, path: str, home: str | None) -> tuple[Any, ...]:
        """The best path first: public, of the main package, near its top, where it is defined, short."""
        module, _, name = path.partition(":")
        private = any(part.startswith("_") for part in module.split("."))
        top = module.split(".")[0]
        order = self._packages.index(top) if top in self._packages else len(self._packages)
        return private, order, module.count("."), path != home, len(module), name

    def _own(self, thing: Any) -> bool:
        module = getattr(thing, "__module__", None)
        if not isinstance(module, str):
            return inspect.isbuiltin(thing) or module is None
        return module.split(".")[0].lstrip("_") in {name.lstrip("_") for name in self._packages}

    def module(self, module: types.ModuleType) -> None:
        """Everything public in one module."""
        named = getattr(module, "__all__", None)
        exported = (
            {name for name in named if isinstance(name, str)} if isinstance(named, (list, tuple)) else None
        )
        for name, thing in sorted(_contents(module, exported or set()).items()):
            if name.startswith("_") or isinstance(thing, types.ModuleType) or _is_alias(thing):
                continue
            listed = exported is not None and name in exported
            try:
                if not listed and not self._own(thing) and not self._own(type(thing)):
                    continue
                self._thing(f"{module.__name__}:{name}", thing, listed or exported is None)
            except Exception:  # an object whose own attributes raise cannot be offered
                self.cut += 1

    def _thing(self, path: str, thing: Any, listed: bool) -> None:
        if inspect.isclass(thing):
            if self._own(thing):
                self._class(path, thing, listed)
        elif inspect.isroutine(thing) or (callable(thing) and hasattr(thing, "__name__")):
            self._add(thing, path, "function", listed, thing)
        elif self._own(type(thing)) and not isinstance(thing, enum.Enum):
            if callable(thing):
                self._add(thing, path, "function", listed, thing)
            self._later.append((path, thing, listed))

    def methods(self) -> None:
        """The methods of the classes and objects met: last, for there may be too many."""
        ranked = sorted(self._later, key=lambda each: (each[0].count("."), not each[2]))
        for path, thing, listed in ranked:
            try:
                if inspect.isclass(thing):
                    self._class_methods(path, thing, listed)
                else:
                    self._instance(path, thing, listed)
            except Exception:  # a foreign descriptor may raise anything
                self.cut += 1

    def _class(self, path: str, cls: type, listed: bool) -> None:
        if issubclass(cls, (BaseException, enum.Enum)) or getattr(cls, "_is_protocol", False):
            return
        abstract = inspect.isabstract(cls) or cls is abc.ABC
        if not abstract:
            self._add(cls, path, "class", listed, cls)
        self._later.append((path, cls, listed))

    def _class_methods(self, path: str, cls: type, listed: bool) -> None:
        abstract = inspect.isabstract(cls) or cls is abc.ABC
        constructor = None
        if not abstract:
            try:
                constructor = signature.parameters(cls)[0]
            except signature.Unknown:
                constructor = _ANYTHING
        home = _home(cls, path)
        for name, member, owner in self._members(cls):
            try:
                self._member(path, cls, name, member, owner, constructor, listed)
            except Exception:  # one member that raises when it is looked at; the others are offered
                self.cut += 1
                continue
            record = self._by_object.get((cls, name))
            if home is not None and record is not None:  # a method's home is that of its class
                record["home"] = f"{home}.{name}"
                record["paths"].add(record["home"])
        if constructor is not None:
            self._answered(path, cls, listed, constructor)

    def _answered(self, path: str, cls: type, listed: bool, constructor: list[dict[str, Any]]) -> None:
        """What an object offers by ``__getattr__`` and says so by ``__dir__``: only asking one tells."""
        own = [owner for owner in cls.__mro__ if self._own(owner)]
        if not all(any(name in vars(owner) for owner in own) for name in ("__getattr__", "__dir__")):
            return
        if any(each.get("required") for each in constructor):
            return
        try:
            with contain.limit(_ASKING):
                thing = cls()
                names = sorted(set(dir(thing)) - set(dir(cls)))
        except (Exception, SystemExit, contain.TooSlow):  # an object that cannot be made now is not asked
            return
        for name in names[:_ANSWERED]:
            if name.startswith("_"):
                continue
            try:
                found = getattr(thing, name)
            except Exception:  # a name that it says and cannot give is not offered
                continue
            if inspect.isroutine(found):
                self._add(
                    (cls, name), f"{path}.{name}", "method", listed, found, constructor, cls, bound=True
                )

    def _member(
        self, path: str, cls: type, name: str, member: Any, owner: type,
        constructor: list[dict[str, Any]] | None, listed: bool,
    ) -> None:  # fmt: skip
        key, where = (cls, name), f"{path}.{name}"
        if isinstance(member, (classmethod, staticmethod)):
            self._add(key, where, "method", listed, getattr(cls, name), cls=cls, direct=owner is cls)
        elif constructor is None:
            return
        elif isinstance(member, property) and member.fget is not None:
            self._add(key, where, "method", listed, member.fget, constructor, cls, False)
        elif inspect.isroutine(member):
            self._add(key, where, "method", listed, member, constructor, cls, owner is cls)
        if key in self._by_object:
            self._by_object[key]["foreign"] = not self._own(owner)

    def _members(self, cls: type) -> Iterator[tuple[str, Any, type]]:
        seen: set[str] = set()
        for owner in cls.__mro__:
            if owner.__module__.split(".")[0] in sys.stdlib_module_names:
                continue
            for name, member in vars(owner).items():
                if name.startswith("_") or name in seen or len(seen) >= _METHODS:
                    continue
                seen.add(name)
                yield name, member, owner

    def _instance(self, path: str, thing: Any, listed: bool) -> None:
        cls = type(thing)
        self._instances[cls] += 1
        if self._instances[cls] > _INSTANCES:
            return
        for name, member, _ in self._members(cls):
            if inspect.isroutine(member) or isinstance(member, (classmethod, staticmethod)):
                self._add((id(thing), name), f"{path}.{name}", "method", listed, getattr(thing, name))

    def _add(
        self, key: Any, path: str, kind: str, listed: bool, function: Any,
        constructor: list[dict[str, Any]] | None = None, cls: type | None = None, direct: bool = True,
        bound: bool = False,
    ) -> None:  # fmt: skip
        identity = key if isinstance(key, tuple) else id(key)
        if inspect.ismethod(key):  # every look at a bound method makes a new one
            identity = (id(key.__self__), key.__name__)
        record = self._by_object.get(identity)
        if record is not None:
            record["paths"].add(path)
            record["listed"] = record["listed"] or listed
            return
        if len(self._by_object) >= _MOST:
            self.cut += 1
            return
        self._kept.append(key)
        self._by_object[identity] = self._record(
            path, kind, listed, function, constructor, cls, direct, bound
        )

    def _record(
        self, path: str, kind: str, listed: bool, function: Any,
        constructor: list[dict[str, Any]] | None, cls: type | None, direct: bool,
        bound: bool,
    ) -> dict[str, Any]:  # fmt: skip
        record: dict[str, Any] = {"paths": {path}, "kind": kind, "listed": listed, "direct": direct}
        record["home"] = home = _home(function, path)
        if home:
            record["paths"].add(home)
        try:
            record["parameters"], returns = signature.parameters(
                function, skip_first=constructor is not None and not bound
            )
            record["returns"] = hints.describe(returns)
        except signature.Unknown:
            record["parameters"], record["returns"], record["unknown"] = _ANYTHING, {"k": "any"}, True
        if constructor is not None:
            record["constructor"] = constructor
        record["doc"] = _doc(function)[:_DOC]
        if kind == "class":
            own_init = vars(function).get("__init__")
            record["init_doc"] = (inspect.cleandoc(own_init.__doc__ or "") if own_init else "")[:_DOC]
        if cls is not None:
            record["class_doc"] = _doc(cls)[:_DOC]
        owner = sys.modules.get(path.partition(":")[0])
        record["module_doc"] = (inspect.getdoc(owner) or "")[:400] if owner is not None else ""
        record["async"] = inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function)
        record["file"], record["line"] = _place(function)
        return record


def _doc(thing: Any) -> str:
    """A docstring, inherited where there is no own one; what a builtin type says of itself says nothing here."""
    if inspect.isclass(thing):
        owner = next((each for each in thing.__mro__ if each.__doc__), None)
        if owner is None or (owner is not thing and owner.__module__ == "builtins"):
            return ""
        text = inspect.getdoc(thing) or ""
        # what namedtuple and dataclass write by themselves repeats the fields
        made = hasattr(thing, "_fields") or hasattr(thing, "__dataclass_fields__")
        return "" if made and text.startswith(f"{thing.__name__}(") else text
    if isinstance(thing, functools.partial):  # its own docstring is that of `partial`
        return _doc(thing.func)
    text = inspect.getdoc(thing) or ""
    return (
        ""
        if not inspect.isroutine(thing) and text == inspect.getdoc(type(thing)) and _is_stock(thing)
        else text
    )


def _is_stock(thing: Any) -> bool:
    """Whether an object's class is Python's own."""
    return type(thing).__module__.split(".")[0] in sys.stdlib_module_names


def _contents(module: types.ModuleType, exported: set[str]) -> dict[str, Any]:
    """A module's names with what they mean, those that it makes only when asked for included."""
    found = dict(vars(module))
    lazy = set(dir(module)) if "__getattr__" in found else set()
    for name in (exported | lazy) - found.keys():
        try:
            found[name] = getattr(module, name)
        except Exception:  # a name that its module cannot make is not offered
            continue
    return found


def _is_alias(thing: Any) -> bool:
    """Whether it is a type alias: ``Union[…]``, ``Literal[…]``, a TypeVar, a NewType."""
    made_by = type(thing).__module__
    return made_by in ("typing", "typing_extensions", "types") and not (
        inspect.isroutine(thing) or inspect.isclass(thing)
    )


def _home(function: Any, path: str) -> str | None:
    """Where it is defined, if that path leads to it."""
    if inspect.ismethod(function) or (inspect.isclass(function) and "<locals>" in function.__qualname__):
        return None
    module, name = getattr(function, "__module__", None), getattr(function, "__qualname__", None)
    if not isinstance(module, str) or not isinstance(name, str) or "<" in name:
        return None
    found: Any = sys.modules.get(module)
    for part in name.split("."):
        found = getattr(found, part, None)
    return f"{module}:{name}" if found is function and "." not in name else None


def _place(function: Any) -> tuple[str, int]:
    try:
        inner = inspect.unwrap(function)
        code = getattr(getattr(inner, "__func__", inner), "__code__", None)
        if code is not None:
            return os.path.abspath(code.co_filename), code.co_firstlineno
        module = sys.modules.get(getattr(inner, "__module__", "") or "")
        return getattr(module, "__file__", "") or "", 0
    except (ValueError, TypeError):
        return "", 0
