"""What each model family is made of: one row per family. Every proxy follows from it.

A layer is a list of matrices between norms. A family says which matrices there are, how they are fused, what has a
bias, and what comes before and after the layers. Except for this module, only the trainer knows a family's name. The
facts are those of transformers 5.23; the tests build its models and count.
"""

from dataclasses import dataclass

from jouleline.errors import UserError

PARTS = ("query", "key", "value", "attention_output", "gate", "up", "down")
"""The matrices that a layer can have, in the order in which they run."""
QKV = PARTS[:3]
ENCODER_TASKS = ("classification", "qa", "mlm")


@dataclass(frozen=True)
class Family:
    """The parts of a model. The defaults are those of BERT.

    fused: parts that are one matrix. unfusing: elements moved backward per output of a fused query, key and value, to
    join their gradients. own_kv, own_head_dim: whether kv_heads and head_dim may differ from heads and hidden / heads.
    norm_after: whether a norm follows each block. dropout, attention_dropout: whether training drops elements of each
    block's output, and of the attention's weights. scaled_queries: queries are scaled before the attention. capped:
    scores and logits are capped. softmax_fp32: eager attention's softmax runs in fp32. positions: rows of the learned
    table beyond max_positions; None: rotary. rotary_share: the share of a head that is rotated, where the code splits
    heads for it. windows: share of the layers with a sliding window. split_head: whether tensor parallelism splits the
    head, and with it tied embeddings. modules: the ends of the matrices' module names, in the order of `matrices`.
    """

    tasks: tuple[str, ...] = ENCODER_TASKS
    modules: tuple[str, ...] = (
        *QKV,
        *("attention.output.dense", "intermediate.dense", "output.dense"),
    )
    gated: bool = False
    fused: tuple[tuple[str, ...], ...] = ()
    bias: tuple[str, ...] = PARTS
    own_kv: bool = False
    own_head_dim: bool = False
    qk_norm: bool = False
    norm: str = "layer"
    norms: int = 2
    pre_norm: bool = False
    norm_after: bool = True
    parallel: bool = False
    dropout: bool = True
    attention_dropout: bool = True
    activation: str = "gelu"
    scaled_queries: bool = False
    capped: bool = False
    softmax_fp32: bool = False
    unfusing: float = 0.0
    positions: int | None = 0
    rotary_share: float | None = None
    token_types: int = 0
    embedding_size: int | None = None
    embedding_norm: bool = True
    patches: bool = False
    tied: bool = True
    split_head: bool = False
    windows: float = 0.0
    attentions: tuple[str, ...] = ("sdpa", "eager")

    @property
    def matrices(self) -> tuple[tuple[str, ...], ...]:
        """The matrices of a layer, each as the parts that it fuses. Most have one part."""
        parts = [part for part in PARTS if part != "gate" or self.gated]
        whole = {part: group for group in self.fused for part in group}
        return tuple(dict.fromkeys(whole.get(part, (part,)) for part in parts))

    @property
    def rotary(self) -> bool:
        """Whether positions are rotations of queries and keys instead of a learned table."""
        return self.positions is None

    @property
    def norm_kernel(self) -> str:
        """How the norm is computed: layer, rms, or in Gemma's way."""
        return "gemma" if self.norm == "rms" and self.norms == 4 else self.norm

    @property
    def causal(self) -> bool:
        """Whether a token sees only the tokens before it."""
        return self.tasks == ("clm",)

    @property
    def stops_early(self) -> bool:
        """Whether nothing after the last matrix needs its output. Recomputing a layer then leaves it out."""
        return not (self.norm_after or self.dropout)


def _decoder(**facts) -> Family:
    """A decoder: norms before attention and feed-forward and after the last layer, no dropout, rotary positions."""
    usual = {"tasks": ("clm",), "pre_norm": True, "norm_after": False, "positions": None}
    usual |= {"dropout": False, "attention_dropout": False, "embedding_norm": False}
    return Family(**usual | facts)


