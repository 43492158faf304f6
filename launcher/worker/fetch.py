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
    from huggingface_hub import snapshot_download

    wanted = [kind for kind in SAFE if asset["kind"] == "model" or kind != _WEIGHTS]
    if asset.get("code"):
        wanted.append("*.py")
    folder = Path(snapshot_download(name, allow_patterns=wanted))
    if asset["kind"] == "model" and not any(folder.glob(_WEIGHTS)):
        raise ValueError("it has no weights in safetensors on the hub; pickles are never loaded")


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
