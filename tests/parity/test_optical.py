"""The optical ops as Python sees them: torch.library.opcheck, and mase-triton's CPU functions as reference."""

import pytest
import torch
from ops_library import load_ops

ops = load_ops()

INF = float("inf")
LUT_MIN = 0.020040


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(1)


def normal(*shape, grad=True, dtype=torch.float32):
    return torch.randn(shape, dtype=dtype).requires_grad_(grad)


def unset():
    return torch.tensor([INF, -INF])


CLOCK = torch.tensor([3, 8])


def encoded(weight, levels=256):
    return list(ops.optical_encode(weight, [unset(), unset()], [6, 4], levels, LUT_MIN))


def op_samples():
    noise = {"noise": True, "clock": CLOCK, "seed": 3, "streams": [1, 2]}
    one = {"noise": True, "clock": CLOCK, "streams": [1]}
    weight = normal(10, 8, grad=False)
    samples = {
        "quantize": (ops.optical_quantize.default, (normal(3, 8), unset(), 256, LUT_MIN, True, None, CLOCK, 1, 2), {}),
        "quantize-set": (ops.optical_quantize.default, (normal(3, 8), torch.tensor([-1.0, 2.0])), {}),
        "observe": (ops.optical_observe_.default, (unset(), normal(3, 8, grad=False)), {}),
        "observe-quantiles": (
            ops.optical_observe_.default,
            (torch.tensor([-1.0, 2.0]), normal(3, 8, grad=False), 0.9, [0.1, 0.9]),
            {},
        ),
        "encode": (ops.optical_encode.default, (weight, [unset(), unset()], [6, 4]), {}),
        "encode-composite": (ops.optical_encode.default, (weight, [unset(), unset()], [6, 4], 4096), {}),
        "linear-forward": (
            ops.optical_linear_forward.default,
            (normal(3, 5, 8, grad=False), weight, encoded(weight), None, unset(), [unset(), unset()],
             [unset(), unset()], [6, 4], True),
            {"train": True, **noise},
        ),
        "matmul": (
            ops.optical_matmul.default,
            (normal(2, 3, 5), normal(2, 5, 4), unset(), unset(), unset()),
            {"train": True, **one},
        ),
        "matmul-forward": (
            ops.optical_matmul_forward.default,
            (normal(2, 3, 5, grad=False), normal(2, 5, 4, grad=False), unset(), unset(), unset()),
            one,
        ),
    }
    for name, settings in {"train": {"train": True}, "eval": {}, "quantiles": {"quantiles": [0.01, 0.99]}}.items():
        samples[f"linear-{name}"] = (
            ops.optical_linear.default,
            (normal(3, 5, 8), normal(10, 8), normal(10), unset(), [unset(), unset()], [unset(), unset()],
             [6, 4], []),
            {**settings, **noise},
        )
    return samples


@pytest.mark.parametrize("name", op_samples())
def test_opcheck(name):
    op, arguments, settings = op_samples()[name]
    torch.library.opcheck(op, arguments, settings)


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
