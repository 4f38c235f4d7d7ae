"""Writes the seed corpus: make_seeds.py FOLDER makes FOLDER/<target>/*, small honest files of each format."""
import gzip
import json
import pathlib
import struct
import sys


def varint(value):
    out = b""
    while value > 0x7F:
        out += bytes([value & 0x7F | 0x80])
        value >>= 7
    return out + bytes([value])


def field(number, payload):
    return varint(number << 3 | 2) + varint(len(payload)) + payload


def piece(text, score, kind=None):
    message = field(1, text.encode()) + b"\x15" + struct.pack("<f", score)
    return field(1, message if kind is None else message + b"\x18" + varint(kind))


def sentencepiece():
    pieces = [piece("<unk>", 0, 2), piece("<s>", 0, 3), piece("</s>", 0, 3), piece("<0x41>", 0, 6)]
    pieces += [piece(text, -1 - i) for i, text in enumerate(["\u2581", "\u2581cat", "c", "a", "t", "s", "o", "n"])]
    trainer = field(2, b"\x18\x01")  # model_type = UNIGRAM
    # One block of a double array in which nothing matches, then one text.
    trie = struct.pack("<256I", *[0x80000000] * 256)
    chars_map = struct.pack("<I", len(trie)) + trie + b"a\0"
    return b"".join(pieces) + trainer + field(3, field(1, b"identity") + field(2, chars_map))


def safetensors(tensors, metadata=None):
    header, at = ({"__metadata__": metadata} if metadata else {}), 0
    for name, (dtype, shape, size) in tensors.items():
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [at, at + size]}
        at += size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + bytes(range(256)) * (at // 256) + bytes(at % 256)


def gguf_text(value):
    return struct.pack("<Q", len(value.encode())) + value.encode()


def gguf_value(value):
    if isinstance(value, bool):
        return 7, struct.pack("<B", value)
    if isinstance(value, int):
        return 4, struct.pack("<I", value)
    if isinstance(value, float):
        return 6, struct.pack("<f", value)
    if isinstance(value, str):
        return 8, gguf_text(value)
    kind = gguf_value(value[0])[0]
    return 9, struct.pack("<IQ", kind, len(value)) + b"".join(gguf_value(item)[1] for item in value)


def gguf(settings, tensors):
    """`tensors`: name -> (sizes innermost first, type, bytes)."""
    out = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(settings))
    for key, value in settings.items():
        kind, body = gguf_value(value)
        out += gguf_text(key) + struct.pack("<I", kind) + body
    at, data = 0, b""
    for name, (sizes, kind, size) in tensors.items():
        out += gguf_text(name) + struct.pack(f"<I{len(sizes)}QIQ", len(sizes), *sizes, kind, at)
        data += bytes(size) + bytes(-size % 32)
        at = len(data)
    return out + bytes(-len(out) % 32) + data


def shard(magic, version, width, tokens):
    body = b"".join(token.to_bytes(width, "little") for token in tokens)
    return struct.pack("<3i", magic, version, len(tokens)).ljust(1024, b"\0") + body


def elf(name, content):
    """A 64-bit ELF file of two sections beside the empty first: the names, and `name`."""
    names = b"\0.shstrtab\0" + name + b"\0"
    at = 64 + len(names)
    sections = [(0, 0, 0, 0), (1, 3, 64, len(names)), (11, 1, at, len(content))]
    table = b"".join(struct.pack("<IIQQQQIIQQ", label, kind, 0, 0, begin, size, 0, 0, 1, 0) for label, kind, begin, size in sections)
    head = b"\x7fELF\2\1\1" + bytes(9) + struct.pack("<HHIQQQIHHHHHH", 3, 62, 1, 0, 0, at + len(content), 0, 64, 0, 0, 64, 3, 1)
    return head + names + content + table


def zstd(content):
    """One raw block in a frame, as zstd writes what does not pack; at most 255 bytes."""
    return b"\x28\xb5\x2f\xfd\x20" + bytes([len(content)]) + struct.pack("<I", len(content) << 3 | 1)[:3] + content


def http(line, body=b"", *headers):
    length = [f"Content-Length: {len(body)}"] if body else []
    return "\r\n".join([line, "Host: localhost", *length, *headers, "", ""]).encode() + body


