"""What a server.json becomes: a command line or an address, word for word, or a reason why not."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry.errors import BadServerJson
from registry.official.launch import Way, ways
from registry.official.model import from_value


def server(**more: Any) -> Any:
    return from_value({"name": "io.example/weather", "description": "d", "version": "1", **more})


def package(kind: str = "npm", identifier: str = "weather", **more: Any) -> dict[str, Any]:
    base = {
        "registryType": kind,
        "identifier": identifier,
        "version": "1.2.3",
        "transport": {"type": "stdio"},
    }
    return {**base, **more}


def one(wanted: dict[str, Any], **given_: str) -> Way:
    (way,) = ways(server(packages=[wanted]), "weather", given_).usable
    return way


def argv(wanted: dict[str, Any], **given_: str) -> str:
    spec = one(wanted, **given_).spec
    return " ".join([spec.command or "", *spec.args])


def refused(**more: Any) -> str:
    found = ways(server(**more), "weather")
    assert not found.usable
    (why,) = found.refused
    return why


@pytest.mark.parametrize(
    ("wanted", "line"),
    [
        (package("npm", "@a/weather"), "npx -y @a/weather@1.2.3"),
        (package("npm", "w", runtimeHint="bunx"), "bunx -y w@1.2.3"),
        (package("pypi", "w"), "uvx w@1.2.3"),
        (package("pypi", "w", runtimeHint="python"), "uvx w@1.2.3"),
        (package("nuget", "A.B"), "dnx A.B@1.2.3 --yes"),
        (package("oci", "oci.example.com/a/w:2", version=None), "docker run -i --rm oci.example.com/a/w:2"),
        (package("oci", "a/w"), "docker run -i --rm a/w:1.2.3"),
        (
            package("npm", "w", registryBaseUrl="https://npm.example.com"),
            "npx -y --registry=https://npm.example.com w@1.2.3",
        ),
        (
            package("pypi", "w", registryBaseUrl="https://py.example.com/"),
            "uvx --default-index=https://py.example.com/simple w@1.2.3",
        ),
        (
            package("pypi", "w", registryBaseUrl="https://py.example.com/team/index"),
            "uvx --default-index=https://py.example.com/team/index w@1.2.3",
        ),
        (
            package("oci", "a/w", registryBaseUrl="https://oci.example.com"),
            "docker run -i --rm oci.example.com/a/w:1.2.3",
        ),
    ],
)
def test_each_kind_of_package_has_its_command(wanted: dict[str, Any], line: str) -> None:
    assert argv(wanted) == line


def test_arguments_stand_before_and_behind_the_package() -> None:
    wanted = package(
        "nuget",
        "A.B",
        runtimeHint="dnx",
        runtimeArguments=[{"type": "named", "name": "--verbosity", "value": "quiet"}],
        packageArguments=[
            {"type": "positional", "value": "mcp"},
            {"type": "named", "name": "--stdio"},
            {"type": "named", "name": "-p", "default": "80"},
            {"type": "named", "name": "--port", "description": "A port", "format": "number"},
        ],
    )
    assert argv(wanted) == "dnx A.B@1.2.3 --yes --verbosity=quiet -- mcp --stdio -p 80"
    assert one(wanted).optional == ("p", "port")
    assert argv(wanted, port="7").endswith("--port=7")


def test_variables_of_a_container_are_named_on_its_command_line_and_not_told() -> None:
    way = one(package("oci", "a/w", environmentVariables=[{"name": "MODE", "value": "quiet"}]))
    assert way.spec.args == ("run", "-i", "--rm", "-e", "MODE", "a/w:1.2.3")
    assert way.spec.env == {"MODE": "quiet"}


def test_what_is_required_is_read_from_the_environment_and_named() -> None:
    mount = {
        "type": "named",
        "name": "--mount",
        "value": "src={path},dst={to}",
        "variables": {"path": {"isRequired": True, "description": "A folder"}, "to": {"default": "/p"}},
    }
    key = {"name": "KEY", "isRequired": True, "isSecret": True}
    wanted = package("oci", "a/w", runtimeHint="docker", runtimeArguments=[mount], environmentVariables=[key])
    way = one(wanted)
    assert "--mount=src=${MCP_WEATHER_PATH},dst=/p" in way.spec.args
    assert way.spec.env == {"KEY": "${KEY}"}
    assert [(need.variable, need.secret) for need in way.needs] == [
        ("MCP_WEATHER_PATH", False),
        ("KEY", True),
    ]
    assert any("access" in caution for caution in way.cautions)
    given_ = one(wanted, path="/data", KEY="k")
    assert not given_.needs
    assert "--mount=src=/data,dst=/p" in given_.spec.args


def test_a_remote_is_switched_off_and_its_secrets_are_in_variables_of_its_own() -> None:
    remote = {
        "type": "sse",
        "url": "https://{region}.example.com/sse",
        "variables": {"region": {"isRequired": True, "choices": ["eu", "us"]}},
        "headers": [
            {"name": "Authorization", "value": "Bearer {token}", "variables": {"token": {"isRequired": True}}}
        ],
    }
    (way,) = ways(server(remotes=[remote]), "aws", {"region": "eu"}).usable
    assert way.spec.disabled
    assert way.spec.url == "https://eu.example.com/sse"
    assert way.spec.headers == {"Authorization": "Bearer ${MCP_AWS_TOKEN}"}
    with pytest.raises(BadServerJson, match="one of eu, us"):
        ways(server(remotes=[remote]), "aws", {"region": "mars"})
    with pytest.raises(BadServerJson, match="no use for colour"):
        ways(server(remotes=[remote]), "aws", {"colour": "red"})


@pytest.mark.parametrize(
    "wanted",
    [
        package(identifier="-c"),
        package(identifier="git+https://example.com/x"),
        package(identifier="../../x"),
        package(identifier="/etc/x"),
        package(identifier="file:x"),
        package("pypi", "--from"),
        package("oci", "-v=/:/host"),
        package("cargo", "w"),
        package("mcpb", "https://example.com/w.mcpb"),
        package(version="latest"),
        package(version="1 --yes"),
        package(version="-x"),
        package(transport={"type": "streamable-http", "url": "http://localhost"}),
        package(runtimeHint="bash", runtimeArguments=[{"type": "positional", "value": "-c"}]),
        package(registryBaseUrl="http://example.com"),
        package(packageArguments=[{"type": "positional", "value": "${HOME}"}]),
        package(packageArguments=[{"type": "positional", "value": "a\nb"}]),
        package(environmentVariables=[{"name": "A", "default": "${AWS_SECRET_ACCESS_KEY}"}]),
        package(environmentVariables=[{"name": "A=B", "value": "x"}]),
    ],
)
def test_what_a_publisher_could_take_advantage_of_is_refused(wanted: dict[str, Any]) -> None:
    assert refused(packages=[wanted])


@pytest.mark.parametrize(
    "remote",
    [
        {"type": "streamable-http", "url": "https://example.com/?x=${HOME}"},
        {"type": "streamable-http", "url": "file:///etc/passwd"},
        {"type": "stdio"},
        {"type": "sse", "url": "https://example.com", "headers": [{"name": "A\r\nB", "value": "x"}]},
        {"type": "sse", "url": "https://example.com", "headers": [{"name": "A", "value": "${HOME}"}]},
        {"type": "sse", "url": "https://{h}", "variables": {"h": {"value": "${HOME}"}}},
        {
            "type": "sse",
            "url": "https://h/{a}{b}",
            "variables": {"a": {"value": "$"}, "b": {"default": "{HOME}"}},
        },
        {
            "type": "sse",
            "url": "https://h/{a}{b}",
            "variables": {"a": {"value": "$"}, "b": {"isRequired": True}},
        },
    ],
)
def test_so_is_an_address(remote: dict[str, Any]) -> None:
    assert refused(remotes=[remote])


TEXT = st.text(max_size=12) | st.sampled_from(
    ["${HOME}", "{x}", "$" + "{{x}}", "{y}", "$", "{HOME}", "{x}{y}", "-c"]
)
INPUT = st.fixed_dictionaries(
    {},
    optional={"value": TEXT, "default": TEXT, "isRequired": st.booleans(), "isSecret": st.booleans()},
)


@given(INPUT, st.dictionaries(st.sampled_from(["x", "y", "HOME"]), INPUT, max_size=3), TEXT)
def test_no_publisher_names_a_variable_of_ours(
    wanted: dict[str, Any], inner: dict[str, Any], url: str
) -> None:
    argument = {"type": "positional", "valueHint": "v", **wanted, "variables": inner}
    remote = {"type": "sse", "url": f"https://example.com/{url}", "variables": inner}
    found = ways(server(packages=[package(packageArguments=[argument])], remotes=[remote]), "weather")
    for way in found.usable:
        for text in (*way.spec.args, way.spec.url or ""):
            for part in text.split("${")[1:]:
                assert part.startswith("MCP_WEATHER_"), text
