"""Random-weight models of `transformers`, of every family that we know, against our decoder, both ways.

Tolerance in fp32: relative 1e-5 in the norm of each whole tensor, |a - b| / |b|.
"""

import json

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
from probe import probe  # noqa: E402
from safetensors.torch import load_file, save_file  # noqa: E402
from transformers import (AutoModelForCausalLM, GPT2Config, GPT2LMHeadModel,  # noqa: E402
                          GPTNeoXConfig, GPTNeoXForCausalLM, LlamaConfig, LlamaForCausalLM, MistralConfig,
                          MistralForCausalLM, Qwen2Config, Qwen2ForCausalLM, Qwen3Config, Qwen3ForCausalLM)

TOLERANCE = 1e-5
BATCH, LENGTH, VOCABULARY = 3, 29, 97

GPT2 = {
    "gelu_new": {},
    "gelu": {"activation_function": "gelu"},
    "gelu_pytorch_tanh": {"activation_function": "gelu_pytorch_tanh"},
    "inverse_layer": {"scale_attn_by_inverse_layer_idx": True},
    "untied": {"tie_word_embeddings": False},
    "n_inner": {"n_inner": 100, "layer_norm_epsilon": 1e-3},
    "padded_vocabulary": {"vocab_size": 1031},
}
LLAMA3 = {"rope_type": "llama3", "rope_theta": 500000.0, "factor": 8.0, "low_freq_factor": 1.0,
          "high_freq_factor": 4.0, "original_max_position_embeddings": 24}