VOCAB = {character: i for i, character in enumerate("abcdefgh")} | {"ab": 8, "abc": 9, "\u0120": 10, "<|endoftext|>": 11}
TOKENIZER = {
    "version": "1.0", "normalizer": {"type": "Sequence", "normalizers": [{"type": "NFC"}]},
    "added_tokens": [{"id": 11, "content": "<|endoftext|>", "special": True, "normalized": False, "lstrip": True}],
    "pre_tokenizer": {"type": "Sequence", "pretokenizers": [
        {"type": "Split", "pattern": {"Regex": "\\p{N}{1,3}"}, "behavior": "Isolated"},
        {"type": "Digits", "individual_digits": True}, {"type": "ByteLevel", "add_prefix_space": False}]},
    "decoder": {"type": "ByteLevel"}, "model": {"type": "BPE", "vocab": VOCAB, "merges": ["a b", ["ab", "c"]]}}
CHARACTERS = {
    "normalizer": {"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": "\u2581"},
                                                       {"type": "Replace", "pattern": {"String": " "}, "content": "\u2581"}]},
    "pre_tokenizer": {"type": "Metaspace", "replacement": "\u2581", "prepend_scheme": "first", "split": True},
    "decoder": {"type": "Sequence", "decoders": [{"type": "ByteFallback"}, {"type": "Strip", "content": " ", "start": 1, "stop": 0}]},
    "model": {"type": "BPE", "byte_fallback": True, "unk_token": "a", "vocab": VOCAB | {"<0xC3>": 12, "\u2581": 13}, "merges": ["a b"]}}
GPT2 = {"model_type": "gpt2", "n_embd": 64, "n_layer": 2, "n_head": 2, "vocab_size": 300, "n_positions": 64, "n_inner": None,
        "activation_function": "gelu_new", "layer_norm_epsilon": 1e-5, "tie_word_embeddings": True}
LLAMA = {"model_type": "llama", "hidden_size": 64, "intermediate_size": 172, "num_hidden_layers": 2, "num_attention_heads": 4,
         "num_key_value_heads": 2, "head_dim": 16, "vocab_size": 300, "rms_norm_eps": 1e-6, "max_position_embeddings": 128,
         "rope_parameters": {"rope_type": "llama3", "rope_theta": 5e5, "factor": 8.0, "low_freq_factor": 1.0,
                             "high_freq_factor": 4.0, "original_max_position_embeddings": 64}}
QWEN = {**LLAMA, "model_type": "qwen2", "use_sliding_window": True, "sliding_window": 16, "max_window_layers": 1,
        "layer_types": ["full_attention", "sliding_attention"],
        "rope_scaling": {"type": "yarn", "factor": 4.0, "beta_fast": 32, "mscale": 1.0, "mscale_all_dim": 0.5}}
MISTRAL = {**LLAMA, "model_type": "mistral", "sliding_window": 16, "rope_parameters": {"rope_type": "dynamic", "factor": 2.0}}
OURS = {"model_type": "refract", "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "vocab_size": 100,
        "max_position_embeddings": 32, "norm": "rmsnorm", "position": "rope", "qk_norm": True}
RECIPE = """base = "base.toml"
[run]
dir = "runs/a"
[optimizer]
lr = 6e-4
betas = [0.9, 0.95]
[[transform]]
match = 'model\\.layers\\.\\d+\\.mlp\\..*'
kind = "low_rank"
rank = 8
"""
YAML = """shared: &q {levels: 256, quantize: true}
use_regex: true
layer_name_to_config:
  "model\\\\.layers\\\\.\\\\d+\\\\.self_attn": {<<: *q, levels: 64}
  "model\\\\.layers\\\\.\\\\d+\\\\.mlp\\\\.down_proj": null
  default: *q
"""
LEGACY = """use_lora = true
[attention]
q_levels = 256
[fc]
q_levels = 256
[lora]
r = 32
lora_alpha = 32
"""
PEFT = {"peft_type": "LORA", "r": 8, "lora_alpha": 16, "target_modules": ["q_proj"], "bias": "none",
        "rank_pattern": {"layers.0.self_attn.q_proj": 4}, "alpha_pattern": {}}
INDEX = {"metadata": {"total_size": 40}, "weight_map": {"a": "model-00001-of-00001.safetensors"}}
GGUF = {"general.architecture": "llama", "llama.context_length": 64, "llama.embedding_length": 32, "llama.block_count": 1,
        "llama.feed_forward_length": 32, "llama.attention.head_count": 2, "llama.attention.head_count_kv": 1,
        "llama.attention.layer_norm_rms_epsilon": 1e-5, "llama.rope.freq_base": 1e4, "llama.rope.dimension_count": 16,
        "tokenizer.ggml.eos_token_id": 0}
