"""Training with optics: from a checkpoint that this test pretrains on tiny Shakespeare, and from scratch. The published table comes from
benchmarks/optical_training.py with more steps; this is the same at the size of a test, and asserts its signs and not its figures."""

import importlib.util
import pathlib

import pytest
from safetensors.torch import load_file

ROOT = pathlib.Path(__file__).resolve().parents[2]
CORPUS = ROOT.parent / "shared/data/tinyshakespeare.txt"
if not CORPUS.exists():
    pytest.skip(f"{CORPUS} is missing", allow_module_level=True)

LEVELS = 12  # so few that a model of this size feels them
DENSE_STEPS, MORE_STEPS = 300, 200
SMALL = ["model.hidden_size=64", "model.intermediate_size=192", "model.num_hidden_layers=2", "data.context=32", "eval.batches=100"]


def script():
    specification = importlib.util.spec_from_file_location("optical_training", ROOT / "benchmarks/optical_training.py")
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


OPTICAL = script()


class Study(OPTICAL.Runs):
    def more(self, name, *overrides, lr):
        start = f"init.from={self.folder / 'dense'}"
        return self.train(name, MORE_STEPS, lr, start, *SMALL, *overrides)

    def weights(self, name):
        return load_file(next((self.folder / name / "checkpoints").glob("step-*")) / "model.safetensors")


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    study = Study(str(ROOT / "build/release/bin/refract"), CORPUS, tmp_path_factory.mktemp("optical") / "runs")
    study.dense = study.train("dense", DENSE_STEPS, 3e-3, *SMALL)
    study.switched_on = study.evaluate("dense", "eval.batches=100", OPTICAL.rules(LEVELS))
    study.full = study.more("full", OPTICAL.rules(LEVELS), lr=2e-3)
    return study


def test_full_fine_tuning_wins_back_most_of_what_optics_costs(study):
    cost = study.switched_on - study.dense
    assert cost > 0.1, "too many levels for this test to say anything"
    assert study.full < study.switched_on - 0.5 * cost


def test_from_scratch_it_learns(study):
    losses = [study.train(f"scratch-{steps}", steps, 3e-3, *SMALL, OPTICAL.rules(LEVELS)) for steps in (1, DENSE_STEPS)]
    assert losses[1] < losses[0] - 1


def test_lora_trains_its_adapters_alone(study):
    loss = study.more("lora", OPTICAL.rules(LEVELS, "lora"), lr=3e-3)
    assert loss < study.switched_on - 0.3 * (study.switched_on - study.dense)
    before, after = study.weights("dense"), study.weights("lora")
    assert all(after[name].equal(value) for name, value in before.items())
    adapters = [name for name in after if name.endswith("lora_B.weight")]
    assert len(adapters) == 14 and all(after[name].abs().max() > 0 for name in adapters)


@pytest.mark.parametrize("defect", ["compat_clipped_range", "compat_scaled_qk_range"])
def test_defects_of_the_reference_show(study, defect):
    """By more than a hundredth of a nat, whichever way it goes (see docs/optical.md). What the third does, one noise number for all,
    is about that much in a model this small; tests/ops/optical/quantize_test.cpp tests it on the op."""
    loss = study.more(defect, OPTICAL.rules(LEVELS, **{defect: True}), lr=2e-3)
    assert abs(loss - study.full) > 0.01