def _gated(**facts) -> Family:
    """A decoder like Llama: gated feed-forward, RMS norms, fewer heads for keys and values, no bias."""
    names = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
    usual = {
        "gated": True,
        "norm": "rms",
        "bias": (),
        "own_kv": True,
        "activation": "silu",
        "softmax_fp32": True,
    }
    usual |= {"modules": names}
    return _decoder(**usual | {"own_head_dim": True, "tied": False, "split_head": True} | facts)


_GEMMA = {"norms": 4, "norm_after": True, "tied": True, "activation": "gelu"}

FAMILIES = {
    "bert": Family(token_types=2),
    # Positions count from the padding id + 1.
    "roberta": Family(token_types=1, positions=2),
    "distilbert": Family(modules=("q_lin", "k_lin", "v_lin", "out_lin", "lin1", "lin2")),
    "electra": Family(token_types=2, embedding_size=128),
    "gpt2": _decoder(
        modules=("attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj"),
        **{"fused": (QKV,), "unfusing": 2, "positions": 0, "activation": "gelu_new"},
        **{"dropout": True, "attention_dropout": True},
    ),
    "opt": _decoder(
        modules=("q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2"),
        **{
            "positions": 2,
            "dropout": True,
            "activation": "relu",
            "scaled_queries": True,
            "softmax_fp32": True,
        },
    ),
    "gpt_neox": _decoder(
        modules=("query_key_value", "attention.dense", "dense_h_to_4h", "dense_4h_to_h"),
        **{"fused": (QKV,), "unfusing": 4, "rotary_share": 0.25, "softmax_fp32": True},
        **{"parallel": True, "tied": False, "split_head": True},
    ),
    "llama": _gated(),
    "mistral": _gated(windows=1.0),
    "qwen2": _gated(bias=QKV, own_head_dim=False),
    "qwen3": _gated(qk_norm=True),
    "phi3": _gated(
        modules=("qkv_proj", "o_proj", "gate_up_proj", "down_proj"),
        **{"fused": (QKV, ("gate", "up")), "unfusing": 10, "rotary_share": 1.0},
        **{"own_head_dim": False, "split_head": False, "windows": 1.0},
    ),
    # Scores are capped, and no fused kernel of PyTorch does this.
    "gemma2": _gated(split_head=False, capped=True, windows=1 / 2, attentions=("eager",), **_GEMMA),
    "gemma3": _gated(qk_norm=True, windows=5 / 6, **_GEMMA),
    "vit": Family(
        tasks=("classification",),
        modules=("q_proj", "k_proj", "v_proj", "o_proj", "fc1", "fc2"),
        **{"pre_norm": True, "norm_after": False, "embedding_norm": False, "patches": True},
        **{"dropout": False, "attention_dropout": False},
    ),
}

ENCODERS = tuple(name for name, one in FAMILIES.items() if one.tasks == ENCODER_TASKS)
DECODERS = tuple(name for name, one in FAMILIES.items() if one.causal)

EXPERTS = ("mixtral", "deepseek_v2", "deepseek_v3", "gpt_oss", "dbrx", "jamba", "arctic", "llama4")
"""Mixtures of experts whose names do not say so."""


def family(model_type: str) -> Family:
    """The Family of a model type. Raises UserError, one line, for an unknown type."""
    if model_type in FAMILIES:
        return FAMILIES[model_type]
    if "moe" in model_type or model_type in EXPERTS:
        raise UserError(
            f"model_type {model_type!r} is a mixture of experts, whose work depends on what it reads; "
            f"choose a dense family: {', '.join(FAMILIES)}"
        )
    raise UserError(
        f"model_type {model_type!r} has no description (there are {', '.join(FAMILIES)}); add it to FAMILIES in "
        "jouleline.schemas.families, or count it with jouleline.architecture.counter.flops_from_counter"
    )
