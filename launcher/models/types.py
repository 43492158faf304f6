"""The shape of a decoder-only language model: what its memory depends on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class ModelShape:
    """Sizes as `config.json` states them (counts, not bytes)."""

    name: str
    """A label for people."""
    layers: int
    hidden: int
    intermediate: int
    heads: int
    kv_heads: int
    head_dim: int
    vocab: int
    max_positions: int
    tied_embeddings: bool = False
    qkv_bias: bool = False
    qk_norm: bool = False
    layer_norms: int = 2
    """Norms of width `hidden` in one block (Gemma 2 and 3 have four)."""
    family: str = ""
    """`model_type` of its config.json; empty where only sizes are known."""
    norm: Literal["rms", "layer"] = "rms"
    gated_mlp: bool = True
    """False: two matrices (up, down) instead of three."""
    experts: int = 0
    """Routed experts of a block, each as wide as `intermediate`; 0: a dense MLP."""
    experts_per_token: int = 0
    shared_intermediate: int = 0
    """Width of the expert that every token passes beside the routed ones."""
    dense_layers: int = 0
    """The first blocks of a mixture of experts that have a dense MLP, `dense_intermediate` wide."""
    dense_intermediate: int = 0
    sliding_window: int | None = None
    """Tokens that attention looks back, where every block has the same window."""
    source: str = "table"
    """Where it was read: `config.json`, `hub cache`, `table` or `recipe`."""

    @property
    def embedding_parameters(self) -> int:
        return self.vocab * self.hidden

    @property
    def layer_parameters(self) -> int:
        """Parameters of one transformer block (gated MLP, RMS norms)."""
        q, kv = self.heads * self.head_dim, self.kv_heads * self.head_dim
        attention = self.hidden * (2 * q + 2 * kv)
        bias = q + 2 * kv if self.qkv_bias else 0
        qk_norm = 2 * self.head_dim if self.qk_norm else 0
        mlp = 3 * self.hidden * self.intermediate
        return attention + bias + qk_norm + mlp + self.layer_norms * self.hidden

    @property
    def trunk_parameters(self) -> int:
        """Embedding, blocks and final norm: the model without a head."""
        return self.embedding_parameters + self.layers * self.layer_parameters + self.hidden

    @property
    def parameters(self) -> int:
        """The causal language model with its head (which tied embeddings give for nothing)."""
        head = 0 if self.tied_embeddings else self.embedding_parameters
        return self.trunk_parameters + head
