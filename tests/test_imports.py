"""
The import rules: which room may import which, and which libraries.

Imports point to a lower floor. Rooms of floors 2, 3 and 4 do not import each other. A library is
imported in its homes only. Floors 0 and 1 are pure. No module keeps state between calls.
docs/architecture.md has the table of floors.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

import federation

FLOORS: dict[str, float] = {
    **dict.fromkeys(("distribution", "errors", "pages", "claims", "text", "jose"), 0),
    **dict.fromkeys(("providers", "documents", "policy"), 1),
    # Rooms of floor 2 use them and may not import each other. They are not pure: not on floor 1.
    **dict.fromkeys(("background", "batching", "ownership", "outbound"), 1.5),
    **dict.fromkeys(("issuers", "tokens", "sources", "state", "audit"), 2),
    **dict.fromkeys(("exchange", "explained", "gateway"), 3),
    **dict.fromkeys(("web", "client", "replayed"), 4),
    "sign_on": 4.5,  # exchanges and saves tokens as a job's client does
    **dict.fromkeys(
        ("demo", "config", "logs", "server", "app", "admission", "dashboard", "doctor"), 5
    ),
    "starter": 5,
    **dict.fromkeys(("cli", "__main__"), 6),
}
APART = {2, 3, 4}
"""Floors whose rooms do not import each other."""

HOMES = {
    "starlette": {"web", "gateway", "app", "demo", "admission", "dashboard"},
    "httpx2": {
        "outbound",
        "issuers",
        "audit",
        "sources",
        "client",
        "sign_on",
        "dashboard",
        "demo",
        "cli",
    },
    "authlib": {"sign_on"},
    "joserfc": {"dashboard"},
    "jinja2": {"dashboard"},
    "httpcore2": {"issuers"},
    "jwt": {"jose", "demo"},
    "cryptography": {"jose", "tokens", "demo", "admission", "dashboard"},
    "cachetools": {"tokens"},
    "yaml": {"documents", "sources", "client"},
    "markupsafe": {"dashboard"},
    "pydantic": {"config", "documents", "cli", "dashboard"},
    "click": {"cli", "demo"},
    "orjson": {"jose", "sources", "logs"},
    "redis": {"state"},
    "uvicorn": {"server", "demo", "admission"},
    "httptools": {"server", "gateway"},
    "h11": {"sign_on"},
    "prometheus_client": {"server"},
}
READS_ENVIRONMENT = {"config", "client", "cli"}
PURE = (
    "federation.gateway.routes",
    "federation.gateway.authorize",
    "federation.gateway.narrow",
    "federation.audit.event",
    "federation.admission.review",
    "federation.admission.judgement",
)
"""Modules above floor 1 that must be pure too."""

_ENVIRONMENT = {"environ", "environb", "getenv", "getenvb", "putenv"}
_CONTAINERS = {
    *("dict", "list", "set", "bytearray", "defaultdict", "OrderedDict", "Counter", "deque"),
    *("ChainMap", "WeakKeyDictionary", "WeakValueDictionary", "WeakSet", "Queue"),
    *("Cache", "FIFOCache", "LFUCache", "LRUCache", "RRCache", "TLRUCache", "TTLCache"),
}
_STATEFUL = {"AsyncClient", "Client", "Lock", "Semaphore", "Event", "Condition", "ContextVar"}
_MEMORIES = {"cache", "lru_cache", "cached", "cachedmethod"}
_CHANGES = {
    *("add", "append", "appendleft", "clear", "discard", "extend", "insert", "pop", "popitem"),
    *("popleft", "remove", "setdefault", "update", "__setitem__"),
}


@dataclass(frozen=True)
class Module:
    """A module of `federation`, parsed but not imported."""

    name: str
    tree: ast.Module
    package: bool = False

    @property
    def room(self) -> str:
        """The name of its folder or file below `federation`, empty for the package itself."""
        return [*self.name.split("."), ""][1]

    @property
    def floor(self) -> float:
        return FLOORS.get(self.room, max(FLOORS.values()))


def modules() -> list[Module]:
    """Every module of `federation`, from its files."""
    (home,) = federation.__path__
    return [_read(Path(home), path) for path in sorted(Path(home).rglob("*.py"))]


def _read(home: Path, path: Path) -> Module:
    steps = path.relative_to(home.parent).with_suffix("").parts
    package = steps[-1] == "__init__"
    name = ".".join(steps[:-1] if package else steps)
    return Module(name, ast.parse(path.read_text("utf-8")), package)


def imports(module: Module) -> Iterator[str]:
    """The full names that *module* imports, inside functions too."""
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = _base(module, node)
            yield from (f"{base}.{alias.name}" for alias in node.names)


def _base(module: Module, node: ast.ImportFrom) -> str:
    if not node.level:
        return node.module or ""
    steps = module.name.split(".")
    steps = steps[: len(steps) - node.level + module.package]
    return ".".join([*steps, *([node.module] if node.module else [])])


def misplaced(module: Module) -> Iterator[str]:
    """The imports of *module* that break a rule."""
    for name in imports(module):
        library, _, rest = name.partition(".")
        if library == "federation":
            yield from _misplaced_arrow(module, rest.partition(".")[0])
        elif module.room not in HOMES.get(library, {module.room}):
            yield f"{module.name} imports {library}, whose homes are {sorted(HOMES[library])}"


def _misplaced_arrow(module: Module, room: str) -> Iterator[str]:
    if room == "*":
        yield f"{module.name} imports * from federation"
    if room not in FLOORS or room == module.room:
        return  # a name of the package itself, such as its version
    if not module.room:
        yield f"{module.name} imports {room}"
    elif FLOORS[room] > module.floor:
        yield f"{module.name} (floor {module.floor}) imports {room} (floor {FLOORS[room]})"
    elif FLOORS[room] == module.floor and module.floor in APART:
        yield f"{module.name} imports {room} sideways (floor {module.floor})"


def environment_reads(module: Module) -> Iterator[str]:
    """The places in which *module* reads environment variables, if it must not."""
    if module.room in READS_ENVIRONMENT:
        return
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Attribute) and node.attr in _ENVIRONMENT:
            yield f"{module.name}:{node.lineno} reads the environment"
    for name in imports(module):
        if name.startswith("os.") and name.removeprefix("os.") in _ENVIRONMENT | {"*"}:
            yield f"{module.name} imports {name}"


def own_ways(module: Module) -> Iterator[str]:
    """The places in which *module* reaches other machines by rules of its own."""
    if module.room == "outbound":
        return
    for node in ast.walk(module.tree):
        match node:
            case ast.Call(func=ast.Attribute(value=ast.Name(id="httpx2"), attr=name)):
                given = {keyword.arg for keyword in node.keywords}
                opens = name in {"Client", "AsyncClient", "HTTPTransport", "AsyncHTTPTransport"}
                # One over a transport that is made elsewhere; None is **arguments with one.
                over = name in {"Client", "AsyncClient"} and given & {"transport", None}
                if (opens and not over) or name in _REQUESTS:
                    yield f"{module.name}:{node.lineno} calls httpx2.{name}; ask Outbound for a client"
            case ast.Attribute(attr="create_default_context" | "_create_unverified_context"):
                yield f"{module.name}:{node.lineno} makes a context; ask Outbound for one"
    for name in imports(module):
        if name.startswith(("urllib.request", "ssl.create_default_context", "httpx2.Client")):
            yield f"{module.name} imports {name}"


_REQUESTS = {"get", "post", "put", "patch", "delete", "head", "options", "request", "stream"}


def asynchronous(module: Module) -> Iterator[str]:
    """The places in which *module* is not pure, if it must be."""
    pure = module.room and module.floor <= 1
    if not pure and not any(f"{module.name}.".startswith(f"{name}.") for name in PURE):
        return
    kinds = (ast.AsyncFunctionDef, ast.AsyncFor, ast.AsyncWith, ast.Await)
    for node in ast.walk(module.tree):
        if isinstance(node, kinds) or (isinstance(node, ast.comprehension) and node.is_async):
            yield f"{module.name} is asynchronous"
    for name in imports(module):
        if name.partition(".")[0] in {"asyncio", "anyio", "threading", "socket", "subprocess"}:
            yield f"{module.name} imports {name}"


def memories(module: Module) -> Iterator[str]:
    """The state that *module* keeps between calls outside of any object."""
    held = set()
    for target, value in _bound(module.tree.body):
        if _is_empty_container(value) or _called(value) in _STATEFUL:
            yield f"{module.name}:{value.lineno} holds {target}"
        held.add(target)
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Global):
            yield f"{module.name}:{node.lineno} rebinds {', '.join(node.names)}"
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield from (
                f"{module.name}:{each.lineno} remembers {node.name}"
                for each in node.decorator_list
                if _called(each) in _MEMORIES
            )
            yield from (
                f"{module.name}:{line} changes {name}"
                for name, line in _changed(node)
                if name in held - _locals(node)
            )
        elif isinstance(node, ast.Call) and _called(node.func) in _MEMORIES:
            yield f"{module.name}:{node.lineno} remembers calls"


def _bound(body: list[ast.stmt]) -> Iterator[tuple[str, ast.expr]]:
    """Names with their values, at the level of the module and of its classes."""
    for node in body:
        match node:
            case ast.Assign(targets=targets, value=value):
                yield from ((t.id, value) for t in targets if isinstance(t, ast.Name))
            case ast.AnnAssign(target=ast.Name(id=name), value=ast.expr() as value):
                yield name, value
            case ast.ClassDef(body=inner) | ast.If(body=inner) | ast.Try(body=inner):
                yield from _bound(inner)


def _is_empty_container(value: ast.expr) -> bool:
    match value:
        case ast.Dict(keys=[]) | ast.List(elts=[]):
            return True
        case ast.Call(args=arguments):
            name = _called(value)
            # `dict(pairs)` is a table; `dict()`, and any cache however it is made, is a memory.
            return name in _CONTAINERS and (
                not arguments or name.endswith(("Cache", "defaultdict"))
            )
    return False


def _called(node: ast.expr) -> str:
    """The last part of the name of the function that is called."""
    match node:
        case ast.Call(func=function):
            return _called(function)
        case ast.Attribute(attr=name) | ast.Name(id=name):
            return name
    return ""


def _changed(function: ast.AST) -> Iterator[tuple[str, int]]:
    """Names whose contents *function* changes."""
    for node in ast.walk(function):
        match node:
            case ast.Subscript(value=ast.Name(id=name), ctx=ast.Store() | ast.Del()):
                yield name, node.lineno
            case ast.Call(func=ast.Attribute(value=ast.Name(id=name), attr=method)):
                if method in _CHANGES:
                    yield name, node.lineno


def _locals(function: ast.FunctionDef | ast.AsyncFunctionDef) -> set[str]:
    given = ast.walk(function.args)
    bound = {node.arg for node in given if isinstance(node, ast.arg)}
    return bound | {
        node.id
        for node in ast.walk(function)
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)
    }


HOUSE = modules()
by_name = pytest.mark.parametrize("module", HOUSE, ids=lambda module: module.name)


@by_name
def test_a_module_is_in_a_room_that_has_a_floor(module: Module) -> None:
    assert module.room == "" or module.room in FLOORS


@by_name
def test_imports_point_down_and_libraries_stay_at_home(module: Module) -> None:
    assert list(misplaced(module)) == []


@by_name
def test_the_environment_is_read_in_few_rooms(module: Module) -> None:
    assert list(environment_reads(module)) == []


@by_name
def test_other_machines_are_reached_by_the_rules_of_one_room(module: Module) -> None:
    assert list(own_ways(module)) == []


@by_name
def test_the_rooms_at_the_bottom_are_pure(module: Module) -> None:
    assert list(asynchronous(module)) == []


@by_name
def test_no_module_keeps_state(module: Module) -> None:
    assert list(memories(module)) == []


def test_the_architecture_page_names_rooms_and_modules_that_exist() -> None:
    (home,) = federation.__path__
    page = Path(home).with_name("docs") / "architecture.md"
    table = re.findall(r"^\| `([a-z_/]+)` \|.*\|(.*)\|$", page.read_text("utf-8"), re.MULTILINE)
    rooms = {room.replace("/", ".") for room, _ in table}
    assert rooms - {
        "documents.rules",
        "documents.kubernetes",
        "sources.kubernetes",
        "web.api",
    } == FLOORS.keys() - {"__main__"}
    named = {
        f"federation.{room.replace('/', '.')}.{name}"
        for room, names in table
        for name in re.findall(r"`(\w+)`", names)
    }
    assert named - {module.name for module in HOUSE} == set()


def test_the_modules_were_found() -> None:
    names = {module.name for module in HOUSE}
    assert {"federation", "federation.errors", "federation.documents.model"} <= names


# The guards themselves


def built(name: str, source: str, package: bool = False) -> Module:
    return Module(name, ast.parse(source), package)


@pytest.mark.parametrize(
    ("name", "source"),
    [
        ("federation.claims", "import federation.policy.conditions"),
        ("federation.claims", "from federation import policy"),
        ("federation.claims", "def f():\n    from federation.app import build"),
        ("federation.claims", "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import federation.web"),
        ("federation.documents.model", "from ..tokens import mint"),
        ("federation.tokens.mint", "from federation.issuers.verify import verify"),
        ("federation.tokens.mint", "from .. import state"),
        ("federation.exchange", "import federation.gateway.routes"),
        ("federation.web.token", "from federation.client import ambient"),
        ("federation.web.token", "from federation.config import Settings"),
        ("federation", "from federation import errors"),
        ("federation.claims", "from federation import *"),
        ("federation.policy.roles", "import httpx2"),
        ("federation.exchange", "from starlette.responses import Response"),
        ("federation.web.token", "import jwt"),
        ("federation.web.token", "from cryptography.hazmat.primitives import hashes"),
        ("federation.policy.roles", "import cachetools.keys"),
        ("federation.config", "import yaml"),
    ],
)  # fmt: skip
def test_a_misplaced_import_is_seen(name: str, source: str) -> None:
    assert list(misplaced(built(name, source)))


@pytest.mark.parametrize(
    ("name", "source", "package"),
    [
        ("federation.policy.roles", "from federation.documents.model import Role", False),
        ("federation.documents.model", "from .pins import owner_pins", False),
        ("federation.documents", "from .model import Role", True),
        ("federation.documents", "from ..claims import text", True),
        ("federation.tokens.mint", "from federation.tokens.signing_keys import SigningKeys", False),
        ("federation.cli.serve", "from federation.app import build", False),
        ("federation.issuers.fetch", "import httpx2, ssl\nfrom federation import __version__", False),
        ("federation.exchange", "from federation import jws", False),
        ("federation.cli", "from federation import __version__", True),
    ],
)  # fmt: skip
def test_an_import_in_its_place_is_left_alone(name: str, source: str, package: bool) -> None:
    assert not list(misplaced(built(name, source, package)))


@pytest.mark.parametrize(
    "source",
    ["import os\nos.environ['X']", "import os\nos.getenv('X')", "from os import environ",
     "from os import *", "import os as o\no.environ.get('X')"],
)  # fmt: skip
def test_a_hidden_read_of_the_environment_is_seen(source: str) -> None:
    assert list(environment_reads(built("federation.app", source)))
    assert not list(environment_reads(built("federation.config", source)))


@pytest.mark.parametrize(
    "source",
    ["import httpx2\nhttpx2.AsyncClient(verify=True)", "import httpx2\nhttpx2.get('https://a')",
     "import httpx2\nhttpx2.AsyncHTTPTransport()", "import ssl\nssl.create_default_context()",
     "from ssl import create_default_context", "import urllib.request", "from httpx2 import Client",
     "import httpx2\nhttpx2.HTTPTransport(transport=x)"],
)  # fmt: skip
def test_a_client_of_somebodys_own_is_seen(source: str) -> None:
    assert list(own_ways(built("federation.web.token", source)))
    assert not list(own_ways(built("federation.outbound.routing", source)))


@pytest.mark.parametrize(
    "source",
    ["import httpx2\nhttpx2.AsyncClient(transport=x)", "import httpx2\nhttpx2.AsyncClient(**given)",
     "import httpx2\nhttpx2.URL('x')", "outbound.async_client()", "from urllib.parse import quote"],
)  # fmt: skip
def test_a_client_over_a_given_transport_is_left_alone(source: str) -> None:
    assert not list(own_ways(built("federation.web.token", source)))


@pytest.mark.parametrize(
    "source",
    ["async def f(): pass", "def f():\n    async def g(): pass", "import asyncio",
     "async def f():\n    return [x async for x in y]"],
)  # fmt: skip
def test_asynchronous_code_at_the_bottom_is_seen(source: str) -> None:
    for name in ("federation.claims", "federation.documents.load_yaml", *PURE):
        assert list(asynchronous(built(name, source)))
    for name in ("federation.gateway.proxy", "federation.audit.journal", "federation.audit"):
        assert not list(asynchronous(built(name, source)))


@pytest.mark.parametrize(
    "source",
    [
        "seen = {}",
        "seen: dict[str, int] = dict()",
        "seen = set()",
        "seen = []",
        "from collections import defaultdict\nseen = defaultdict(list)",
        "import cachetools\nkeys = cachetools.TTLCache(10, 60)",
        "import httpx2\nclient = httpx2.AsyncClient()",
        "class Ring:\n    seen = {}",
        "table = {1: 2}\ndef f(): table[3] = 4",
        "table = {1: 2}\ndef f(): del table[1]",
        "table = {1: 2}\ndef f(): table.setdefault(3, 4)",
        "names = [1]\nasync def f(): names.append(2)",
        "count = 0\ndef f():\n    global count\n    count += 1",
        "from functools import lru_cache\n@lru_cache(10)\ndef f(): pass",
        "import functools\n@functools.cache\ndef f(): pass",
        "from functools import lru_cache\nf = lru_cache(10)(len)",
    ],
)
def test_module_state_is_seen(source: str) -> None:
    assert list(memories(built("federation.policy.roles", source)))


@pytest.mark.parametrize(
    "source",
    [
        "TABLE = {1: 2}",
        "__all__ = ['f']",
        "NAMES = frozenset()",
        "TABLE = dict(pairs)",
        "def f():\n    seen = {}\n    seen[1] = 2\n    return seen",
        "table = {1: 2}\ndef f(table): table[1] = 2",
        "class Ring:\n    def __init__(self): self._seen = {}",
        "from dataclasses import dataclass, field\nclass A:\n    b: dict = field(default_factory=dict)",
    ],
)
def test_a_constant_table_is_not_module_state(source: str) -> None:
    assert not list(memories(built("federation.policy.roles", source)))
