"""GGUF files: every type is dequantized as the package gguf does, what we write opens in gguf and transformers, and a real model."""
import os
import pathlib

import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")
torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
gguf = pytest.importorskip("gguf")
import numpy  # noqa: E402
from gguf import GGMLQuantizationType as Type  # noqa: E402
from safetensors.torch import load_file  # noqa: E402
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers  # noqa: E402

ROOT = pathlib.Path(__file__).resolve().parents[2]
REAL = ROOT / "models/smollm2-135m"
WIKITEXT = ROOT.parent / "shared/data/wikitext2-valid.txt"
TEXT = "the cold lake and the small boat of 1984 in 27 days " * 40
HIDDEN, WIDTH, HEADS, KV_HEADS, VOCAB = 256, 512, 4, 2, 64
# One of each type; the norms are F32.
TYPES = {"token_embd": Type.Q5_1, "output": Type.Q6_K, "blk.0.attn_q": Type.Q4_K, "blk.0.attn_k": Type.Q5_K, "blk.0.attn_v": Type.F16,
         "blk.0.attn_output": Type.Q8_0, "blk.0.ffn_gate": Type.Q4_0, "blk.0.ffn_up": Type.Q4_1, "blk.0.ffn_down": Type.Q5_0,
         "blk.1.attn_q": Type.Q6_K, "blk.1.attn_k": Type.Q4_1, "blk.1.attn_v": Type.BF16, "blk.1.attn_output": Type.F32,
         "blk.1.ffn_gate": Type.Q4_K, "blk.1.ffn_up": Type.Q5_K, "blk.1.ffn_down": Type.Q6_K}
