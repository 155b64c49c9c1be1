"""Own settings: flags over file over defaults; a fault names file, line and what was expected."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.config.options import ServeOptions
from gateway.config.settings import Settings
from gateway.errors import ConfigError


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "config.toml"


def load(file: Path, text: str, options: ServeOptions | None = None) -> Settings:
    file.write_text(text, encoding="utf-8")
    return Settings.load(options or ServeOptions(), file)


def test_without_a_file_the_defaults_stand(file: Path) -> None:
    settings = Settings.load(ServeOptions(), file)
    assert settings == Settings(
        host="127.0.0.1",
        port=7420,
        names="prefix",
        timeout=60.0,
        max_body=16 * 1024 * 1024,
        allowed_hosts=(),
        allowed_origins=(),
        page_size=2000,
        first_list_grace=3.0,
        log_level="info",
        file=None,
    )


def test_the_file_is_looked_for_in_the_configuration_directory(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOOLYARD_CONFIG_DIR", str(file.parent))
    file.write_text("[gateway]\nport = 1\n")
    settings = Settings.load(ServeOptions())
    assert (settings.port, settings.file) == (1, file)


def test_the_file_wins_over_defaults_and_flags_win_over_the_file(file: Path) -> None:
    text = """
        [gateway]
        host = "0.0.0.0"
        port = 9000
        names = "priority"
        timeout = 5
        max_body = 1024
        allowed_hosts = ["box.local"]
        allowed_origins = ["https://app.example"]
        page_size = 10
        first_list_grace = 0
        log_level = "debug"
    """
    settings = load(file, text, ServeOptions(port=0, names="on-collision"))
    assert settings == Settings(
        host="0.0.0.0",
        port=0,
        names="on-collision",
        timeout=5.0,
        max_body=1024,
        allowed_hosts=("box.local",),
        allowed_origins=("https://app.example",),
        page_size=10,
        first_list_grace=0.0,
        log_level="debug",
        file=file,
    )
    assert load(file, text, ServeOptions(log_level="info")).log_level == "info"


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ("[gateway]\nhost = 'x'\nport = '80'\n", 3, "gateway.port: expected `int`, got `str`"),
        ("[gateway]\n\n# port\nport = 70000", 4, "a port from 0 to 65535"),
        ("[gateway]\nprot = 1", 2, "unknown key gateway.prot. Expected one of host, port"),
        ("# [gateway]\n\n[gatway]\nport = 1", 3, "unknown key gatway. Expected one of gateway"),
        ("gateway = 3", 1, "gateway: expected `object`, got `int`. Expected a table"),
        ("[gateway]\nnames = 'first'", 2, "invalid enum value 'first'"),
        ("[gateway]\nport = 1\nallowed_hosts = [\n 'a',\n 7,\n]\nnames = 'no'", 3, "gateway.allowed_hosts"),
        ("gateway.port = 1\ngateway.timeout = 0", 2, "seconds, a number over 0"),
        ("[gateway]\ntimeout = nan", 2, "seconds, a number over 0"),
        ("[gateway]\ntimeout = inf", 2, "seconds, a number over 0"),
        ("[gateway]\ntimeout = true", 2, "expected `float`, got `bool`"),
        ('[gateway]\nhost = """\nport = "x"\n"""\nport = "x"', 5, "gateway.port"),
        ("gateway = { port = 1, host = 2 }", 1, "gateway.host"),
        ("[gateway]\nport = 1\nport = 2\n", 3, "Expected TOML"),
        ("[gateway]\nport =\n", 2, "Expected TOML"),
        ("[gateway]\nhost = '''never", 2, "Expected TOML"),
    ],
)
def test_a_fault_names_file_line_and_what_was_expected(
    file: Path, text: str, line: int, message: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        load(file, text)
    shown = str(caught.value.to_error()["message"])
    assert shown.startswith(f"{file}:{line}:")
    assert message in shown
    assert caught.value.data["line"] == line


def test_a_file_that_is_not_text_names_the_line(file: Path) -> None:
    file.write_bytes(b"[gateway]\nport = 1\nhost = '\xff'\n")
    with pytest.raises(ConfigError, match=r"config\.toml:3: the file is not UTF-8"):
        Settings.load(ServeOptions(), file)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read: Is a directory"):
        Settings.load(ServeOptions(), tmp_path)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (ServeOptions(port=70000), "--port 70000 cannot be used"),
        (ServeOptions(names="first"), "--names 'first' cannot be used"),
        (ServeOptions(log_level="loud"), "--log-level 'loud' cannot be used"),
        (ServeOptions(host=""), "--host '' cannot be used"),
    ],
)
def test_a_flag_that_cannot_be_used_is_named(file: Path, options: ServeOptions, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Settings.load(options, file)
    assert message in caught.value.message
    assert caught.value.hint is not None


def test_search_and_toolsets_are_tables_of_the_file(file: Path) -> None:
    settings = load(
        file,
        """
        [search]
        model = ""
        feedback = false
        [toolsets.reviews]
        include = ["github/*"]
        expose = "search"
        [toolsets.reviews.rename]
        "github/list_issues" = "issues"
        [toolsets.all]
        """,
    )
    assert (settings.search.model, settings.search.feedback) == ("", False)
    assert settings.toolsets["reviews"].fields() == {
        "include": ["github/*"],
        "expose": "search",
        "rename": {"github/list_issues": "issues"},
    }
    assert settings.toolsets["all"].include == ("*",)


@pytest.mark.parametrize(
    ("text", "line", "said"),
    [
        ("[search]\nmodel = 5", 2, "search.model"),
        ("[search]\nmodels = 5", 2, "unknown key search.models"),
        ("[toolsets]\nx = 5", 2, "toolsets"),
        ("[gateway]\nport = 1\n[toolsets.x]\nincludes = []", 3, "unknown field `includes`"),
        ("\n[toolsets.BAD]\n", 2, "no name for a toolset"),
        ("[toolsets.x]\nexpose = 'some'", 1, "expose"),
    ],
)
def test_a_fault_in_them_names_its_line(file: Path, text: str, line: int, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(file, text)
    assert f"config.toml:{line}" in caught.value.message
    assert said in caught.value.message


def test_the_planner_is_set_in_a_table_of_its_own(file: Path) -> None:
    planner = load(file, '[planner]\nmodel = "~/m"\nidle = 5\nquantize = "int4"\n').planner
    assert (planner.use, planner.model, planner.idle, planner.quantize) == ("auto", "~/m", 5.0, "int4")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('use = "magic"', '"sampling"'),
        ('model = "m"\nurl = "http://here"', "not both"),
        ('url = "here:80"', "http://127.0.0.1:8000"),
        ("modle = 1", "kv_tokens"),
        ("model = 1", "a Hugging Face folder"),
    ],
)
def test_a_fault_in_it_says_what_was_expected(file: Path, text: str, words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(file, f"[planner]\n{text}\n")
    assert words in f"{caught.value.message} {caught.value.hint}"
    assert caught.value.message.startswith(f"{file}:")
