"""Imports go down only, and heavy libraries are imported by those who own them, when they are needed."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import fastnet

PACKAGE = Path(fastnet.__file__).parent

# From the bottom up. A module may import from its own layer's earlier entries and from every layer below.
LAYERS = [
    ["errors"],
    ["optimizers", "spec", "parameters"],
    ["reference", "arrays", "targets", "data", "initializers"],
    ["backends", "backends.interface", "backends.work"],
    ["backends.array_plan", "backends.array_engine"],
    ["backends.array_backend", "backends.numba_backend", "backends.cupy_backend"],
    ["backends.registry"],
    ["history", "persistence", "run_settings", "callbacks", "checkpoints", "training", "network"],
    ["datasets", "plotting", "workloads", "testing", "recipes", "sklearn"],
    ["benchmarking.machine", "benchmarking.peers", "benchmarking"],
    ["cli", "accel"],
    ["__main__"],
]

# Only these import the library at all; the rest of the table may do so inside functions only, so that nothing heavy is
# loaded before it is needed.
OWNERS = {
    "numba": ["backends.numba_backend"],
    "llvmlite": ["backends.numba_backend"],
    "cupy": ["backends.cupy_backend"],
    "cupyx": ["backends.cupy_backend"],
    "matplotlib": ["plotting"],
    "safetensors": ["persistence"],
    "rich": ["callbacks", "cli", "accel"],
    "click": ["callbacks", "cli", "accel"],
    "sklearn": ["data", "datasets", "network", "plotting", "benchmarking.peers", "sklearn", "accel"],
    "torch": ["benchmarking.peers"],
    "jax": ["benchmarking.peers"],
    "scipy": [
        "data",
        "backends.array_backend",
        "backends.numba_backend",
        "backends.cupy_backend",
        "testing",
        "sklearn",
    ],
    "pyarrow": ["datasets"],
}
MAY_IMPORT_AT_THE_TOP = {
    ("numba", "backends.numba_backend.kernels"),
    ("llvmlite", "backends.numba_backend.kernels"),
    ("cupy", "backends.cupy_backend"),
    ("click", "cli"),
    ("click", "accel"),
    ("sklearn", "accel"),
    ("sklearn", "sklearn"),
    ("scipy", "sklearn"),
    # A peer's module is imported when the peer is looked up.
    ("sklearn", "benchmarking.peers"),
    ("torch", "benchmarking.peers"),
    ("jax", "benchmarking.peers"),
}
NEVER = {"tensorflow", "pandas", "benchmarks", "tests"}

# Names that stand for the whole package, or that callers see but that no code depends on.
TOP_LEVEL = "__init__"


def modules():
    for path in sorted(PACKAGE.rglob("*.py")):
        relative = path.relative_to(PACKAGE).with_suffix("")
        parts = relative.parts[:-1] if relative.name == "__init__" and len(relative.parts) > 1 else relative.parts
        yield ".".join(parts), path


MODULES = dict(modules())


def unit(module):
    """The entry of `LAYERS` that a module belongs to: itself, or the folder it lies in."""
    parts = module.split(".")
    for length in range(len(parts), 0, -1):
        name = ".".join(parts[:length])
        if any(name in layer for layer in LAYERS):
            return name
    raise AssertionError(f"fastnet.{module} is in no layer: add it to the table above")


def imports(path):
    """(imported module, whether at the top level) for all imports; names of submodules of fastnet are resolved."""
    tree = ast.parse(path.read_text())
    top = {id(node) for node in tree.body}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, id(node) in top) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                is_module = full.removeprefix("fastnet.") in MODULES and full.startswith("fastnet.")
                yield full if is_module else node.module, id(node) in top


def rank(name):
    return next(index for index, layer in enumerate(LAYERS) if name in layer)


@pytest.mark.parametrize("module", [name for name in MODULES if name != TOP_LEVEL])
def test_imports_go_down(module):
    own = unit(module)
    for imported, _ in imports(MODULES[module]):
        if imported.partition(".")[0] != "fastnet":
            continue
        assert imported != "fastnet", f"fastnet.{module} imports the whole package"
        other = unit(imported.removeprefix("fastnet."))
        if other == own:
            continue
        below = rank(other) < rank(own)
        earlier = rank(other) == rank(own) and LAYERS[rank(own)].index(other) < LAYERS[rank(own)].index(own)
        type_only = (own, other) == ("callbacks", "training")  # the type of what callbacks are given
        assert below or earlier or type_only, f"fastnet.{module} imports {imported}, which is not below it"
        siblings = own.endswith("_backend") and other.endswith("_backend")
        assert not siblings, f"fastnet.{module} imports its sibling {imported}"


@pytest.mark.parametrize("module", MODULES)
def test_heavy_libraries_have_owners(module):
    own = unit(module) if module != TOP_LEVEL else TOP_LEVEL
    for imported, at_top in imports(MODULES[module]):
        library = imported.split(".")[0]
        assert library not in NEVER, f"fastnet.{module} imports {library}"
        if library in OWNERS:
            assert own in OWNERS[library], f"fastnet.{module} imports {library}, which belongs to {OWNERS[library]}"
            allowed = [place for name, place in MAY_IMPORT_AT_THE_TOP if name == library]
            assert not at_top or any(f"{module}.".startswith(f"{place}.") for place in allowed), (
                f"fastnet.{module} imports {library} at the top"
            )


def test_every_layer_exists():
    units = {unit(module) for module in MODULES if module != TOP_LEVEL}
    assert units == {name for layer in LAYERS for name in layer}


def test_no_module_above_the_seam_asks_which_backend_it_has():
    above = [name for layer in LAYERS[rank("backends.registry") + 1 : rank("cli")] for name in layer]
    for module, path in MODULES.items():
        if module == TOP_LEVEL or unit(module) not in above:
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Compare):
                values = {part.value for part in ast.walk(node) if isinstance(part, ast.Constant)}
                assert not values & {"numba", "cupy"}, f"{path.name}:{node.lineno} compares with a backend's name"


@pytest.mark.parametrize("imported", ["fastnet", "fastnet.accel", "fastnet.benchmarking, fastnet.benchmarking.peers"])
def test_importing_is_light(imported):
    script = f"import sys, {imported}; print(*sorted({{name.split('.')[0] for name in sys.modules}}))"
    loaded = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout.split()
    assert "numpy" in loaded
    assert not set(loaded) & {*OWNERS, "joblib", "pandas", "threadpoolctl"}
