r"""The loss along the path between two models as the connectivity study's code finds it, and refract's way beside it.

    .venv/bin/python benchmarks/compare/lmc_path.py tinygpt --refract ./refract --alphas 30 --fraction 0.05 \
        --data tinyshakespeare.txt
    .venv/bin/python benchmarks/compare/lmc_path.py mingpt --refract ./refract --alphas 3 --fraction 0.004 --device cpu

The study's way, in plain PyTorch: for every alpha load the interpolated state dict, then loop over batches of 32
sequences, one forward pass each with logits [32, T, V] and cross_entropy; every alpha on the same batches. Both ways
see the same two models (random weights: time does not depend on what they say) and the same tokens, --fraction of the
corpus, from its start. Times leave out starting the process and reading files; those of all tokens are extrapolated
from the fraction, which is exact up to the few seconds that do not grow with it. The losses of both are compared.

The models' vocabulary is the preset's. Tokens are the characters of --data, numbered in their order, where it is given,
else random. It matters on a CPU, where refract computes what repeats in text once; random tokens hardly repeat.
"""

import argparse
import dataclasses
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time

import gpt
import torch
from torch.nn import functional as F

TOKENS = {"tinygpt": 1_115_394}  # of tiny Shakespeare by characters; by GPT-2's tokens:
GPT2_TOKENS = 338_025


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("preset", choices=[name for name in gpt.PRESETS if name != "gpt2"])
    parser.add_argument("--refract", required=True, help="the program")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--alphas", type=int, default=30)
    parser.add_argument("--fraction", type=float, default=1.0, help="of tiny Shakespeare's tokens")
    parser.add_argument("--data", type=pathlib.Path, help="a text whose characters are the tokens; default: random")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--engine", default="auto", help="of refract: auto, batched, prefixes, single")
    parser.add_argument("--products", default="auto", help="of refract: auto, fp32, split, half")
    parser.add_argument("--overrides", nargs="*", default=[], help="key=value settings for refract")
    parser.add_argument("--only", choices=["pytorch", "refract"], help="one side alone")
    parser.add_argument("--threads", type=int, help="CPU threads, default: all")
    parser.add_argument("--json", help="also write the figures here")
    return parser.parse_args()


def tokens_for(size: gpt.Size, count: int, data: pathlib.Path | None) -> torch.Tensor:
    if data is None:
        return torch.randint(size.vocab, (count,), dtype=torch.int32)
    text = data.read_text(encoding="utf-8")
    characters = sorted(set(text))
    if len(characters) > size.vocab or len(text) < count:
        sys.exit(f"{data}: {len(characters)} different characters and {len(text)} in all, for a vocabulary of "
                 f"{size.vocab} and {count} tokens")
    number = {character: i for i, character in enumerate(characters)}
    return torch.tensor([number[character] for character in text[:count]], dtype=torch.int32)


def names_in_hugging_face(layers: int) -> dict[str, str]:
    """Our plain model's names -> GPT-2's of a Hugging Face folder."""
    names = {"tokens.weight": "transformer.wte.weight", "positions.weight": "transformer.wpe.weight",
             "norm.weight": "transformer.ln_f.weight", "norm.bias": "transformer.ln_f.bias"}
    parts = {"attention_norm": "ln_1", "attention.qkv": "attn.c_attn", "attention.out": "attn.c_proj",
             "mlp_norm": "ln_2", "up": "mlp.c_fc", "down": "mlp.c_proj"}
    for layer in range(layers):
        for ours, theirs in parts.items():
            for kind in ("weight", "bias"):
                names[f"layers.{layer}.{ours}.{kind}"] = f"transformer.h.{layer}.{theirs}.{kind}"
    return names


