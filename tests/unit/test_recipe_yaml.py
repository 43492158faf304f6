"""YAML as recipes are read: the core schema of YAML 1.2, with places."""

from __future__ import annotations

import math
import random
from pathlib import Path
from typing import Any

import pytest
import yaml

from launcher.recipe.document import dump, merge, parse, plain, resolve
from launcher.recipe.problems import RecipeErrors


def read(text: str | bytes) -> Any:
    data = text.encode() if isinstance(text, str) else text
    return plain(parse(data, "r.yaml", Path("/")))


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("2e-5", 2e-5),
        ("1e6", 1e6),
        ("-1.5E+3", -1500.0),
        (".5", 0.5),
        ("24:00:00", "24:00:00"),
        ("1:30", "1:30"),
        ("on", "on"),
        ("NO", "NO"),
        ("yes", "yes"),
        ("true", True),
        ("False", False),
        ("0123", 123),
        ("0o17", 15),
        ("0x1F", 31),
        ("1_000", "1_000"),
        ("2026-01-01", "2026-01-01"),
        ("~", None),
        ("", None),
        ("'1e-5'", "1e-5"),
        ("=", "="),
        ("9" * 50, 10**50 - 1),
    ],
)
def test_an_unquoted_scalar_is_what_yaml_1_2_says(text: str, value: object) -> None:
    found = read(f"a: {text}")["a"]
    assert found == value
    assert type(found) is type(value)


def test_infinity_and_not_a_number_are_read_as_such() -> None:
    assert read("a: -.inf")["a"] == -math.inf
    assert math.isnan(read("a: .nan")["a"])


def test_windows_line_ends_and_a_byte_order_mark_are_accepted() -> None:
    assert read(b"\xef\xbb\xbfa: 1\r\nb:\r\n  c: two\r\n") == {"a": 1, "b": {"c": "two"}}


def test_an_anchor_may_be_used_again() -> None:
    assert read("a: &d {x: 1}\nb: *d\n") == {"a": {"x": 1}, "b": {"x": 1}}


def test_a_key_is_the_text_that_stands_there() -> None:
    assert read("1: a\non: b\nnull: c\n") == {"1": "a", "on": "b", "null": "c"}


def test_a_node_knows_its_line_and_column() -> None:
    node = parse(b"a:\n  b: [x, yy]\n", "r.yaml", Path("/")).items["a"].items["b"]
    assert str(node.place) == "r.yaml:2:6"
    assert str(node.key_place) == "r.yaml:2:3"
    assert isinstance(node.value, list)
    assert str(node.value[1].place) == "r.yaml:2:10"


def test_merging_joins_mappings_and_replaces_all_else() -> None:
    under = parse(b"a: {x: 1, y: [1, 2]}\nb: 1\nc: {z: 1}\n", "u", Path("/"))
    over = parse(b"a: {y: [3]}\nb: {q: 1}\nc: null\n", "o", Path("/"))
    assert plain(merge(under, over)) == {"a": {"x": 1, "y": [3]}, "b": {"q": 1}, "c": None}


def test_what_is_written_reads_back_the_same_here_and_by_pyyaml() -> None:
    data = {
        "rate": 1e-6,
        "texts": ["1e-5", "on", "0o17", "24:00:00", "null", "é", "a: b", ""],
        "more": {"n": None, "t": True, "i": 3},
    }
    assert read(dump(data)) == data
    assert yaml.safe_load(dump(data)) == data


def test_no_bytes_bring_anything_but_a_recipe_error() -> None:
    rng = random.Random(3)
    pieces = rb"a|: |\n|  |- |[|]|{|}|&x |*x|!t |'|\"|\t|>|? |<<|---\n|%|#|,|\\".split(b"|")
    pieces = [piece.replace(rb"\n", b"\n").replace(rb"\t", b"\t") for piece in pieces]
    pieces += [b"|", b"\xff", b"\x00"]
    for _ in range(3000):
        data = b"".join(rng.choices(pieces, k=rng.randrange(1, 14)))
        try:
            parse(data, "r.yaml", Path("/"))
        except RecipeErrors as errors:
            assert str(errors)


@pytest.mark.parametrize("text", ["1", "one", "-1e5", "''"])
def test_text_resolves_by_itself_as_in_a_file(text: str) -> None:
    assert text == "''" or resolve(text) == read(f"a: {text}")["a"]
