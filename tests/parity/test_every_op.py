"""No op of the library is forgotten: the samples that torch.library.opcheck runs on, all of them together, cover the namespace."""
import ast
import importlib.util
import pathlib

import torch

import test_ops_python  # loads the library, or skips

FOLDER = pathlib.Path(__file__).resolve().parent


def registered():
    names = torch._C._dispatch_get_all_op_names()
    return {name.split("::")[1].split(".")[0] for name in names if name.startswith("refract::")}


def modules_with_samples():
    """Those of this folder that define op_samples() and run opcheck on each of them."""
    for path in sorted(FOLDER.glob("test_*.py")):
        functions = {node.name: node for node in ast.parse(path.read_text()).body if isinstance(node, ast.FunctionDef)}
        if "op_samples" in functions:
            assert "torch.library.opcheck" in ast.unparse(functions["test_opcheck"]), path
            specification = importlib.util.spec_from_file_location(path.stem + "_samples", path)
            module = importlib.util.module_from_spec(specification)
            specification.loader.exec_module(module)
            yield module


def test_opcheck_covers_the_namespace():
    assert hasattr(test_ops_python.ops, "norm")
    checked = set()
    for module in modules_with_samples():
        for sample in module.op_samples().values():
            checked.add(sample[0]._schema.name.split("::")[1])
    assert checked == registered()