def save_tensors(tensors: dict[str, torch.Tensor], path: pathlib.Path):
    """fp32 tensors as safetensors: the length of a JSON header, the header, the bytes in its order."""
    header, end = {}, 0
    for name, tensor in tensors.items():
        begin, end = end, end + 4 * tensor.numel()
        header[name] = {"dtype": "F32", "shape": list(tensor.shape), "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for tensor in tensors.values():
            file.write(tensor.numpy().tobytes())


def save_folder(model: gpt.Gpt, folder: pathlib.Path):
    size, state, tensors = model.size, model.state_dict(), {}
    for ours, theirs in names_in_hugging_face(size.layers).items():
        value = state[ours].detach().cpu()
        conv1d = value.dim() == 2 and ".h." in theirs
        tensors[theirs] = (value.t() if conv1d else value).contiguous()
    folder.mkdir(parents=True)
    save_tensors(tensors, folder / "model.safetensors")
    config = {"model_type": "gpt2", "vocab_size": size.vocab, "n_embd": size.width, "n_positions": size.context,
              "n_layer": size.layers, "n_head": size.heads, "activation_function": "gelu_new",
              "layer_norm_epsilon": 1e-5, "tie_word_embeddings": True}
    (folder / "config.json").write_text(json.dumps(config))


def synchronize(device: str):
    if device == "cuda":
        torch.cuda.synchronize()


@torch.no_grad()
def path_in_pytorch(size: gpt.Size, ends: list[gpt.Gpt], tokens: torch.Tensor, options) -> tuple[float, list[float]]:
    """Seconds, and the mean loss at every alpha (the weight of the first model)."""
    model = gpt.Gpt(size).to(options.device)
    first, second = ([p.to(options.device) for p in end.state_dict().values()] for end in ends)
    names = list(ends[0].state_dict())
    windows = tokens.to(options.device).long().unfold(0, size.context + 1, size.context)
    batches = windows.split(size.batch)
    model(batches[0][:, :-1], batches[0][:, 1:])  # warm up
    synchronize(options.device)
    start, losses = time.perf_counter(), []
    for i in range(options.alphas):
        alpha = i / (options.alphas - 1)
        model.load_state_dict({name: alpha * a + (1 - alpha) * b for name, a, b in zip(names, first, second)})
        total, correct = 0.0, 0
        for batch in batches:
            logits = model(batch[:, :-1]).flatten(0, 1)
            targets = batch[:, 1:].flatten()
            total += F.cross_entropy(logits, targets, reduction="sum").item()
            correct += (logits.argmax(-1) == targets).sum().item()
        losses.append(total / (windows.shape[0] * size.context))
    synchronize(options.device)
    return time.perf_counter() - start, losses


def path_in_refract(folders: list[pathlib.Path], corpus: pathlib.Path, size: gpt.Size, options) -> tuple[float, list]:
    """The same by refract interpolate; seconds as it reports them for the evaluation."""
    command = [options.refract, "interpolate", *map(str, folders), "--alphas", str(options.alphas), "--data",
               str(corpus), "--engine", options.engine, "--products", options.products, "--out", str(corpus.parent / "out"), "--json",
               f"train.device={options.device}", f"train.batch={size.batch}", *options.overrides]
    environment = dict(os.environ)
    if options.threads:
        environment["OMP_NUM_THREADS"] = str(options.threads)
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    if done.returncode != 0:
        sys.exit(f"{' '.join(command)} failed:\n{done.stderr[-3000:]}")
    result = json.loads(done.stdout)
    return result["seconds"], result["splits"]["data"]["loss"]


def main():
    options = parse_arguments()
    if options.threads:
        torch.set_num_threads(options.threads)
    size = dataclasses.replace(gpt.PRESETS[options.preset])
    whole = TOKENS.get(options.preset, GPT2_TOKENS)
    count = max(1, int(options.fraction * whole) // (size.batch * size.context)) * size.batch * size.context + 1
    torch.manual_seed(1)
    tokens = tokens_for(size, count, options.data)
    ends = [gpt.Gpt(size) for _ in range(2)]
    times, losses = {"pytorch": [], "refract": []}, {}
    with tempfile.TemporaryDirectory() as scratch:
        folders = [pathlib.Path(scratch) / name for name in "ab"]
        for end, folder in zip(ends, folders):
            save_folder(end, folder)
        corpus = pathlib.Path(scratch) / "tokens.bin"
        corpus.write_bytes(tokens.numpy().astype("uint16").tobytes())
        for _ in range(options.rounds):
            if options.only != "refract":
                seconds, losses["pytorch"] = path_in_pytorch(size, ends, tokens, options)
                times["pytorch"].append(seconds)
            if options.only != "pytorch":
                seconds, losses["refract"] = path_in_refract(folders, corpus, size, options)
                times["refract"].append(seconds)
    scale = whole / (count - 1)
    device = torch.cuda.get_device_name() if options.device == "cuda" else f"CPU, {torch.get_num_threads()} threads"
    print(f"{options.preset}, {options.alphas} alphas, {count - 1} tokens ({100 / scale:.2g}% of the corpus, "
          f"{options.data.name if options.data else 'random'}), {device}")
    report = {"preset": options.preset, "device": device, "alphas": options.alphas, "tokens": count - 1, "times": times}
    for name, seconds in times.items():
        if seconds:
            print(f"  {name:<8} {min(seconds):9.3f} s   all tokens {scale * min(seconds):9.1f} s   "
                  f"rounds {' '.join(f'{s:.3f}' for s in seconds)}")
    if len(losses) == 2:
        worst = max(abs(a - b) / b for a, b in zip(losses["refract"], losses["pytorch"]))
        report["largest_relative_difference"] = worst
        print(f"  ratio {min(times['pytorch']) / min(times['refract']):.2f}, losses differ by at most {worst:.2g}")
        if worst > 1e-4:
            sys.exit("the two do not compute the same losses")
    if options.json:
        pathlib.Path(options.json).write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
