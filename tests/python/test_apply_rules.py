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


def toml(value):
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key} = {toml(each)}" for key, each in value.items()) + "}"
    return f"'{value}'" if isinstance(value, str) else json.dumps(value)


def write_rules(path, rules):
    lines = []
    for rule in rules:
        lines.append("[[transform]]")
        lines += [f"{key} = {toml(value)}" for key, value in rule.items()]
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


STRUCTURED = {
    "low_rank": {"kind": "low_rank", "rank": 12},
    "block_dense": {"kind": "block_dense", "rank": 16, "blocks": 4},
    "block_shuffle": {"kind": "block_shuffle", "blocks": 4},
    "default ranks": {"kind": "block_dense"},
    "over optical": {"kind": "low_rank", "rank": 12, "over": FINE},
    "blocks over optical": {"kind": "block_shuffle", "over": FINE},
}


@pytest.mark.parametrize("which", STRUCTURED)
def test_structured_layers_are_the_programs(refract, tmp_path, model, which):
    """Both start from the projection of the same dense weights."""
    rules = [{"match": r"model\.layers\.\d+\.(self_attn\.o|mlp\.\w+)_proj", **STRUCTURED[which]}]
    ours = program_losses(refract, tmp_path, model, rules)
    dense = python_losses(MODELS[model.config.model_type]())
    package.apply_rules(model, rules)
    theirs = python_losses(model)
    assert ours == pytest.approx(theirs, rel=TOLERANCE if "optical" in which else 1e-4)
    assert max(abs(a / b - 1) for a, b in zip(theirs, dense)) > 3 * TOLERANCE


def test_a_full_rank_changes_nothing_but_the_form():
    model, tokens = make_llama(), TOKENS[:, :-1]
    with torch.no_grad():
        before = model(tokens).logits
        package.apply_rules(model, [{"match": r".*(o|down)_proj", "kind": "low_rank", "rank": 32}])
        torch.testing.assert_close(model(tokens).logits, before, rtol=1e-4, atol=1e-4)
    names = {name for name, _ in model.named_parameters()}
    assert "model.layers.0.self_attn.o_proj.V.weight" in names and "model.layers.0.self_attn.o_proj.weight" not in names


def compat_losses(rules, steps=2):
    model = package.apply_rules(make_llama(), rules)
    return python_losses(model, steps)


def test_the_references_defects_are_the_programs(refract, tmp_path):
    """compat, all at once; each by its own name is the same."""
    rules = [{**LINEAR, "noise": True, "compat": "mase-pretrain"}, {**ATTENTION, "noise": True, "compat": "mase-pretrain"}]
    ours = program_losses(refract, tmp_path, make_llama(), rules)
    theirs = compat_losses(rules, 3)
    assert ours == pytest.approx(theirs, rel=TOLERANCE)
    single = ("compat_shared_noise", "compat_clipped_range", "compat_scaled_qk_range")
    apart = [{**{key: value for key, value in rule.items() if key != "compat"}, **dict.fromkeys(single, True)} for rule in rules]
    assert compat_losses(apart, 3) == theirs
    plain = [{key: value for key, value in rule.items() if key != "compat"} for rule in rules]
    assert compat_losses(plain, 3) != pytest.approx(theirs, rel=1e-3)


# Three sequences of 32, 20 and 9 tokens, filled up on one side.
LENGTHS = (32, 20, 9)


def padded(side, seed=5):
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randint(256, (3, CONTEXT), generator=generator)
    mask = torch.zeros(3, CONTEXT, dtype=torch.long)
    for row, length in enumerate(LENGTHS):
        kept = slice(CONTEXT - length, None) if side == "left" else slice(length)
        mask[row, kept] = 1
    return tokens, mask


def positions(mask):
    return (mask.cumsum(1) - 1).clamp_min(0)


