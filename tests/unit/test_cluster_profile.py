"""Cluster profiles: what ships, and how a user's own file is read."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from launcher.cluster.gpu_types import with_speeds
from launcher.cluster.profile import dump_profile, list_profiles, load_profile
from launcher.cluster.reading import parse_profile
from launcher.cluster.types import Cluster, Gpu, NodeGroup, Partition
from launcher.errors import UsageError

SMALL = """\
name: lab
gpus:
  a100: {memory_gib: null}
partitions:
  - name: gpu
    groups:
      - {nodes: 2, cpus: 64, memory_gib: 500, gpu: a100, gpus: 4}
"""
LAB = Cluster(
    name="lab",
    gpus={"a100": Gpu(memory_gib=None)},
    partitions=(Partition("gpu", (NodeGroup(2, 64, 500.0, "a100", 4),)),),
)


def problems(text: str) -> list[str]:
    with pytest.raises(UsageError) as caught:
        parse_profile(text, "lab.yaml")
    return caught.value.message.splitlines()


def test_the_shipped_profiles_are_found_by_name_and_know_their_gpus() -> None:
    assert list_profiles() == ("a100_40", "dev", "h100_80", "mixed", "v100_32")
    for name in list_profiles():
        profile = load_profile(name)
        assert profile.name == name
        assert all(gpu.memory_gib for gpu in profile.gpus.values())
    assert not load_profile("v100_32").gpus["v100_32gb"].bf16
    assert [p.name for p in load_profile("mixed").partitions if p.preemptible] == ["spare"]
    assert load_profile("dev").device == "cpu"


def test_a_profile_is_read_from_a_file(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(SMALL)
    assert load_profile(str(tmp_path / "mine.yaml")) == LAB


def test_a_misspelt_name_gets_a_suggestion() -> None:
    with pytest.raises(UsageError) as caught:
        load_profile("h100-80")
    assert caught.value.hint == "did you mean 'h100_80'?"


def test_every_problem_is_told_with_its_place() -> None:
    text = SMALL.replace("name: lab", "nme: x").replace("groups:", "gruops:")
    text = text.replace("null", "lots")
    assert problems(text) == [
        "lab.yaml:1:1 nme: unknown key; did you mean 'name'?",
        "lab.yaml:1:1 name: missing; give text",
        "lab.yaml:3:22 gpus.a100.memory_gib: a number is expected, not 'lots'",
        "lab.yaml:5:5 partitions[0].groups: missing; give a list",
        "lab.yaml:6:5 partitions[0].gruops: unknown key; did you mean 'groups'?",
    ]


@pytest.mark.parametrize(
    ("before", "after", "problem"),
    [
        ("gpu: a100,", "gpu: a10,", "lab.yaml:7:52 partitions[0].groups[0].gpu: 'a10' is not "),
        ("nodes: 2", "nodes: 0", "lab.yaml:7:17 partitions[0].groups[0].nodes: must be positive"),
        (", gpus: 4", "", "lab.yaml:7:52 partitions[0].groups[0].gpu: give the number too"),
        ("name: gpu", "name: 'a b'", "lab.yaml:5:11 partitions[0].name: 'a b' is not a name"),
        ("name: lab", "name: lab\nname: two", "lab.yaml:2:1 name: given twice, first in line 1"),
    ],
)
def test_a_profile_that_contradicts_itself_is_refused(
    before: str, after: str, problem: str
) -> None:
    assert any(line.startswith(problem) for line in problems(SMALL.replace(before, after)))


def test_text_that_is_no_yaml_is_told_with_its_place() -> None:
    assert problems(SMALL.replace("name: lab", "name: [lab"))[0].startswith(
        "lab.yaml:2:5: not YAML"
    )
    assert problems("# nothing\n")[0].startswith("lab.yaml: empty")


def test_scalars_are_read_as_their_field_asks() -> None:
    text = SMALL + "account: 0123\nenv: {NCCL_IB_DISABLE: on, A: 1e6, B: 12:30:00}\ntyped: false\n"
    read = parse_profile(text, "lab.yaml")
    assert read.account == "0123"
    assert read.env == {"NCCL_IB_DISABLE": "on", "A": "1e6", "B": "12:30:00"}
    assert read.typed is False
    assert problems(SMALL + "typed: no\n") == [
        "lab.yaml:8:8 typed: true or false is expected, not 'no'"
    ]
    assert problems(SMALL + "typed: 'false'\n")[0].endswith("is expected, not 'false'")
    limit = SMALL.replace("name: gpu\n", "name: gpu\n    max_time_minutes: 24:00:00\n")
    assert problems(limit)[0].endswith("a whole number is expected, not '24:00:00'")


def test_what_is_written_is_read_back_and_says_that_memory_is_to_be_filled_in() -> None:
    odd = replace(
        LAB, env={"A": "null", "B": "1e6", "C": ""}, setup=("a: b  # c", "x\ty"), python="~"
    )
    text = dump_profile(odd)
    assert parse_profile(text, "x") == odd
    assert text.startswith("# A GPU whose memory is null")
    for name in list_profiles():
        profile = load_profile(name)
        assert parse_profile(dump_profile(profile), name) == profile


def test_the_name_of_a_type_is_all_that_a_profile_needs() -> None:
    told = SMALL.replace("a100: {memory_gib: null}", "a100_40gb: {}").replace(
        "gpu: a100,", "gpu: a100_40gb,"
    )
    gpu = parse_profile(told, "lab.yaml").gpus["a100_40gb"]
    assert (gpu.memory_gib, gpu.price, gpu.bf16) == (39.4, 1.0, True)
    fast = with_speeds("a100_40gb", gpu)
    assert (fast.tflops_half, fast.bandwidth_gbs, fast.nvlink_gbs) == (312, 1555, 300)
    assert with_speeds("a100-pcie-80gb", Gpu()).nvlink_gbs == 0


def test_a_type_under_another_name_says_what_it_is() -> None:
    text = SMALL.replace("{memory_gib: null}", "{type: h100_pcie_80gb, attainable_mfu: 0.3}")
    gpu = parse_profile(text, "lab.yaml").gpus["a100"]
    assert gpu.memory_gib == 79.1
    fast = with_speeds("a100", gpu)
    assert (fast.tflops_half, fast.nvlink_gbs, fast.attainable_mfu) == (756, 0, 0.3)
    assert parse_profile(dump_profile(parse_profile(text, "x")), "x") == parse_profile(text, "x")


@pytest.mark.parametrize(
    ("gpu", "problem"),
    [
        ("{type: a900}", "gpus.a100.type: 'a900' is no type that is known"),
        ("{tflops_half: 0}", "gpus.a100.tflops_half: must be positive"),
        ("{nvlink_gbs: -1}", "gpus.a100.nvlink_gbs: must be positive, or 0 for none"),
        ("{attainable_mfu: 40}", "gpus.a100.attainable_mfu: is a share of the peak: at most 1"),
    ],
)
def test_a_speed_that_cannot_be_is_refused(gpu: str, problem: str) -> None:
    assert problem in problems(SMALL.replace("{memory_gib: null}", gpu))[0]


@pytest.mark.parametrize(
    ("name", "half"),
    [
        ("rtx_4090", 165),
        ("rtx4090", 165),
        ("nvidia_rtx_a6000", 155),
        ("rtx_6000_ada_generation", 364),
        ("l40s", 362),
        ("a10g", 70),
        ("h100_80gb_hbm3", 989),
        ("1g.10gb", None),
        ("a100_1g.5gb", None),
        ("gpu", None),
    ],
)
def test_the_speed_of_a_type_is_known_by_its_name(name: str, half: float | None) -> None:
    assert with_speeds(name, Gpu()).tflops_half == half
