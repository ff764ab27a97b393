"""The sources of settings, and the errors of invalid ones."""

from __future__ import annotations

import dataclasses
import tomllib
from collections import Counter
from pathlib import Path

import pytest

from adsum.cli.settings.loader import ConfigError, flag_name, load, variable_name
from adsum.cli.settings.values import MULTI_VALUE_TYPES, setting_fields
from adsum.config.client import ClientConfig
from adsum.config.instance import InstanceConfig
from adsum.config.run import RunConfig
from adsum.config.serve import ServeConfig
from adsum.config.tables import TABLES
from tests.cli.conftest import Adsum

PARSED_TYPES = (str, int, float, float | None, bool)


def _file(folder: Path, text: str) -> str:
    path = folder / "adsum.toml"
    path.write_text(text)
    return str(path)


def test_flags_outrank_the_environment_which_outranks_the_file_which_outranks_defaults(tmp_path: Path) -> None:
    file = _file(tmp_path, '[serve]\nlisten = "10.0.0.1:1"\nnode = "a"\nprobes = 7\n')
    settings = load([ServeConfig], {"listen": "10.0.0.3:3"}, {"ADSUM_LISTEN": "10.0.0.2:2", "ADSUM_NODE": "b"}, file)
    config = settings.get(ServeConfig)
    assert (config.listen, config.node, config.probes, config.log_level) == ("10.0.0.3:3", "b", 7, "info")
    assert settings.origins["listen"] == "--listen"
    assert settings.origins["node"] == "ADSUM_NODE"
    assert settings.origins["probes"] == f"{file}: serve.probes"
    assert settings.origins["log_level"] == "default"


def test_the_named_file_is_read_else_the_first_that_exists(tmp_path: Path) -> None:
    home = tmp_path / "home" / "adsum" / "adsum.toml"
    home.parent.mkdir(parents=True)
    home.write_text('[client]\nzone = "home"\n')
    environ = {"XDG_CONFIG_HOME": str(tmp_path / "home")}
    assert load([ClientConfig], {}, environ).get(ClientConfig).zone == "home"
    named = _file(tmp_path, '[client]\nzone = "named"\n')
    assert load([ClientConfig], {}, {**environ, "ADSUM_CONFIG": named}).get(ClientConfig).zone == "named"


def test_values_are_parsed_by_their_type(tmp_path: Path) -> None:
    file = _file(
        tmp_path, '[instance]\ntag = ["a", "b"]\nttl = "none"\ngrace = "1m30s"\nmetadata = {k = "v"}\nport = 80'
    )
    config = load([InstanceConfig], {"metadata": ("x=1", "y=a=b")}, {"ADSUM_CHECK": "tcp, http:/x"}, file).get(
        InstanceConfig
    )
    assert (config.tag, config.ttl, config.grace, config.port) == (("a", "b"), None, 90.0, 80)
    assert config.check == ("tcp", "http:/x")
    assert dict(config.metadata) == {"x": "1", "y": "a=b"}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('[serve]\nlisten = "nowhere"', ("serve.listen", "HOST:PORT", "nowhere")),
        ('[serve]\nlisten = "a:99999"', ("serve.listen", "a port from 0 to 65535, not 99999")),
        ("[serve]\nlisten = 5", ("serve.listen", "must be a string")),
        ("[serve]\nprobes = true", ("serve.probes", "a whole number")),
        ('[serve]\nlog_level = "loud"', ("serve.log_level", "debug, info, warning or error")),
        ('[serve]\nguard_hold = "soon"', ("serve.guard_hold", "5s")),
        ("[serve]\nguard_share = 2", ("serve.guard_share", "from 0 to 1")),
        ('[serve]\nheartbeat = "5s"', ("serve.heartbeat", "from 0.5 to 3 s", "notice silence within 6 s")),
        ("[serve]\nheartbeat = 0.4", ("serve.heartbeat", "from 0.5 to 3 s")),
        ('[serve]\nprobe_deny = ["10.0.0.1/8"]', ("serve.probe_deny", "10.0.0.0/8")),
        ("[serve]\nlisen = 1", ("serve.lisen", "did you mean listen?")),
        ("[server]\n", ("server", "did you mean serve?")),
        ("listen = 1", ("listen", "must stand in a table; it belongs below [serve] or [gateway]")),
        ("colour = 1", ("colour", "must stand in a table; the tables are [client], [serve]")),
        ("[serve", ("not valid TOML",)),
    ],
)
def test_an_error_in_the_file_names_the_setting_and_the_remedy(
    tmp_path: Path, text: str, words: tuple[str, ...]
) -> None:
    file = _file(tmp_path, text)
    with pytest.raises(ConfigError) as error:
        load([ServeConfig], {}, {}, file)
    sentence = str(error.value)
    assert sentence.startswith(f"{file}: ")
    assert "\n" not in sentence.partition("is not valid TOML")[0]
    for word in words:
        assert word in sentence


