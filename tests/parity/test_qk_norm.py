"""Norms of q and k per head (model.qk_norm) against Qwen3 of `transformers`, whose parameters have our names.

Tolerance in fp32: that of test_model_parity, relative 1e-5 in the norm of each whole tensor.
"""

import json

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
from probe import probe, probe_error  # noqa: E402
from safetensors.torch import load_file, save_file  # noqa: E402
from test_model_parity import assert_same_numbers, for_this_version, make_tokens, reference  # noqa: E402
from transformers import Qwen3Config, Qwen3ForCausalLM  # noqa: E402

SETTINGS = {
    "plain": {},
    "grouped": {"num_key_value_heads": 2},
    "head_dim": {"head_dim": 24, "num_key_value_heads": 1},
    "tied_eps": {"tie_word_embeddings": True, "rms_norm_eps": 1e-3},
    "bias": {"attention_bias": True, "num_key_value_heads": 2},
}


def make_model(name):
    torch.manual_seed(len(name))
    settings = dict(vocab_size=97, hidden_size=64, intermediate_size=112, num_hidden_layers=3, num_attention_heads=4,
                    num_key_value_heads=4, head_dim=16, max_position_embeddings=64, attention_bias=False,
                    tie_word_embeddings=False, rope_parameters={"rope_type": "default", "rope_theta": 10000.0})
    model = Qwen3ForCausalLM(Qwen3Config(**for_this_version({**settings, **SETTINGS[name]})))
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


@pytest.mark.parametrize("name", SETTINGS)
def test_logits_loss_and_gradients_equal_qwen3(name, tmp_path):
    model = make_model(name)
    save_under_our_names(model, tmp_path / "m")
    tokens = make_tokens(model, tmp_path / "tokens.safetensors")
    probe("run", tmp_path / "m", tmp_path / "tokens.safetensors", tmp_path / "out.safetensors")
    ours = load_file(tmp_path / "out.safetensors")
    assert "grad.model.layers.2.self_attn.q_norm.weight" in ours
    assert_same_numbers(ours, reference(model, tokens))


def test_a_hugging_face_layout_is_refused_by_name(tmp_path):
    save_under_our_names(make_model("grouped"), tmp_path / "m")
    for family in ("llama", "gpt2"):
        message = probe_error("save", tmp_path / "m", tmp_path / family, "float32", 5000000000, family)
        assert "qk_norm" in message and family in message, message
        assert not (tmp_path / family).exists()


def test_it_is_saved_and_loaded_in_our_own_format(tmp_path):
    save_under_our_names(make_model("grouped"), tmp_path / "m")
    probe("save", tmp_path / "m", tmp_path / "again")
    config = json.loads((tmp_path / "again/config.json").read_text())
    assert config["model_type"] == "refract" and config["qk_norm"] is True
    assert (tmp_path / "again/model.safetensors").read_bytes() == (tmp_path / "m/model.safetensors").read_bytes()
