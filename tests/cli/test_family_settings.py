"""Model folders of Mistral, Qwen2 and Qwen3 in the program: trained in every medium, written, continued and refused."""
import json
import os

import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")
torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
from test_model_folders import byte_tokenizer, recipe  # noqa: E402, F401

KINDS = {"mistral": (transformers.MistralConfig, transformers.MistralForCausalLM, {"sliding_window": 8}),
         "qwen2": (transformers.Qwen2Config, transformers.Qwen2ForCausalLM,
                   {"use_sliding_window": True, "sliding_window": 8, "max_window_layers": 1}),
         "qwen3": (transformers.Qwen3Config, transformers.Qwen3ForCausalLM, {"head_dim": 16})}
# Every kind of layer that trains all of the model, over two layers, and attentions that have a window.
RULES = """transform=[{match='.*0.self_attn.(q|k)_proj', kind='low_rank', rank=8},
    {match='.*0.self_attn.v_proj', kind='optical'}, {match='.*0.self_attn.o_proj', kind='mx'}, {match='.*0.mlp.gate_proj', kind='minifloat'},
    {match='.*0.mlp.up_proj', kind='integer'}, {match='.*0.mlp.down_proj', kind='bit_flip'},
    {match='.*1.mlp.gate_proj', kind='block_dense', blocks=4}, {match='.*1.mlp.up_proj', kind='block_shuffle', blocks=4},
    {match='.*1.mlp.down_proj', kind='conditioned', over='optical'}, {match='.*0.self_attn', kind='minifloat'},
    {match='.*1.self_attn', kind='optical', q_x_per='token', q_w_per='channel', q_out_per='token'}]"""


def make(folder, family, **more):
    byte_tokenizer(folder, ["<begin>", "<stop>"])
    torch.manual_seed(4)
    config, kind, special = KINDS[family]
    model = kind(config(**{**dict(vocab_size=258, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
                                  num_key_value_heads=2, max_position_embeddings=64, initializer_range=0.3, bos_token_id=256,
                                  eos_token_id=257), **special, **more}))
    model.save_pretrained(folder)
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<stop>"}))
    return model


def model_type(folder):
    return json.loads((folder / "config.json").read_text())["model_type"]


@pytest.mark.parametrize("family", KINDS)
def test_a_model_trains_in_every_medium_and_is_written_as_its_family(refract, refract_json, recipe, tmp_path, family):  # noqa: F811
    make(tmp_path / "hf", family)
    (tmp_path / "t.txt").write_text("the small boat went over the cold lake and back " * 3)
    refract("train", recipe, "init.from=hf", RULES)
    assert refract_json("export", "run", "--out", "out")["family"] == family
    opened = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "out").eval()
    assert type(opened) is KINDS[family][1]
    data = ["--data", "t.txt", "data.context=40"]
    ours = refract_json("eval", "out", *data)
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "out")
    ids = torch.tensor([tokenizer.encode((tmp_path / "t.txt").read_text(), add_special_tokens=False)])
    total = 0
    with torch.no_grad():  # in windows of 41 tokens that share one, as eval cuts the text
        for begin in range(0, ids.shape[1] - 1, 40):
            logits = opened(ids[:, begin:begin + 40][:, :ids.shape[1] - 1 - begin]).logits[0]
            total += torch.nn.functional.cross_entropy(logits, ids[0, begin + 1:begin + 41], reduction="sum").item()
    assert ours["tokens"] == ids.shape[1] - 1
    assert ours["loss"] == pytest.approx(total / ours["tokens"], rel=1e-5)
    # Dense, each checkpoint is a folder of the family.
    refract("train", recipe, "init.from=hf", "run.dir=dense", "train.steps=1")
    assert model_type(tmp_path / "dense/checkpoints/step-00000001") == family


def test_a_mistral_without_a_window_stays_one(refract, refract_json, recipe, tmp_path):  # noqa: F811
    make(tmp_path / "hf", "mistral", sliding_window=None)
    refract("train", recipe, "init.from=hf", "train.steps=1")
    assert model_type(tmp_path / "run/checkpoints/step-00000001") == "mistral"
    refract("train", recipe, "init.from=hf", "train.steps=2", "--resume")
    assert refract_json("export", "run", "--out", "out")["family"] == "mistral"
    assert type(transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "out")) is transformers.MistralForCausalLM


def test_attention_without_a_window_is_refused_beyond_it(refract, recipe, tmp_path):  # noqa: F811
    make(tmp_path / "hf", "mistral")
    rule = "transform=[{match='.*self_attn', kind='optical'}]"
    error = refract("train", recipe, "init.from=hf", rule, code=2).stderr
    assert "would attend to 16 tokens" in error and "model.sliding_window = 8" in error
    refract("train", recipe, "init.from=hf", rule, "run.dir=short", "data.context=8")


def test_dynamic_scaling_trains_beyond_the_original_length(refract, recipe, tmp_path):  # noqa: F811
    make(tmp_path / "hf", "qwen2", max_position_embeddings=12,
         rope_parameters={"rope_type": "dynamic", "rope_theta": 10000.0, "factor": 2.0})
    refract("train", recipe, "init.from=hf")
    error = refract("train", recipe, "init.from=hf", "run.dir=longer", "data.context=25", code=2).stderr
    assert "24 tokens to which dynamic scaling" in error
    # Generation keeps to the original length.
    assert refract("generate", "run", "--prompt", "the cold lake", "--max-tokens", "20", "--json").stdout.startswith("{")
