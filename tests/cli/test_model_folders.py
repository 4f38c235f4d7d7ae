"""Model folders as people have them: what transformers reads, encodes and generates from our copies is what it does from the original."""
import json
import os

import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")
torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
from safetensors.torch import load_file, save_file  # noqa: E402
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers  # noqa: E402

TEXT = "the cold lake and the small boat " * 40
TEMPLATE = "{% for m in messages %}<user>{{ m.content }}<end>{% endfor %}"


def byte_tokenizer(folder, tokens):
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({token: number for number, token in enumerate(alphabet)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(token, special=True) for token in tokens])
    folder.mkdir(exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))


def llama(folder, vocab_size, **config):
    torch.manual_seed(4)
    model = transformers.LlamaForCausalLM(transformers.LlamaConfig(
        vocab_size=vocab_size, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
        max_position_embeddings=64, initializer_range=0.3, **config))
    model.save_pretrained(folder)
    return model


RECIPE = """
[run]
dir = "run"
[data]
path = "c.txt"
context = 16
[train]
steps = 2
batch = 2
device = "cpu"
[optimizer]
lr = 1e-3
[eval]
samples = 0
[checkpoint]
every = 1
"""


@pytest.fixture
def recipe(tmp_path):
    (tmp_path / "c.txt").write_text(TEXT)
    (tmp_path / "r.toml").write_text(RECIPE)
    return "r.toml"


@pytest.fixture
def chat(tmp_path):
    """bos, eos, end of turn and padding apart; a template, a licence, a model card and settings of generation."""
    folder = tmp_path / "chat"
    byte_tokenizer(folder, ["<begin>", "<stop>", "<end>", "<pad>", "<user>"])
    llama(folder, 261, bos_token_id=256, eos_token_id=[257, 258], pad_token_id=259)
    (folder / "tokenizer_config.json").write_text(json.dumps({
        "tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<begin>", "eos_token": "<stop>", "pad_token": "<pad>",
        "model_max_length": 64, "added_tokens_decoder": {}, "my_key": [1]}))
    (folder / "generation_config.json").write_text(json.dumps({
        "bos_token_id": 256, "eos_token_id": [257, 258], "pad_token_id": 259, "do_sample": True, "temperature": 0.6, "top_k": 7}))
    (folder / "chat_template.jinja").write_text(TEMPLATE)
    (folder / "additional_chat_templates").mkdir()
    (folder / "additional_chat_templates" / "tools.jinja").write_text("tools " + TEMPLATE)
    (folder / "LICENSE").write_bytes(b"free\r\n\xff\0")
    (folder / "README.md").write_text("# a card\n")
    (folder / "pytorch_model.bin").write_bytes(b"old weights")
    return folder


IDS = ("bos_token_id", "eos_token_id", "pad_token_id")


def same_as(original, copy):
    """Everything but weights."""
    for kind in (transformers.AutoConfig, transformers.GenerationConfig):
        one, other = kind.from_pretrained(original), kind.from_pretrained(copy)
        assert [getattr(one, name) for name in IDS] == [getattr(other, name) for name in IDS]
    assert one.to_dict() == other.to_dict()
    one, other = (transformers.AutoTokenizer.from_pretrained(folder) for folder in (original, copy))
    text = "the <user>lake<end> é <pad>"
    assert one.encode(text) == other.encode(text)
    assert one.special_tokens_map == other.special_tokens_map
    assert one.chat_template == other.chat_template
    for name in ("LICENSE", "README.md", "chat_template.jinja", "additional_chat_templates/tools.jinja", "tokenizer.json",
                 "tokenizer_config.json", "generation_config.json"):
        assert (copy / name).read_bytes() == (original / name).read_bytes(), name
    assert not (copy / "pytorch_model.bin").exists()


def test_checkpoints_and_exports_keep_what_the_folder_has(refract, recipe, chat, tmp_path):
    refract("export", "chat", "--out", "copy")
    same_as(chat, tmp_path / "copy")
    one, other = (load_file(folder / "model.safetensors") for folder in (chat, tmp_path / "copy"))
    assert one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)
    original, copy = (transformers.AutoModelForCausalLM.from_pretrained(folder) for folder in (chat, tmp_path / "copy"))
    prompt = torch.tensor([[256, 5, 9]])
    for settings in ({"do_sample": False}, {}):
        made = []
        for model in (original, copy):
            torch.manual_seed(1)
            made.append(model.generate(prompt, max_new_tokens=20, **settings).tolist())
        assert made[0] == made[1]
    assert original.generate(max_new_tokens=1)[0, 0] == copy.generate(max_new_tokens=1)[0, 0] == 256

    refract("train", recipe, "init.from=chat")
    for step in (1, 2):
        same_as(chat, tmp_path / f"run/checkpoints/step-{step:08}")
    refract("train", recipe, "init.from=chat", "train.steps=3", "--resume")
    refract("export", "run", "--out", "tuned")
    same_as(chat, tmp_path / "tuned")
    # In a medium no family has a name for the model, but the ids and files are still there.
    refract("train", recipe, "init.from=chat", "run.dir=medium", "transform=[{match='.*_proj', kind='optical'}]")
    refract("export", "medium", "--out", "dense")
    same_as(chat, tmp_path / "dense")


