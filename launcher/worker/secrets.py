"""Tokens: read on the node from the user's own file, for the trainer alone, never repeated."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Mapping
from pathlib import Path

from launcher.errors import UsageError
from launcher.recipe.environment import is_secret, reserved
from launcher.worker import classify

DEFAULT = "~/.config/launcher/secrets.env"
NAMES = "LAUNCHER_SECRETS"
"""Variable of the trainer: the names, with commas between them, of those that hold a secret."""

_LARGEST = 2**16
_SHORTEST = 6
"""Characters from which a value is taken out of what is printed: less would be found everywhere."""


def variables(stated: str | None) -> dict[str, str]:
    """The variables in the secrets file that the profile states, or in the default one.

    Raises UsageError, without a word of its content, where the file is not a plain one of the
    user's with mode 0600, where the profile names one that is missing, or for a line that is not
    `NAME=VALUE`; OSError where the disk does not give it now.
    """
    path = Path(stated or DEFAULT).expanduser()
    try:
        text = _read(path)
    except FileNotFoundError:
        if stated is None:
            return {}
        raise _wrong(
            path, "does not exist", "make it, or take `secrets` out of the profile"
        ) from None
    except OSError as error:
        if classify.of_the_disk(error):
            raise
        raise _wrong(path, error.strerror or "cannot be read", "it must be a plain file") from None
    found: dict[str, str] = {}
    for number, line in enumerate(text.splitlines(), start=1):
        line = line.strip()
        if not line or line.startswith("#"):
            continue
        name, equals, value = line.removeprefix("export ").partition("=")
        name, value = name.strip(), value.strip()
        if len(value) > 1 and value[0] == value[-1] and value[0] in "'\"":
            value = value[1:-1]
        why = reserved(name) if equals else "a line is NAME=VALUE"
        if why is not None or not value.isprintable():
            raise _wrong(path, f"line {number}: {why or 'a control character'}", "correct the line")
        found[name] = value
    if found:
        found[NAMES] = ",".join(found)
    return found


def _read(path: Path) -> str:
    # A pipe would make an open wait for ever, a link may lead to another's file.
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    with os.fdopen(descriptor, "rb") as handle:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise _wrong(path, "is not a plain file", "it must be one")
        if status.st_uid != os.getuid():
            raise _wrong(path, "belongs to another user", "make one of your own")
        if status.st_mode & (stat.S_IRWXG | stat.S_IRWXO):
            mode = f"{stat.S_IMODE(status.st_mode):04o}"
            raise _wrong(path, f"has mode {mode}, others may read it", f"chmod 600 {path}")
        try:
            return handle.read(_LARGEST).decode()
        except UnicodeDecodeError:
            raise _wrong(path, "is not UTF-8", "write NAME=VALUE lines") from None


def _wrong(path: Path, why: str, hint: str) -> UsageError:
    return UsageError(f"the secrets file {path} {why}", hint=hint)


def hider(environment: Mapping[str, str]) -> Callable[[str], str]:
    """What takes the secrets of `environment` out of a text: those of the secrets file, and those
    of variables whose name says that they hold one."""
    named = environment.get(NAMES, "").split(",")
    values = {
        value: name
        for name, value in environment.items()
        if (name in named or is_secret(name)) and len(value) >= _SHORTEST
    }
    # Of two values one may begin with the other.
    order = sorted(values, key=len, reverse=True)

    def hide(text: str) -> str:
        for value in order:
            if value in text:
                text = text.replace(value, f"[{values[value]}]")
        return text

    return hide
