"""number_quantize against values that microxcaling gives for the MX formats, bit for bit."""

import pathlib

import pytest
import torch
from ops_library import load_ops
from safetensors.torch import load_file

ops = load_ops()

FILE = pathlib.Path(__file__).resolve().parents[3] / "shared" / "data" / "mx" / "vectors.safetensors"
FORMATS = {"fp8_e4m3": (4, 3, 448.0), "fp8_e5m2": (5, 2, 57344.0), "fp6_e2m3": (2, 3, 7.5), "fp6_e3m2": (3, 2, 28.0),
           "fp4_e2m1": (2, 1, 6.0), "int8": (0, 6, 127 / 64)}
ROUNDINGS = {"even": 0, "nearest": 1, "floor": 2}


@pytest.fixture(scope="module")
def vectors():
    if not FILE.exists():
        pytest.skip(f"{FILE} is not here")
    return load_file(str(FILE))


@pytest.mark.parametrize("rounding", ROUNDINGS)
@pytest.mark.parametrize("name", FORMATS)
def test_values_are_microxcalings(vectors, name, rounding):
    devices = ["cpu"] + (["cuda"] if torch.cuda.is_available() else [])
    expected = vectors[f"{name}.{rounding}"]
    for device in devices:
        x = vectors["x"].to(device)
        rows = ops.number_quantize(x, False, *FORMATS[name], ROUNDINGS[rounding], 1, 32)
        assert torch.equal(rows.cpu(), expected)
        columns = ops.number_quantize(x.T.contiguous(), True, *FORMATS[name], ROUNDINGS[rounding], 1, 32)
        assert torch.equal(columns.T.cpu(), expected)