YARN = {"rope_type": "yarn", "rope_theta": 10000.0, "factor": 4.0, "original_max_position_embeddings": 16}
DYNAMIC = {"rope_type": "dynamic", "rope_theta": 10000.0, "factor": 2.0}
LLAMA = {
    "plain": {},
    "gqa": {"num_key_value_heads": 2},
    "mqa_tied": {"num_key_value_heads": 1, "tie_word_embeddings": True},
    "head_dim": {"head_dim": 24, "num_key_value_heads": 2},
    "biases": {"attention_bias": True, "mlp_bias": True, "num_key_value_heads": 2},
    "attention_bias": {"attention_bias": True},
    "llama3": {"rope_parameters": LLAMA3, "num_key_value_heads": 2},
    "linear": {"rope_parameters": {"rope_type": "linear", "rope_theta": 10000.0, "factor": 3.0}},
    "theta_eps": {"rope_parameters": {"rope_type": "default", "rope_theta": 1e6}, "rms_norm_eps": 1e-3},
    "padded_vocabulary": {"vocab_size": 1031},
    "yarn": {"rope_parameters": YARN, "num_key_value_heads": 2},
    "yarn_by_hand": {"rope_parameters": {**YARN, "attention_factor": 0.8, "beta_fast": 4.0, "beta_slow": 0.5, "truncate": False}},
    "yarn_mscale": {"rope_parameters": {**YARN, "mscale": 1.5, "mscale_all_dim": 0.5}},
    "dynamic": {"rope_parameters": DYNAMIC},
    "dynamic_beyond": {"rope_parameters": DYNAMIC, "max_position_embeddings": 16, "num_key_value_heads": 2},
}
WINDOW = {"use_sliding_window": True, "sliding_window": 7}
MISTRAL = {
    "plain": {"sliding_window": None},
    "window": {"sliding_window": 7},
    "wide_window_tied": {"sliding_window": 40, "tie_word_embeddings": True},
    "head_dim_yarn": {"head_dim": 24, "sliding_window": 1, "rope_parameters": YARN},
}
QWEN2 = {
    "plain": {},
    "tied_mqa": {"tie_word_embeddings": True, "num_key_value_heads": 1},
    "upper_layers_slide": {**WINDOW, "max_window_layers": 1},
    "layer_types": {**WINDOW, "layer_types": ["sliding_attention", "full_attention", "sliding_attention"]},
    "dynamic_beyond": {"rope_parameters": DYNAMIC, "max_position_embeddings": 16},
}
QWEN3 = {
    "plain": {},
    "tied_head_dim": {"tie_word_embeddings": True, "head_dim": 24, "rms_norm_eps": 1e-3},
    "bias": {"attention_bias": True, "num_key_value_heads": 4},
    "wide_heads": {"head_dim": 128},
    "all_slide_yarn": {**WINDOW, "max_window_layers": 0, "rope_parameters": YARN},
}
# Heads are 16 wide, so a factor of 0.25 turns two pairs of channels.
NEOX = {
    "parallel_partial": {"rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 0.25}},
    "sequential_partial": {"use_parallel_residual": False,
                           "rope_parameters": {"rope_type": "default", "rope_theta": 1e5, "partial_rotary_factor": 0.5}},
    "sequential_tied": {"use_parallel_residual": False, "tie_word_embeddings": True,
                        "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 1.0}},
    "no_bias": {"attention_bias": False, "layer_norm_eps": 1e-3},
    "gelu_pytorch_tanh": {"hidden_act": "gelu_pytorch_tanh"},
    "linear": {"rope_parameters": {"rope_type": "linear", "factor": 3.0, "rope_theta": 10000.0, "partial_rotary_factor": 0.5}},
    "llama3": {"rope_parameters": {**LLAMA3, "partial_rotary_factor": 0.75}},
    "yarn": {"rope_parameters": {**YARN, "partial_rotary_factor": 0.5}},
    "dynamic_beyond": {"rope_parameters": {**DYNAMIC, "partial_rotary_factor": 0.5}, "max_position_embeddings": 16},
    "padded_vocabulary": {"vocab_size": 1031},
}
VARIANTS = {"gpt2": GPT2, "llama": LLAMA, "mistral": MISTRAL, "qwen2": QWEN2, "qwen3": QWEN3, "gpt_neox": NEOX}
ALL = [pytest.param(family, name, id=f"{family}-{name}") for family, variants in VARIANTS.items() for name in variants]


def some(*chosen):
    """GPT-2, Llama and GPT-NeoX without stretched positions, and what is chosen of the others: every setting once."""
    return [p for p in ALL if p.values in chosen or
            (p.values[0] in ("gpt2", "llama", "gpt_neox") and not any(word in p.values[1] for word in ("yarn", "dynamic")))]


# Of the families of Llama's shape: configuration and model.
LIKE_LLAMA = {"llama": (LlamaConfig, LlamaForCausalLM), "mistral": (MistralConfig, MistralForCausalLM),
              "qwen2": (Qwen2Config, Qwen2ForCausalLM), "qwen3": (Qwen3Config, Qwen3ForCausalLM)}


def for_this_version(settings):
    """transformers 5's names of the rotary settings, or 4's."""
    rope = settings.get("rope_parameters")
    if rope is None or int(transformers.__version__.split(".")[0]) >= 5:
        return settings
    scaling = {key: value for key, value in rope.items() if key not in ("rope_theta", "partial_rotary_factor")}
    rest = {key: value for key, value in settings.items() if key != "rope_parameters"}
    if "partial_rotary_factor" in rope:  # GPT-NeoX
        rest = {**rest, "rotary_pct": rope["partial_rotary_factor"], "rotary_emb_base": rope["rope_theta"]}
    return {**rest, "rope_theta": rope["rope_theta"], "rope_scaling": None if rope["rope_type"] == "default" else scaling}


def make_model(family, name):
    torch.manual_seed(hash_of(family + name))
    if family == "gpt2":
        # 4's sdpa forgets to scale attention by the layer's index; its eager form does not.
        settings = dict(vocab_size=VOCABULARY, attn_implementation="eager", n_positions=64, n_embd=64, n_layer=3,
                        n_head=4, resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0, bos_token_id=0, eos_token_id=1)
        model = GPT2LMHeadModel(GPT2Config(**{**settings, **GPT2[name]}))
    elif family == "gpt_neox":
        settings = dict(vocab_size=VOCABULARY, hidden_size=64, intermediate_size=112, num_hidden_layers=3,
                        num_attention_heads=4, max_position_embeddings=64, bos_token_id=0, eos_token_id=1)
        model = GPTNeoXForCausalLM(GPTNeoXConfig(**{**settings, **for_this_version(NEOX[name])}))
    else:
        settings = dict(vocab_size=VOCABULARY, hidden_size=64, intermediate_size=112, num_hidden_layers=3,
                        num_attention_heads=4, max_position_embeddings=64, bos_token_id=0, eos_token_id=1)
        if family != "llama":
            settings["num_key_value_heads"] = 2
        if family == "qwen3":
            settings["head_dim"] = 16
        config, kind = LIKE_LLAMA[family]
        model = kind(config(**{**settings, **for_this_version(VARIANTS[family][name])}))
    with torch.no_grad():  # biases and norms away from 0 and 1, and weights large enough to matter
        for name, parameter in model.named_parameters():
            matrix = parameter.dim() > 1
            parameter.mul_(3 if matrix else 1).add_(torch.randn_like(parameter) * (0 if matrix else 0.1))
    return model.eval()


def hash_of(text):
    return sum(ord(c) * 31**i for i, c in enumerate(text)) % 2**31


def make_tokens(model, path=None):
    tokens = torch.randint(0, model.config.vocab_size, (BATCH, LENGTH), generator=torch.Generator().manual_seed(5))
    if path:
        save_file({"input_ids": tokens}, path)
    return tokens


def relative_error(ours, theirs):
    return ((ours.double() - theirs.double()).norm() / theirs.double().norm()).item()


def reference(model, tokens):
    """Logits, loss and gradients under the names that save_pretrained writes."""
    out = model(tokens, labels=tokens)
    model.zero_grad()
    out.loss.backward()
    # transformers 5 calls GPT-NeoX's head lm_head in memory and embed_out in files.
    head = "embed_out." if model.config.model_type == "gpt_neox" else "lm_head."
    grads = {f"grad.{name.replace('lm_head.', head)}": p.grad for name, p in model.named_parameters()}
    return {"logits": out.logits.detach(), "loss": out.loss.detach().reshape(1), **grads}


def assert_same_numbers(ours, theirs, tolerance=TOLERANCE):
    assert set(ours) == set(theirs)
    errors = {name: relative_error(ours[name], theirs[name]) for name in theirs if theirs[name].norm() > 1e-6}
    for name, tensor in theirs.items():
        if name not in errors:  # the key bias: its gradient is 0 but for rounding
            assert (ours[name] - tensor).norm() < 1e-6, name
    worst = max(errors, key=errors.get)
    assert errors[worst] < tolerance, f"{worst}: {errors[worst]:.2e}"


SHARDED = [pytest.param(family, name, True, id=f"{family}-{name}-sharded")
           for family, name in (("gpt2", "gelu_new"), ("llama", "gqa"), ("mistral", "window"), ("qwen2", "plain"),
                                ("qwen3", "plain"), ("gpt_neox", "parallel_partial"))]


@pytest.mark.parametrize("family,name,sharded",
                         [pytest.param(*p.values, False, id=p.id) for p in ALL] + SHARDED)
def test_logits_loss_and_gradients_equal_transformers(family, name, sharded, tmp_path):
    model = make_model(family, name)
    model.save_pretrained(tmp_path / "hf", max_shard_size="40KB" if sharded else "5GB")
    assert (tmp_path / "hf" / "model.safetensors.index.json").exists() == sharded
    tokens = make_tokens(model, tmp_path / "tokens.safetensors")
    probe("run", tmp_path / "hf", tmp_path / "tokens.safetensors", tmp_path / "out.safetensors")
    assert_same_numbers(load_file(tmp_path / "out.safetensors"), reference(model, tokens))


@pytest.mark.parametrize("family,name", some(
    ("llama", "yarn_by_hand"), ("llama", "dynamic_beyond"), ("mistral", "plain"), ("mistral", "wide_window_tied"),
    ("qwen2", "upper_layers_slide"), ("qwen3", "bias"), ("gpt_neox", "yarn")))
def test_transformers_opens_what_we_save_with_equal_logits(family, name, tmp_path):
    model = make_model(family, name)
    model.save_pretrained(tmp_path / "hf")
    probe("save", tmp_path / "hf", tmp_path / "ours", "float32", 5000000000, family)
    probe("save", tmp_path / "hf", tmp_path / "shards", "float32", 60000, family)
    assert (tmp_path / "shards" / "model.safetensors.index.json").exists()
    tokens = make_tokens(model)
    expected = model(tokens).logits
    for folder in ("ours", "shards"):
        loaded, report = AutoModelForCausalLM.from_pretrained(
            tmp_path / folder, output_loading_info=True, attn_implementation=model.config._attn_implementation)
        assert not any(report.get(k) for k in ("missing_keys", "unexpected_keys", "mismatched_keys")), report
        assert type(loaded) is type(model)
        logits = loaded.eval()(tokens).logits
        if (family, name) == ("gpt2", "gelu_pytorch_tanh"):  # saved as gelu_new: the same function, summed in another order
            assert relative_error(logits, expected) < 1e-6, folder
        else:
            assert torch.equal(logits, expected), folder


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("family,name", [("gpt2", "untied"), ("gpt2", "gelu_new"), ("llama", "biases"),
                                         ("llama", "mqa_tied"), ("mistral", "window"), ("qwen2", "layer_types"),
                                         ("qwen2", "tied_mqa"), ("qwen3", "bias"), ("gpt_neox", "parallel_partial"),
                                         ("gpt_neox", "sequential_tied")])
def test_load_and_save_is_bit_exact(family, name, dtype, tmp_path):
    model = make_model(family, name).to(getattr(torch, dtype))
    model.save_pretrained(tmp_path / "hf")
    probe("save", tmp_path / "hf", tmp_path / "ours", dtype)
    theirs, ours = (load_file(tmp_path / f / "model.safetensors") for f in ("hf", "ours"))
    assert set(theirs) == set(ours)
    integer = torch.int32 if dtype == "float32" else torch.int16
    for tensor in theirs:
        assert ours[tensor].dtype == theirs[tensor].dtype
        assert torch.equal(ours[tensor].view(integer), theirs[tensor].view(integer)), tensor
    # Ours are written in the reference library's order too: the same bytes.
    assert (tmp_path / "hf/model.safetensors").read_bytes() == (tmp_path / "ours/model.safetensors").read_bytes()


@pytest.mark.parametrize("family,name", [("gpt2", "gelu_new"), ("llama", "llama3")])
def test_bf16_weights_and_compute_are_close(family, name, tmp_path):
    model = make_model(family, name).to(torch.bfloat16)
    model.save_pretrained(tmp_path / "hf")
    # Not model.float(): that would keep the rotary frequencies rounded to bf16.
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "hf", dtype=torch.float32).eval()
    tokens = make_tokens(model, tmp_path / "tokens.safetensors")
    expected = reference(model, tokens)
    probe("run", tmp_path / "hf", tmp_path / "tokens.safetensors", tmp_path / "fp32.safetensors")
    assert_same_numbers(load_file(tmp_path / "fp32.safetensors"), expected)
    probe("run", tmp_path / "hf", tmp_path / "tokens.safetensors", tmp_path / "bf16.safetensors", "bfloat16")
    got = load_file(tmp_path / "bf16.safetensors")
    assert got["logits"].dtype == torch.bfloat16
    assert relative_error(got["logits"], expected["logits"]) < 2e-2
    assert abs(got["loss"].item() / expected["loss"].item() - 1) < 1e-2
    worst = max((relative_error(got[k], expected[k]), k) for k in expected
                if k.startswith("grad") and expected[k].norm() > 1e-3)
    assert worst[0] < 1e-1, worst


@pytest.mark.parametrize("family,name", some(("llama", "yarn_by_hand"), ("qwen2", "layer_types"), ("qwen3", "all_slide_yarn")))
def test_config_survives_the_way_through_our_own_format(family, name, tmp_path):
    model = make_model(family, name)
    model.save_pretrained(tmp_path / "hf")
    probe("save", tmp_path / "hf", tmp_path / "own", "float32", 5000000000, "refract")
    config = json.loads((tmp_path / "own/config.json").read_text())
    assert config["model_type"] == "refract"
    before, after = (json.loads(probe("config", tmp_path / f)) for f in ("hf", "own"))
    assert before == after
    tokens = tmp_path / "tokens.safetensors"
    make_tokens(model, tokens)
    for folder in ("hf", "own"):
        probe("run", tmp_path / folder, tokens, tmp_path / f"{folder}.safetensors")
    a, b = (load_file(tmp_path / f"{f}.safetensors") for f in ("hf", "own"))
    assert torch.equal(a["logits"], b["logits"]) and torch.equal(a["loss"], b["loss"])
