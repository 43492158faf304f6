"""What each package may import, read from the sources and seen at run time."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import launcher

PACKAGE = Path(launcher.__file__).parent
SHARED = {"launcher", "launcher.errors", "launcher.shipped"}
TRAINING = {
    "torch", "transformers", "trl", "peft", "datasets", "accelerate", "deepspeed", "safetensors",
    "gguf", "numpy",
}  # fmt: skip

# Package → what of ours it may import: whole packages, or only their types.
LAW: dict[str, set[str]] = {
    "recipe": set(),
    "cluster": set(),
    "models": set(),
    "records": set(),
    "memory": {"launcher.recipe", "launcher.models.types"},
    "plan": {
        "launcher.recipe", "launcher.cluster.types", "launcher.cluster.gpu_types",
        "launcher.cluster.availability", "launcher.models.types", "launcher.memory",
    },
    "scheduler": {
        "launcher.plan.types", "launcher.cluster.types", "launcher.cluster.gpu_types",
        "launcher.cluster.availability",
    },
    "run": {"launcher.plan", "launcher.records", "launcher.scheduler", "launcher.models.cache"},
    "worker": {
        "launcher.recipe", "launcher.plan", "launcher.records", "launcher.memory",
        "launcher.models.read", "launcher.models.cache", "launcher.report.evaluation",
    },
    "report": {"launcher.records", "launcher.plan.types"},
    "cli": {
        "launcher.recipe", "launcher.cluster", "launcher.models", "launcher.memory",
        "launcher.plan", "launcher.records", "launcher.scheduler", "launcher.run",
        "launcher.report",
    },
}  # fmt: skip

# Packages that touch nothing but their arguments, and their modules that may.
PURE = {
    "recipe": {"sources"},
    "cluster": {"profile"},
    "models": {"find"},
    "memory": set[str](),
    "plan": {"deepspeed"},
}
IMPURE = {"subprocess", "os", "socket", "shutil"}


def modules(package: str) -> list[Path]:
    return sorted((PACKAGE / package).rglob("*.py"))


def imported(path: Path) -> Iterator[str]:
    """Every module that the file imports, wherever in the file it does."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            assert node.module is not None
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                is_module = (PACKAGE.parent / whole.replace(".", "/")).with_suffix(".py").is_file()
                is_package = (PACKAGE.parent / whole.replace(".", "/") / "__init__.py").is_file()
                yield whole if is_module or is_package else node.module


def allowed(name: str, package: str) -> bool:
    own = {f"launcher.{package}", *LAW[package]}
    return name in SHARED or any(name == o or name.startswith(o + ".") for o in own)


@pytest.mark.parametrize("package", sorted(LAW))
def test_a_package_imports_only_what_the_law_allows(package: str) -> None:
    wrong = [
        f"{path.relative_to(PACKAGE)} imports {name}"
        for path in modules(package)
        for name in imported(path)
        if name.split(".")[0] == "launcher" and not allowed(name, package)
    ]
    assert not wrong


def test_every_package_is_under_the_law() -> None:
    packages = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    assert packages - {"share"} == set(LAW)


def test_only_the_worker_imports_the_training_stack() -> None:
    wrong = [
        f"{path.relative_to(PACKAGE)} imports {name}"
        for package in set(LAW) - {"worker"}
        for path in modules(package)
        for name in imported(path)
        if name.split(".")[0] in TRAINING
    ]
    assert not wrong


def test_only_the_scheduler_imports_submitit() -> None:
    users = {
        package
        for package in LAW
        for path in modules(package)
        if any(name.split(".")[0] == "submitit" for name in imported(path))
    }
    assert users == {"scheduler"}


def test_only_the_shell_and_supervisors_start_processes() -> None:
    users = {
        str(path.relative_to(PACKAGE))
        for package in LAW
        for path in modules(package)
        if "subprocess" in imported(path)
    }
    assert users == {
        "scheduler/shell.py",
        "worker/child.py",
        "worker/guard.py",
        "worker/program.py",
        "worker/vllm/serve.py",
    }


@pytest.mark.parametrize("package", sorted(PURE))
def test_pure_packages_touch_nothing_but_their_arguments(package: str) -> None:
    wrong = [
        f"{path.relative_to(PACKAGE)} imports {name}"
        for path in modules(package)
        if path.stem not in PURE[package]
        for name in imported(path)
        if name.split(".")[0] in IMPURE
    ]
    assert not wrong


@pytest.mark.parametrize(
    "words",
    [
        ["plan", "ppo_7b", "--cluster", "mixed"],
        ["submit", "ppo_7b", "--cluster", "mixed", "--dry-run", "--show-sbatch"],
        ["validate", "ppo_7b"],
        ["list"],
        ["cluster", "list"],
    ],
    ids=lambda words: " ".join(words),
)
def test_commands_of_the_login_node_load_no_training_stack(
    words: list[str], tmp_path: Path
) -> None:
    program = (
        "import sys\n"
        "from launcher.cli.main import main\n"
        f"sys.argv = ['launcher', *{words!r}]\n"
        "try:\n"
        "    main()\n"
        "except SystemExit as end:\n"
        "    assert end.code == 0, end.code\n"
        f"loaded = {sorted(TRAINING)!r}\n"
        "print([name for name in loaded if name in sys.modules], file=sys.stderr)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, cwd=tmp_path, timeout=60
    )
    assert done.stderr.splitlines()[-1] == "[]", done.stderr