GGUF_BPE = {"tokenizer.ggml.model": "gpt2", "tokenizer.ggml.pre": "smollm", "tokenizer.ggml.tokens": ["<|end|>", "a", "b", "ab"],
            "tokenizer.ggml.token_type": [3, 1, 1, 1], "tokenizer.ggml.merges": ["a b"], "tokenizer.ggml.add_bos_token": True}
GGUF_PIECES = {"tokenizer.ggml.model": "llama", "tokenizer.ggml.tokens": ["<unk>", "\u2581", "a"],
               "tokenizer.ggml.token_type": [2, 1, 1], "tokenizer.ggml.scores": [0.0, -1.0, -2.0]}
GGUF_TENSORS = {"token_embd.weight": ([32, 4], 8, 136), "output_norm.weight": ([32], 0, 128), "blk.0.attn_q.weight": ([32, 2], 3, 40),
                "rope_freqs.weight": ([8], 0, 32)}
LINES = b"{\"text\": \"one\"}\n{\"text\": \"two \\u00e9\"}\n"
PROMPT = b"{\"prompt\": \"a\", \"max_tokens\": 2, \"stop\": [\"b\"]}"
PATH = {"alphas": [0.0, 1.0], "distance": 1.5, "cosine": 0.5, "norm_a": 1.0, "norm_b": None, "engine": "batched", "measured_with": "settings",
        "splits": {"train": {"loss": [2.0, None], "accuracy": [0.5, 0.25], "tokens": 7}}}
SWEEP = {"recipe": "a.toml", "keys": ["optimizer.lr"],
         "runs": [{"name": "lr=1", "values": ["1"], "settings": {"optimizer.lr": 1}, "state": "waiting", "reason": ""}]}
START = {"time": 1.5, "version": "1", "command": "refract train", "device": "cpu", "precision": "fp32", "from_step": 0, "steps": 4,
         "guided_steps": 0, "parameters": 10, "trainable_parameters": 10, "training_flops": 1e6}
ENERGY = {"context": 8, "modules": [{"module": "model.layers.0.mlp.up_proj", "layer": 0, "medium": "optical", "multiplications": 64.0,
                                     "product": 1e-9, "beside": 0.0, "digital": 2e-9}]}
EVALUATION = {"tasks": {"lambada": {"model": "run", "num_fewshot": 0, "samples": 10, "metrics": [
    {"name": "acc", "filter": "none", "value": 0.5, "stderr": 0.1, "higher_is_better": True}]}}}
RULES = "# 24 modules, 393216 -> 12288 parameters\n[[transform]]\nmatch = 'a'\nkind = 'low_rank'\n# left alone: 4 modules, 65536 -> 65536 parameters\n"
CORPUS = {"relative_to": "/runs", "tokenizer_of_model": True, "settings": {"path": ["a.txt"]}, "files": [{"name": "a.txt", "bytes": 3}]}
SHARD = safetensors({"a": ("F32", [2, 5], 40)})


def text(value):
    return value if isinstance(value, bytes) else (value if isinstance(value, str) else json.dumps(value)).encode()


