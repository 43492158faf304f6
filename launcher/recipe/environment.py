"""Which environment variables a recipe may set: none that change what code runs, no secrets."""

from __future__ import annotations

import re

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}")
_CODE = re.compile(
    r"LD_\w+|DYLD_\w+|PYTHON\w*|BASH\w*|ENV|PATH|HOME|SHELL|SHELLOPTS|IFS|PS4|PROMPT_COMMAND"
    r"|GCONV_PATH|PERL5\w*|GIT_\w+|TMPDIR|VIRTUAL_ENV|TORCH_EXTENSIONS_DIR|CC|CXX|NVCC\w*"
    r"|HF_HUB_TRUST\w*|HF_MODULES_CACHE"
)
_OWNED = re.compile(
    r"SLURM\w*|SBATCH_\w+|SRUN_\w+|SUBMITIT\w*|LAUNCHER_\w+|RANK|LOCAL_RANK|WORLD_SIZE"
    r"|LOCAL_WORLD_SIZE|NODE_RANK|GROUP_RANK|MASTER_ADDR|MASTER_PORT|ACCELERATE_\w+"
    r"|CUDA_VISIBLE_DEVICES|ROCR_VISIBLE_DEVICES|HIP_VISIBLE_DEVICES"
)
_SECRET = re.compile(r"(?i).*(TOKEN|API_?KEY|SECRET|PASSWORD|PASSWD|CREDENTIALS?|ACCESS_KEY\w*)")


def refusal(name: str) -> str | None:
    """Why a recipe may not set the variable `name`; None: it may."""
    if is_secret(name):
        return "a recipe is no place for a secret; log in on the cluster (`hf auth login`)"
    return reserved(name)


def reserved(name: str) -> str | None:
    """Why nobody but the cluster profile may set the variable `name`; None: others may."""
    if not _NAME.fullmatch(name):
        return "a variable's name is letters, digits and _, and does not start with a digit"
    if _CODE.fullmatch(name.upper()):
        return "it changes what code runs; put it into the cluster profile's `setup`"
    if _OWNED.fullmatch(name.upper()):
        return "the launcher and Slurm set it for each task"
    return None


def is_secret(name: str) -> bool:
    """Whether a variable of this name holds a secret, as far as names tell."""
    return _NAME.fullmatch(name) is not None and _SECRET.fullmatch(name) is not None