SHAPES = {"token_embd": (VOCAB, HIDDEN), "output": (VOCAB, HIDDEN), "attn_q": (HIDDEN, HIDDEN), "attn_k": (HIDDEN // 2, HIDDEN),
          "attn_v": (HIDDEN // 2, HIDDEN), "attn_output": (HIDDEN, HIDDEN), "ffn_gate": (WIDTH, HIDDEN), "ffn_up": (WIDTH, HIDDEN),
          "ffn_down": (HIDDEN, WIDTH)}
HALVES = {Type.Q4_0: [0], Type.Q4_1: [0, 2], Type.Q5_0: [0], Type.Q5_1: [0, 2], Type.Q8_0: [0], Type.Q4_K: [0, 2], Type.Q5_K: [0, 2],
          Type.Q6_K: [208]}


def random_blocks(random, shape, kind):
    """Any bytes that are blocks of the type, with scales that are small numbers."""
    elements, size = gguf.GGML_QUANT_SIZES[kind]
    if elements == 1:
        values = random.standard_normal(shape).astype(numpy.float32)
        if kind == Type.BF16:
            return gguf.quantize(values, kind)
        return values.astype(numpy.float16 if kind == Type.F16 else numpy.float32)
    blocks = random.integers(0, 256, (shape[0], shape[1] // elements, size), dtype=numpy.uint8)
    for at in HALVES[kind]:
        scales = (random.standard_normal(blocks.shape[:2]) / 64).astype(numpy.float16)
        blocks[:, :, at:at + 2] = scales[..., None].view(numpy.uint8)
    return blocks.reshape(shape[0], -1)


def write_model(path):
    random = numpy.random.default_rng(3)
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(64)
    writer.add_embedding_length(HIDDEN)
    writer.add_block_count(2)
    writer.add_feed_forward_length(WIDTH)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KV_HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(50000.0)
    writer.add_rope_dimension_count(HIDDEN // HEADS)
    writer.add_vocab_size(VOCAB)
    for name in ("output_norm", *(f"blk.{i}.{norm}_norm" for i in (0, 1) for norm in ("attn", "ffn"))):
        writer.add_tensor(f"{name}.weight", random.standard_normal(HIDDEN).astype(numpy.float32))
    for name, kind in TYPES.items():
        blocks = random_blocks(random, SHAPES[name.split(".")[-1]], kind)
        writer.add_tensor(f"{name}.weight", blocks, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def bits(tensor):
    return tensor.detach().contiguous().view(torch.int32)


def assert_same_bits(ours, theirs):
    theirs = {name: value for name, value in theirs.items() if name in ours or name != "lm_head.weight"}
    assert set(ours) == set(theirs)
    for name, value in ours.items():
        assert torch.equal(bits(value), bits(theirs[name])), name


def test_every_type_is_dequantized_to_the_same_bits(refract, refract_json, tmp_path):
    write_model(tmp_path / "m.gguf")
    done = refract_json("export", "m.gguf", "--out", "hf")
    assert done == {"folder": "hf", "family": "llama"}
    ours = load_file(tmp_path / "hf" / "model.safetensors")
    assert_same_bits(ours, transformers.AutoModelForCausalLM.from_pretrained(tmp_path, gguf_file="m.gguf", dtype=torch.float32).state_dict())
    reader = {tensor.name: tensor for tensor in gguf.GGUFReader(tmp_path / "m.gguf").tensors}
    for name, ours_name in (("blk.0.ffn_up", "layers.0.mlp.up_proj"), ("blk.1.attn_v", "layers.1.self_attn.v_proj")):
        theirs = gguf.dequantize(reader[f"{name}.weight"].data, reader[f"{name}.weight"].tensor_type)
        assert torch.equal(bits(ours[f"model.{ours_name}.weight"]), bits(torch.from_numpy(theirs.copy())))
    config = transformers.AutoConfig.from_pretrained(tmp_path / "hf")
    assert (config.rms_norm_eps, config.rope_parameters["rope_theta"], config.vocab_size) == (1e-5, 50000.0, VOCAB)
    assert not config.tie_word_embeddings


def tokenizer_of(folder, digits):
    tokenizer = Tokenizer(models.BPE())
    parts = [pre_tokenizers.Digits(individual_digits=True)] if digits else []
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([*parts, pre_tokenizers.ByteLevel(add_prefix_space=False)])
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=300, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False,
                                  special_tokens=[AddedToken("<|im_start|>", special=True), AddedToken("<|im_end|>", special=True)])
    tokenizer.train_from_iterator([TEXT], trainer)
    fast = transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<|im_start|>", eos_token="<|im_end|>")
    fast.chat_template = "{% for m in messages %}<|im_start|>{{ m.content }}<|im_end|>{% endfor %}"
    fast.save_pretrained(folder)
    return fast.vocab_size


@pytest.fixture
def original(request, tmp_path):
    tied = getattr(request, "param", "untied") == "tied"
    torch.manual_seed(4)
    vocab_size = tokenizer_of(tmp_path / "hf", digits=not tied)
    model = transformers.LlamaForCausalLM(transformers.LlamaConfig(
        vocab_size=vocab_size + 20, hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
        max_position_embeddings=64, initializer_range=0.3, tie_word_embeddings=tied, bos_token_id=0, eos_token_id=1,
        pad_token_id=1, rope_parameters={"rope_type": "default", "rope_theta": 30000.0}))
    model.save_pretrained(tmp_path / "hf")
    return model


def logits(model):
    with torch.no_grad():
        return model(torch.arange(40).reshape(2, 20)).logits


# What a matrix is after it was stored.
ROUNDED = {"float32": lambda t: t, "f16": lambda t: t.half().float(), "bfloat16": lambda t: t.bfloat16().float(),
           "q8_0": lambda t: torch.from_numpy(gguf.dequantize(gguf.quantize(t.numpy(), Type.Q8_0), Type.Q8_0).copy())}
STORED = {"float32": Type.F32, "f16": Type.F16, "bfloat16": Type.BF16, "q8_0": Type.Q8_0}


@pytest.mark.parametrize("dtype", list(ROUNDED))
def test_what_is_written_opens_in_gguf_and_transformers(refract_json, original, tmp_path, dtype):
    done = refract_json("export", "hf", "--format", "gguf", "--dtype", dtype, "--out", "g/m.gguf")
    assert done == {"file": "g/m.gguf", "family": "llama"}
    assert [path.name for path in (tmp_path / "g").iterdir()] == ["m.gguf"]
    reader = gguf.GGUFReader(tmp_path / "g" / "m.gguf")
    assert {t.tensor_type for t in reader.tensors if len(t.shape) == 2} == {STORED[dtype]}
    assert {t.tensor_type for t in reader.tensors if len(t.shape) == 1} == {Type.F32}
    opened = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "g", gguf_file="m.gguf", dtype=torch.float32)
    rounded = {name: ROUNDED[dtype](t) if t.dim() == 2 else t for name, t in original.state_dict().items()}
    assert_same_bits(opened.state_dict(), rounded)
    original.load_state_dict(rounded)
    assert torch.equal(logits(opened), logits(original))
    config = opened.config
    assert (config.bos_token_id, config.eos_token_id, config.pad_token_id) == (0, 1, 1)
    assert config.rope_parameters["rope_theta"] == 30000.0 and config.max_position_embeddings == 64


@pytest.mark.parametrize("original", ["tied", "untied"], indirect=True)
def test_a_folder_comes_back_from_a_file(refract, refract_json, original, tmp_path):
    refract("export", "hf", "--format", "gguf", "--out", "m.gguf")
    refract("export", "m.gguf", "--out", "back")
    first, again = tmp_path / "hf", tmp_path / "back"
    assert_same_bits(load_file(again / "model.safetensors"), load_file(first / "model.safetensors"))
    assert (again / "tokenizer.json").read_bytes() == (first / "tokenizer.json").read_bytes()
    assert (again / "chat_template.jinja").read_bytes() == (first / "chat_template.jinja").read_bytes()
    hf, ours = (transformers.AutoTokenizer.from_pretrained(folder) for folder in (first, again))
    assert ours(TEXT).input_ids == hf(TEXT).input_ids and ours.eos_token == hf.eos_token and ours.bos_token == hf.bos_token
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path, gguf_file="m.gguf")
    assert theirs.chat_template == hf.chat_template
    words = TEXT.replace("1984", "some").replace("27", "ten")  # it knows no pre-tokenizer that parts digits
    assert theirs(words).input_ids == hf(words).input_ids
    # The file does where a folder would.
    (tmp_path / "c.txt").write_text(TEXT)
    evaluated = [refract_json("eval", source, "--data", "c.txt", "data.context=32", "train.device=cpu") for source in ("hf", "m.gguf")]
    assert evaluated[0]["loss"] == evaluated[1]["loss"] and evaluated[0]["tokens"] == evaluated[1]["tokens"]
    said = [refract_json("generate", source, "--prompt", "the cold", "--max-tokens", "8", "--temperature", "0", "train.device=cpu")
            for source in ("hf", "m.gguf")]
    assert said[0] == said[1]
    again = refract("export", "hf", "--format", "gguf", "--out", "m.gguf", code=2)
    assert "there already" in again.stderr


RECIPE = """
[run]
dir = "run"
[init]
from = "m.gguf"
[data]
path = "c.txt"
context = 16
[train]
steps = 3
batch = 2
device = "cpu"
[schedule]
kind = "constant"
[eval]
samples = 0
[checkpoint]
every = 1
"""


def test_a_run_starts_from_a_file(refract, refract_json, original, tmp_path):
    refract("export", "hf", "--format", "gguf", "--out", "m.gguf")
    (tmp_path / "c.txt").write_text(TEXT)
    (tmp_path / "r.toml").write_text(RECIPE)
    refract("train", "r.toml", "train.steps=2")
    refract("train", "r.toml", "--resume", "train.steps=3")
    refract("train", "r.toml", "run.dir=other", "init.from=hf")
    ours, theirs = (load_file(tmp_path / run / "checkpoints/step-00000003/model.safetensors") for run in ("run", "other"))
    assert_same_bits(ours, theirs)
    assert refract_json("inspect", "m.gguf")["parameters"] == sum(t.numel() for t in load_file(tmp_path / "hf/model.safetensors").values())


def test_mistakes_are_named(refract, original, tmp_path):
    assert "q8_0 needs --format gguf" in refract("export", "hf", "--dtype", "q8_0", "--out", "x", code=2).stderr
    assert "is not one of" in refract("export", "hf", "--format", "onnx", "--out", "x", code=2).stderr
    assert "is a folder" in refract("export", "hf", "--format", "gguf", "--out", ".", code=2).stderr
    refract("export", "hf", "--format", "gguf", "--out", "m.gguf")
    whole = (tmp_path / "m.gguf").read_bytes()
    (tmp_path / "cut.gguf").write_bytes(whole[:-4000])
    cut = refract("export", "cut.gguf", "--out", "x", code=1).stderr.strip()
    assert "cut.gguf" in cut and "incomplete" in cut and len(cut.splitlines()) == 1
    (tmp_path / "c.txt").write_text(TEXT)
    write_model(tmp_path / "bare.gguf")  # without a tokenizer
    assert "tokenizer" in refract("eval", "bare.gguf", "--data", "c.txt", code=2).stderr


def test_a_real_model_has_transformers_perplexity(refract_json, tmp_path):
    if not (REAL / "config.json").exists():
        pytest.skip("models/smollm2-135m is missing; scripts/real-model makes it")
    if not WIKITEXT.exists():
        pytest.skip(f"{WIKITEXT} is missing")
    tokenizer = transformers.AutoTokenizer.from_pretrained(REAL)
    ids = tokenizer(WIKITEXT.read_text()[:8000], add_special_tokens=False).input_ids[:1025]
    text = tokenizer.decode(ids, clean_up_tokenization_spaces=False)
    assert tokenizer(text, add_special_tokens=False).input_ids == ids and len(ids) == 1025
    (tmp_path / "w.txt").write_text(text)
    ours = refract_json("eval", REAL, "--data", "w.txt", "data.context=1024", "train.device=cpu", "train.batch=1")
    assert ours["tokens"] == 1024
    model = transformers.AutoModelForCausalLM.from_pretrained(REAL, dtype=torch.float32)
    tokens = torch.tensor([ids])
    with torch.no_grad():
        loss = torch.nn.functional.cross_entropy(model(tokens[:, :-1]).logits[0], tokens[0, 1:])
    theirs = loss.exp().item()
    assert abs(ours["perplexity"] / theirs - 1) < 1e-4, (ours["perplexity"], theirs)


@pytest.mark.parametrize("family", ["Qwen2", "Qwen3", "Mistral"])
def test_other_families_like_llama(refract_json, refract, tmp_path, family):
    torch.manual_seed(5)
    # transformers reads no width of a head for Qwen3 but takes 128.
    further = {"Qwen2": {}, "Qwen3": {"head_dim": 128}, "Mistral": {"head_dim": 32, "sliding_window": None}}[family]
    config = getattr(transformers, f"{family}Config")(
        vocab_size=64, hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=1,
        max_position_embeddings=64, initializer_range=0.3, tie_word_embeddings=False, **further)
    model = getattr(transformers, f"{family}ForCausalLM")(config)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 1:
                parameter.add_(torch.randn_like(parameter) / 8)
    model.save_pretrained(tmp_path / "hf")
    done = refract_json("export", "hf", "--format", "gguf", "--out", "g/m.gguf")
    assert done["family"] == family.lower()
    opened = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "g", gguf_file="m.gguf", dtype=torch.float32)
    assert_same_bits(opened.state_dict(), model.state_dict())
    assert torch.equal(logits(opened), logits(model))
    refract("export", "g/m.gguf", "--out", "back")
    assert_same_bits(load_file(tmp_path / "back/model.safetensors"), load_file(tmp_path / "hf/model.safetensors"))