@pytest.mark.parametrize("side", ["left", "right"])
def test_a_padded_batch_is_its_sequences(model, side):
    """What stands in the padding changes neither outputs nor ranges nor gradients, and in evaluation each row is itself alone."""
    package.apply_rules(model, [LINEAR, ATTENTION])
    tokens, mask = padded(side)
    model.train()

    def step(fill):
        other = tokens.clone()
        other[mask == 0] = fill
        for name, buffer in model.named_buffers():
            if "range" in name:
                buffer.copy_(torch.tensor([float("inf"), float("-inf")]).expand_as(buffer))
        model.zero_grad()
        logits = model(other, attention_mask=mask, position_ids=positions(mask), use_cache=False).logits
        logits[mask == 1].square().mean().backward()
        weights = {name: p.grad.clone() for name, p in model.named_parameters() if "embed" not in name and "wte" not in name}
        return logits[mask == 1].detach(), weights, {n: b.clone() for n, b in model.named_buffers() if "range" in n}

    first, second = step(3), step(200)
    torch.testing.assert_close(first[0], second[0], rtol=0, atol=0)
    for one, other in zip(first[1:], second[1:]):
        for name, value in one.items():
            torch.testing.assert_close(value, other[name], rtol=0, atol=0, msg=name)
    model.eval()
    with torch.no_grad():
        together = model(tokens, attention_mask=mask, position_ids=positions(mask), use_cache=False).logits
        for row in range(3):
            kept = mask[row] == 1
            alone = model(tokens[row:row + 1, kept], use_cache=False).logits
            # Kernels round differently, and a value may move to the next level.
            torch.testing.assert_close(together[row, kept], alone[0], rtol=0.05, atol=0.05)


def test_masked_attention_is_the_op_where_nothing_is_masked():
    """The same outputs, ranges and gradients as refract::optical_attention, whose kernels take no mask."""
    from refract import masked_attention, modules
    from refract.rules import Optical

    torch.manual_seed(2)
    for parameters in (Optical(noise=False), Optical(noise=False, q_quantiles=[0.05, 0.95]), Optical(compat="mase-pretrain"), Optical(q_levels=16,
                       noise=False, q_smooth_factor=0.5)):
        settings = modules.OpticalSettings(parameters, ["a.qk", "a.av"], modules.Clock(), 1)
        attention = modules.OpticalAttention(settings).train()
        sees = torch.ones(2, 1, 7, 7, dtype=torch.bool).tril()
        for _ in range(3):
            inputs = [torch.randn(2, heads, 7, 8, requires_grad=True) for heads in (4, 2, 2)]
            copies = [x.detach().clone().requires_grad_(True) for x in inputs]
            before = attention.ranges.clone()
            expected = attention(*inputs, 0.3)
            learned = attention.ranges.clone()
            found = masked_attention.optical_attention(*copies, sees, before, settings, 0.3, True)
            torch.testing.assert_close(before, learned, rtol=1e-5, atol=1e-6)
            torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
            weight = torch.randn_like(expected)
            (expected * weight).sum().backward()
            (found * weight).sum().backward()
            for one, other in zip(inputs, copies):
                torch.testing.assert_close(other.grad, one.grad, rtol=1e-3, atol=1e-5)


def test_masked_noise_is_half_a_level_and_follows_the_clock():
    from refract import masked_attention, modules
    from refract.rules import Optical

    clock = modules.Clock()
    settings = modules.OpticalSettings(Optical(), ["a.qk", "a.av"], clock, 1)
    torch.manual_seed(3)
    q, k, v = (torch.randn(2, 2, 16, 8) for _ in range(3))
    sees = torch.ones(2, 1, 16, 16, dtype=torch.bool).tril()
    sees[1, 0, :, :5] = False

    def run(step):
        clock.set(step, 0)
        ranges = torch.tensor([[-4.0, 4.0]] * 5)
        return masked_attention.optical_attention(q, k, v, sees, ranges, settings, 0.3, True)

    assert torch.equal(run(1), run(1))
    assert not torch.equal(run(1), run(2))
    quiet = masked_attention.optical_attention(q, k, v, sees, torch.tensor([[-4.0, 4.0]] * 5),
                                               modules.OpticalSettings(Optical(noise=False), ["a.qk", "a.av"], clock, 1), 0.3, True)
    assert 0 < (run(1) - quiet).abs().max() < 20 * 8 / 255
    assert torch.equal(run(1)[1, :5], torch.zeros(5, 2, 8))  # a token of padding sees nothing


def test_a_second_call_changes_what_its_rules_match(model):
    """From the weights as they are, by one clock; what no rule matches stays."""
    def tokens_of(seed):
        return torch.randint(257, (1, CONTEXT), generator=torch.Generator().manual_seed(seed))

    package.apply_rules(model, [LINEAR])
    model.train()
    model(tokens_of(1), use_cache=False)
    once = {name: value.clone() for name, value in model.named_buffers()}
    package.apply_rules(model, [ATTENTION])
    assert all(torch.equal(value, model.get_buffer(name)) for name, value in once.items())
    package.apply_rules(model, [{**LINEAR, "q_levels": 16, "noise": True}])
    ranges = [value for name, value in model.named_buffers() if name.endswith("x_range")]
    assert len(ranges) >= 8 and all(value[0] > value[1] for value in ranges)  # new layers have seen nothing
    package.set_clock(model, 7)
    clocks = {module.settings.clock for module in model.modules() if hasattr(module, "settings")}
    assert len(clocks) == 1 and clocks.pop().step == 7
    assert len(model._forward_pre_hooks) == 1
    with torch.no_grad():
        dense = MODELS[model.config.model_type]()(tokens_of(2), use_cache=False).logits
        package.apply_rules(model, [{"match": ".*", "kind": "none"}])
        torch.testing.assert_close(model(tokens_of(2), use_cache=False).logits, dense)
    assert not any("range" in name for name, _ in model.named_buffers())


