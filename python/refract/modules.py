"""Modules that hand their tensors to the ops."""
import torch
from torch import nn

from refract import masked_attention
from refract.library import ops


class Clock:
    """What a model's layers know of a call: (optimizer step, first sequence in the global batch), which noise is counted by, on every
    device that asks; and which tokens are not padding."""

    def __init__(self):
        self.step, self.sequence, self.tensors = 0, 0, {}
        self.tokens = None  # bool [B, T]; None: all

    def set(self, step, sequence):
        self.step, self.sequence, self.tensors = step, sequence, {}

    def on(self, device, training):
        key = (device, training)
        if key not in self.tensors:
            # The program's evaluations belong to no step, which it writes as -1.
            self.tensors[key] = torch.tensor([self.step if training else -1, self.sequence], device=device)
        return self.tensors[key]


def set_clock(model, step, sequence=0):
    """Noise is a function of the seed, the layer, `step` and each element's place in the global batch, whose first sequence
    this process has is `sequence`. Call it before every optimizer step."""
    if not hasattr(model, "refract_clock"):
        raise ValueError("set_clock is for a model that apply_rules has changed")
    model.refract_clock.set(step, sequence)


def stream_id(name):
    """The program's id of a named random stream (FNV-1a), as the signed integer that ops take."""
    value = 0xCBF29CE484222325
    for byte in name.encode():
        value = (value ^ byte) * 0x100000001B3 % 2**64
    return value - 2**64 if value >= 2**63 else value


def unset_range():
    return torch.tensor([float("inf"), float("-inf")])


class OpticalSettings:
    """What the optical ops take beside tensors."""

    def __init__(self, parameters, streams, clock, seed):
        self.parameters, self.clock, self.seed = parameters, clock, seed
        self.streams = [stream_id(f"optical:{parameters.q_init_seed}:{name}") for name in streams]

    def arguments(self, device, training):
        p = self.parameters
        return dict(levels=p.q_levels, lut_min=p.q_lut_min, smooth=p.q_smooth_factor, quantiles=p.q_quantiles,
                    train=training, clipped_ranges=p.clips_ranges, noise=p.noise, shared_noise=p.shared_noise,
                    clock=self.clock.on(device, training), seed=self.seed, streams=self.streams)


class OpticalLinear(nn.Module):
    """One linear layer, or several that lie side by side in one weight (GPT-2's c_attn). Takes over the parameters of an
    nn.Linear or, transposed, of a Conv1D under their own names, and holds the ranges as buffers."""

    def __init__(self, base, names, settings, transposed):
        super().__init__()
        self.weight, self.bias, self.transposed, self.settings = base.weight, base.bias, transposed, settings
        rows = base.weight.shape[1 if transposed else 0]
        self.splits = [rows // len(names)] * len(names)
        self.members = [name.rsplit(".", 1)[1] + "_" if len(names) > 1 else "" for name in names]
        self.register_buffer("x_range", unset_range())
        for member in self.members:
            self.register_buffer(member + "w_range", unset_range())
            self.register_buffer(member + "out_range", unset_range())

    def forward(self, x):
        return self.product(x, self.weight.t() if self.transposed else self.weight)

    def product(self, x, weight):
        if self.settings.parameters.q_bypass:
            return nn.functional.linear(x, weight, self.bias)
        tokens = self.settings.clock.tokens
        if not self.training or tokens is None or x.shape[:-1] != tokens.shape:
            return self.product(x, weight)
        # Padding enters no range, and ranges move in training only.
        y = self.product(x[tokens].unsqueeze(0), weight)
        return y.new_zeros(*x.shape[:-1], y.shape[-1]).index_put((tokens,), y.squeeze(0))

    def product(self, x, weight):
        w_ranges = [getattr(self, member + "w_range") for member in self.members]
        out_ranges = [getattr(self, member + "out_range") for member in self.members]
        return ops.optical_linear(x, weight, self.bias, self.x_range, w_ranges, out_ranges, self.splits, [],
                                  self.training, **self.settings.arguments(x.device, self.training))


class LoraLinear(nn.Module):
    """y = base(x) + alpha / r * B A drop(x), or the base with W + alpha / r * B A in place of W; the base is frozen.
    Parameters are named as in the program's runs."""

    def __init__(self, base, parameters, in_features, out_features, transposed):
        super().__init__()
        self.base, self.scale = base, parameters.alpha / parameters.r
        self.merged, self.transposed = parameters.adapter == "merged", transposed
        self.dropout = nn.Dropout(parameters.dropout)
        held = next(base.parameters())
        like = dict(device=held.device, dtype=held.dtype, bias=False)
        self.lora_A = nn.Linear(in_features, parameters.r, **like)
        self.lora_B = nn.Linear(parameters.r, out_features, **like)
        bound = in_features**-0.5  # PEFT's start: kaiming uniform with a = sqrt(5)
        nn.init.uniform_(self.lora_A.weight, -bound, bound)
        nn.init.zeros_(self.lora_B.weight)

    def forward(self, x):
        if not self.merged:
            return self.base(x) + self.lora_B(self.lora_A(self.dropout(x))) * self.scale
        weight = self.base.weight.t() if self.transposed else self.base.weight
        weight = weight + self.lora_B.weight @ self.lora_A.weight * self.scale
        if isinstance(self.base, OpticalLinear):
            return self.base.product(x, weight)
        return nn.functional.linear(x, weight, self.base.bias)


class OpticalAttention(nn.Module):
    """The two matmuls of one attention. q, k, v as `transformers` passes them, [B, heads, T, D] -> [B, T, H, D]."""

    def __init__(self, settings):
        super().__init__()
        self.settings = settings
        self.register_buffer("ranges", unset_range().repeat(5, 1))

    def forward(self, q, k, v, scale, mask=None):
        """mask: [B, 1, T, S], bool (true: a query sees a key) or what is added to scores; None: causal."""
        if mask is not None:
            sees = mask if mask.dtype == torch.bool else mask > torch.finfo(mask.dtype).min / 2
            sees = sees.expand(q.shape[0], 1, q.shape[2], k.shape[2])
            return masked_attention.optical_attention(q, k, v, sees, self.ranges, self.settings, scale, self.training)
        return ops.optical_attention(
            q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2), self.ranges, scale,
            self.settings.parameters.scales_qk_range, **self.settings.arguments(q.device, self.training))
