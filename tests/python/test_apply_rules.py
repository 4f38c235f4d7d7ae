"""refract.apply_rules on Hugging Face models: what Python computes with the ops is what the program computes."""
import copy
import json
import re

import pytest
import torch
from safetensors.torch import load_file
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

try:
    import refract as package
except ImportError as error:
    pytest.skip(str(error), allow_module_level=True)

CONTEXT = 32
# One window of text, so that every step of the program sees the same tokens.
TEXT = b"Once there was a fox by a river."
TOKENS = torch.tensor([list(TEXT) + [TEXT[0]]])
# Rounding alone can move a value to the next level, or over zero, where the LUT's floor makes it jump; training then goes another
# way. Measured: weights that differ by a factor of 1 + 3e-7 n, n ~ N(0, 1), change the losses of three steps by up to 2.0e-3 of
# themselves with the settings below, and optics changes them by 1.1e-2 (GPT-2) to 4.6e-2 (Llama). The ranges at the end, one per
# tensor of every layer, tell apart what the losses might not.
TOLERANCE, RANGE_TOLERANCE = 3e-3, 5e-3
FINE = {"kind": "optical", "noise": False, "q_levels": 2048, "q_lut_min": 0.1}
LINEAR = {"match": r"model\.layers\.\d+\.(self_attn|mlp)\.\w+_proj", **FINE}
ATTENTION = {"match": r"model\.layers\.\d+\.self_attn", **FINE}


def make_llama():
    torch.manual_seed(1)
    return LlamaForCausalLM(LlamaConfig(
        vocab_size=257, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
        max_position_embeddings=CONTEXT, tie_word_embeddings=False, initializer_range=0.2))


def make_gpt2():
    torch.manual_seed(1)
    return GPT2LMHeadModel(GPT2Config(
        vocab_size=257, n_embd=32, n_layer=2, n_head=4, n_positions=CONTEXT, resid_pdrop=0, embd_pdrop=0, attn_pdrop=0,
        initializer_range=0.2))


MODELS = {"llama": make_llama, "gpt2": make_gpt2}


@pytest.fixture(params=MODELS)
def model(request):
    return MODELS[request.param]()


def write_rules(path, rules):
    lines = []
    for rule in rules:
        lines.append("[[transform]]")
        for key, value in rule.items():
            text = f"'{value}'" if isinstance(value, str) else json.dumps(value)
            lines.append(f"{key} = {text}")
    path.write_text("\n".join(lines) + "\n")
    return path


RECIPE = f"""
[run]
dir = "run"
[data]
path = "text.txt"
tokenizer = "bytes"
context = {CONTEXT}
validation_fraction = 0.0
[init]
from = "start"
[optimizer]
lr = 3e-3
betas = [0.9, 0.95]
weight_decay = 0.0
clip = 0.0
[schedule]
kind = "constant"
warmup = 0
[train]
steps = 3
batch = 1
device = "cpu"
[eval]
every = 0
samples = 0
[log]
every = 1
"""


def program_losses(refract, tmp_path, model, rules):
    model.save_pretrained(tmp_path / "start")
    (tmp_path / "text.txt").write_bytes(TEXT + TEXT[:1])
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(RECIPE + write_rules(tmp_path / "rules.toml", rules).read_text())
    refract("train", recipe)
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    return [line["loss"] for line in lines if "loss" in line]


def python_losses(model, steps=3):
    model.train()
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=3e-3, betas=(0.9, 0.95), eps=1e-8, weight_decay=0)
    losses = []
    for step in range(steps):
        if hasattr(model, "refract_clock"):
            package.set_clock(model, step)
        logits = model(TOKENS[:, :-1], use_cache=False).logits
        loss = torch.nn.functional.cross_entropy(logits[0], TOKENS[0, 1:])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


RULES = {"linear": [LINEAR], "both": [LINEAR, ATTENTION]}