def test_another_tokenizer_brings_its_own_ids(refract, recipe, chat, tmp_path):
    (chat / "tokenizer.json").unlink()
    refract("train", recipe, "init.from=chat", "data.tokenizer=bytes")
    refract("export", "run", "--out", "out")
    config = json.loads((tmp_path / "out/config.json").read_text())
    assert [config.get(name) for name in IDS] == [256, 256, None]
    assert not (tmp_path / "out/chat_template.jinja").exists()
    assert (tmp_path / "out/LICENSE").exists()


@pytest.mark.parametrize("named", ["chars", "bytes", "other"])
def test_a_tokenizer_that_gives_the_models_ids_another_meaning_is_refused(refract, recipe, chat, tmp_path, named):
    other = json.loads((chat / "tokenizer.json").read_text())
    ids = other["model"]["vocab"]
    ids["a"], ids["b"] = ids["b"], ids["a"]
    (tmp_path / "other").mkdir()
    (tmp_path / "other/tokenizer.json").write_text(json.dumps(other))
    error = refract("train", recipe, "init.from=chat", f"data.tokenizer={named}", code=2).stderr.splitlines()[-1]
    assert "another meaning" in error and "data.tokenizer=chat" in error
    assert not (tmp_path / "run").exists()


def test_a_tokenizer_that_agrees_with_the_models_is_taken(refract, recipe, chat, tmp_path):
    refract("train", recipe, "init.from=chat", "data.tokenizer=chat")
    more = json.loads((chat / "tokenizer.json").read_text())
    more["added_tokens"].append(dict(more["added_tokens"][0], id=261, content="<one more>"))
    (tmp_path / "more").mkdir()
    (tmp_path / "more/tokenizer.json").write_text(json.dumps(more))
    refract("train", recipe, "init.from=chat", "data.tokenizer=more", "run.dir=with-more")
    for run in ("run", "with-more"):
        refract("export", run, "--out", f"{run}-out")
        assert (tmp_path / f"{run}-out/generation_config.json").read_bytes() == (chat / "generation_config.json").read_bytes()
        config, own = (json.loads((folder / "config.json").read_text()) for folder in (tmp_path / f"{run}-out", chat))
        assert [config.get(name) for name in IDS] == [own.get(name) for name in IDS]
    assert (tmp_path / "run-out/chat_template.jinja").read_bytes() == (chat / "chat_template.jinja").read_bytes()
    refract("eval", "chat", "--data", "c.txt", "data.tokenizer=more")
    assert "another meaning" in refract("eval", "chat", "--data", "c.txt", "data.tokenizer=bytes", code=2).stderr


def test_characters_of_another_text_are_another_tokenizer(refract, recipe, tmp_path):
    small = ["data.tokenizer=chars", "model.hidden_size=16", "model.num_attention_heads=2", "model.num_hidden_layers=1"]
    refract("train", recipe, *small)
    refract("train", recipe, "init.from=run", "data.tokenizer=chars", "run.dir=same")
    (tmp_path / "c.txt").write_text(TEXT.replace("b", "B"))
    assert "another meaning" in refract("train", recipe, "init.from=run", "data.tokenizer=chars", "run.dir=other", code=2).stderr


def test_a_run_from_random_weights_ends_at_its_own_token(refract, recipe, tmp_path):
    refract("train", recipe, "data.tokenizer=bytes", "model.hidden_size=16", "model.num_attention_heads=2", "model.num_hidden_layers=1")
    for step in (1, 2):
        folder = tmp_path / f"run/checkpoints/step-{step:08}"
        generation = transformers.GenerationConfig.from_pretrained(folder)
        assert (generation.bos_token_id, generation.eos_token_id) == (256, 256)


