"""The dense ops as Python sees them, with torch's own functions as reference."""

import pytest
import torch
import torch.nn.functional as F
from ops_library import load_ops

ops = load_ops()


def normal(*shape, grad=True, dtype=torch.float32):
    return torch.randn(shape, dtype=dtype).requires_grad_(grad)


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(1)


def tables(length, head_dim):
    speed = 10000.0 ** (-torch.arange(0, head_dim, 2) / head_dim)
    angle = torch.outer(torch.arange(length).float(), speed)
    return angle.cos(), angle.sin()


CLOCK = torch.tensor([3, 8])


def check(ours, reference, inputs, tolerance=1e-5):
    """Outputs and every gradient agree."""
    ours, reference = ours(*inputs), reference(*inputs)
    torch.testing.assert_close(ours, reference, rtol=tolerance, atol=tolerance)
    weight = torch.randn_like(reference)
    mine = torch.autograd.grad((ours * weight).sum(), inputs)
    theirs = torch.autograd.grad((reference * weight).sum(), inputs)
    for a, b in zip(mine, theirs):
        torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance)


def test_layer_norm():
    check(
        lambda x, w, b: ops.norm(x, w, b, 1e-5, False),
        lambda x, w, b: F.layer_norm(x, (96,), w, b, 1e-5),
        (normal(5, 7, 96), normal(96), normal(96)),
    )


def llama_rms_norm(x, weight, eps):
    wide = x.float()
    wide = wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + eps)
    return weight * wide.to(x.dtype)


@pytest.mark.parametrize("dtype, tolerance", [(torch.float32, 1e-5), (torch.bfloat16, 3e-2)])
def test_rms_norm_is_llamas(dtype, tolerance):
    check(
        lambda x, w: ops.norm(x, w, None, 1e-6, True),
        lambda x, w: llama_rms_norm(x, w, 1e-6),
        (normal(5, 7, 96, dtype=dtype), normal(96, dtype=dtype)),
        tolerance,
    )


def test_add_norm_uses_both_outputs():
    def ours(x, r, w, b):
        y, total = ops.add_norm(x, r, w, b, 1e-5, False)
        return y * 2 + total

    def reference(x, r, w, b):
        return F.layer_norm(x + r, (96,), w, b, 1e-5) * 2 + (x + r)

    check(ours, reference, (normal(4, 96), normal(4, 96), normal(96), normal(96)))


@pytest.mark.parametrize("form", ["tanh", "none"])
def test_bias_gelu(form):
    check(
        lambda x, b: ops.bias_gelu(x, b, form == "tanh"),
        lambda x, b: F.gelu(x + b, approximate=form),
        (normal(5, 7, 96), normal(96)),
    )


def test_swiglu():
    def reference(x, b):
        gate, up = (x + b).chunk(2, -1)
        return F.silu(gate) * up

    check(lambda x, b: ops.swiglu(x, b), reference, (normal(5, 7, 96), normal(96)))


@pytest.mark.parametrize("heads, kv_heads, length", [(4, 4, 8), (6, 2, 33)])
def test_causal_attention(heads, kv_heads, length):
    def reference(qkv):
        q, k, v = qkv.split([heads * 16, kv_heads * 16, kv_heads * 16], -1)
        q, k, v = (x.unflatten(-1, (-1, 16)).transpose(1, 2) for x in (q, k, v))
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True, scale=0.3, enable_gqa=True)
        return y.transpose(1, 2).flatten(2)

    check(
        lambda qkv: ops.causal_attention(qkv, heads, kv_heads, 0.3),
        reference,
        (normal(3, length, (heads + 2 * kv_heads) * 16),),
    )


@pytest.mark.parametrize("rows, inner, outer", [(40, 64, 48), (5, 7, 9)])
def test_linear(rows, inner, outer):
    check(ops.linear, F.linear, (normal(2, rows, inner), normal(outer, inner), normal(outer)))


def rotate_half(x):
    a, b = x.chunk(2, -1)
    return torch.cat((-b, a), -1)


def test_rope_is_llamas():
    cos, sin = tables(12, 16)

    def reference(x):
        c = torch.cat((cos, cos), -1)[3:9, None]
        s = torch.cat((sin, sin), -1)[3:9, None]
        heads = x.view(2, 6, 5, 16)
        turned = heads[:, :, :3] * c + rotate_half(heads[:, :, :3]) * s
        return torch.cat((turned, heads[:, :, 3:]), 2).view(2, 6, 80)

    check(lambda x: ops.rope(x, cos, sin, 3, 3, 16), reference, (normal(2, 6, 80),))


def test_dropout_scales_what_it_keeps_and_its_gradient():
    x = torch.ones(4096, requires_grad=True)
    y = ops.dropout(x, 0.25, 1, 2, CLOCK)
    torch.testing.assert_close(y.detach().unique(), torch.tensor([0.0, 4 / 3]))
    assert abs((y == 0).float().mean().item() - 0.25) < 0.035  # five deviations
    (gradient,) = torch.autograd.grad(y.sum(), x)
    assert torch.equal(gradient, y.detach())


def test_a_wrong_shape_is_named():
    with pytest.raises(RuntimeError, match=r"refract::norm: expected weight of shape \[8\], got \[9\]"):
        ops.norm(normal(2, 8), normal(9), None, 1e-5, True)
