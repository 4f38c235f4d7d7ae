"""refract's ops and transform rules for PyTorch.

    import refract
    refract.ops.norm(x, weight, None, 1e-5, True)          # torch.ops.refract.*: the program's own kernels
    refract.apply_rules(hf_model, "rules.toml")            # a Hugging Face Llama or GPT-2 moved into another medium

Modules pass their tensors to the ops of librefract_ops.so. Two pieces of mathematics stand here: attention over masked keys, put
together from the ops that quantize, and the factors that a dense weight gives. The library is
REFRACT_OPS_LIBRARY, or the one built in the checkout that this file stands in.
"""
import importlib

_HOME = {"ClockCallback": "hugging_face", "RuleError": "rules", "apply_rules": "hugging_face", "library_path": "library",
         "ops": "library", "set_clock": "modules"}
__all__ = list(_HOME)


def __getattr__(name):
    """What is asked for is imported then: `python -m refract.wandb` needs no torch."""
    if name not in _HOME:
        raise AttributeError(f"module 'refract' has no attribute {name!r}")
    return getattr(importlib.import_module(f"refract.{_HOME[name]}"), name)


def __dir__():
    return sorted([*globals(), *_HOME])
