"""The house rules that a reader relies on: which room may import which, and what the core stands on."""

from __future__ import annotations

import ast
import graphlib
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Set
from pathlib import Path

import pytest

import adsum
from adsum.balance.policies import POLICIES

ROOT = Path(adsum.__file__).parent
TESTS = Path(__file__).parent
MODULES = sorted(path for path in ROOT.rglob("*.py"))

# Imports point down only: a room may import itself, the rooms below it in this list of floors, and nothing else.
FLOORS = (
    ("version",),
    ("core",),
    (
        "balance",
        "gateway",
        "mounts",
        "ports",
        "settings",
        "cache_files",
        "connection_url",
        "outage_log",
        "protobufs",
    ),
    ("wire", "etcd", "consul", "certificates"),
    ("consumers", "clock", "launcher", "systemd"),
    ("watches",),
    ("registry",),
    ("access", "keeper"),
    ("stores", "probes"),
    ("client",),
    ("integrations", "peers"),
    ("dialects",),
    ("servers", "telemetry"),
    ("config", "file_descriptors"),
    ("envoy", "listeners", "node_security", "service_references"),
    ("node_status",),
    ("daemon", "run"),
    ("node_process",),
    ("demo",),
    ("cli",),
    ("__main__",),
)
FLOOR = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}

SIBLINGS = ("stores", "probes", "dialects", "servers", "integrations")
"""Rooms of one file a thing: those files never import one another, but for what their room shares."""

SHARED = {
    "dialects": {"dialect"},
    "integrations": {
        "exchange",
        "grpc_bootstrap",
        "listening_sockets",
        "request_options",
        "service_channels",
        "socket_registration",
        "worker_group",
    },
    "stores": {"batch_feed", "edit_log", "record_decoder", "records", "retention"},
    "probes": {"connection"},
}
"""Files that a room of siblings shares."""

PROVIDER_SIDE = (
    "registry",
    "access",
    "keeper",
    "consumers",
    "watches",
    "stores",
    "probes",
    "servers",
    "dialects",
    "listeners",
    "node_security",
    "daemon",
    "node_process",
    "node_status",
    "service_references",
    "peers",
)
"""What a program that only calls or registers never loads."""


