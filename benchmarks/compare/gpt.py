"""GPT-2 in plain PyTorch, the peer that refract is compared with.

Written as one would write it for speed without leaving PyTorch: one GEMM for q, k and v, scaled_dot_product_attention,
cross_entropy, a fused optimizer. It is the same function of the same parameters as refract's decoder with GPT-2's
settings: pre-norm LayerNorm, learned positions, GELU (tanh), biases everywhere, dropout 0.
"""

import dataclasses
import math

import torch
from torch import nn
from torch.nn import functional as F


@dataclasses.dataclass(frozen=True)
class Size:
    vocab: int
    width: int
    context: int
    layers: int
    heads: int
    batch: int  # sequences per step
    tied: bool = True


# The sizes of the connectivity study and GPT-2 small.
PRESETS = {
    "tinygpt": Size(vocab=65, width=64, context=8, layers=4, heads=4, batch=32),
    "toygpt": Size(vocab=50257, width=32, context=8, layers=4, heads=4, batch=32),
    "compactgpt": Size(vocab=50257, width=192, context=64, layers=6, heads=6, batch=32),
    "mingpt": Size(vocab=50257, width=384, context=256, layers=6, heads=6, batch=32),
    "gpt2": Size(vocab=50257, width=768, context=1024, layers=12, heads=12, batch=32),
}


class Attention(nn.Module):
    def __init__(self, size: Size):
        super().__init__()
        self.heads = size.heads
        self.qkv = nn.Linear(size.width, 3 * size.width)
        self.out = nn.Linear(size.width, size.width)

    def forward(self, x):  # [B, T, C]
        batch, length, width = x.shape
        qkv = self.qkv(x).view(batch, length, 3, self.heads, width // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)  # each [B, H, T, D]
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.out(y.transpose(1, 2).reshape(batch, length, width))


class Layer(nn.Module):
    def __init__(self, size: Size):
        super().__init__()
        self.attention_norm = nn.LayerNorm(size.width)
        self.attention = Attention(size)
        self.mlp_norm = nn.LayerNorm(size.width)
        self.up = nn.Linear(size.width, 4 * size.width)
        self.down = nn.Linear(4 * size.width, size.width)

    def forward(self, x):
        x = x + self.attention(self.attention_norm(x))
        return x + self.down(F.gelu(self.up(self.mlp_norm(x)), approximate="tanh"))


class Gpt(nn.Module):
    def __init__(self, size: Size):
        super().__init__()
        self.size = size
        self.tokens = nn.Embedding(size.vocab, size.width)
        self.positions = nn.Embedding(size.context, size.width)
        self.layers = nn.ModuleList(Layer(size) for _ in range(size.layers))
        self.norm = nn.LayerNorm(size.width)
        self.head = nn.Linear(size.width, size.vocab, bias=False)
        if size.tied:
            self.head.weight = self.tokens.weight
        self.apply(self._initialise)
        nn.init.normal_(self.positions.weight, std=0.01)

    @staticmethod
    def _initialise(module):
        """Linear layers and embeddings N(0, 0.02^2), biases zero; LayerNorm stays at one and zero."""
        if isinstance(module, (nn.Linear, nn.Embedding)):
            nn.init.normal_(module.weight, std=0.02)
        if isinstance(module, nn.Linear) and module.bias is not None:
            nn.init.zeros_(module.bias)

    def forward(self, ids, targets=None):
        """ids [B, T] -> logits [B, T, V], or the mean loss over targets [B, T] in nats."""
        x = self.tokens(ids) + self.positions.weight[: ids.shape[1]]
        for layer in self.layers:
            x = layer(x)
        logits = self.head(self.norm(x))
        if targets is None:
            return logits
        return F.cross_entropy(logits.flatten(0, 1), targets.flatten())


def make_optimizer(model: nn.Module, lr: float = 6e-4, weight_decay: float = 0.0):
    """Adam, or AdamW with decay on the matrices only, in its one-launch form on CPU and CUDA."""
    if weight_decay == 0:
        return torch.optim.Adam(model.parameters(), lr=lr, betas=(0.9, 0.95), eps=1e-8, fused=True)
    matrices = [p for p in model.parameters() if p.dim() >= 2]
    vectors = [p for p in model.parameters() if p.dim() < 2]
    groups = [{"params": matrices, "weight_decay": weight_decay}, {"params": vectors, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=lr, betas=(0.9, 0.95), eps=1e-8, fused=True)


def learning_rate(step: int, steps: int, warmup: int, peak: float = 6e-4, low: float = 6e-5) -> float:
    """Linear warm-up from `low` to `peak`, then a cosine back to `low`, for step 0 to steps - 1."""
    if step < warmup:
        return low + (peak - low) * step / warmup
    progress = (step - warmup) / max(1, steps - warmup)
    return low + (peak - low) * 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))


def training_flops_per_token(size: Size) -> float:
    """As src/analysis/flops.h counts: matrix products, attention in full, head, three times the forward pass."""
    c, t = size.width, size.context
    per_layer = 4 * c * c + 8 * c * c + 2 * t * c
    return 3 * 2 * (size.layers * per_layer + c * size.vocab)