@pytest.mark.parametrize("kind", ["lora", "low_rank"])
def test_a_second_call_loses_nothing_that_was_trained(kind):
    model = package.apply_rules(make_llama(), [{"match": ".*down_proj", "kind": kind}])
    with pytest.raises(package.RuleError, match="let the rules pass it by"):
        package.apply_rules(model, [{"match": r".*\.(up|down)_proj", "kind": "optical"}])
    assert type(model.model.layers[0].mlp.up_proj) is torch.nn.Linear
    package.apply_rules(model, [{"match": r".*\.up_proj", "kind": "optical"}])
    assert hasattr(model.model.layers[1].mlp.up_proj, "x_range")


def test_the_trainer_of_transformers_drives_a_model_in_a_medium(tmp_path, model):
    """Two steps of two micro-batches with padding: the loss is finite, ranges move, and the noise is that of the steps."""
    transformers = pytest.importorskip("transformers")
    pytest.importorskip("accelerate")
    package.apply_rules(model, [{**LINEAR, "noise": True}, {**ATTENTION, "noise": True}])
    tokens, mask = padded("right")
    rows = [dict(input_ids=tokens[i % 3], attention_mask=mask[i % 3], labels=torch.where(mask[i % 3] == 1, tokens[i % 3], -100)) for i in range(8)]
    clocks = []
    model.register_forward_pre_hook(lambda m, a, k: clocks.append((m.refract_clock.step, m.refract_clock.sequence)), with_kwargs=True)
    arguments = transformers.TrainingArguments(
        output_dir=str(tmp_path / "out"), max_steps=2, per_device_train_batch_size=2, gradient_accumulation_steps=2, report_to=[],
        save_strategy="no", use_cpu=True, learning_rate=1e-3, disable_tqdm=True, logging_steps=1)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    trainer = transformers.Trainer(model=model, args=arguments, train_dataset=rows, callbacks=[package.ClockCallback()])
    result = trainer.train()
    assert 0 < result.training_loss < 20
    assert clocks == [(0, 0), (0, 2), (1, 0), (1, 2)]
    assert any(not torch.equal(before[name], p) for name, p in model.named_parameters())
    assert all(value.isfinite().all() for name, value in model.named_buffers() if "range" in name)


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
    ([{"match": ".*_proj", "kind": "spiking"}], "refract program"),
    ([{"match": ".*", "kind": "low_rank"}], "can't stand for attention"),
    ([{"match": ".*down_proj", "kind": "low_rank", "rank": 33}], "full rank"),
    ([{"match": ".*down_proj", "kind": "block_shuffle", "blocks": 3}], "doesn't divide"),
    ([{"match": ".*down_proj", "kind": "lora", "over": {"kind": "block_dense", "rank": 3}}], "must divide"),
    ([{"match": ".*down_proj", "kind": "low_rank", "init": "zero"}], "not one of"),
    ([{"match": ".*down_proj", "kind": "optical", "compat": "all"}], "not one of"),
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
    for kind in ("lora", "low_rank"):
        with pytest.raises(package.RuleError, match="no adapter each"):
            package.apply_rules(make_gpt2(), [{"match": ".*_proj", "kind": kind}])


@pytest.mark.parametrize("setting", [{"q_x_per": "token"}, {"q_w_per": "channel"}, {"q_learn": True}, {"gradient": "operands"}])
def test_what_only_the_program_does_is_refused_by_name(setting):
    (key,) = setting
    with pytest.raises(package.RuleError, match=f"{key}.* the program's alone"):
        package.apply_rules(make_gpt2(), [{"match": ".*_proj", "kind": "optical", **setting}])


def test_parameters_are_those_of_the_program(refract):
    """Python's kinds have the program's parameters with the same defaults."""
    from refract.rules import KINDS

    for name, kind in KINDS.items():
        (described,) = json.loads(refract("kinds", name, "--json").stdout)["kinds"]
        program = {p["name"]: p["default"] for p in described["parameters"]}
        mine = {key: value for key, value in vars(kind()).items()}
        assert set(mine) == set(program)
        for key, value in mine.items():
            assert program[key] == ("none" if value is None else json.dumps(value)), (name, key)