def _room(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return parts[0] if len(parts) > 1 or parts[0] != "__init__" else "adsum"


def _imports(path: Path) -> Iterator[str]:
    """Every module named by an import anywhere in the file, as adsum.a.b or top-level name."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            assert node.module is not None
            yield from (
                f"{node.module}.{alias.name}" if node.module == "adsum" else node.module for alias in node.names
            )


def _adsum_imports(path: Path) -> set[str]:
    return {name for name in _imports(path) if name.startswith("adsum.")}


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_point_down(path: Path) -> None:
    room = _room(path)
    if room == "adsum":
        return
    assert room in FLOOR, f"the room {room!r} has no floor yet: give it one in FLOORS"
    for name in _adsum_imports(path):
        other = name.split(".")[1]
        if other == room:
            continue
        if other not in FLOOR and hasattr(adsum, other):
            other = "client"  # What `import adsum` offers is the client library.
        assert FLOOR[other] < FLOOR[room], f"{path.name} in {room} imports {name}, which is not below it"


@pytest.mark.parametrize("path", sorted((ROOT / "core").rglob("*.py")), ids=lambda path: path.name)
def test_the_core_stands_on_the_standard_library_and_structs_without_clock_socket_or_chance(path: Path) -> None:
    never = {"asyncio", "socket", "time", "logging", "threading", "datetime", "secrets", "os"}
    for name in _imports(path):
        top = name.split(".")[0]
        structs = name in ("msgspec", "msgspec.structs")
        assert top == "adsum" or structs or top in sys.stdlib_module_names, f"{path.name} imports {name}"
        assert top not in never, f"{path.name} imports {name}: hand it in as an argument"


@pytest.mark.parametrize("path", sorted((ROOT / "gateway").rglob("*.py")), ids=lambda path: path.name)
def test_what_gateways_are_told_is_computed_without_clock_socket_or_chance(path: Path) -> None:
    never = {"asyncio", "socket", "time", "logging", "threading", "datetime", "secrets", "os", "random", "grpc"}
    assert not never & {name.split(".")[0] for name in _imports(path)}, path.name


def _module(path: Path) -> str:
    parts = ("adsum", *path.relative_to(ROOT).with_suffix("").parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _imported_modules(path: Path, modules: Set[str]) -> Iterator[str]:
    """Every module of ours that the file imports, also inside functions and for type checkers only."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in modules)
        elif isinstance(node, ast.ImportFrom) and node.module is not None and node.module in modules:
            for alias in node.names:
                name = f"{node.module}.{alias.name}"
                yield name if name in modules else node.module


def test_no_modules_import_one_another_in_a_cycle() -> None:
    modules = {_module(path) for path in MODULES}
    graph = {_module(path): set(_imported_modules(path, modules)) - {_module(path)} for path in MODULES}
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        pytest.fail(f"import cycle: {' ← '.join(error.args[1])}")


def test_public_class_names_are_unique() -> None:
    modules: dict[str, list[str]] = {}
    for path in MODULES:
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                modules.setdefault(node.name, []).append(_module(path))
    repeated = {name: found for name, found in modules.items() if len(found) > 1}
    assert not repeated, f"classes of one name in several modules: {repeated}"


MAX_FILES = 20
"""Python files in a folder. A longer folder gets sub-folders that are named for what they do."""

ONE_OF_A_KIND = {"src/adsum/cli/commands"}
"""Folders of files of one kind, in which a reader searches by name: they may hold more."""


def test_no_folder_holds_too_many_files() -> None:
    root = TESTS.parent
    folders = Counter(path.parent for top in ("src", "tests") for path in (root / top).rglob("*.py"))
    long = {str(folder.relative_to(root)): count for folder, count in folders.items() if count > MAX_FILES}
    assert not long.keys() - ONE_OF_A_KIND, f"folders with more than {MAX_FILES} files: {long}"


@pytest.mark.parametrize("room", SIBLINGS)
def test_siblings_never_import_one_another(room: str) -> None:
    for path in (ROOT / room).rglob("*.py"):
        own = path.relative_to(ROOT / room).parts[0].removesuffix(".py")
        for name in _adsum_imports(path):
            parts = name.split(".")
            if parts[1] == room and len(parts) > 2 and own != "__init__":
                assert parts[2] in {own, *SHARED.get(room, ())}, f"{path.name} imports its sibling {name}"


def test_policies_never_import_one_another() -> None:
    modules = {target.partition(":")[0] for target in POLICIES.values()}
    for module in modules:
        path = ROOT.parent / (module.replace(".", "/") + ".py")
        assert not _adsum_imports(path) & (modules - {module}), f"{path.name} imports another policy"


@pytest.mark.parametrize("room", ["client", "integrations"])
def test_the_client_never_imports_the_registry(room: str) -> None:
    for path in (ROOT / room).rglob("*.py"):
        for name in _adsum_imports(path):
            assert name.split(".")[1] not in PROVIDER_SIDE, f"{path.name} imports {name}"


def test_a_client_loads_nothing_of_gateways() -> None:
    program = "import sys; from adsum import Client, SyncClient; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.split()
    assert not {name for name in loaded if name.startswith(("adsum.gateway", "google.protobuf", "grpc"))}


def test_a_client_over_plain_http_loads_nothing_of_tokens_and_certificates() -> None:
    program = (
        "import asyncio, sys; from adsum import Client\n"
        "async def go():\n"
        "    async with Client('http://127.0.0.1:1', cache=False) as client:\n"
        "        await asyncio.gather(client.api.services(), return_exceptions=True)\n"
        "asyncio.run(go()); print(*sys.modules)"
    )
    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.split()
    heavy = ("cryptography", "jwt", "adsum.certificates", "adsum.core.access", "adsum.wire.tokens")
    assert not {name for name in loaded if name.startswith(heavy)}


PRIVATE = {
    "balance/test_keyed_policies.py": {"_counts"},
    "client/sources/test_registry_source.py": {"_clock", "_urls"},
    "client/native/watching/test_joint_watch.py": {"_urls"},
    "client/native/watching/test_watch_pool.py": {"_urls"},
    "core/liveness/test_leases.py": {"_heap", "_leases", "_services"},
    "core/liveness/test_probe_schedule.py": {"_heap"},
    "core/catalog/test_takeover.py": {"_groups"},
    "etcd/test_client.py": {"__dict__"},
    "support/fakes.py": {"_ready"},
    "gateway/resources/test_compiled_resources.py": {"_by_profile", "_tables"},
    "gateway/patterns/test_regexes.py": {"_Neighbours", "_after", "_cache", "_compile"},
    "peers/test_nodes.py": {"__dict__", "_full_state"},
    "stores/etcd/test_versions.py": {"__dict__"},
    "stores/etcd/test_store.py": {"__dict__", "_is_the_same_history"},
    "stores/sqlite/test_store.py": {"_db", "_file", "_load_revision", "_run", "_write"},
}
"""What tests use of others' private parts, by file: most look at how much memory something holds. Nothing is added."""


def _private(path: Path) -> set[str]:
    """The private parts that a test file uses and does not define itself."""
    tree = ast.parse(path.read_text())
    used: set[str] = set()
    own: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and node.attr.startswith("_"):
            mine = isinstance(node.value, ast.Name) and node.value.id in ("self", "cls")
            (own if mine else used).add(node.attr)
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            own.add(node.name)
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            own.add(node.target.id)
        elif isinstance(node, ast.Call) and len(node.args) > 1 and isinstance(node.args[1], ast.Constant):
            # getattr, setattr and monkeypatch.setattr take the name as text.
            used.update({str(node.args[1].value)} if ast.unparse(node.func).endswith(("getattr", "setattr")) else ())
    public = {name for name in used if not name.startswith("_") or (name.endswith("__") and name != "__dict__")}
    return used - own - public


@pytest.mark.parametrize("path", sorted(TESTS.rglob("*.py")), ids=lambda path: str(path.relative_to(TESTS)))
def test_tests_use_what_is_public(path: Path) -> None:
    extra = _private(path) - PRIVATE.get(str(path.relative_to(TESTS)), set())
    assert not extra, f"{path.name} uses {', '.join(sorted(extra))} of others: use what is public, or make it public"
