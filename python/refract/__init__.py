"""refract's ops and transform rules for PyTorch.

    import refract
    refract.ops.norm(x, weight, None, 1e-5, True)          # torch.ops.refract.*: the program's own kernels
    refract.apply_rules(hf_model, "rules.toml")            # a Hugging Face Llama or GPT-2 moved into another medium

No mathematics lives here: modules pass their tensors to the ops of librefract_ops.so. The library is
REFRACT_OPS_LIBRARY, or the one built in the checkout that this file stands in.
"""
from refract.library import library_path, ops
from refract.hugging_face import apply_rules
from refract.modules import set_clock
from refract.rules import RuleError

__all__ = ["RuleError", "apply_rules", "library_path", "ops", "set_clock"]
