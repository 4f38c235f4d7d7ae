"""LoRA runs and Hugging Face's peft: what we export it reads, what it writes we read, and merged models are the same."""
import json
import shutil

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
                 "optimizer.lr=0", "data.context=64", "data.tokenizer=bytes", "eval.samples=0"]
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


def random_adapter(base, out, **settings):
    """An adapter of peft with random factors; returns peft's loss with it, read back from its folder."""
    torch.manual_seed(5)
    model = peft.get_peft_model(AutoModelForCausalLM.from_pretrained(base), peft.LoraConfig(task_type="CAUSAL_LM", **settings))
    for name, value in model.named_parameters():
        if "lora_" in name:
            torch.nn.init.normal_(value, std=0.2)
    model.save_pretrained(out)
    return loss_of(peft.PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), out))


def start_loss(refract, recipe, tmp_path, transform, **options):
    """Of a run that starts from hf and the adapter, before its first step."""
    (tmp_path / "v.txt").write_bytes(TEXT)
    shutil.rmtree(tmp_path / "started", ignore_errors=True)
    done = refract("train", recipe, "run.dir=started", "init.from=hf", "init.adapter=theirs", "data.tokenizer=bytes",
                   "data.path=t.txt", "data.validation=v.txt", "data.context=64", "train.steps=1", "optimizer.lr=0", "eval.samples=0", f"transform={transform}", **options)
    if options.get("code"):
        return done.stderr
    lines = [json.loads(line) for line in (tmp_path / "started/metrics.jsonl").read_text().splitlines()]
    return next(line["validation_loss"] for line in lines if "validation_loss" in line)


@pytest.fixture
def base_folder(refract, recipe, family, tmp_path):
    refract("train", recipe, "run.dir=base", "train.steps=10", "data.tokenizer=bytes", "data.context=64", "eval.samples=0",
            *(LLAMA if family == "llama" else []))
    refract("export", "base", "--out", "hf")
    (tmp_path / "t.txt").write_bytes(TEXT * 20)
    return tmp_path / "hf"


def test_a_fused_adapter_becomes_one_of_each_part(refract, recipe, base_folder, family, tmp_path):
    if family != "gpt2":
        pytest.skip("q, k and v are apart")
    expected = random_adapter(base_folder, tmp_path / "theirs", r=3, lora_alpha=6, target_modules=["c_attn"], fan_in_fan_out=True)
    rule = "[{match='.*(q|k|v)_proj', kind='lora', r=3, alpha=6}]"
    assert start_loss(refract, recipe, tmp_path, rule) == pytest.approx(expected, rel=1e-5)
    error = start_loss(refract, recipe, tmp_path, rule.replace("q|k|v", "q|v"), code=2)
    assert "q_proj, k_proj and v_proj" in error


def test_overlapping_patterns_count_in_the_files_order(refract, recipe, base_folder, family, tmp_path):
    if family != "llama":
        pytest.skip("one family shows it")
    random_adapter(base_folder, tmp_path / "theirs", r=4, lora_alpha=8, target_modules=["q_proj", "v_proj"])
    path = tmp_path / "theirs/adapter_config.json"
    for patterns, rules in {
        (("q_proj", 32), (r"layers\.0\.self_attn\.q_proj", 64)): [(".*q_proj", 32)],
        ((r"layers\.0\.self_attn\.q_proj", 64), ("q_proj", 32)): [(r".*\.0\..*q_proj", 64), (".*q_proj", 32)],
        ((r"layers\.1\..*", 2), (r".*\.v_proj", 6)): [(r".*\.1\..*(q|v)_proj", 2), (".*v_proj", 6)],
    }.items():
        path.write_text(json.dumps({**json.loads(path.read_text()), "alpha_pattern": dict(patterns)}))
        expected = loss_of(peft.PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base_folder), tmp_path / "theirs"))
        tables = [f"{{match='{match}', kind='lora', r=4, alpha={alpha}}}" for match, alpha in [*rules, (".*(q|v)_proj", 8)]]
        found = start_loss(refract, recipe, tmp_path, f"[{', '.join(tables)}]")
        assert found == pytest.approx(expected, rel=1e-5), patterns


@pytest.mark.parametrize("settings, key", [
    ({"init_lora_weights": "pissa"}, "init_lora_weights"),
    ({"init_lora_weights": "olora"}, "init_lora_weights"),
    ({"use_dora": True}, "use_dora"),
    ({"use_rslora": True}, "use_rslora"),
    ({"modules_to_save": ["lm_head"]}, "modules_to_save"),
    ({"trainable_token_indices": [3]}, "trainable_token_indices"),
    ({"lora_bias": True}, "lora_bias"),
])
def test_what_is_more_than_lora_is_refused_by_name(refract, recipe, base_folder, family, tmp_path, settings, key):
    if family != "llama":
        pytest.skip("one family shows it")
    random_adapter(base_folder, tmp_path / "theirs", r=4, lora_alpha=8, target_modules=["q_proj"], **settings)
    error = start_loss(refract, recipe, tmp_path, "[{match='.*q_proj', kind='lora', r=4, alpha=8}]", code=1)
    assert f"{key} = " in error and "not supported" in error and error.count("refract: ") == 1


@pytest.mark.parametrize("init", [True, "gaussian", "orthogonal"])
def test_other_initializations_are_plain_lora(refract, recipe, base_folder, family, tmp_path, init):
    if family != "llama":
        pytest.skip("one family shows it")
    expected = random_adapter(base_folder, tmp_path / "theirs", r=4, lora_alpha=8, target_modules=["q_proj"], init_lora_weights=init,
                              layers_to_transform=[0, 1])
    found = start_loss(refract, recipe, tmp_path, "[{match='.*q_proj', kind='lora', r=4, alpha=8}]")
    assert found == pytest.approx(expected, rel=1e-5)
