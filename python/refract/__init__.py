"""refract's ops and transform rules for PyTorch.

    import refract
    refract.ops.norm(x, weight, None, 1e-5, True)          # torch.ops.refract.*: the program's own kernels
    refract.apply_rules(hf_model, "rules.toml")            # a Hugging Face Llama or GPT-2 moved into another medium

Modules pass their tensors to the ops of librefract_ops.so. Two pieces of mathematics stand here: attention over masked keys, put
together from the ops that quantize, and the factors that a dense weight gives. The library is
REFRACT_OPS_LIBRARY, or the one built in the checkout that this file stands in.
"""
from refract.library import library_path, ops
from refract.hugging_face import ClockCallback, apply_rules
from refract.modules import set_clock
from refract.rules import RuleError

__all__ = ["ClockCallback", "RuleError", "apply_rules", "library_path", "ops", "set_clock"]
