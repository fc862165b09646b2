"""Imports point one way, rooms keep to what they are for, files stay readable."""

from __future__ import annotations

import ast
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SOURCES = {
    "lit_eve": ROOT / "lit_eve",
    "lit_eve_data": ROOT / "data" / "lit_eve_data",
    "lit_eve_callbacks": ROOT / "callbacks" / "lit_eve_callbacks",
}

# Room -> what it may import of ours, besides itself. A module's room is the longest name that fits.
ARROWS: dict[str, set[str]] = {
    "lit_eve_data.batches": set(),
    "lit_eve_data.disk": set(),
    "lit_eve_data.builtin": {"lit_eve_data.disk.records"},
    "lit_eve_data.sources": {"lit_eve_data.builtin", "lit_eve_data.disk"},
    "lit_eve_data.benchmarks": {"lit_eve_data.disk"},
    "lit_eve_data.preparing": {
        "lit_eve_data.builtin",
        "lit_eve_data.disk",
        "lit_eve_data.sources",
    },
    "lit_eve_data.encoding": {"lit_eve_data.batches", "lit_eve_data.disk"},
    "lit_eve_data.packing": {
        "lit_eve_data.batches",
        "lit_eve_data.disk",
        "lit_eve_data.encoding",
    },
    "lit_eve_data.loading": {
        "lit_eve_data.batches",
        "lit_eve_data.disk",
        "lit_eve_data.encoding",
        "lit_eve_data.packing",
    },
    "lit_eve_data": {"lit_eve_data"},
    "lit_eve_callbacks": set(),
    "lit_eve.schema": {"lit_eve_callbacks.schedules"},
    "lit_eve.models": {"lit_eve_data.batches", "lit_eve.losses"},
    "lit_eve.losses": set(),
    "lit_eve.metrics": set(),
    "lit_eve.tasks": {
        "lit_eve.models",
        "lit_eve.losses",
        "lit_eve.metrics",
        "lit_eve_data.batches",
        "lit_eve_callbacks",
    },
    "lit_eve.tracking": set(),
    "lit_eve.tuning": {"lit_eve.schema", "lit_eve.tracking", "lit_eve.running.directory"},
    "lit_eve.strategies": {"lit_eve.checkpoints"},
    "lit_eve.checkpoints": set(),
    "lit_eve.planning.flops": {"lit_eve.models"},
    "lit_eve.planning.memory": {"lit_eve.models"},
    "lit_eve.running.directory": {"lit_eve.strategies.meeting"},
    "lit_eve.running.bars": set(),
    "lit_eve.running.progress": {"lit_eve.running.bars"},
    "lit_eve": {"lit_eve", "lit_eve_data", "lit_eve_callbacks"},
}
LIGHT = ("lit_eve.schema", "lit_eve.cli", "lit_eve.running.directory", "lit_eve.tuning")
HEAVY = {"torch", "lightning", "transformers", "mlflow", "litdata", "numpy"}


def modules() -> Iterator[tuple[str, Path]]:
    for package, folder in SOURCES.items():
        for path in sorted(folder.rglob("*.py")):
            parts = path.relative_to(folder).with_suffix("").parts
            yield ".".join((package, *(p for p in parts if p != "__init__"))), path


def imports(source: str, top_level_only: bool = False) -> set[str]:
    """Modules that a file imports, other than for type checking."""
    tree = ast.parse(source)
    skipped = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)
        for inner in ast.walk(node)
    }
    nodes = tree.body if top_level_only else list(ast.walk(tree))
    found: set[str] = set()
    for node in nodes:
        if id(node) in skipped:
            continue
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
            if node.module in SOURCES or node.module.startswith("lit_eve"):
                found.update(f"{node.module}.{alias.name}" for alias in node.names)
    return found


def room_of(module: str) -> str:
    fitting = [room for room in ARROWS if module == room or module.startswith(room + ".")]
    return max(fitting, key=len)


def wrong_arrows(module: str, source: str) -> list[str]:
    room = room_of(module)
    allowed = ARROWS[room] | {room}
    ours = [name for name in imports(source) if name.split(".")[0] in SOURCES]
    return [
        name
        for name in ours
        if not any(name == a or name.startswith(a + ".") for a in allowed)
        and not any(a.startswith(name + ".") for a in allowed)  # `from room import module`
    ]


@pytest.mark.parametrize(("module", "path"), list(modules()), ids=[m for m, _ in modules()])
def test_imports_follow_the_arrows(module: str, path: Path) -> None:
    assert wrong_arrows(module, path.read_text()) == []


@pytest.mark.parametrize(
    ("module", "line"),
    [
        ("lit_eve_data.loading.loader", "from lit_eve.models.splice import splice"),
        ("lit_eve_data.disk.reading", "from lit_eve_data.packing.plan import PackingPlan"),
        ("lit_eve_callbacks.schedules", "import lit_eve_data.batches"),
        ("lit_eve.models.splice", "from lit_eve.schema import load"),
        ("lit_eve.schema.base", "from lit_eve.assemble import vision_language"),
        ("lit_eve.tasks.language", "from lit_eve_data.loading.loader import PackedLoader"),
    ],
)
def test_a_planted_wrong_import_is_seen(module: str, line: str) -> None:
    assert wrong_arrows(module, line)


@pytest.mark.parametrize(("module", "path"), list(modules()), ids=[m for m, _ in modules()])
def test_light_rooms_import_nothing_heavy_at_their_top(module: str, path: Path) -> None:
    if any(module == room or module.startswith(room + ".") for room in LIGHT):
        tops = {name.split(".")[0] for name in imports(path.read_text(), top_level_only=True)}
        assert not tops & HEAVY


def test_models_do_not_know_lightning() -> None:
    for module, path in modules():
        if module.startswith(("lit_eve.models", "lit_eve.losses")):
            assert "lightning" not in {n.split(".")[0] for n in imports(path.read_text())}, module


def test_no_training_step_logs_by_lightning() -> None:
    """It costs 0.2 ms a metric on every step, kept or not; `StepMetrics` sums on the device."""
    steps = [
        (module, node)
        for module, path in modules()
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef) and node.name == "training_step"
    ]
    assert len(steps) >= 4
    for module, step in steps:
        assert "attr='log" not in ast.dump(step), module


@pytest.mark.parametrize("room", ["data", "callbacks"])
def test_a_leaf_folder_holds_its_package_and_nothing_else(room: str) -> None:
    tracked = subprocess.run(
        ["git", "ls-files", room], cwd=ROOT, capture_output=True, text=True, check=False
    ).stdout.split()
    assert {Path(name).parts[1] for name in tracked} <= {f"lit_eve_{room}"}


def test_files_stay_under_four_hundred_lines() -> None:
    long = {m: n for m, p in modules() if (n := p.read_text().count("\n")) > 400}
    assert long == {}


def body_lines(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Lines from the first statement to the last, without the docstring."""
    body = function.body[1:] if ast.get_docstring(function) is not None else function.body
    return (function.end_lineno or 0) - body[0].lineno + 1 if body else 0


def test_functions_stay_within_forty_lines() -> None:
    functions = (
        (module, node)
        for module, path in modules()
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    )
    long = {f"{module}.{node.name}" for module, node in functions if body_lines(node) > 40}
    assert long == set()
