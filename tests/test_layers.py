"""The architecture: which module may import which. The table is the design; CONTRIBUTING.md explains it."""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "dicomtorch"

LAYERS: tuple[tuple[str, ...], ...] = (
    ("errors", "schema"),
    ("attributes", "columns", "elements", "layouts", "tags", "plot"),
    (
        *("walk", "encapsulation", "lookup", "suv", "storage", "generation", "voi", "geometry"),
        *("resize", "epochs", "joins", "splits", "selection", "exports", "notebook"),
        *("buffers", "backends", "parts"),
    ),
    ("index_file", "frame_values"),
    ("header", "index", "pipeline", "resolve_image", "resolve_groups"),
    (
        *(
            "resolve_values",
            "resolve_geometry",
            "capability",
            "leakage",
            "stacking",
            "metadata",
            "samplers",
        ),
        *("sequences", "alike"),
        *("cache", "pixels"),
    ),
    ("resolve", "conversion", "collate", "together"),
    ("reader", "scan_file"),
    ("sources",),
    ("scan_worker",),
    ("scan_pool",),
    ("scanner",),
    ("store", "neighbours"),
    ("datasets", "masks", "summary"),
    ("loader", "clips", "volumes"),
    ("crops",),
    ("info", "doctor", "verify", "preview"),
    ("demo", "bench"),
    ("cli",),
    ("__main__",),
)
LAYER = {name: number for number, names in enumerate(LAYERS) for name in names}

# What every backend stands on; the backends themselves do not know each other.
BACKEND_COMMONS = {
    "backends",
    "backends.base",
    "backends.guard",
    "backends.jpeg2000",
    "backends.streams",
    "backends.values",
}
FACADE = "__init__"  # re-exports the public names; nothing in the package may lean on it

MAY_IMPORT_TORCH = {
    *(
        "resize",
        "pixels",
        "buffers",
        "epochs",
        "samplers",
        "collate",
        "cache",
        "conversion",
        "reader",
        "datasets",
    ),
    *("clips", "masks", "loader", "neighbours", "volumes", "crops"),
    *("demo", "bench"),
}
MAY_IMPORT_PYDICOM = {
    *(
        "tags",
        "elements",
        "header",
        "scan_file",
        "scanner",
        "summary",
        "backends.pydicom",
        "backends.simpleitk",
    ),
    *("demo", "bench"),
}


@dataclass(frozen=True)
class Import:
    """One import statement, `module` as in `backends.base`; `target` absolute."""

    module: str
    target: str
    line: int
    for_types: bool


def module_name(path: Path, package: Path) -> str:
    parts = path.relative_to(package).with_suffix("").parts
    if len(parts) > 1 and parts[-1] == "__init__":
        parts = parts[:-1]
    return ".".join(parts)


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
                if (node.module, name.name) == ("dicomtorch", "__version__"):
                    continue  # a constant, there before anything is loaded
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


def layer_of(module: str) -> int | None:
    return LAYER.get(module.partition(".")[0])


def problem_of(found: Import) -> str | None:
    """What is wrong with an import inside the package, or `None`."""
    target = found.target.removeprefix("dicomtorch").removeprefix(".") or FACADE
    if target == FACADE:
        return f"{found.module}:{found.line} imports from the package itself; import the module that has the name"
    here, there = layer_of(found.module), layer_of(target)
    assert here is not None
    if there is None:
        return f"{found.module}:{found.line} imports {target}, which is in no layer"
    if found.module.startswith("backends"):
        if target in BACKEND_COMMONS:
            return None
        if target.startswith("backends"):
            return f"{found.module}:{found.line} imports {target}: backends do not know each other"
    if there >= here:
        return f"{found.module} (layer {here}) imports {target} (layer {there}), line {found.line}"
    return None


def all_modules() -> dict[str, Path]:
    paths = PACKAGE.rglob("*.py")
    return {module_name(path, PACKAGE): path for path in paths}


def all_imports() -> list[Import]:
    modules = all_modules()
    return [
        found
        for name, path in modules.items()
        if name != FACADE
        for found in imports_of(path.read_text(encoding="utf-8"), name, set(modules))
    ]


def test_every_module_is_in_a_layer():
    unknown = [name for name in all_modules() if name != FACADE and layer_of(name) is None]
    assert not unknown, f"give these a layer in the table: {unknown}"


def test_the_page_for_contributors_names_every_module():
    page = (PACKAGE.parent / "CONTRIBUTING.md").read_text(encoding="utf-8")
    named = {name.rstrip("/") for name in re.findall(r"`(\w+/?)`", page)}
    assert {name.partition(".")[0] for name in all_modules()} - {FACADE} <= named


def test_imports_point_strictly_down():
    inside = [found for found in all_imports() if found.target.partition(".")[0] == "dicomtorch"]
    assert inside
    assert [problem for found in inside if (problem := problem_of(found))] == []


@pytest.mark.parametrize(
    ("library", "allowed"), [("torch", MAY_IMPORT_TORCH), ("pydicom", MAY_IMPORT_PYDICOM)]
)
def test_library_is_imported_where_it_belongs(library, allowed):
    users = {
        found.module
        for found in all_imports()
        if found.target.partition(".")[0] == library and not found.for_types
    }
    assert users <= allowed


@pytest.mark.parametrize(
    ("module", "statement", "complaint"),
    [
        (
            "index",
            "from dicomtorch.scanner import scan",
            r"index \(layer \d\) imports scanner \(layer \d+\)",
        ),
        (
            "walk",
            "def f():\n    import dicomtorch.storage",
            r"walk \(layer \d\) imports storage \(layer \d\)",
        ),
        ("errors", "from dicomtorch import attributes", r"errors \(layer \d\) imports attributes"),
        ("header", "from dicomtorch import DicomFrames", "imports from the package itself"),
        ("cli", "from dicomtorch.nothing import f", "which is in no layer"),
        ("backends.pydicom", "import dicomtorch.backends.simpleitk", "do not know each other"),
        ("scanner", "from dicomtorch.index import FrameIndex", None),
        ("backends.pydicom", "from dicomtorch.backends.base import allocate", None),
    ],
)
def test_the_rules_can_fail(module, statement, complaint):
    (found,) = imports_of(statement, module, {"attributes", "index"})
    problem = problem_of(found)
    assert (problem is None) if complaint is None else re.search(complaint, str(problem))


def test_imports_for_types_are_told_apart():
    source = "if TYPE_CHECKING:\n    import torch\nelse:\n    import pydicom\n"
    found = {item.target: item.for_types for item in imports_of(source, "index", set())}
    assert found == {"torch": True, "pydicom": False}
