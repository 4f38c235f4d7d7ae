"""Every op of the library keeps torch.library.opcheck's rules: its schema, its fake form and its autograd.

The calls to check stand in the op's C++ test, tests/ops/x_test.cpp, as comments; what follows on lines of their own is
indented:

  // opcheck: norm(normal(2, 3, 8), normal(8), None, 1e-5, True)
"""

import pathlib
import re

import pytest
import torch
from ops_library import load_ops

ops = load_ops()

TESTS = pathlib.Path(__file__).resolve().parents[1] / "ops"
SAMPLE = re.compile(r"^// opcheck: (.*(?:\n//   .*)*)", re.MULTILINE)


def normal(*shape):
    return torch.randn(shape).requires_grad_()


def plain(*shape):
    return torch.randn(shape)


def unset():
    """An optical range that has seen nothing."""
    return torch.tensor([float("inf"), -float("inf")])


def samples():
    """By a name that says where it stands: (op, the text of its arguments)."""
    found = {}
    for path in sorted(TESTS.rglob("*_test.cpp")):
        for text in SAMPLE.findall(path.read_text()):
            name, arguments = re.fullmatch(r"(\w+)\((.*)\)", text.replace("\n//  ", ""), re.DOTALL).groups()
            found[f"{path.relative_to(TESTS)}-{name}-{len(found)}"] = name, arguments
    return found


SAMPLES = samples()


def registered():
    names = torch._C._dispatch_get_all_op_names()
    return {name.split("::")[1].split(".")[0] for name in names if name.startswith("refract::")}


def test_every_op_has_a_sample():
    assert "norm" in registered()
    assert {name for name, _ in SAMPLES.values()} == registered(), "write '// opcheck: name(...)' in the op's C++ test"


@pytest.mark.parametrize("sample", SAMPLES)
def test_opcheck(sample):
    torch.manual_seed(1)
    name, text = SAMPLES[sample]
    arguments, named = eval(f"(lambda *a, **k: (a, k))({text})")
    torch.library.opcheck(getattr(ops, name).default, arguments, named)
