"""Loads the ops library, REFRACT_OPS_LIBRARY or build/release/lib/librefract_ops.so; skips the module without it."""

import os
import pathlib

import pytest
import torch

ROOT = pathlib.Path(__file__).resolve().parents[2]


def load_ops():
    """torch.ops.refract."""
    library = pathlib.Path(os.environ.get("REFRACT_OPS_LIBRARY", ROOT / "build/release/lib/librefract_ops.so"))
    if not library.exists():
        pytest.skip(f"{library} is not built", allow_module_level=True)
    torch.ops.load_library(str(library))
    return torch.ops.refract