def program_ranges(tmp_path):
    """The ranges of the run's last checkpoint, by the names of the program."""
    folder = tmp_path / "run" / "checkpoints" / "step-00000003"
    file = folder / "buffers.safetensors"
    tensors = load_file(file if file.exists() else folder / "model.safetensors")
    return {name: value for name, value in tensors.items() if "range" in name}


def python_ranges(model):
    """The same of a model in Python. Llama's q, k, v (and gate, up) have each their own range of the input that they share."""
    places = {"attn.c_attn.x_range": "self_attn.q_proj.x_range", "attn.c_proj": "self_attn.o_proj", "mlp.c_fc": "mlp.up_proj",
              "mlp.c_proj": "mlp.down_proj", "attn.refract_attention": "self_attn", "self_attn.refract_attention": "self_attn",
              "transformer.h": "model.layers"}
    found = {}
    for name, value in model.named_buffers():
        name = re.sub(r"attn\.c_attn\.([qkv]_proj)_", r"self_attn.\1.", name)
        for theirs, ours in places.items():
            name = re.sub(rf"(?<![\w]){re.escape(theirs)}(?![\w])", ours, name)
        if "range" in name:
            found[name] = value
    return found


@pytest.mark.parametrize("which", RULES)
def test_three_steps_are_the_programs(refract, tmp_path, model, which):
    ours = program_losses(refract, tmp_path, model, RULES[which])
    dense = python_losses(MODELS[model.config.model_type]())
    package.apply_rules(model, tmp_path / "rules.toml")
    theirs = python_losses(model)
    assert ours == pytest.approx(theirs, rel=TOLERANCE)
    assert max(abs(a / b - 1) for a, b in zip(theirs, dense)) > 3 * TOLERANCE  # optics matter
    expected, ranges = program_ranges(tmp_path), python_ranges(model)
    assert len(expected) > 10 and expected.keys() <= ranges.keys()
    for name, value in expected.items():
        scale = value.abs().max()
        torch.testing.assert_close(ranges[name] / scale, value / scale, rtol=0, atol=RANGE_TOLERANCE, msg=name)


