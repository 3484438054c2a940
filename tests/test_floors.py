"""The architecture, enforced: who may import whom, how long a file may be, and that our names are
ours."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FLOORS = {
    "blueprint": 0, "layers": 0, "tokenizer": 1, "planner": 1, "decoder": 1,
    "train": 2, "evals": 2, "sampling": 2, "pipeline": 3, "configs": 3, "scripts": 4, "tests": 5,
}  # fmt: skip
MODELS = {"tokenizer", "planner", "decoder"}
FORBIDDEN = {"utils", "common", "misc", "helpers", "base", "tokenize"}
FILES = sorted(
    p for room in FLOORS for p in [*(ROOT / room).rglob("*.py"), ROOT / f"{room}.py"] if p.is_file()
)


def imports(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert node.level == 0, f"{path}: relative import"
            yield node.module.split(".")[0]


def room_of(path):
    first = path.relative_to(ROOT).parts[0]
    return first.removesuffix(".py")


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_go_down(path):
    room = room_of(path)
    for name in set(imports(path)) & set(FLOORS) - {room}:
        assert name != "scripts" or room == "tests", f"{room} imports {name}"
        if FLOORS[room] == 2:
            assert name not in MODELS, f"{room} imports the model {name}"
            assert FLOORS[name] <= 2
        else:
            assert FLOORS[name] < FLOORS[room], f"{room} imports {name}"
    if room == "blueprint":
        assert not set(imports(path)) & {"jax", "flax", "optax"}


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_sizes(path):
    text = path.read_text()
    assert path.stem not in FORBIDDEN
    assert text.count("\n") <= 400
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef):
            assert node.end_lineno - node.lineno < 60, f"{node.name} is too long"
            count = len([a for a in node.args.args + node.args.kwonlyargs if a.arg != "self"])
            assert count <= 6, f"{node.name} takes {count} parameters"


def test_our_tokenizer_is_ours():
    import tokenizer

    assert Path(tokenizer.__file__).is_relative_to(ROOT)
