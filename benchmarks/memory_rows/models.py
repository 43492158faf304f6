"""Which model a row means: its name as people write it → a shape. Never guessed from a size."""

from __future__ import annotations

import re
from functools import lru_cache

from benchmarks.memory_rows.case import Unknowable
from benchmarks.memory_rows.row import Row
from launcher.models.table import known, names
from launcher.models.types import ModelShape

_ENDINGS = re.compile(
    r"(-hf|-chat|-instruct|-base|-base-\d+|-it|-pt|-v\d+(\.\d+)*|-(4|8)bit|-gptq|-\d+k)$"
)
"""What a hub name appends to the model and its size: a tuning, a version, a format."""
_TOLERANCE = 0.06
"""Between a row's stated parameters and the shape's: sources round, or count a head twice."""


def shape_of_row(row: Row) -> ModelShape:
    """Raises Unknowable where the name, or the number of parameters beside it, fits no model.

    A number that only repeats the label (`StableLM Alpha-3B` has 3.64 B) is no count.
    """
    if "encdec" in (kind := _kind(row.model)):
        raise Unknowable("an encoder-decoder; the launcher trains decoder-only models")
    if "vision" in kind or "VLM" in row.method:
        raise Unknowable("a vision-language model; the launcher trains text models")
    found = _old(row.model) or _published(row.model)
    if found is None:
        raise Unknowable(f"the sizes of model {row.model!r} are not known")
    stated = row.params_b
    labelled = stated is not None and re.search(rf"(?<![\d.]){stated:g}b", row.model.lower())
    if stated and not labelled and abs(found.parameters / 1e9 / stated - 1) > _TOLERANCE:
        billions = found.parameters / 1e9
        raise Unknowable(
            f"{row.model!r} is stated with {stated} B parameters, {found.name} has {billions:.2f} B"
        )
    return found


def plain(name: str) -> str:
    """A name without organisation, remarks, tuning and version, in letters and digits only:
    `meta-llama/Llama-2-7b-hf`, `Llama 2 7B` and `llama2-7b` are one."""
    short = re.sub(r"\(.*?\)", "", name).strip().rsplit("/", 1)[-1].lower()
    short = re.sub(r"[\s_]+", "-", short)
    short = short.removeprefix("meta-")
    while (less := _ENDINGS.sub("", short)) != short and re.search(r"\d", less):
        short = less
    return re.sub(r"[^a-z0-9]", "", short)


def _published(name: str) -> ModelShape | None:
    index, short = _index(), plain(name)
    sizeless = re.sub(r"(?<=\d)[\s-]+[\d.]+[bm]$", "", name.lower())
    return known(index.get(short) or index.get(plain(sizeless)) or _NICKNAMES.get(short, name))


@lru_cache(maxsize=1)
def _index() -> dict[str, str]:
    """Of names that shorten to the same, the first: the table lists base models first."""
    found: dict[str, str] = {}
    for name in names():
        found.setdefault(plain(name), name)
    return found


def _kind(name: str) -> str:
    short = plain(name)
    if re.match(r"(t0|t5|mt0|mt5|flant5|bart)", short):
        return "encdec"
    return "vision" if re.search(r"(minicpm.*v|llava|vl\d)", short) else ""


def _old(name: str) -> ModelShape | None:
    short = plain(name)
    return next((shape for key, shape in _OLD.items() if key.match(short)), None)


def _qwen1(label: str, layers: int, hidden: int, inner: int, heads: int) -> ModelShape:
    """Qwen of 2023: Llama's block with biases of q, k, v from one matrix, `c_attn`.

    `intermediate_size` of its config.json counts gate and up together.
    """
    return ModelShape(
        name=label,
        layers=layers,
        hidden=hidden,
        intermediate=inner,
        heads=heads,
        kv_heads=heads,
        head_dim=128,
        vocab=151936 if hidden < 5120 else 152064,
        max_positions=8192,
        qkv_bias=True,
        family="qwen",
    )


_NICKNAMES = {
    "tinyllama": "TinyLlama/TinyLlama-1.1B-Chat-v1.0",
    "phi3": "microsoft/Phi-3-mini-4k-instruct",
    "phi3mini": "microsoft/Phi-3-mini-4k-instruct",
}
"""Folder names of litgpt's recipes."""
_OLD: dict[re.Pattern[str], ModelShape] = {
    # Published config.json of each; these are in no table of models that people train today.
    re.compile(r"qwen1?18b$"): _qwen1("Qwen/Qwen-1_8B", 24, 2048, 5504, 16),
    re.compile(r"qwen1?7b$"): _qwen1("Qwen/Qwen-7B", 32, 4096, 11008, 32),
    re.compile(r"qwen1?14b$"): _qwen1("Qwen/Qwen-14B", 40, 5120, 13696, 40),
    re.compile(r"qwen1?72b$"): _qwen1("Qwen/Qwen-72B", 80, 8192, 24576, 64),
    re.compile(r"(gptbigcode)?santacoder(11b)?$"): ModelShape(
        name="bigcode/gpt_bigcode-santacoder",
        layers=24,
        hidden=2048,
        intermediate=8192,
        heads=16,
        kv_heads=1,
        head_dim=128,
        vocab=49280,
        max_positions=2048,
        tied_embeddings=True,
        qkv_bias=True,
        o_bias=True,
        mlp_bias=True,
        learned_positions=2048,
        norm="layer",
        norm_bias=True,
        gated_mlp=False,
        family="gpt_bigcode",
    ),
    re.compile(r"stablelm(base)?alpha3b$"): ModelShape(
        name="stabilityai/stablelm-base-alpha-3b",
        layers=16,
        hidden=4096,
        intermediate=16384,
        heads=32,
        kv_heads=32,
        head_dim=128,
        vocab=50432,
        max_positions=4096,
        qkv_bias=True,
        o_bias=True,
        mlp_bias=True,
        norm="layer",
        norm_bias=True,
        gated_mlp=False,
        parallel=True,
        family="gpt_neox",
    ),
    re.compile(r"falcon7b$"): ModelShape(
        name="tiiuae/falcon-7b",
        layers=32,
        hidden=4544,
        intermediate=18176,
        heads=71,
        kv_heads=1,
        head_dim=64,
        vocab=65024,
        max_positions=2048,
        tied_embeddings=True,
        layer_norms=1,
        norm="layer",
        norm_bias=True,
        gated_mlp=False,
        parallel=True,
        family="falcon",
    ),
    re.compile(r"codellama13b$"): ModelShape(
        name="codellama/CodeLlama-13b-hf",
        layers=40,
        hidden=5120,
        intermediate=13824,
        heads=40,
        kv_heads=40,
        head_dim=128,
        vocab=32016,
        max_positions=16384,
        family="llama",
    ),
    re.compile(r"powerlm3b$"): ModelShape(
        name="ibm/PowerLM-3b",
        layers=40,
        hidden=2304,
        intermediate=9216,
        heads=36,
        kv_heads=36,
        head_dim=64,
        vocab=49152,
        max_positions=4096,
        tied_embeddings=True,
        family="granite",
    ),
}
