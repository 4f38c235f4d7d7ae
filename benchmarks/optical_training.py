#!/usr/bin/env python3
"""What optics costs a small language model, how much training with it wins back, and what each of the reference's defects does.

  benchmarks/optical_training.py --refract ./refract --data tinyshakespeare.txt [--levels 16] [--out FOLDER]

Pretrains a small dense Llama on the corpus, evaluates it with optics switched on, then trains on from it (all weights, and
LoRA alone) and from scratch, all with optics; then fine-tunes once more with each defect of mase-triton switched on. The table's losses
are over the whole validation split. Everything runs through the program's own commands; about ten minutes on two cores.
"""

import argparse
import json
import pathlib
import shutil
import subprocess

RECIPE = """
[data]
tokenizer = "chars"
context = 64
[model]
hidden_size = 128
intermediate_size = 384
num_hidden_layers = 4
num_attention_heads = 4
num_key_value_heads = 2
norm = "rmsnorm"
position = "rope"
hidden_act = "swiglu"
attention_bias = false
attention_output_bias = false
mlp_bias = false
tie_word_embeddings = false
[optimizer]
weight_decay = 0.01
[schedule]
kind = "linear"
final = 0
[train]
batch = 16
device = "cpu"
[eval]
every = 0
samples = 0
[checkpoint]
every = 0
"""


def rules(levels, linear="optical", **parameters):
    """The transform rules as an override: both products of attention, and every linear layer."""
    extra = "".join(f",{key}={str(value).lower()}" for key, value in parameters.items())
    optical = f'kind="optical",q_levels={levels}{extra}'
    if linear == "lora":
        layer = f'kind="lora",r=32,alpha=32,over={{{optical}}}'
    else:
        layer = optical
    return f'transform=[{{match=".*_proj",{layer}}},{{match=".*self_attn",{optical}}}]'


class Runs:
    def __init__(self, refract, data, folder):
        self.refract, self.data, self.folder = refract, data, folder
        folder.mkdir(parents=True)
        self.recipe = folder / "recipe.toml"
        self.recipe.write_text(RECIPE)

    def call(self, *arguments):
        done = subprocess.run([self.refract, *map(str, arguments), "--json"], check=True, stdout=subprocess.PIPE, text=True)
        return json.loads(done.stdout)

    def train(self, name, steps, lr, *overrides):
        run = self.folder / name
        result = self.call("train", self.recipe, f"run.dir={run}", f"data.path={self.data}", f"train.steps={steps}",
                           f"optimizer.lr={lr}", *overrides)
        return result["validation"]["loss"]

    def evaluate(self, name, *overrides):
        return self.call("eval", self.folder / name, *overrides)["loss"]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--refract", default="./refract")
    parser.add_argument("--data", required=True)
    parser.add_argument("--levels", type=int, default=16)
    parser.add_argument("--steps", type=int, default=1000, help="of pretraining and from scratch")
    parser.add_argument("--fine-tune", type=int, default=400, help="steps of each fine-tuning")
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("runs/optical-training"))
    a = parser.parse_args()
    if a.out.exists():
        shutil.rmtree(a.out)
    runs = Runs(a.refract, a.data, a.out)
    rows = []

    def note(what, loss):
        rows.append((what, loss))
        print(f"| {what} | {loss:.4f} |", flush=True)

    print(f"| {a.levels} levels | validation loss |\n| --- | ---: |")
    note(f"dense, {a.steps} steps", runs.train("dense", a.steps, 2e-3))
    start = f"init.from={a.out / 'dense'}"
    note("the same weights, optics switched on", runs.evaluate("dense", rules(a.levels)))
    note(f"dense, {a.fine_tune} steps more", runs.train("dense-more", a.fine_tune, 3e-4, start))
    note(f"optical, {a.fine_tune} steps of full fine-tuning", runs.train("full", a.fine_tune, 3e-4, start, rules(a.levels)))
    note(f"optical, {a.fine_tune} steps of LoRA (r = alpha = 32)",
         runs.train("lora", a.fine_tune, 1e-3, start, rules(a.levels, "lora")))
    note(f"optical from scratch, {a.steps} steps", runs.train("scratch", a.steps, 2e-3, rules(a.levels)))
    defects = {"compat_shared_noise": "1, one noise number for all", "compat_clipped_range": "3, ranges of clipped outputs",
               "compat_scaled_qk_range": "4, the range of scaled scores on unscaled ones"}
    for key, what in defects.items():
        note(f"defect {what}: full fine-tuning",
             runs.train(f"full-{key}", a.fine_tune, 3e-4, start, rules(a.levels, **{key: True})))


if __name__ == "__main__":
    main()
