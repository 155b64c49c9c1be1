"""The source of one package that holds the traps of real ones."""

INIT = '''
"""Everything that goes wrong in other people's packages."""
import re, sys, enum, functools, dataclasses, datetime, decimal, collections, typing
print("noise at import")
answer = input  # a builtin that must not become a tool
from .inner import exported, counter
from ._private import hidden_home

__all__ = ["exported", "hidden_home", "add", "Color", "Point", "paint", "move", "shout", "when", "later", "raw",
           "total", "options", "numbers", "letters", "wait_for", "agenerate", "Account", "Box", "make_box", "open_box",
           "says", "table", "money", "kinds", "read_text", "write_text", "hang", "crash", "leave", "steal", "picture",
           "apply", "counter", "Style", "restyle", "boom", "unsure", "big", "join", "by_number", "size_of", "find_all", "seal_message", "unseal_message", "nameless", "made_late", "today", "Moment", "anything", "day_of_week", "alike", "Proxy", "echo", "gap", "decorate", "promised"]

Pair = collections.namedtuple("Pair", "left right")

class Moment(datetime.datetime):
    def said(self) -> str:
        """Say the moment in ISO 8601."""
        return self.isoformat()

class Anything:
    """Answers to every name."""
    def __getattr__(self, name: str) -> "Anything":
        return self
    def __call__(self, *args: object) -> "Anything":
        return self

class Proxy:
    """Passes on what others can do."""
    _others = {"lucky": lambda number=7: number * 3}
    def __dir__(self):
        return [*super().__dir__(), *self._others]
    def __getattr__(self, name):
        if name in self._others:
            return self._others[name]
        raise AttributeError(name)

def anything(key: str) -> Anything:
    """Make something that answers to every name."""
    return Anything()

def _looks_at_positions(function):
    @functools.wraps(function)
    def wrapper(*args, **kwargs):
        if args[0] is None or args[1] is None:
            return 0
        return function(*args, **kwargs)
    return wrapper

@_looks_at_positions
def alike(first: str, second: str, scale: int = 1) -> int:
    """How many letters two texts share at their beginning."""
    return scale * len([1 for a, b in zip(first, second) if a == b])

def echo(text: str) -> str:
    """Say it again.

    >>> echo("hello world")
    'hello world'
    """
    return text

def gap(one: str, two: str) -> int:
    """How much longer one text is than another."""
    return abs(len(one) - len(two))

def decorate(text: str, **settings) -> str:
    """Put something around a text.

    Arguments:

    left - what comes before it
    right - what comes behind it
    """
    return settings.get("left", "") + text + settings.get("right", "")

def promised(text: str) -> str:
    """Says that it gives a text, and gives nothing."""

def day_of_week(text: str) -> int:
    """The day of the week of a date."""
    return datetime.date.fromisoformat(text[:10]).weekday()

class Color(enum.Enum):
    RED = "r"
    GREEN = "g"

class Style(enum.IntFlag):
    BOLD = 1
    THIN = 2

@dataclasses.dataclass
class Point:
    """A place.

    :param x: to the right
    :param y: upwards
    """
    x: float
    y: float = 0.0

def add(a: int, b: int = 2) -> int:
    """Add two numbers.

    Args:
        a: the first one.
        b (int): the second one.

    >>> add(2, b=3)
    5
    """
    return a + b

def paint(color: Color) -> str:
    """Say a color's name."""
    return color.name

def restyle(style: Style = Style.BOLD):
    return style.value

def move(point: Point, by: typing.Tuple[float, float]) -> Point:
    return Point(point.x + by[0], point.y + by[1])

def shout(data: bytes) -> bytes:
    return data.upper()

def when(day: "datetime.date", at: typing.Optional[datetime.time] = None) -> str:
    return day.strftime("%A")

def later(start: datetime.datetime, by: datetime.timedelta) -> datetime.datetime:
    return start + by

def raw(data):
    """Untyped, and wants bytes.
    """
    return data.decode() + "!" if data.startswith(b"a") else "no"

def unsure(value):
    """Untyped, and wants a day."""
    return value.isoweekday()

def total(*values: float, scale: float = 1) -> float:
    """Add up."""
    return sum(values) * scale

def options(name, **settings):
    return {"name": name, **settings}

def numbers(n: int):
    """Count."""
    for i in range(n):
        yield i

def letters():
    return iter("abc")

async def wait_for(n: int) -> int:
    """Wait."""
    return n

async def agenerate(n: int):
    """Wait often."""
    for i in range(n):
        yield i

class Account:
    """Money of somebody.

    :param owner: whose it is
    """
    def __init__(self, owner: str, balance: float = 0.0):
        self.owner, self.balance = owner, balance
    def deposit(self, amount: float) -> float:
        """Put money in."""
        self.balance += amount
        return self.balance
    @classmethod
    def parse(cls, text: str) -> str:
        """Read an account."""
        return text.split(":")[0]
    @staticmethod
    def currency() -> str:
        """The currency."""
        return "EUR"

class Box:
    def __init__(self, content):
        self.content = content
    def peek(self):
        """Look into it."""
        return self.content

    @property
    def label(self):
        """What is written on it."""
        return f"box of {self.content}"

class _Nameless:
    """A function that does not say what it takes, and takes no names."""
    __name__ = "nameless"
    __signature__ = "none"
    def __call__(self, *args):
        """Add."""
        return sum(args)

nameless = _Nameless()

def __getattr__(name):
    if name == "made_late":
        def made_late(n: int) -> int:
            """Made when it is asked for."""
            return n + 100
        made_late.__module__ = __name__
        globals()["made_late", "today"] = made_late
        return made_late
    raise AttributeError(name)

def today() -> datetime.date:
    """Tell the day."""
    return datetime.date.today()

def join(parts: typing.Iterable[str]) -> str:
    """Join parts."""
    return "-".join(parts)

def by_number(names: typing.Dict[int, str]) -> str:
    """Name number one."""
    return names[1]

def size_of(data: typing.BinaryIO) -> int:
    return len(data.read())

def find_all(pattern: "re.Pattern[str]", text: str) -> list:
    return pattern.findall(text)

def make_box(content):
    """Make a box, which JSON cannot carry."""
    return Box(content)

def open_box(box: Box):
    """Take out what is in a box."""
    return box.content

def says(text: str) -> None:
    """Print, and return nothing."""
    print(text)

def table():
    return Pair(1, {3, 1, 2})

def money() -> decimal.Decimal:
    return decimal.Decimal("1.10")

def kinds():
    return {"d": datetime.date(2024, 1, 2), "t": datetime.timedelta(hours=1), "n": float("inf"), 5: b"\\xff\\xfe"}

def read_text(path: str) -> str:
    """Read a file."""
    with open(path) as f:
        return f.read()

def write_text(filename: str, text: str) -> None:
    with open(filename, "w") as f:
        f.write(text)

def hang(seconds: float = 1000) -> None:
    """Never come back."""
    import time
    time.sleep(seconds)

def crash(really: bool) -> None:
    """Take the whole process down."""
    import os, signal
    if really:
        os.kill(os.getpid(), signal.SIGSEGV)

def leave(code: int) -> None:
    """End the process."""
    sys.exit(code)

def steal(path: str) -> str:
    """Read what is none of its business."""
    return open(path).read()

def boom():
    """Raise."""
    raise RuntimeError("as designed")

def seal_message(text: str) -> str:
    """Seal a message."""
    return "sealed:" + text[::-1] + ":" + str(len(text) * 37)

def unseal_message(token: str) -> str:
    """Open what was sealed."""
    mark, text, check = token.split(":")
    if mark != "sealed" or int(check) != len(text) * 37:
        raise ValueError("this was never sealed")
    return text[::-1]

def big(n: int) -> int:
    """Use memory."""
    return len(bytearray(n))

class _Picture:
    def _repr_png_(self):
        return b"\\x89PNG\\r\\n\\x1a\\n" + b"0" * 100

def picture():
    return _Picture()

def apply(function: typing.Callable, value: str):
    """Call a function."""
    return function(value)
'''
INNER = '''
class _Counter:
    """Counts."""
    def words(self, text):
        """Count words."""
        return len(text.split())

counter = _Counter()

def exported(text: str) -> str:
    """Reverse a text."""
    return text[::-1]
'''
PRIVATE = '''
def hidden_home(n: int) -> int:
    """Double a number."""
    return n * 2
'''
VERSION = '''
class Release:
    """A release of something."""
    def __init__(self, text: str):
        self.text = text
    def major(self) -> int:
        """The first of its numbers."""
        return int(self.text.split(".")[0])
'''
EXITS = "import sys\nsys.exit('no display')\n"
HANGS = "while True: pass\n"
KILLS = "import os\nos._exit(3)\n"
SIMPLE = """
import argparse, optparse, sys

def with_argparse():
    parser = argparse.ArgumentParser("trap", description="A program with commands.")
    commands = parser.add_subparsers(dest="command")
    greet = commands.add_parser("greet", help="Greet somebody.")
    greet.add_argument("who")
    greet.add_argument("-t", "--times", type=int, default=1, help="how often, %(default)s unless told")
    greet.add_argument("--style", choices=["plain", "loud"])
    greet.add_argument("--also", action="append", default=[])
    greet.add_argument("--shout", action="store_true")
    save = commands.add_parser("save", help="Write a file.")
    save.add_argument("path")
    options = parser.parse_args()
    if options.command == "save":
        open(options.path, "w").write("saved")
    else:
        text = " ".join(["hello", options.who, *options.also] * options.times)
        print(text.upper() if options.shout or options.style == "loud" else text)

def with_optparse():
    parser = optparse.OptionParser(description="An old program.")
    parser.add_option("-n", type="int", default=1)
    options, rest = parser.parse_args()
    print(" ".join(rest * options.n))

def with_default(argv=sys.argv):
    print(" ".join(argv[1:]).upper())

def with_copied_default(argv=sys.argv[1:]):
    print(" ".join(argv).upper())

def shy():
    if sys.argv[1:] == ["--help"]:
        print("usage: shytrap WORD")
    else:
        print(sys.argv[1])

def late():
    if not sys.argv[1:]:
        sys.exit("nothing to do")
    parser = argparse.ArgumentParser("latetrap", description="Goes deep.")
    parser.add_argument("--depth", type=int, help="how deep")
    print(parser.parse_args().depth)

def copied_late(argv=sys.argv[1:]):
    if not argv:
        sys.exit("nothing to do")
    parser = argparse.ArgumentParser("copylatetrap")
    parser.add_argument("--depth", type=int)
    print(parser.parse_args(argv).depth)

def free():
    data = sys.stdin.read()
    if not data:
        sys.stderr.write("nothing to do\\n")
        return 2
    print(data.upper(), end="")
"""
FILES = {
    "traps/__init__.py": INIT,
    "traps/inner.py": INNER,
    "traps/_private.py": PRIVATE,
    "traps/exits.py": EXITS,
    "traps/kills.py": KILLS,
    "traps/programs.py": SIMPLE,
    "traps/version.py": VERSION,
}
SCRIPTS = {
    "trap": "traps.programs:with_argparse",
    "oldtrap": "traps.programs:with_optparse",
    "freetrap": "traps.programs:free",
    "copylatetrap": "traps.programs:copied_late",
    "shytrap": "traps.programs:shy",
    "latetrap": "traps.programs:late",
    "defaulttrap": "traps.programs:with_default",
    "copytrap": "traps.programs:with_copied_default",
}
README = """
# traps

```python
from traps import add, exported, today
add(1, 2)
today()
exported("abc")
```
"""