def test_an_invalid_flag_or_variable_is_named_and_ends_with_78(adsum: Adsum, monkeypatch: pytest.MonkeyPatch) -> None:
    flag = adsum("serve", "--max-connections", "many")
    assert (flag.code, flag.out) == (78, "")
    assert flag.err == "adsum: --max-connections: must be a whole number, not 'many'\n"
    monkeypatch.setenv("ADSUM_LISTEN", "x")
    variable = adsum("serve")
    assert variable.code == 78
    assert variable.err.startswith("adsum: ADSUM_LISTEN: must be HOST:PORT")


def test_an_unknown_store_is_reported_with_its_flag(adsum: Adsum) -> None:
    result = adsum("serve", "--listen", "127.0.0.1:0", "--store", "paper:")
    assert result.code == 78
    assert result.err.startswith("adsum: --store: ")


def test_a_missing_file_is_an_error_if_it_was_named(adsum: Adsum) -> None:
    result = adsum("ls", "--config", "/nonexistent/adsum.toml")
    assert result.code == 78
    assert "/nonexistent/adsum.toml: can't be read" in result.err


def test_show_config_prints_every_setting_and_its_source(adsum: Adsum, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ADSUM_PROBES", "9")
    result = adsum("serve", "--node", "here", "--show-config")
    lines = [line.split() for line in result.out.splitlines()]
    assert ["probes", "9", "ADSUM_PROBES"] in lines
    assert ["node", "here", "--node"] in lines
    assert {line[0] for line in lines[1:]} == set(setting_fields(ServeConfig))


@pytest.mark.parametrize(
    "command", ["run", "register", "backup", "restore", "drain", "resume", "history", "resolve", "route add", "gateway"]
)
def test_show_config_needs_no_other_arguments(adsum: Adsum, command: str) -> None:
    result = adsum(*command.split(), "--show-config")
    assert (result.code, result.err) == (0, "")
    assert result.out.startswith("SETTING ")


def test_show_config_prints_only_the_settings_of_the_command(adsum: Adsum) -> None:
    lines = adsum("backup", "--store", "sqlite:////x/adsum.db", "--show-config").out.splitlines()
    assert [line.split() for line in lines[1:]] == [["store", "sqlite:////x/adsum.db", "--store"]]


@pytest.mark.parametrize(
    ("commands", "used"),
    [
        (
            "ls watch status history,route ls,route check,whoami,token ls,token show",
            {"url", "token_file", "authority_file"},
        ),
        (
            "drain maintenance resume deregister,route add,route rm,route apply,token create,token revoke,token invite",
            {"url", "token_file", "authority_file", "actor"},
        ),
        ("resolve", {"url", "token_file", "authority_file", "zone", "cache_max_age"}),
        ("gateway", {"url", "zone"}),
        ("grpc-bootstrap", {"url"}),
        ("run register", {"url", "token_file", "authority_file", "zone", "actor"}),
    ],
)
def test_a_command_lists_the_client_settings_that_it_uses_and_takes_no_others(
    adsum: Adsum, commands: str, used: set[str]
) -> None:
    spaced, *others = commands.split(",")
    for command in (*([word] for word in spaced.split()), *(other.split() for other in others)):
        listed = {line.split()[0] for line in adsum(*command, "--show-config").out.splitlines()}
        assert listed & set(setting_fields(ClientConfig)) == used, command
        help = adsum(*command, "--help").out
        assert {name for name in setting_fields(ClientConfig) if f"{flag_name(name)} " in help} == used, command


def test_no_setting_of_two_tables_has_the_same_variable() -> None:
    names = Counter(variable_name(field) for table in TABLES.values() for field in dataclasses.fields(table))
    assert [name for name, count in names.items() if count > 1] == []


@pytest.mark.parametrize("table", TABLES.values(), ids=TABLES)
def test_every_setting_has_help_and_a_type_that_can_be_read(table: type) -> None:
    for name, (field, kind) in setting_fields(table).items():
        assert field.metadata["help"], name
        assert not field.metadata["help"].endswith("."), "the flag's help adds it"
        assert kind in (*PARSED_TYPES, *MULTI_VALUE_TYPES), name


def test_defaults_are_valid_without_a_home() -> None:
    for table in (ClientConfig, InstanceConfig, RunConfig):
        assert load([table], {}, {}).get(table) is not None


def test_an_invalid_port_of_a_gateway_is_reported_with_the_range(adsum: Adsum) -> None:
    assert (
        "--listen: must have a port from 0 to 65535, not 99999" in adsum("gateway", "--listen", "127.0.0.1:99999").err
    )


def test_a_user_without_a_home_gets_the_remedy(adsum: Adsum, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("XDG_DATA_HOME", raising=False)
    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.setattr("pwd.getpwuid", _nobody)
    result = adsum("serve", "--listen", "127.0.0.1:0")
    assert result.code == 78
    assert result.err.startswith(
        "adsum: --store: must be given, since this user has no home: use --store sqlite:////PATH"
    )


def _nobody(uid: int) -> None:
    raise KeyError(f"getpwuid(): uid not found: {uid}")


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("foo://x", "--url: must begin with http://, https://, etcd:// or consul://, not with 'foo'"),
        ("http://a:1,etcd://b:2", "--url: must be nodes of one registry, or a single etcd:// or consul:// address"),
    ],
)
def test_an_unknown_url_scheme_and_a_mixture_have_different_errors(adsum: Adsum, url: str, words: str) -> None:
    result = adsum("ls", "--url", url)
    assert result.code == 78
    assert words in result.err


