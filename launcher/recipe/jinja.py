"""Whether a chat template is Jinja, as transformers has it. Read only where a recipe gives one."""

from __future__ import annotations

from typing import Any

_MARK = {"generation"}


def syntax_error(template: str) -> str | None:
    """What is wrong with it, and in which line; None where nothing is, or where Jinja is not
    installed, as on a login node."""
    try:
        from jinja2 import Environment, TemplateSyntaxError
        from jinja2.ext import Extension
    except ImportError:
        return None

    class Generation(Extension):
        """Marks what the assistant says."""

        tags = _MARK

        def parse(self, parser: Any) -> Any:
            next(parser.stream)
            return parser.parse_statements(("name:endgeneration",), drop_needle=True)

    known = Environment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, "jinja2.ext.loopcontrols"]
    )
    try:
        known.compile(template, raw=True)
    except TemplateSyntaxError as error:
        said = (error.message or "").rstrip(".")
        return f"line {error.lineno}: {said}"
    return None
