"""Where settings come from, and what is said when one can't be used."""

from __future__ import annotations

import dataclasses
from collections import Counter
from pathlib import Path

import pytest

from adsum.cli.loading import ConfigError, load, variable
from adsum.cli.values import MANY, fields
from adsum.config import TABLES, ClientConfig, InstanceConfig, RunConfig, ServeConfig
from tests.cli.conftest import Adsum

READABLE = (str, int, float, float | None, bool)


def _file(folder: Path, text: str) -> str:
    path = folder / "adsum.toml"
    path.write_text(text)
    return str(path)


def test_flags_outrank_the_environment_which_outranks_the_file_which_outranks_defaults(tmp_path: Path) -> None:
    file = _file(tmp_path, '[serve]\nlisten = "10.0.0.1:1"\nnode = "a"\nprobes = 7\n')
    settings = load([ServeConfig], {"listen": "10.0.0.3:3"}, {"ADSUM_LISTEN": "10.0.0.2:2", "ADSUM_NODE": "b"}, file)
    config = settings.of(ServeConfig)
    assert (config.listen, config.node, config.probes, config.log_level) == ("10.0.0.3:3", "b", 7, "info")
    assert settings.origins["listen"] == "--listen"
    assert settings.origins["node"] == "ADSUM_NODE"
    assert settings.origins["probes"] == f"{file}: serve.probes"
    assert settings.origins["log_level"] == "default"


def test_the_file_is_the_named_one_else_the_first_that_is_there(tmp_path: Path) -> None:
    home = tmp_path / "home" / "adsum" / "adsum.toml"
    home.parent.mkdir(parents=True)
    home.write_text('[client]\nzone = "home"\n')
    environ = {"XDG_CONFIG_HOME": str(tmp_path / "home")}
    assert load([ClientConfig], {}, environ).of(ClientConfig).zone == "home"
    named = _file(tmp_path, '[client]\nzone = "named"\n')
    assert load([ClientConfig], {}, {**environ, "ADSUM_CONFIG": named}).of(ClientConfig).zone == "named"


def test_values_are_read_by_their_type(tmp_path: Path) -> None:
    file = _file(
        tmp_path, '[instance]\ntag = ["a", "b"]\nttl = "none"\ngrace = "1m30s"\nmetadata = {k = "v"}\nport = 80'
    )
    config = load([InstanceConfig], {"metadata": ("x=1", "y=a=b")}, {"ADSUM_CHECK": "tcp, http:/x"}, file).of(
        InstanceConfig
    )
    assert (config.tag, config.ttl, config.grace, config.port) == (("a", "b"), None, 90.0, 80)
    assert config.check == ("tcp", "http:/x")
    assert dict(config.metadata) == {"x": "1", "y": "a=b"}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('[serve]\nlisten = "nowhere"', ("serve.listen", "HOST:PORT", "nowhere")),
        ('[serve]\nlisten = "a:99999"', ("serve.listen", "HOST:PORT")),
        ("[serve]\nlisten = 5", ("serve.listen", "must be a text")),
        ("[serve]\nprobes = true", ("serve.probes", "a whole number")),
        ('[serve]\nlog_level = "loud"', ("serve.log_level", "debug, info, warning or error")),
        ('[serve]\nguard_hold = "soon"', ("serve.guard_hold", "5s")),
        ("[serve]\nguard_share = 2", ("serve.guard_share", "from 0 to 1")),
        ('[serve]\nheartbeat = "5s"', ("serve.heartbeat", "from 0.5 to 3 s", "notice silence within 6 s")),
        ("[serve]\nheartbeat = 0.4", ("serve.heartbeat", "from 0.5 to 3 s")),
        ('[serve]\nprobe_deny = ["10.0.0.1/8"]', ("serve.probe_deny", "10.0.0.0/8")),
        ("[serve]\nlisen = 1", ("serve.lisen", "did you mean listen?")),
        ("[server]\n", ("server", "did you mean serve?")),
        ("listen = 1", ("listen", "no such table")),
        ("[serve", ("not TOML",)),
    ],
)
def test_what_is_wrong_in_the_file_is_named_with_what_would_be_right(
    tmp_path: Path, text: str, words: tuple[str, ...]
) -> None:
    file = _file(tmp_path, text)
    with pytest.raises(ConfigError) as error:
        load([ServeConfig], {}, {}, file)
    sentence = str(error.value)
    assert sentence.startswith(f"{file}: ")
    assert "\n" not in sentence.partition("is not TOML")[0]
    for word in words:
        assert word in sentence


def test_a_wrong_flag_and_a_wrong_variable_are_named_and_end_with_78(
    adsum: Adsum, monkeypatch: pytest.MonkeyPatch
) -> None:
    flag = adsum("serve", "--max-connections", "many")
    assert (flag.code, flag.out) == (78, "")
    assert flag.err == "adsum: --max-connections: must be a whole number, not 'many'\n"
    monkeypatch.setenv("ADSUM_LISTEN", "x")
    variable = adsum("serve")
    assert variable.code == 78
    assert variable.err.startswith("adsum: ADSUM_LISTEN: must be HOST:PORT")


def test_a_store_that_nobody_knows_is_named_by_where_it_was_set(adsum: Adsum) -> None:
    result = adsum("serve", "--listen", "127.0.0.1:0", "--store", "paper:")
    assert result.code == 78
    assert result.err.startswith("adsum: --store: ")


def test_a_file_that_is_not_there_is_said_when_it_was_named(adsum: Adsum) -> None:
    result = adsum("ls", "--config", "/nonexistent/adsum.toml")
    assert result.code == 78
    assert "/nonexistent/adsum.toml: can't be read" in result.err


def test_show_config_tells_every_setting_and_where_it_comes_from(adsum: Adsum, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ADSUM_PROBES", "9")
    result = adsum("serve", "--node", "here", "--show-config")
    lines = [line.split() for line in result.out.splitlines()]
    assert ["probes", "9", "ADSUM_PROBES"] in lines
    assert ["node", "here", "--node"] in lines
    assert {line[0] for line in lines[1:]} == set(fields(ServeConfig))


def test_no_setting_of_two_tables_has_the_same_variable() -> None:
    names = Counter(variable(field) for table in TABLES.values() for field in dataclasses.fields(table))
    assert [name for name, count in names.items() if count > 1] == []


@pytest.mark.parametrize("table", TABLES.values(), ids=TABLES)
def test_every_setting_has_help_and_a_type_that_can_be_read(table: type) -> None:
    for name, (field, kind) in fields(table).items():
        assert field.metadata["help"], name
        assert not field.metadata["help"].endswith("."), "the flag's help adds it"
        assert kind in (*READABLE, *MANY), name


def test_defaults_are_valid_without_a_home() -> None:
    for table in (ClientConfig, InstanceConfig, RunConfig):
        assert load([table], {}, {}).of(table) is not None
