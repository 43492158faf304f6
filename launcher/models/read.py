"""A model's shape from its parsed `config.json`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from launcher.errors import UsageError
from launcher.models.families import WAY_OUT, Family, Given, family_of
from launcher.models.types import ModelShape, Source

PYTHON_ACTIVATIONS = frozenset({"gelu_new", "gelu_fast", "gelu_accurate", "gelu_python"})
"""transformers' functions that are no kernel; each keeps about what `gelu_new` does."""
_EXPERTS = ("num_local_experts", "num_experts", "n_routed_experts", "moe_num_experts")


def read_shape(
    config: Mapping[str, Any], name: str = "", source: Source = "config.json"
) -> ModelShape:
    """The shape that a parsed `config.json` states: its counts are those of the model that
    transformers builds from it.

    Raises UsageError for a family that is not in `FAMILIES`, for models that are not one decoder
    (vision, encoder–decoder), and where a size is missing or a part is one that is not counted:
    nothing is guessed.
    """
    label = name or str(config.get("_name_or_path") or "the model")
    return _Reading(config, label, _family(config, label)).shape(source)


def _family(config: Mapping[str, Any], label: str) -> Family:
    name = str(config.get("model_type") or "")
    if config.get("is_encoder_decoder") or "text_config" in config or "vision_config" in config:
        raise UsageError(
            f"{label}: {name or 'this model'} is not a decoder-only text model",
            hint="use a causal language model",
        )
    return family_of(name, label)


class _Reading:
    def __init__(self, config: Mapping[str, Any], label: str, family: Family) -> None:
        self.config, self.label, self.family = config, label, family

    def shape(self, source: Source) -> ModelShape:
        family, config = self.family, self.config
        self._refuse_other_parts()
        hidden, heads = self.size("hidden_size"), self.size("num_attention_heads")
        positions = self.size("max_position_embeddings")
        dense = self._dense_layers() if family.expert_width else 0
        mixture = family.expert_width is not None
        joined = family.joined_norm is not None and self.flag(family.joined_norm)
        return ModelShape(
            name=self.label,
            layers=self.size("num_hidden_layers"),
            hidden=hidden,
            intermediate=self._width(hidden),
            heads=heads,
            kv_heads=self._kv_heads(heads),
            head_dim=self.size("head_dim", family.head_dim or max(1, hidden // heads)),
            vocab=self.size("vocab_size"),
            max_positions=positions,
            tied_embeddings=self.flag("tie_word_embeddings", family.tied),
            qkv_bias=self.given(family.qkv_bias),
            o_bias=self.given(family.o_bias),
            mlp_bias=self.given(family.mlp_bias),
            head_bias=family.head_bias,
            qk_norm=self.given(family.qk_norm),
            wide_qk_norm=family.wide_qk_norm,
            layer_norms=family.layer_norms - joined,
            norm_bias=family.norm_bias,
            parallel=self.given(family.parallel),
            learned_positions=positions if family.learned_positions else 0,
            family=str(config["model_type"]),
            norm=family.norm,
            post_norms=family.post_norms,
            activation="gelu_new" if self._is_python() else "kernel",
            dropout=self._drops(family.dropout),
            embedding_dropout=self._drops(family.embedding_dropout),
            rotary_part=self._rotary_part(),
            gated_mlp=family.gated_mlp,
            experts=self.size(family.experts) if mixture else 0,
            experts_per_token=self.size("num_experts_per_tok") if mixture else 0,
            shared_intermediate=self.size(family.shared_width) if family.shared_width else 0,
            dense_layers=dense,
            dense_intermediate=self.size("intermediate_size") if dense else 0,
            sliding_window=self._window(),
            source=source,
        )

    def size(self, key: str, default: int | None = None) -> int:
        value = self.config.get(key)
        if value is None:
            value = self.config.get(self.family.names.get(key, key))
        if value is None and default is not None:
            return default
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            given = "is missing" if value is None else f"is {value!r}, not a positive whole number"
            raise UsageError(
                f"{self.label}: `{key}` {given} in its configuration",
                hint="point to a decoder-only model saved by transformers",
            )
        return value

    def flag(self, key: str, default: bool | None = None) -> bool:
        value = self.config.get(key)
        otherwise = self.family.flags.get(key, False) if default is None else default
        return otherwise if value is None else bool(value)

    def given(self, part: Given) -> bool:
        return part if isinstance(part, bool) else self.flag(part)

    def _width(self, hidden: int) -> int:
        """Of the MLP, or of one expert."""
        if self.family.expert_width is not None:
            return self.size(self.family.expert_width)
        # GPT-2's MLP is four times as wide as the rest where the file does not say.
        return self.size("intermediate_size", 4 * hidden if self.family.learned_positions else None)

    def _kv_heads(self, heads: int) -> int:
        if "multi_query" in self.family.flags:
            return 1 if self.flag("multi_query") else heads
        if not self.family.grouped:
            return heads
        # A null stands for as many as heads; a family's own number, for a file that is silent.
        silent = "num_key_value_heads" not in self.config
        return self.size("num_key_value_heads", (silent and self.family.kv_heads) or heads)

    def _window(self) -> int | None:
        """The tokens of a window that every block has."""
        if self.family.window not in ("all", "flag"):
            return None
        if self.family.window == "flag" and not self.flag("use_sliding_window"):
            return None
        if self.config.get("sliding_window", self.family.window_tokens) is None:
            return None
        return self.size("sliding_window", self.family.window_tokens)

    def _is_python(self) -> bool:
        """Whether the MLP's function is made of several operations."""
        key, otherwise = self.family.activation
        return (self.config.get(key) or otherwise) in PYTHON_ACTIVATIONS

    def _drops(self, part: tuple[str, float] | None) -> bool:
        if part is None:
            return False
        key, otherwise = part
        value = self.config.get(key, otherwise)
        return bool(value)

    def _rotary_part(self) -> float:
        if self.family.rotary is None:
            return 1.0
        keys, otherwise = self.family.rotary
        rope = self.config.get("rope_parameters") or {}
        for key in keys:
            value = self.config.get(key, rope.get(key))
            if isinstance(value, int | float) and 0 < value <= 1:
                return float(value)
        return otherwise

    def _dense_layers(self) -> int:
        """How many blocks, from the first, have a dense MLP. Raises UsageError for others."""
        dense = self.config.get("mlp_only_layers") or []
        step = self.config.get("decoder_sparse_step", 1)
        if step != 1 or sorted(dense) != list(range(len(dense))):
            self._refuse("dense blocks between those with experts")
        return len(dense)

    def _refuse_other_parts(self) -> None:
        if self.family.expert_width is None and any(self.config.get(key) for key in _EXPERTS):
            self._refuse("experts, which its family does not have")
        if self.config["model_type"] == "phi" and self.config.get("qk_layernorm"):
            self._refuse("norms of queries and keys with biases")
        if self.config.get("add_cross_attention"):
            self._refuse("cross-attention")

    def _refuse(self, what: str) -> None:
        family = self.config["model_type"]
        raise UsageError(
            f"{self.label}: a {family} model with {what} cannot be sized", hint=WAY_OUT
        )
