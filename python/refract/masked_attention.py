"""Optical attention over keys of which some are masked, such as those of padding.

The kernels of refract::optical_attention know causal sequences of one length. Here the same definition (ops/optical/attention/attention.h)
is put together from the ops that quantize and that move ranges: what is masked enters no product and no range."""
import torch

from refract.library import ops

QUERY, KEY, SCORE, VALUE, OUTPUT = range(5)  # the rows of the ranges


def straight_through(exact, computed):
    """The computed value, with the gradient of the exact one."""
    return exact + (computed - exact).detach()


def effective(moved, seen):
    """The range that a call quantizes with: the learned one, or what the call sees where there is none yet."""
    return torch.where(moved[0] > moved[1], seen, moved)


class Ranges:
    """The five ranges of one call: what it saw, what it quantizes with, and how they move."""

    def __init__(self, learned, settings, training):
        self.learned, self.settings, self.training = learned, settings, training
        self.parameters = settings.parameters
        self.used = learned.clone()

    def look(self, role, values, scale=1.0):
        """`values`: all that counts, flat. Returns the range to quantize them with."""
        if values.numel() == 0:  # a batch of padding
            return self.used[role]
        p, seen = self.parameters, torch.full_like(self.learned[role], float("inf"))
        seen[1] = float("-inf")
        ops.optical_observe_(seen, values.contiguous(), 0.0, p.q_quantiles)
        seen = seen * scale
        self.used[role] = effective(self.learned[role], seen)
        if self.training:
            if p.clips_ranges and role in (SCORE, OUTPUT):
                seen = seen.clamp(self.used[role][0], self.used[role][1])
            ops.optical_observe_(self.learned[role], seen, p.q_smooth_factor, [])
        return self.used[role]


def quantized(x, used, settings, lut_min=0.0, stream=None, training=False):
    p, options = settings.parameters, {}
    if stream is not None:
        options = dict(noise=p.noise, shared_noise=p.shared_noise, clock=settings.clock.on(x.device, training), seed=settings.seed,
                       stream=settings.streams[stream])
    return ops.optical_quantize(x.contiguous(), used, p.q_levels, lut_min, **options)


def optical_attention(q, k, v, sees, learned, settings, scale, training):
    """q [B, H, T, D], k and v [B, K, S, D], sees bool [B, 1, T, S] -> [B, T, H, D]; the ranges in `learned` move in training.

    The output of a query that sees nothing is 0."""
    dtype, groups = q.dtype, q.shape[1] // k.shape[1]
    q, k, v = (x.float() for x in (q, k, v))
    # A token of padding is masked as a key, for itself too; as a query it may see others, which counts for nothing either.
    tokens = sees.diagonal(sees.shape[3] - sees.shape[2], 2, 3).squeeze(1)
    sees = sees & tokens[:, None, :, None]
    keys = sees.any(2).squeeze(1)
    ranges, floor = Ranges(learned, settings, training), settings.parameters.q_lut_min
    with torch.no_grad():
        query = quantized(q, ranges.look(QUERY, q.transpose(1, 2)[tokens]), settings)
        key = quantized(k, ranges.look(KEY, k.transpose(1, 2)[keys]), settings, floor)
        value = quantized(v, ranges.look(VALUE, v.transpose(1, 2)[keys]), settings, floor)
    k, v, key, value = (x.repeat_interleave(groups, 1) for x in (k, v, key, value))
    exact = q @ k.transpose(2, 3)
    shown = sees.expand_as(exact)
    with torch.no_grad():
        scores = query @ key.transpose(2, 3)
        used = ranges.look(SCORE, scores[shown], scale if settings.parameters.scales_qk_range else 1.0)
        scores = quantized(scores, used, settings, stream=0, training=training)
    scaled = straight_through(exact, scores) * scale
    p = torch.softmax(scaled.masked_fill(~shown, torch.finfo(scaled.dtype).min), -1) * shown
    exact = p @ v
    with torch.no_grad():
        unit = torch.arange(2.0, device=p.device)
        y = quantized(p, unit, settings) @ value
        used = ranges.look(OUTPUT, y.transpose(1, 2)[tokens])
        y = quantized(y.transpose(1, 2), used, settings, stream=1, training=training)
    out = straight_through(exact.transpose(1, 2), y)
    return out.masked_fill(~tokens[:, :, None, None], 0).to(dtype)