def test_noise_follows_the_clock(model):
    """The same step draws the same noise, another step other noise, and a cut batch the noise of the whole."""
    package.apply_rules(model, [{**LINEAR, "noise": True}])
    tokens = torch.randint(257, (2, CONTEXT))
    model.train()
    with torch.no_grad():
        model(tokens, use_cache=False)  # sets the ranges
        model.eval()
        logits = model(tokens, use_cache=False).logits
        assert torch.equal(logits, model(tokens, use_cache=False).logits)
        package.set_clock(model, 0, sequence=1)
        torch.testing.assert_close(model(tokens[1:], use_cache=False).logits, logits[1:], rtol=1e-4, atol=1e-4)
        package.set_clock(model, 0, sequence=5)
        assert not torch.allclose(model(tokens[1:], use_cache=False).logits, logits[1:], rtol=1e-2, atol=1e-2)
        model.train()
        package.set_clock(model, 1)
        first = model(tokens, use_cache=False).logits
        package.set_clock(model, 2)
        assert not torch.allclose(model(tokens, use_cache=False).logits, first, rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize("adapter", ["beside", "merged"])
def test_lora_trains_its_factors_alone(model, adapter):
    rules = [{"match": r".*\.(o|down)_proj", "kind": "lora", "r": 3, "adapter": adapter,
              "over": {"kind": "optical", "noise": False}}]
    package.apply_rules(model, rules)
    trained = {name: p.shape for name, p in model.named_parameters() if p.requires_grad}
    assert len(trained) == 2 * 2 * 2 and all(".lora_" in name for name in trained)
    frozen = {name: p.detach().clone() for name, p in model.named_parameters() if not p.requires_grad}
    losses = python_losses(model, steps=6)
    assert losses[-1] < losses[0] - 0.01
    for name, before in frozen.items():
        assert torch.equal(before, model.get_parameter(name)), name


@pytest.mark.parametrize("over", [None, {"kind": "optical", "noise": False}])
def test_a_merged_adapter_is_in_the_weight(model, over):
    """The model whose weights are W + s B A, under the same rules without adapters."""
    match = r".*\.(o|down)_proj"
    plain = copy.deepcopy(model)
    package.apply_rules(model, [{"match": match, "kind": "lora", "r": 3, "alpha": 6, "adapter": "merged", "over": over}])
    adapters = {name: module for name, module in model.named_modules() if hasattr(module, "lora_A")}
    assert len(adapters) == 4
    for name, adapter in adapters.items():
        bound = adapter.lora_A.in_features**-0.5
        assert adapter.lora_A.weight.abs().max() <= bound and adapter.lora_A.weight.std() > 0.4 * bound
        torch.nn.init.normal_(adapter.lora_B.weight, std=0.1)
        added = adapter.lora_B.weight @ adapter.lora_A.weight * 2
        plain.get_submodule(name).weight.data += added.detach().t() if adapter.transposed else added.detach()
    if over:
        package.apply_rules(plain, [{"match": match, **over}])
    tokens = torch.arange(24).view(2, 12) % 16
    with torch.no_grad():
        ours, expected = (m(tokens, use_cache=False).logits for m in (model, plain))
    assert (ours - expected).abs().max() < 1e-5 * expected.abs().max() + 1e-5


@pytest.mark.parametrize("rules, words", [
    ([{"match": ".*_proj", "kind": "lora", "adapter": "besides"}], '"beside" or "merged"'),
    ([{"match": ".*_proj", "kind": "lora", "adapter": "merged", "dropout": 0.1}], "dropout has no place"),
    ([{"match": ".*", "kind": "lora"}], "can't stand for attention"),
    ([{"match": "x", "kind": "optical"}], "matches no module"),
    ([{"match": ".*_proj", "kind": "optical", "q_level": 1}], "did you mean 'q_levels'"),
    ([{"match": ".*_proj", "kind": "low_rank", "rank": 3}], "refract program"),
    ([{"match": ".*_proj"}], "lacks"),
])
def test_mistakes_are_named_before_anything_changes(rules, words):
    model = make_llama()
    with pytest.raises(package.RuleError, match=words):
        package.apply_rules(model, rules)
    assert all(type(module) is torch.nn.Linear for name, module in model.named_modules() if name.endswith("_proj"))


def test_a_recipe_may_have_its_rules_from_its_base(tmp_path):
    from refract.rules import Rules

    write_rules(tmp_path / "rules.toml", [LINEAR])
    (tmp_path / "derived.toml").write_text('base = "rules.toml"\n[run]\nseed = 1\n')
    (tmp_path / "below").mkdir()
    (tmp_path / "below/outside.toml").write_text('base = "../rules.toml"\n')
    (tmp_path / "circle.toml").write_text('base = "circle.toml"\n')
    (expected,), (found,) = Rules([LINEAR]).rules, Rules(tmp_path / "derived.toml").rules
    assert found == expected
    for name in ("below/outside.toml", "circle.toml"):
        with pytest.raises(package.RuleError, match="its base"):
            Rules(tmp_path / name)


def test_what_gpt2_fuses_takes_one_rule():
    with pytest.raises(package.RuleError, match="one matrix"):
        package.apply_rules(make_gpt2(), [{"match": ".*q_proj", "kind": "optical"}])
    with pytest.raises(package.RuleError, match="no adapter each"):
        package.apply_rules(make_gpt2(), [{"match": ".*_proj", "kind": "lora"}])


def test_parameters_are_those_of_the_program(refract):
    """Python's kinds know the program's parameters with the same defaults, but for what they refuse."""
    from refract.rules import KINDS

    missing = {"optical": {"compat", "compat_shared_noise"}, "lora": set()}
    for name, kind in KINDS.items():
        (described,) = json.loads(refract("kinds", name, "--json").stdout)["kinds"]
        program = {p["name"]: p["default"] for p in described["parameters"]}
        mine = {key: value for key, value in vars(kind()).items()}
        assert set(program) - set(mine) == missing[name] and set(mine) <= set(program)
        for key, value in mine.items():
            assert program[key] == ("none" if value is None else json.dumps(value)), (name, key)
