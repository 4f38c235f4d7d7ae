"""Writes aihwkit_noise.json: quantiles of what aihwkit's own models make of a conductance.

    pip download --no-deps --no-binary :all: aihwkit==1.2.0, unpack it, and
    python tests/transforms/analog/aihwkit_noise.py aihwkit-1.2.0 > tests/transforms/analog/aihwkit_noise.json

The models are plain torch; the package around them, which wants its compiled simulator, is not imported.
"""
import importlib
import json
import pathlib
import sys
import types

import torch

SEED, COUNT, VERSION = 1234, 400_000, "1.2.0"
LEVELS = [0.0, 0.02, 0.1, 0.3, 0.6, 1.0]
TIMES = {"pcm": [0.0, 1.0, 3600.0, 86400.0, 31536000.0], "reram-wan": [1.0, 86400.0, 172800.0]}
PROBABILITIES = [i / 40 for i in range(1, 40)]


def models(folder):
    for name in ("aihwkit", "aihwkit.inference", "aihwkit.inference.noise", "aihwkit.inference.converter"):
        package = types.ModuleType(name)
        package.__path__ = [str(pathlib.Path(folder, "src", *name.split(".")))]
        sys.modules[name] = package
    pcm = importlib.import_module("aihwkit.inference.noise.pcm").PCMLikeNoiseModel(g_max=25.0)
    reram = importlib.import_module("aihwkit.inference.noise.reram").ReRamWan2022NoiseModel(g_max=40.0)
    return {"pcm": pcm, "reram-wan": reram}


def main():
    torch.manual_seed(SEED)
    rows = []
    for preset, model in models(sys.argv[1]).items():
        for time in TIMES[preset]:
            for level in LEVELS:
                target = torch.full((COUNT,), level * model.g_max)
                found = model.apply_programming_noise_to_conductance(target)
                if preset != "pcm" or time > 0:
                    found = model.apply_drift_noise_to_conductance(found, model.generate_drift_coefficients(target), time)
                values = torch.sort(found / model.g_max).values
                quantiles = [round(values[int(p * COUNT)].item(), 7) for p in PROBABILITIES]
                rows.append({"preset": preset, "time": time, "level": level, "mean": values.double().mean().item(),
                             "deviation": values.double().std().item(), "quantiles": quantiles})
    head = {"version": VERSION, "seed": SEED, "count": COUNT, "torch": torch.__version__, "probabilities": PROBABILITIES}
    text = json.dumps(head)[:-1] + ', "rows": [\n' + ",\n".join(json.dumps(row) for row in rows) + "\n]}\n"
    sys.stdout.write(text)


main()
