"""The house keeps to its plan: which room imports which, no circle inside one, nothing overgrown."""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

from dicomtorch.index.integrated import INTEGRATIONS
from tests.support import rooms
from tests.support.rooms import ROOMS

PACKAGE = rooms.REPOSITORY / "dicomtorch"
GROUND = {"errors", "_version", "_forks"}  # what every room may import
FACADE = "__init__"  # re-exports the public names; nothing in the package may lean on it
MOST_EDGES = 70  # the viewer knows seven rooms; datasets and the command line know it
MOST_ENTRIES = 24

BACKENDS = {"imagecodecs", "pydicom", "simpleitk"}  # they do not know each other

STILL_LONG: frozenset[str] = frozenset()

TORCH_ROOMS = {
    "pixels",
    "reader",
    "batches",
    "viewer",
    "datasets",
    "integrations",
    "reports",
    "cli",
}
# masks: structured reports are trees of text, a library reads them.
PYDICOM_ROOMS = {"model", "dicom", "scanner", "backends", "masks", "reports", "cli"}


@dataclass(frozen=True)
class Import:
    """One import statement: modules as in `backends.base`, `target` absolute."""

    module: str
    target: str
    line: int
    for_types: bool


def module_name(path: Path) -> str:
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if len(parts) > 1 and parts[-1] == "__init__" else parts)


def imports_of(source: str, module: str, modules: set[str]) -> list[Import]:
    """Every import of one module, also those inside functions."""
    found: list[Import] = []

    def visit(node: ast.AST, for_types: bool) -> None:
        if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
            for statement in node.body:
                visit(statement, True)
            for statement in node.orelse:
                visit(statement, for_types)
            return
        if isinstance(node, ast.Import):
            found.extend(Import(module, name.name, node.lineno, for_types) for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}:{node.lineno}: imports are absolute"
            for name in node.names:
                target = f"{node.module}.{name.name}"
                inside = target.removeprefix("dicomtorch.")
                # `from dicomtorch import errors` names a module, `from dicomtorch.errors import X` does not.
                is_module = inside != target and inside in modules
                found.append(
                    Import(
                        module, target if is_module else str(node.module), node.lineno, for_types
                    )
                )
        for child in ast.iter_child_nodes(node):
            visit(child, for_types)

    visit(ast.parse(source), False)
    return found


def room_of(module: str) -> str:
    return module.partition(".")[0]


def problem_of(found: Import) -> str | None:
    """What is wrong with an import inside the package, or `None`."""
    where = f"{found.module}:{found.line}"
    target = found.target.removeprefix("dicomtorch").removeprefix(".") or FACADE
    if target == FACADE:
        return f"{where} imports from the package itself; import the module that has the name"
    here, there = room_of(found.module), room_of(target)
    if there not in ROOMS and there not in GROUND:
        return f"{where} imports {target}, which is in no room"
    if here == there:
        names = [name.rpartition(".")[2] for name in (found.module, target)]
        if here == "backends" and BACKENDS.issuperset(names):
            return f"{where} imports {target}: backends do not know each other"
        return None
    if there in GROUND or here == "__main__" or there in ROOMS[here].may_import:
        return None
    return f"{where} imports {target}: the room {here} may not import {there}"


def all_modules() -> dict[str, Path]:
    return {module_name(path): path for path in PACKAGE.rglob("*.py")}


def all_imports() -> list[Import]:
    modules = all_modules()
    return [
        found
        for name, path in modules.items()
        if name != FACADE
        for found in imports_of(path.read_text(encoding="utf-8"), name, set(modules))
    ]


def test_every_module_is_in_a_room():
    known = {*ROOMS, *GROUND, FACADE, "__main__"}
    assert [name for name in all_modules() if room_of(name) not in known] == []
    assert {room_of(name) for name in all_modules()} >= ROOMS.keys()


def test_rooms_import_only_what_their_line_allows():
    inside = [found for found in all_imports() if room_of(found.target) == "dicomtorch"]
    assert inside
    assert [problem for found in inside if (problem := problem_of(found))] == []


def test_the_table_has_no_circle_and_few_edges():
    seen: set[str] = set()
    for name, room in ROOMS.items():
        assert room.may_import <= seen, f"{name} may import a room that is not below it"
        seen.add(name)
    assert sum(len(room.may_import) for room in ROOMS.values()) <= MOST_EDGES


def test_no_edge_is_permitted_that_nothing_needs():
    used = {
        (room_of(found.module), room_of(found.target.removeprefix("dicomtorch.")))
        for found in all_imports()
    }
    permitted = {(name, other) for name, room in ROOMS.items() for other in room.may_import}
    assert permitted - used == set()


