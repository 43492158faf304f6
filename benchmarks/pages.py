"""Tables of the docs that a benchmark writes, between two marks of their page."""

from __future__ import annotations


def filled(text: str, begin: str, end: str, block: str) -> str:
    """The page with `block` on the lines between the marks. Raises ValueError where one lacks."""
    before, rest = text.split(begin, 1)
    _, after = rest.split(end, 1)
    return f"{before}{begin}\n{block}\n{end}{after}"