def test_the_documented_file_holds_every_setting_and_loads(tmp_path: Path) -> None:
    page = Path(__file__).parents[3] / "docs" / "settings.md"
    text = page.read_text().split("```toml\n")[1].split("```")[0]
    written = tomllib.loads(text)
    assert {name: set(table) for name, table in written.items()} == {
        name: set(setting_fields(table)) for name, table in TABLES.items()
    }
    for table in TABLES.values():
        load([table], {}, {}, _file(tmp_path, text))


@pytest.mark.parametrize(
    ("listen", "allow", "refused"),
    [
        ("127.0.0.1:1", (), False),
        ("localhost:1", (), False),
        ("[::1]:1", (), False),
        ("0.0.0.0:1", (), True),
        ("[::]:1", (), True),
        ("10.0.0.5:1", (), True),
        ("registry.example:1", (), True),
        ("10.0.0.5:1", ("10.0.0.0/8",), True),
        ("10.0.0.5:1", ("127.0.0.1/32", "::1/128", "10.0.0.0/8"), False),
        ("10.0.0.5:1", ("0.0.0.0/0", "::/0"), False),
    ],
)
def test_a_registry_on_a_network_refuses_instances_on_its_own_loopback(
    listen: str, allow: tuple[str, ...], refused: bool
) -> None:
    policy = ServeConfig(listen=listen, probe_allow=allow).address_policy()
    for ip in ("127.0.0.1", "::1", "::ffff:127.0.0.1"):
        assert (policy.denial_reason(ip) is not None) is refused, ip
    assert policy.denial_reason("10.0.0.9") is None