def test_methods_of_an_index_that_are_done_above_it_are_integrations():
    for name, module in INTEGRATIONS.items():
        assert module.startswith("dicomtorch.integrations.")
        source = all_modules()[module.removeprefix("dicomtorch.")].read_text(encoding="utf-8")
        functions = {n.name: n for n in ast.parse(source).body if isinstance(n, ast.FunctionDef)}
        assert functions[name].args.args[0].arg == "index"
    by_name = re.compile(r"import_module\(\s*[\"']dicomtorch\.")
    sources = [path.read_text(encoding="utf-8") for path in PACKAGE.rglob("*.py")]
    assert not [source for source in sources if by_name.search(source)]


def test_no_circle_inside_a_room():
    graph: dict[str, set[str]] = {}
    for found in all_imports():
        target = found.target.removeprefix("dicomtorch.")
        if room_of(target) == room_of(found.module) and not found.for_types:
            graph.setdefault(found.module, set()).add(target)
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))


def test_nothing_is_overgrown():
    entries = [path for path in PACKAGE.iterdir() if path.name != "__pycache__"]
    assert len(entries) <= MOST_ENTRIES
    long = []
    for name, path in all_modules().items():
        text = path.read_text(encoding="utf-8")
        if (lines := text.count("\n")) > 450 and name not in STILL_LONG:
            long.append(f"{name}: {lines} lines")
        long += [
            f"{name}.{node.name}: {length} lines"
            for node in ast.walk(ast.parse(text))
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
            and (length := length_of(node)) > 60
        ]
    assert long == []


def length_of(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Lines of a function without its docstring, which may be as long as its reader needs."""
    assert node.end_lineno is not None
    first = node.body[0]
    documented = isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant)
    described = (first.end_lineno or 0) - first.lineno + 1 if documented else 0
    return node.end_lineno - node.lineno + 1 - described


def test_a_room_says_what_it_is_and_imports_nothing():
    for name in ROOMS:
        path = PACKAGE / name / "__init__.py"
        if name != "errors":
            tree = ast.parse(path.read_text(encoding="utf-8"))
            assert len(tree.body) == 1, path
            assert ast.get_docstring(tree), path


def test_the_page_for_contributors_shows_the_rooms():
    page = rooms.PAGE.read_text(encoding="utf-8")
    assert rooms.table() in page, "python -m tests.support.rooms"
    assert rooms.PICTURE.read_text(encoding="utf-8") == rooms.picture(), (
        "python -m tests.support.rooms"
    )


def test_tests_lie_where_the_rooms_are():
    folders = {path.name for path in (rooms.REPOSITORY / "tests").iterdir() if path.is_dir()}
    others = {"support", "long", "conformance", "benchmarks", "docs", "examples", "users"}
    others.add("__pycache__")
    assert folders - others <= ROOMS.keys()


@pytest.mark.parametrize(
    ("library", "allowed"), [("torch", TORCH_ROOMS), ("pydicom", PYDICOM_ROOMS)]
)
def test_library_is_imported_where_it_belongs(library, allowed):
    users = {
        room_of(found.module)
        for found in all_imports()
        if room_of(found.target) == library and not found.for_types
    }
    assert users <= allowed


@pytest.mark.parametrize(
    ("module", "statement", "complaint"),
    [
        ("index.joins", "from dicomtorch.scanner.scan import scan", "index may not import scanner"),
        (
            "dicom.walk",
            "def f():\n    import dicomtorch.storage.local",
            "dicom may not import storage",
        ),
        ("storage.files", "from dicomtorch.model import limits", "storage may not import model"),
        ("dicom.header", "from dicomtorch import DicomFrames", "imports from the package itself"),
        ("cli.main", "from dicomtorch.nothing import f", "which is in no room"),
        ("backends.pydicom", "import dicomtorch.backends.simpleitk", "do not know each other"),
        ("scanner.scan", "from dicomtorch.index.frame_index import FrameIndex", None),
        ("backends.pydicom", "from dicomtorch.backends.base import Backend", None),
        ("dicom.header", "from dicomtorch.errors import DicomTorchError", None),
    ],
)
def test_the_rules_can_fail(module, statement, complaint):
    (found,) = imports_of(statement, module, {"model.limits"})
    problem = problem_of(found)
    assert (problem is None) if complaint is None else re.search(complaint, str(problem))


def test_imports_for_types_are_told_apart():
    source = "if TYPE_CHECKING:\n    import torch\nelse:\n    import pydicom\n"
    found = {item.target: item.for_types for item in imports_of(source, "index.joins", set())}
    assert found == {"torch": True, "pydicom": False}