@pytest.mark.parametrize("where", ["generation_config.json", "config.json", "tokenizer"])
def test_generation_ends_at_every_eos(refract, refract_json, recipe, tmp_path, where):
    """A model that says token 258 whatever was said before."""
    folder = tmp_path / "m"
    byte_tokenizer(folder, ["<begin>", "<stop>", "<end>"])
    ids = {"generation_config.json": 257, "config.json": [257, 258], "tokenizer": None}[where]
    model = llama(folder, 260, eos_token_id=ids, bos_token_id=256)
    with torch.no_grad():
        for name, value in model.named_parameters():
            value.fill_(0.5 if "embed" in name else 1.0 if "norm" in name else 0.0)
        model.lm_head.weight[258] = 1
    model.save_pretrained(folder)
    (folder / "generation_config.json").unlink(missing_ok=True)
    if where == "generation_config.json":
        (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": [257, 258]}))
    if where == "tokenizer":
        (folder / "tokenizer_config.json").write_text(json.dumps({"eos_token": "<end>"}))
    made = refract_json("generate", "m", "--prompt", "hello", "--max-tokens", "6", "--temperature", "0")
    assert made["tokens"] == [] and made["text"] == ""
    assert refract("generate", "m", "--prompt", "hello", "--max-tokens", "6", "--temperature", "0").stdout == "hello\n"
    (tmp_path / "c.txt").write_text(TEXT)
    refract("train", recipe, "init.from=m", "train.steps=1", "optimizer.lr=0", "eval.samples=1", "eval.prompt=hello", "eval.temperature=0")
    samples = [json.loads(line)["text"] for line in (tmp_path / "run/samples.jsonl").read_text().splitlines()]
    assert set(samples) == {"hello"}


def test_a_tokenizer_with_more_tokens_than_embeddings(refract, refract_json, recipe, tmp_path):
    folder = tmp_path / "m"
    byte_tokenizer(folder, ["<stop>", "<pad>", "<new>"])
    llama(folder, 257, eos_token_id=256)
    refract("train", recipe, "init.from=m")
    refract("export", "run", "--out", "out")
    assert json.loads((tmp_path / "out/config.json").read_text())["vocab_size"] == 257
    assert len(transformers.AutoTokenizer.from_pretrained(tmp_path / "out")) == 259
    (tmp_path / "c.txt").write_text(TEXT + "<pad>")
    error = refract("train", recipe, "init.from=m", "run.dir=other", code=1).stderr
    assert "the token 257" in error and "never given" in error
    error = refract("generate", "m", "--prompt", "x<new>", code=2).stderr
    assert "the token 258" in error and "vocabulary has 257" in error
    assert len(refract_json("generate", "m", "--prompt", "x", "--max-tokens", "2", "--temperature", "0")["tokens"]) <= 2


OLD_BUFFERS = {
    "llama": {"model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(4), "model.rotary_emb.inv_freq": torch.ones(4),
              "model.layers.1.self_attn.rotary_emb.cos_cached": torch.ones(1, 1, 64, 8)},
    "gpt2": {"transformer.h.0.attn.bias": torch.ones(1, 1, 64, 64, dtype=torch.bool),
             "transformer.h.1.attn.masked_bias": torch.tensor(-1e4)},
}


@pytest.mark.parametrize("family", OLD_BUFFERS)
def test_buffers_that_transformers_ignores_are_ignored(refract_json, tmp_path, family):
    folder = tmp_path / "m"
    byte_tokenizer(folder, ["<stop>"])
    if family == "llama":
        llama(folder, 257)
    else:
        torch.manual_seed(2)
        transformers.GPT2LMHeadModel(transformers.GPT2Config(
            vocab_size=257, n_embd=32, n_layer=2, n_head=4, n_positions=64)).save_pretrained(folder)
    (tmp_path / "t.txt").write_text(TEXT[:300])
    before = refract_json("eval", "m", "--data", "t.txt", "data.context=16")["loss"]
    tensors = load_file(folder / "model.safetensors")
    save_file({**tensors, **OLD_BUFFERS[family]}, folder / "model.safetensors", {"format": "pt"})
    assert refract_json("eval", "m", "--data", "t.txt", "data.context=16")["loss"] == before


def test_continuations_keep_the_space_of_their_first_word(refract, refract_json, recipe, tmp_path):
    sentencepiece = pytest.importorskip("sentencepiece")
    (tmp_path / "c.txt").write_text(TEXT)
    sentencepiece.SentencePieceTrainer.train(
        input=str(tmp_path / "c.txt"), model_prefix=str(tmp_path / "tokenizer"), vocab_size=40, model_type="bpe", minloglevel=2,
        character_coverage=1.0, remove_extra_whitespaces=False, normalization_rule_name="identity")
    refract("train", recipe, "data.tokenizer=tokenizer.model", "train.steps=150", "train.batch=8", "optimizer.lr=3e-3", "model.hidden_size=32",
            "model.num_attention_heads=2", "model.num_hidden_layers=1", "eval.samples=1", "eval.prompt=the cold", "eval.temperature=0",
            "eval.sample_tokens=6", "eval.every=0", "checkpoint.every=0")
    pieces = sentencepiece.SentencePieceProcessor(model_file=str(tmp_path / "tokenizer.model"))
    command = ("generate", "run", "--prompt", "the cold", "--max-tokens", "6", "--temperature", "0")
    made = refract_json(*command)
    whole = pieces.decode(pieces.encode("the cold") + made["tokens"])
    assert whole.startswith("the cold ")  # what was learned: a word follows
    assert made["prompt"] + made["text"] == whole
    assert refract(*command).stdout == whole + "\n"
    last = json.loads((tmp_path / "run/samples.jsonl").read_text().splitlines()[-1])["text"]
    assert last == whole
    both = refract_json(*command[:2], "--prompt", "the cold", "--prompt", "", *command[4:])["samples"]
    assert both[0]["prompt"] + both[0]["text"] == whole
    assert both[1]["text"] == pieces.decode(both[1]["tokens"])
