"""The shape of a decoder-only language model: what its memory depends on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

Source = Literal["config.json", "hub cache", "table", "recipe", "hub"]


Kind = Literal["policy", "reward_model"]
"""What a model does: it writes, or judges."""


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
    o_bias: bool = False
    """Bias of the attention's output projection."""
    mlp_bias: bool = False
    head_bias: bool = False
    """Bias of the language model's head (not of a score that takes its place)."""
    qk_norm: bool = False
    wide_qk_norm: bool = False
    """Norms over all heads of q and of k, or one a head, instead of one that heads share."""
    layer_norms: int = 2
    """Norms of width `hidden` in one block (Gemma 2 and 3 have four, Cohere's one)."""
    norm_bias: bool = False
    parallel: bool = False
    """Attention and MLP side by side on the block's input, instead of one after the other."""
    learned_positions: int = 0
    """Rows of a table of position embeddings."""
    family: str = ""
    """`model_type` of its config.json; empty where only sizes are known."""
    norm: Literal["rms", "layer", "python layer"] = "rms"
    """`layer`: torch's own LayerNorm; `python layer`: one that is written in Python (Cohere)."""
    post_norms: bool = False
    """Norms of what attention and MLP give, in place of what they get."""
    activation: Literal["kernel", "gelu_new"] = "kernel"
    """The MLP's function: one kernel (SiLU, GELU), or transformers' `gelu_new`, which is Python."""
    dropout: bool = False
    """Of what attention and MLP give, in training."""
    embedding_dropout: bool = False
    rotary_part: float = 1.0
    """Of each head that rotary positions turn."""
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
    source: Source = "table"
    """Where it was read."""
    adapter: bool = False
    """Whether its files are an adapter alone, on a base of this shape."""
    of_main: bool = False
    """Whether another revision was asked for than the table's, which is `main`."""

    @property
    def embedding_parameters(self) -> int:
        return self.vocab * self.hidden

    @property
    def attention_parameters(self) -> int:
        """Of one block: projections with their biases, norms of queries and keys."""
        q, kv = self.heads * self.head_dim, self.kv_heads * self.head_dim
        biases = (q + 2 * kv) * self.qkv_bias + self.hidden * self.o_bias
        norms = (q + kv if self.wide_qk_norm else 2 * self.head_dim) * self.qk_norm
        return self.hidden * (2 * q + 2 * kv) + biases + norms

    @property
    def norm_parameters(self) -> int:
        """Of one block, beside those of queries and keys."""
        return self.layer_norms * self._norm

    @cached_property
    def layer_parameters(self) -> int:
        """One block; of a mixture of experts, a block with all its experts."""
        return self.attention_parameters + self.norm_parameters + self._routed(self.experts)

    @property
    def dense_layer_parameters(self) -> int:
        """One of the first `dense_layers` blocks."""
        dense = self._mlp(self.dense_intermediate)
        return self.attention_parameters + self.norm_parameters + dense

    @cached_property
    def trunk_parameters(self) -> int:
        """Embeddings, blocks and final norm: the model without a head."""
        return self._trunk(self.layer_parameters)

    @cached_property
    def parameters(self) -> int:
        """The causal language model with its head (which tied embeddings give for nothing)."""
        return self.trunk_parameters + self._head

    @cached_property
    def active_parameters(self) -> int:
        """Those that one token passes: of the routed experts, only its own."""
        passed = self._routed(self.experts_per_token)
        return self._trunk(self.attention_parameters + self.norm_parameters + passed) + self._head

    @property
    def _norm(self) -> int:
        return self.hidden * (2 if self.norm_bias else 1)

    @property
    def _head(self) -> int:
        weight = 0 if self.tied_embeddings else self.embedding_parameters
        return weight + self.vocab * self.head_bias

    def _trunk(self, layer: int) -> int:
        positions = self.learned_positions * self.hidden
        dense = self.dense_layers * self.dense_layer_parameters if self.dense_layers else 0
        blocks = (self.layers - self.dense_layers) * layer + dense
        return self.embedding_parameters + positions + blocks + self._norm

    def _mlp(self, width: int) -> int:
        """A dense MLP, or one expert."""
        matrices, up = (3, 2) if self.gated_mlp else (2, 1)
        bias = (up * width + self.hidden) * self.mlp_bias
        return matrices * self.hidden * width + bias

    def _routed(self, experts: int) -> int:
        """The block's MLP, of which a token or a device sees `experts`."""
        if not self.experts:
            return self._mlp(self.intermediate)
        router = self.experts * self.hidden
        # The shared expert has a gate of one output.
        shared = (
            self._mlp(self.shared_intermediate) + self.hidden if self.shared_intermediate else 0
        )
        return router + experts * self._mlp(self.intermediate) + shared


@dataclass(frozen=True)
class Tokenizer:
    """What of a tokenizer decides whether models and data go together."""

    name: str
    """The folder or hub name that it was read from."""
    template: str | None = None
    """Its chat template (Jinja); None: it has none."""
    eos: str | None = None
    pad: str | None = None
    bos: str | None = None
    vocabulary: Mapping[str, int] | None = None
    """Token → its number, the added ones among them; None where its files do not tell."""
    rows: int | None = None
    """Rows of the embedding of the model beside it; None where there is none."""
    stops: frozenset[int] = frozenset()
    """The numbers of the tokens that end what that model generates, as it says itself."""
    plain: bool = True
    """Whether its files say all of its special tokens; else its class may have others."""
