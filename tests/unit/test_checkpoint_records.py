"""A checkpoint is whole or is none, whenever its writer dies and whatever befalls its files."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from launcher.records import checkpoints, commits
from launcher.records.checkpoints import SCHEMA_VERSION, Checkpoint, Commit, File, unfit
from launcher.records.complete import digest
from launcher.worker.hashing import examined
from launcher.worker.outcome import Ends

STATES = "global_step/states.pt"
CHANGES = {"open", "os.link", "os.mkdir", "os.remove", "os.rename", "os.rmdir"}
"""What Python tells its audit hooks before it asks the kernel for it."""


def write(folder: Path, step: int, word: str = "first", world: int = 2) -> Path:
    """Commit a checkpoint, as a training does."""
    staged = checkpoints.path_of(commits.begin(folder), step)
    (staged / STATES).parent.mkdir(parents=True)
    (staged / "model.safetensors").write_text(f"weights of step {step}, {word}")
    (staged / STATES).write_text(f"moments of step {step}, {word}")
    names = ("model.safetensors", STATES)
    parts = tuple(
        File(name, (staged / name).stat().st_size, digest(staged / name)) for name in names
    )
    return commits.commit(staged, Commit(SCHEMA_VERSION, step, world, 2, "none", 0.0, parts))


def steps(folder: Path) -> list[int]:
    return [checkpoint.step for checkpoint in checkpoints.committed(folder)]


def test_checkpoints_are_found_by_their_steps_and_only_where_they_were_committed(
    tmp_path: Path,
) -> None:
    assert (checkpoints.committed(tmp_path / "none"), checkpoints.newest_step(tmp_path)) == ((), 0)
    for step in (100, 20, 3):
        write(tmp_path, step)
    (tmp_path / "checkpoint-400").mkdir()
    (tmp_path / "checkpoint-500.bad").mkdir()
    found = checkpoints.committed(tmp_path)
    assert found[0] == Checkpoint(tmp_path / "checkpoint-3", 3, 2, 2, "none")
    assert steps(tmp_path) == [3, 20, 100] and checkpoints.newest_step(tmp_path) == 100
    assert [examined(each.path) for each in found] == [None] * 3
    assert sorted(path.name for path in tmp_path.glob(".*")) == []


def cut(path: Path) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 4
    path.write_bytes(data)


def link(path: Path) -> None:
    elsewhere = path.parents[2] / "elsewhere"
    path.rename(elsewhere)
    path.symlink_to(elsewhere)


def plant(path: Path) -> None:
    (path.parent / "pytorch_model.bin").write_bytes(b"pickle")


def make_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def open_to_others(path: Path) -> None:
    path.parent.chmod(0o777)


@pytest.mark.parametrize(
    ("name", "damage", "why"),
    [
        (STATES, cut, "bytes"),
        (STATES, empty, "0 bytes"),
        (STATES, flip, "not what was written"),
        (STATES, Path.unlink, f"{STATES} is missing"),
        (STATES, link, f"{STATES} is no file"),
        ("model.safetensors", plant, "pytorch_model.bin is not in its COMMIT.json"),
        ("model.safetensors", open_to_others, "can be written by others"),
        ("COMMIT.json", Path.unlink, "has no COMMIT.json"),
        ("COMMIT.json", empty, "cannot be read"),
        ("COMMIT.json", cut, "cannot be read"),
        ("COMMIT.json", flip, "COMMIT.json"),
        ("COMMIT.json", make_folder, "COMMIT.json is no file"),
    ],
)
def test_damage_is_told_in_words(
    tmp_path: Path, name: str, damage: Callable[[Path], object], why: str
) -> None:
    checkpoint = checkpoints.at(write(tmp_path, 7))
    damage(checkpoint.path / name)
    said = examined(checkpoint.path)
    assert said is not None and why in said
    if name == "COMMIT.json":
        assert checkpoints.committed(tmp_path) == ()


def test_every_bit_of_a_commit_counts(tmp_path: Path) -> None:
    """A figure that was changed into another one is not read as it stands."""
    path = write(tmp_path, 7) / "COMMIT.json"
    text = path.read_text()
    for before, after in (('"world": 2', '"world": 3'), ('"zero_stage": 2', '"zero_stage": 0')):
        path.write_text(text.replace(before, after))
        assert path.read_text() != text and checkpoints.committed(tmp_path) == ()


def test_a_checkpoint_under_another_name_is_none(tmp_path: Path) -> None:
    write(tmp_path, 7).rename(tmp_path / "checkpoint-9")
    assert checkpoints.committed(tmp_path) == ()


@pytest.mark.skipif(os.geteuid() != 0, reason="gives a file to another user")
def test_a_file_of_another_user_is_not_loaded(tmp_path: Path) -> None:
    checkpoint = checkpoints.at(write(tmp_path, 7))
    os.chown(checkpoint.path / STATES, 12345, -1)
    assert "another user" in str(examined(checkpoint.path))


@pytest.mark.skipif(os.geteuid() != 0, reason="puts a file of the kernel's in a file's place")
def test_a_commit_that_the_disk_does_not_give_is_no_word_on_the_checkpoint(tmp_path: Path) -> None:
    """Nothing is counted as if there were no checkpoint."""
    for step in (3, 7):
        write(tmp_path, step)
    unreadable = tmp_path / "checkpoint-7" / "COMMIT.json"
    # Nobody can read the first byte of a process's memory: the kernel says EIO.
    subprocess.run(["mount", "--bind", f"/proc/{os.getpid()}/mem", unreadable], check=True)
    try:
        with pytest.raises(OSError, match="Input/output error"):
            checkpoints.newest_step(tmp_path)
        with pytest.raises(Ends, match=r"could not be read.*Input/output error") as ended:
            examined(unreadable.parent)
        assert ended.value.failed == "disk"
    finally:
        subprocess.run(["umount", unreadable], check=True)
    assert checkpoints.newest_step(tmp_path) == 7 and examined(unreadable.parent) is None


def test_what_is_set_aside_is_kept_and_never_taken_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for _ in range(2):
        checkpoints.put_aside(checkpoints.at(write(tmp_path, 7)).path, "its states are bad")
    assert "checkpoint-7 is not used: its states are bad" in capsys.readouterr().out
    assert steps(tmp_path) == []
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "checkpoint-7.bad",
        "checkpoint-7.bad-2",
    ]
    write(tmp_path, 8)
    (tmp_path / "checkpoint-9").mkdir()
    checkpoints.set_all_aside(tmp_path, "the rung needs another ZeRO stage")
    assert checkpoints.numbered(tmp_path) == ()
    assert (tmp_path / "checkpoint-8.bad" / STATES).is_file()


def test_a_training_of_another_kind_does_not_go_on_from_it(tmp_path: Path) -> None:
    checkpoint = checkpoints.at(write(tmp_path, 7))
    assert unfit(checkpoint, 2, 2, "none") is None
    assert "by 2 processes, the plan has 4" in str(unfit(checkpoint, 4, 2, "none"))
    assert "ZeRO 2, the plan has ZeRO 3" in str(unfit(checkpoint, 2, 3, "none"))
    assert "offload none, the plan has optimizer" in str(unfit(checkpoint, 2, 2, "optimizer"))


def test_the_oldest_go_but_never_the_best_nor_what_was_not_committed(tmp_path: Path) -> None:
    for step in (1, 2, 3, 4):
        write(tmp_path, step)
    (tmp_path / "checkpoint-0").mkdir()
    commits.prune(tmp_path, 2, str(tmp_path / "checkpoint-1"))
    assert steps(tmp_path) == [1, 3, 4]
    assert (tmp_path / "checkpoint-0").is_dir() and not list(tmp_path.glob(".*"))


def test_a_step_that_is_saved_again_is_replaced(tmp_path: Path) -> None:
    write(tmp_path, 7)
    again = checkpoints.at(write(tmp_path, 7, "second"))
    assert "second" in (again.path / STATES).read_text()
    assert examined(again.path) is None
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint-7"]


def save_twice(folder: Path) -> None:
    """What a training does to its folder: a new checkpoint, the same once more, old ones pruned."""
    for word in ("first", "second"):
        write(folder, 4, word)
        commits.prune(folder, 2)


def killed_at(change: int, work: Callable[[Path], None], folder: Path) -> bool:
    """Do the work in a process that is killed before its nth change of a file; False: it ended."""
    child = os.fork()
    if child == 0:
        done = 0

        def count(event: str, given: tuple[object, ...]) -> None:
            nonlocal done
            if event == "open" and not (isinstance(given[2], int) and given[2] & os.O_CREAT):
                return
            if event in CHANGES:
                done += 1
                if done == change:
                    os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(count)
        work(folder)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    assert status in (0, signal.SIGKILL), status
    return os.WIFSIGNALED(status)


def test_a_writer_that_is_killed_anywhere_leaves_whole_checkpoints_alone(tmp_path: Path) -> None:
    change = 0
    ended = False
    while not ended:
        change += 1
        folder = tmp_path / str(change)
        for step in (1, 2, 3):
            write(folder, step)
        ended = not killed_at(change, save_twice, folder)

        for path in checkpoints.numbered(folder):
            assert examined(checkpoints.at(path).path) is None, (change, path)
        # One that makes room for a newer of its step is only away until the next start.
        replaced = bool(list(folder.glob(".replaced-*/checkpoint-4")))
        reached = 4 if replaced else checkpoints.newest_step(folder)
        commits.tidy(folder)
        assert not list(folder.glob(".*")), change
        assert steps(folder)[-2:] == ([3, 4] if reached == 4 else [2, 3]), change
        for checkpoint in checkpoints.committed(folder):
            assert examined(checkpoint.path) is None, change
        # The next start saves it again, and all is as if nobody had been killed.
        save_twice(folder)
        assert steps(folder) == [3, 4] and not list(folder.glob(".*"))
    assert change > 40
