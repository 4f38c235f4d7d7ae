"""LoRA runs and Hugging Face's peft: what we export it reads, what it writes we read, and merged models are the same."""
import json

import peft
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

LLAMA = ["model.norm=rmsnorm", "model.position=rope", "model.hidden_act=swiglu", "model.num_key_value_heads=1",
         "model.attention_bias=false", "model.attention_output_bias=false", "model.mlp_bias=false"]
RULES = {
    "llama": "[{match='.*(q|v)_proj', kind='lora', r=3, alpha=6}, {match='.*0.mlp.down_proj', kind='lora', r=2, alpha=5, dropout=0.1}]",
    "gpt2": "[{match='.*(o|up)_proj', kind='lora', r=3, alpha=6}, {match='.*1.mlp.down_proj', kind='lora', r=2, alpha=5}]",
}
TEXT = b"Once there was a fox who lived by a river."


def loss_of(model):
    """As `refract eval` with data.context = 64 counts it: every token but the first, in one window."""
    ids = torch.tensor([list(TEXT)])
    with torch.no_grad():
        logits = model.eval()(ids[:, :-1]).logits
    return torch.nn.functional.cross_entropy(logits[0], ids[0, 1:]).item()


@pytest.fixture(params=["llama", "gpt2"])
def family(request):
    return request.param


@pytest.fixture
def tuned(refract, recipe, family, tmp_path):
    """runs/base, and runs/tuned with adapters on it, trained until they matter."""
    settings = ["data.tokenizer=bytes", "data.context=64", "eval.samples=0"]
    refract("train", recipe, "run.dir=base", "train.steps=10", *settings, *(LLAMA if family == "llama" else []))
    done = refract("train", recipe, "run.dir=tuned", "init.from=base", "train.steps=40", "optimizer.lr=1e-2", *settings,
                   f"transform={RULES[family]}")
    assert "of them trained" in done.stderr
    (tmp_path / "t.txt").write_bytes(TEXT)
    return "tuned"


def our_loss(refract_json, *model):
    return refract_json("eval", *model, "--data", "t.txt", "data.tokenizer=bytes", "data.context=64")["loss"]


def test_peft_reads_what_we_export_and_merging_changes_nothing(refract, refract_json, tuned, family, tmp_path):
    refract("export", tuned, "--out", "adapter", "--adapter")
    refract("export", tuned, "--out", "merged")
    config = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
    assert config["fan_in_fan_out"] == (family == "gpt2")
    base = AutoModelForCausalLM.from_pretrained(config["base_model_name_or_path"])
    before = loss_of(base)
    adapted = peft.PeftModel.from_pretrained(base, tmp_path / "adapter")
    ours = our_loss(refract_json, tuned)
    assert loss_of(adapted) == pytest.approx(ours, rel=1e-5)
    assert abs(before - ours) > 1e-2  # the adapters matter: 200 times the tolerance
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "merged")
    assert loss_of(merged) == pytest.approx(ours, rel=1e-5)
    ids = torch.tensor([list(TEXT)])
    with torch.no_grad():
        torch.testing.assert_close(merged(ids).logits, adapted.merge_and_unload()(ids).logits, rtol=1e-4, atol=1e-4)


def test_we_read_what_peft_writes(refract, refract_json, recipe, tuned, family, tmp_path):
    targets = ["q_proj", "down_proj"] if family == "llama" else ["attn.c_proj", "c_fc"]
    rules = r"'.*(q|down)_proj'" if family == "llama" else r"'.*(o|up)_proj'"
    refract("export", "base", "--out", "hf")
    torch.manual_seed(1)
    model = peft.get_peft_model(AutoModelForCausalLM.from_pretrained(tmp_path / "hf"), peft.LoraConfig(
        r=4, lora_alpha=8, target_modules=targets, rank_pattern={r"\w*.*0.*": 2} if family == "llama" else {},
        fan_in_fan_out=family == "gpt2", task_type="CAUSAL_LM"))
    for name, value in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(value, std=0.3)
    model.save_pretrained(tmp_path / "theirs")
    transform = f"transform=[{{match={rules}, kind='lora', r=4, alpha=8}}]"
    if family == "llama":
        transform = transform.replace("[", r"[{match='.*\.0\..*(q|down)_proj', kind='lora', r=2, alpha=8}, ")
    arguments = [recipe, "run.dir=read", "init.from=base", "init.adapter=theirs", transform, "train.steps=1",
                 "optimizer.lr=0", "data.context=64", "eval.samples=0"]
    refract("train", *arguments)
    assert our_loss(refract_json, "read") == pytest.approx(loss_of(model), rel=1e-5)
    wrong = refract("train", *arguments, "run.dir=wrong", "transform.0.alpha=3", code=2).stderr
    assert "lora_alpha = 8" in wrong and "alpha = 3" in wrong
    narrow = {"llama": r"transform=[{match='.*\.0\..*q_proj', kind='lora', r=2, alpha=8}]",
              "gpt2": r"transform=[{match='.*\.0\..*o_proj', kind='lora', r=4, alpha=8}]"}[family]
    assert "more layers" in refract("train", *arguments, "run.dir=wrong", narrow, code=2).stderr


def test_keys_are_pefts(refract, tuned, family, tmp_path):
    refract("export", tuned, "--out", "adapter", "--adapter", "--dtype", "bfloat16")
    tensors = load_file(tmp_path / "adapter" / "adapter_model.safetensors")
    name = "base_model.model.model.layers.0.self_attn.v_proj" if family == "llama" else "base_model.model.transformer.h.0.mlp.c_fc"
    out = 16 if family == "llama" else 128
    assert tensors[name + ".lora_A.weight"].shape == (3, 32) and tensors[name + ".lora_B.weight"].shape == (out, 3)
    assert tensors[name + ".lora_A.weight"].dtype == torch.bfloat16


def test_what_peft_cannot_hold_is_refused(refract, recipe, tmp_path):
    settings = ["data.tokenizer=bytes", "train.steps=1", "eval.samples=0"]
    refract("train", recipe, "run.dir=base", *settings)
    refract("train", recipe, "run.dir=dense", "init.from=base", *settings)
    assert "no adapters" in refract("export", "dense", "--out", "a", "--adapter", code=1).stderr
    rules = "transform=[{match='.*q_proj', kind='lora', r=2}]"
    refract("train", recipe, "run.dir=tuned", "init.from=base", rules, *settings)
    error = refract("export", "tuned", "--out", "a", "--adapter", code=1).stderr
    assert "c_attn" in error and "without --adapter" in error
    refract("train", recipe, "run.dir=scratch", rules.replace("q_proj", "o_proj"), *settings)
    assert "random weights" in refract("export", "scratch", "--out", "a", "--adapter", code=1).stderr
    assert not (tmp_path / "a").exists()
    assert "adapter_config.json" in refract("train", recipe, "run.dir=x", "init.from=base", "init.adapter=base", rules,
                                            *settings, code=2).stderr
