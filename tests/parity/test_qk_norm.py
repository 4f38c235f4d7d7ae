"""Norms of q and k per head (model.qk_norm) in our own format; test_model_parity.py compares Qwen3, which has them, with `transformers`."""

import json

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
from probe import probe, probe_error  # noqa: E402
from safetensors.torch import save_file  # noqa: E402
from test_model_parity import for_this_version  # noqa: E402
from transformers import Qwen3Config, Qwen3ForCausalLM  # noqa: E402

def make_model():
    torch.manual_seed(7)
    settings = dict(vocab_size=97, hidden_size=64, intermediate_size=112, num_hidden_layers=3, num_attention_heads=4,
                    num_key_value_heads=2, head_dim=16, max_position_embeddings=64, attention_bias=False,
                    tie_word_embeddings=False, rope_parameters={"rope_type": "default", "rope_theta": 10000.0})
    model = Qwen3ForCausalLM(Qwen3Config(**for_this_version(settings)))
    with torch.no_grad():  # norms away from 1, and weights large enough to matter
        for parameter in model.parameters():
            parameter.mul_(3) if parameter.dim() > 1 else parameter.add_(torch.randn_like(parameter) * 0.3)
    return model.eval()


def save_under_our_names(model, folder):
    c = model.config
    same = ["vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads",
            "num_key_value_heads", "head_dim", "max_position_embeddings", "tie_word_embeddings"]
    config = {"model_type": "refract", "norm": "rmsnorm", "norm_eps": c.rms_norm_eps, "position": "rope",
              "rope_theta": 10000.0, "hidden_act": "swiglu", "attention_bias": c.attention_bias,
              "attention_output_bias": c.attention_bias, "mlp_bias": False, "qk_norm": True,
              **{key: getattr(c, key) for key in same}}
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config))
    save_file({name: p.detach().contiguous() for name, p in model.named_parameters()}, folder / "model.safetensors",
              metadata={"format": "pt"})


def test_a_hugging_face_layout_is_refused_by_name(tmp_path):
    save_under_our_names(make_model(), tmp_path / "m")
    for family in ("llama", "gpt2"):
        message = probe_error("save", tmp_path / "m", tmp_path / family, "float32", 5000000000, family)
        assert "qk_norm" in message and family in message, message
        assert not (tmp_path / family).exists()


def test_it_is_saved_and_loaded_in_our_own_format(tmp_path):
    save_under_our_names(make_model(), tmp_path / "m")
    probe("save", tmp_path / "m", tmp_path / "again", "float32", 5000000000, "refract")
    config = json.loads((tmp_path / "again/config.json").read_text())
    assert config["model_type"] == "refract" and config["qk_norm"] is True
    assert (tmp_path / "again/model.safetensors").read_bytes() == (tmp_path / "m/model.safetensors").read_bytes()
