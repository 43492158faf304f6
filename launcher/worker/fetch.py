"""From the hub into this machine's cache, where a login node starts it before it queues a chain.

python -m launcher.worker.fetch < ASSETS

ASSETS is JSON: a list of `kind` (`model`, `tokenizer`, `data`), `name`, `config`, and `code`, which
says whether a model's own code comes along. One process at a time fetches an asset; the lock is the
kernel's, so that one of a dead process is none.
"""

from __future__ import annotations

import fcntl
import json
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from launcher.models import cache
from launcher.records import files
from launcher.worker import secrets

SAFE = ["*.json", "*.safetensors", "*.model", "*.txt", "*.jinja", "*.tiktoken"]
"""What is fetched of a model: no pickles, and code where it may run alone."""
_WEIGHTS = "*.safetensors"


def main() -> int:
    """Exit code 0 with all of them in the cache; 1 after a line about the first that is not."""
    os.umask(0o077)
    hide = secrets.hider(os.environ)
    for asset in json.load(sys.stdin):
        try:
            with _alone(asset):
                _fetch(asset)
        except Exception as error:
            words = " ".join(str(error).split()) or type(error).__name__
            print(f"error: {asset['name']}: {hide(words)}", file=sys.stderr)
            return 1
    return 0


def _fetch(asset: Mapping[str, Any]) -> None:
    name = str(asset["name"])
    if asset["kind"] == "data":
        from datasets import load_dataset

        load_dataset(name, asset["config"])
        return
    weights = asset["kind"] == "model"
    folder = model(name, weights=weights, code=bool(asset.get("code")))
    if weights and not any(folder.glob(_WEIGHTS)):
        raise ValueError("it has no weights in safetensors on the hub; pickles are never loaded")


def model(reference: str, *, weights: bool, code: bool) -> Path:
    """The folder in the cache with all of a hub's model, or of its tokenizer alone; the hub is
    asked. Raises what huggingface_hub raises."""
    from huggingface_hub import snapshot_download

    name, revision = cache.split(reference)
    wanted = [kind for kind in SAFE if weights or kind != _WEIGHTS]
    if code:
        wanted.append("*.py")
    return Path(snapshot_download(name, revision=revision, allow_patterns=wanted))


@contextmanager
def _alone(asset: Mapping[str, Any]) -> Iterator[None]:
    """Hold the lock of an asset, and wait for it."""
    folder = cache.hub_cache(os.environ, Path.home()) / ".locks"
    files.private_folder(folder)
    name = f"launcher-{asset['kind']}-{str(asset['name']).replace('/', '--')}.lock"
    descriptor = os.open(folder / name, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, files.PRIVATE_FILE)
    try:
        fcntl.lockf(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


if __name__ == "__main__":
    sys.exit(main())
