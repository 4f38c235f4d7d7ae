"""The optical ops as Python sees them, with mase-triton's CPU functions as reference."""

import pytest
import torch
from ops_library import load_ops

ops = load_ops()

LUT_MIN = 0.020040


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(1)


# ---- mase-triton's CPU functions


@pytest.fixture(scope="module")
def mase():
    return pytest.importorskip("mase_triton.optical_compute").OpticalTransformerFunctions


def levels_between(ours, theirs, lo, hi, levels):
    return (ours - theirs).abs() / ((hi - lo) / (levels - 1))


@pytest.mark.parametrize("lo, hi", [(-2.0, 3.0), (-1.0, 1.0), (0.0, 5.0), (0.25, 2.0), (-3.0, -0.5)])
@pytest.mark.parametrize("lut_min", [None, LUT_MIN])
@pytest.mark.parametrize("levels", [256, 16])
def test_deterministic_quantization_is_mase_tritons(mase, lo, hi, lut_min, levels):
    x = torch.randn(200_000) * 1.5
    theirs, _ = mase.quantize_fn(x, 0, levels, lo, hi, lut_min, "det")
    ours = ops.optical_quantize(x, torch.tensor([lo, hi]), levels, lut_min or 0.0)
    off = levels_between(ours, theirs, lo, hi, levels)
    # Equal but for fp32's last place; where u lies within two roundings of the middle of two levels
    # (2 * 2^-24 * levels of it on either side) the neighbouring level is as right.
    other = off > 1e-4
    assert off.max() < 1.001 or lut_min, "never further than a level"
    u = (x.double().clamp(lo, hi) - lo) / (hi - lo + 1e-8) * (levels - 1)
    middle = (u - u.floor() - 0.5).abs()
    assert (middle[other] < levels * 2.0**-22).all()
    assert other.float().mean() < 1e-4


def test_noisy_quantization_is_mase_tritons_in_distribution(mase):
    """The share of each level that one value is rounded to, over many draws."""
    lo, hi, levels, n = -1.0, 1.0, 256, 400_000
    clock = torch.tensor([0, 0])
    for value in (0.0, 0.1234, -0.77, 0.999, 1.0, -1.0):
        x = torch.full((n,), value)
        theirs, _ = mase.quantize_fn(x, 5, levels, lo, hi, None, "rand")
        ours = ops.optical_quantize(x, torch.tensor([lo, hi]), levels, 0.0, True, None, clock, 5, 0)

        def to_level(y):
            # In fp32 the reference's u + xi can round up to 255.5 and its even neighbour 256.
            return ((y - lo) / (hi - lo) * (levels - 1)).round().long().clamp_max(levels - 1)

        a, b = (torch.bincount(to_level(y), minlength=levels).double() / n for y in (ours, theirs))
        # Five deviations of the difference of two shares.
        assert (a - b).abs().max() < 5 * (0.5 / n) ** 0.5, value
    x = torch.randn(n)
    theirs, _ = mase.quantize_fn(x, 6, levels, lo, hi, None, "rand")
    ours = ops.optical_quantize(x, torch.tensor([lo, hi]), levels, 0.0, True, None, clock, 6, 0)
    clipped = x.clamp(lo, hi)
    for moment in (1, 2, 3):
        a, b = ((y - clipped).double().pow(moment).mean() for y in (ours, theirs))
        step = (hi - lo) / (levels - 1)
        assert abs(a - b) < 5 * step**moment * (2 / n) ** 0.5, moment


def test_linear_without_noise_is_mase_tritons_up_to_its_own(mase):
    """Their CPU linear adds noise to the output; ours without it lies within a level of theirs."""
    x, w, b = torch.randn(64, 96), torch.randn(48, 96) * 0.05, torch.randn(48)
    ranges = [torch.tensor([t.min(), t.max()]) for t in (x, w, x @ w.T)]
    # The reference's weight quantization is deterministic on CUDA, random on the CPU where there is a floor.
    theirs, _ = mase.quantized_linear_fn(
        x, w, b, *ranges[0].tolist(), *ranges[1].tolist(), None, *ranges[2].tolist(), 256, 0
    )
    ours = ops.optical_linear(x, w, b, ranges[0], [ranges[1]], [ranges[2]], [48], [], lut_min=0.0)
    off = levels_between(ours, theirs, *ranges[2].tolist(), 256)
    assert off.max() < 1.01
    same = (off < 0.01).float().mean().item()
    assert 0.45 < same, "noise of half a level either way keeps three of four at the nearest level"


@pytest.mark.parametrize("quantiles", [None, (0.001, 0.999)])
@pytest.mark.parametrize("clipped", [True, False])
def test_ranges_move_as_mase_tritons_do(quantiles, clipped):
    """Its function for statistics, on what the layer sees: x, W, and the output, clipped or not."""
    update = pytest.importorskip("mase_triton.optical_compute.layers").optical_transformer_update_qstats
    given = torch.tensor(quantiles) if quantiles else None
    w, bias = torch.randn(48, 96) * 0.1, torch.randn(48) * 0.1
    ranges = [torch.tensor([float("inf"), -float("inf")]) for _ in range(3)]
    for call in range(4):
        x = torch.randn(64, 96) * (1 + call)
        before = [r.clone() for r in ranges]
        y = ops.optical_linear(x, w, bias, ranges[0], [ranges[1]], [ranges[2]], [48], [], train=True, noise=True,
                               shared_noise=0.298, clipped_ranges=clipped, quantiles=list(quantiles or []))
        seen = [x, w]
        if clipped and call > 0:
            seen.append(y)
        elif not clipped:
            # The product of the quantized operands, which the op takes with the ranges from before the call.
            used = [torch.where(r[0] <= r[1], r, update(t, r, given, 0.9)) for r, t in zip(before, (x, w))]
            quantized = [ops.optical_quantize(t, r, 256, lut) for t, r, lut in zip((x, w), used, (0.0, LUT_MIN))]
            seen.append(quantized[0] @ quantized[1].T)
        for role, (tensor, old) in enumerate(zip(seen, before)):
            expected = update(tensor, old, given, 0.9)
            assert (ranges[role] - expected).abs().max() < 2e-4 * expected.abs().max(), (role, call)
