"""What a Python file of the user's defines, told by its text: nothing of it is imported or run."""

from __future__ import annotations

import ast
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

_LONGEST = 2**22
"""Bytes beyond which a file is not read here."""
_BY_OTHER_MEANS = {"exec", "globals", "locals", "setattr", "vars"}
"""What binds names that no text shows."""


class BadSource(ValueError):
    """Why a file is no Python, with its line."""


@dataclass(frozen=True)
class Names:
    """The names at the top level of a file."""

    defined: tuple[str, ...]
    """In the order of the file; without those that it imports."""
    imported: tuple[str, ...] = ()
    open: bool = False
    """Whether there may be more, as after `from x import *`."""

    def __contains__(self, name: object) -> bool:
        return name in self.defined or name in self.imported


_UNKNOWN = Names((), open=True)


def names(path: Path) -> Names:
    """The names that the file `path` binds when it is imported. Raises BadSource for no Python."""
    try:
        if path.stat().st_size > _LONGEST:
            return _UNKNOWN
        text = path.read_bytes()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tree = ast.parse(text)
            compile(tree, str(path), "exec", dont_inherit=True)
    except SyntaxError as error:
        line = f":{error.lineno}" if error.lineno else ""
        raise BadSource(f"{path}{line} is no Python: {error.msg}") from None
    except (OSError, ValueError, RecursionError, MemoryError):
        return _UNKNOWN
    defined: list[str] = []
    imported: list[str] = []
    for node in _top_level(tree.body):
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            given = (alias.asname or alias.name.partition(".")[0] for alias in node.names)
            imported += given
        else:
            defined += _bound(node)
    everywhere = list(ast.walk(tree))
    declared = [name for node in everywhere if isinstance(node, ast.Global) for name in node.names]
    used = {node.id for node in everywhere if isinstance(node, ast.Name)}
    return Names(
        tuple(dict.fromkeys([*defined, *declared])),
        tuple(dict.fromkeys(imported)),
        open="*" in imported or "__getattr__" in defined or bool(used & _BY_OTHER_MEANS),
    )


def _top_level(body: Iterable[ast.AST]) -> Iterator[ast.AST]:
    """The nodes of `body`, and those within them that no function or class holds."""
    for node in body:
        yield node
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda)):
            continue
        yield from _top_level(ast.iter_child_nodes(node))


def _bound(node: ast.AST) -> Iterator[str]:
    if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
        yield node.name
    elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
        yield node.id
    elif isinstance(node, (ast.MatchAs, ast.MatchStar)) and node.name:
        yield node.name
