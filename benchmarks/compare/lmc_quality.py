"""Loss that a GPT reaches in plain PyTorch with the settings of the connectivity study, to be held beside ours.

    .venv/bin/python benchmarks/compare/lmc_quality.py tinygpt --data tinyshakespeare.txt --eval-every 5000
    .venv/bin/python benchmarks/compare/lmc_quality.py mingpt --data ... --tokenizer GPT2_FOLDER --device cuda

Adam (0.9, 0.95), no weight decay, clipping to norm 1, linear warm-up from 6e-5 to 6e-4 over a tenth of the steps and a
cosine back, batch 32 of windows drawn at random, no dropout. The first 90% of the text's characters train, the rest
validate. A loss is the mean in nats over the whole split, cut into windows of context + 1 tokens that overlap by one,
so that every token but the first is predicted once. One JSON object per evaluation on standard output.
"""

import argparse
import dataclasses
import json
import pathlib
import sys
import time

import gpt
import torch
from torch.nn import functional as F

STEPS = {"tinygpt": 20000, "toygpt": 15000, "compactgpt": 10000, "mingpt": 3000, "gpt2": 300}


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("preset", choices=gpt.PRESETS)
    parser.add_argument("--data", help="a text file")
    parser.add_argument("--tokenizer", help="a folder with GPT-2's vocab.json and merges.txt (default: characters)")
    parser.add_argument("--ids", nargs=2, metavar=("TRAIN", "VALIDATION"),
                        help="both splits as GPT-2 token ids of 16 bits each, instead of --data and --tokenizer")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--steps", type=int, help="default: the study's")
    parser.add_argument("--stop", type=int, help="stop after so many steps of that schedule")
    parser.add_argument("--warmup", type=int, help="default: a tenth of the steps")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--eval-every", type=int, default=0, help="evaluate on the way too")
    parser.add_argument("--untied", action="store_true", help="a head of its own instead of the embedding's")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--precision", choices=["fp32", "bf16"], default="fp32", help="of training; bf16 by autocast")
    options = parser.parse_args()
    if not options.data and not options.ids:
        parser.error("give --data or --ids")
    if gpt.PRESETS[options.preset].vocab > 1000 and not options.tokenizer and not options.ids:
        parser.error(f"{options.preset} is trained on GPT-2's tokens: give --tokenizer FOLDER")
    options.steps = options.steps or STEPS[options.preset]
    options.warmup = options.steps // 10 if options.warmup is None else options.warmup
    return options


def read_tokens(options) -> tuple[torch.Tensor, torch.Tensor, int]:
    """Token ids of both splits, and the size of the vocabulary."""
    if options.ids:
        train, validation = (torch.frombuffer(bytearray(pathlib.Path(file).read_bytes()), dtype=torch.uint16)
                             for file in options.ids)
        return train.long().to(options.device), validation.long().to(options.device), gpt.PRESETS["gpt2"].vocab
    text = pathlib.Path(options.data).read_text(encoding="utf-8")
    if options.tokenizer:
        from tokenizers import ByteLevelBPETokenizer

        folder = pathlib.Path(options.tokenizer)
        bpe = ByteLevelBPETokenizer(str(folder / "vocab.json"), str(folder / "merges.txt"))
        encode, vocab = (lambda part: bpe.encode(part).ids), bpe.get_vocab_size()
    else:
        ids = {character: i for i, character in enumerate(sorted(set(text)))}
        encode, vocab = (lambda part: [ids[c] for c in part]), len(ids)
    cut = int(0.9 * len(text))
    train, validation = (torch.tensor(encode(part), device=options.device) for part in (text[:cut], text[cut:]))
    return train, validation, vocab


@torch.no_grad()
def evaluate(model, tokens: torch.Tensor, context: int) -> float:
    """Mean loss over all tokens but the first; the last window may be shorter."""
    whole = (len(tokens) - 1) // context
    windows = tokens[: whole * context + 1].unfold(0, context + 1, context)
    rest = tokens[whole * context :].unsqueeze(0)
    rows = max(1, 2**26 // (model.size.vocab * context))  # logits of at most 256 MiB
    total = 0.0
    for part in [*windows.split(rows), *([rest] if rest.shape[1] > 1 else [])]:
        logits = model(part[:, :-1])
        total += F.cross_entropy(logits.flatten(0, 1), part[:, 1:].flatten(), reduction="sum").double().item()
    return total / (len(tokens) - 1)


def train(options):
    torch.manual_seed(options.seed)
    train_ids, validation_ids, vocab = read_tokens(options)
    size = dataclasses.replace(gpt.PRESETS[options.preset], vocab=vocab, tied=not options.untied)
    model = gpt.Gpt(size).to(options.device)
    optimizer = gpt.make_optimizer(model)
    loss_of = torch.compile(model) if options.compile else model
    order = torch.Generator().manual_seed(options.seed)
    offsets = torch.arange(size.context + 1, device=options.device)
    start, training_seconds = time.perf_counter(), 0.0
    last = min(options.stop or options.steps, options.steps)
    for step in range(last):
        optimizer.param_groups[0]["lr"] = gpt.learning_rate(step, options.steps, options.warmup)
        starts = torch.randint(len(train_ids) - size.context, (size.batch, 1), generator=order)
        batch = train_ids[starts.to(options.device) + offsets]
        with torch.autocast(options.device, torch.bfloat16, enabled=options.precision == "bf16"):
            loss = loss_of(batch[:, :-1], batch[:, 1:])
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        done = step + 1
        if done == last or (options.eval_every and done % options.eval_every == 0):
            if not torch.isfinite(loss):
                sys.exit(f"the loss is {loss.item()} at step {done}")
            training_seconds += time.perf_counter() - start
            losses = [evaluate(model, ids, size.context) for ids in (train_ids, validation_ids)]
            print(json.dumps({"preset": options.preset, "step": done, "of": options.steps, "seed": options.seed,
                              "tied": size.tied, "precision": options.precision, "train_loss": losses[0],
                              "validation_loss": losses[1], "training_seconds": round(training_seconds, 2)}),
                  flush=True)
            start = time.perf_counter()


if __name__ == "__main__":
    train(parse_arguments())