SEEDS = {
    "json": [{"a": [1, -2.5e3, None, True, "\u00e9\n"], "b": {"c": {}}}, [[[]]], "\"text\"", "18446744073709551615"],
    "expression": ["22*N/100", "-(1 + 2) * 3e2 / C", "((N))"],
    "toml": [RECIPE, LEGACY, "a.b.'c d'.\"e\" = {x = [1, 2.5, nan], y = '''t'''}\n[t.u]\nv = true\n[[w]]\n[[w]]\n"],
    "recipe": [text(RECIPE) + b"\0" + b"[train]\nsteps = 10\n", "[data]\npath = 'a.txt'\n"],
    "legacy_yaml": [YAML, "use_regex: false\nlayer_name_to_config:\n  model.layers.0.self_attn: {levels: 4}\n  default: ~\n"],
    "legacy_toml": [LEGACY],
    "tokenizer_json": [TOKENIZER, CHARACTERS, text(TOKENIZER) + b"\0" + text({"eos_token": {"content": "<|endoftext|>"}})],
    "vocab_merges": [text(VOCAB) + b"\0#version: 0.2\na b\nab c\n"],
    "chars_json": [{"type": "chars", "characters": "abc\u00e9\U0001F600\n"}],
    "sentencepiece": [sentencepiece()],
    "jsonl": ["{\"text\": \"one\"}\n\n{\"text\": \"two \\u00e9\", \"id\": 2}\n"],
    "shard": [shard(20240520, 1, 2, range(9)), shard(20240801, 7, 4, range(9)), bytes(range(32))],
    "safetensors": [SHARD, safetensors({"b": ("BF16", [3], 6), "e": ("F32", [0], 0)}, {"step": "12", "layout": "x"})],
    "gguf": [gguf(GGUF | GGUF_BPE, GGUF_TENSORS), gguf(GGUF | GGUF_PIECES, {"token_embd.weight": ([32, 4], 1, 256)})],
    "train_state": [safetensors({"exp_avg": ("F32", [2], 8), "exp_avg_sq": ("F32", [2], 8)},
                                {"step": "12", "sequences": "48", "seed": "1", "order_seed": "2", "noise_seed": "3", "layout": "x"})],
    "weights_index": [INDEX, {"weight_map": {"a": "x", "b": "y"}}],
    "config_json": [GPT2, LLAMA, QWEN, MISTRAL, OURS],
    "adapter_config": [PEFT],
    "completion": [{"model": "m", "prompt": [[1, 2], [3]], "max_tokens": 1, "echo": True, "logprobs": 1, "seed": 1234, "temperature": 0},
                   {"prompt": ["One day", "\u00e9"], "n": 2, "stop": ["\n", "."], "top_p": 0.5, "top_k": 4, "stream": True,
                    "stream_options": {"include_usage": True}, "logit_bias": {}, "suffix": None, "best_of": 2}],
    "compressed": [b"g" + gzip.compress(LINES, mtime=0), b"z" + zstd(LINES), b"t" + gzip.compress(b"one ", mtime=0) + gzip.compress(b"two", mtime=0),
                   b"u" + zstd(b"one ") + zstd(b"two")],
    "run_folder": [bytes([file]) + text(content) for file, content in enumerate(
        ["{\"step\": 1, \"loss\": 2.5}\n{\"step\": 2, \"loss\": null}\n", "{\"step\": 1, \"text\": \"One day\"}\n", RULES, START, ENERGY, EVALUATION])],
    "path_file": [PATH],
    "sweep_file": [SWEEP],
    "run_settings": [b"[run]\ndir = 'a'\n[data]\npath = ['a.txt']\ntokenizer = 'bytes'\n\0" + text(CORPUS)],
    "special_ids": [text(LLAMA | {"eos_token_id": [1, 2], "bos_token_id": 0, "extra": {"a": 1}}) + b"\0" + text({"eos_token_id": 3}), text(OURS)],
    "plugin_file": [elf(b".refract.abi", b"0123456789abcdef\0"), elf(b".text", b"x")],
    "launch_environment": ["RANK=1\nWORLD_SIZE=2\nLOCAL_RANK=1\nMASTER_ADDR=node\nMASTER_PORT=29500\n",
                           "SLURM_PROCID=3\nSLURM_STEP_NUM_TASKS=4\nSLURM_LOCALID=1\nSLURM_JOB_ID=7\nSLURM_STEP_NODELIST=node[03-07,11],b\n",
                           "OMPI_COMM_WORLD_RANK=0\nOMPI_COMM_WORLD_SIZE=2\nOMPI_COMM_WORLD_LOCAL_RANK=0\nOMPI_COMM_WORLD_LOCAL_SIZE=2\n"],
    "http_request": [http("POST /v1/completions HTTP/1.1", PROMPT), http("GET /health HTTP/1.1") + http("GET /v1/models?a=%20b HTTP/1.1"),
                     http("POST /v1/completions HTTP/1.1", b"", "Transfer-Encoding: chunked") + b"5\r\n" + PROMPT[:5] + b"\r\n0\r\n\r\n",
                     http("POST / HTTP/1.1", b"--x\r\n", "Content-Type: multipart/form-data; boundary=x", "Expect: 100-continue")],
    "metrics": ["{\"step\": 1, \"loss\": 2.5}\n{\"step\": 12, \"loss\": 2.5}\n{\"step\": 3, \"lo"],
}


def main():
    root = pathlib.Path(sys.argv[1])
    for target, seeds in SEEDS.items():
        folder = root / target
        folder.mkdir(parents=True, exist_ok=True)
        for number, seed in enumerate(seeds):
            (folder / f"seed-{number}").write_bytes(text(seed))


if __name__ == "__main__":
    main()
