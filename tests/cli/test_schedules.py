"""The learning rate of every step against transformers' schedules and torch's MultiStepLR."""
import json

import pytest
import torch
from transformers import optimization

STEPS, WARMUP, LR = 20, 4, 1e-3

# Settings of ours, and what they are in transformers or torch. transformers counts its warm-up from 0 and ends at 0.
SCHEDULES = {
    "constant": ([], lambda o: optimization.get_constant_schedule_with_warmup(o, WARMUP)),
    "linear": ([], lambda o: optimization.get_linear_schedule_with_warmup(o, WARMUP, STEPS)),
    "cosine": ([], lambda o: optimization.get_cosine_schedule_with_warmup(o, WARMUP, STEPS)),
    "cosine_with_restarts": (["schedule.cycles=3"],
                             lambda o: optimization.get_cosine_with_hard_restarts_schedule_with_warmup(o, WARMUP, STEPS, num_cycles=3)),
    "polynomial": (["schedule.power=2.5", "schedule.final=0.2"],
                   lambda o: optimization.get_polynomial_decay_schedule_with_warmup(o, WARMUP, STEPS, lr_end=0.2 * LR, power=2.5)),
    "multistep": (["schedule.milestones=[0.3,12,16]", "schedule.gamma=0.5", "schedule.warmup=0"],
                  lambda o: torch.optim.lr_scheduler.MultiStepLR(o, [6, 12, 16], gamma=0.5)),
}


@pytest.mark.parametrize("kind", SCHEDULES)
def test_every_step_has_the_rate_of_the_reference(refract, recipe, tmp_path, kind):
    overrides, make = SCHEDULES[kind]
    refract("train", recipe, f"train.steps={STEPS}", "log.every=1", "eval.every=0", "checkpoint.every=0", f"optimizer.lr={LR}",
            f"schedule.kind={kind}", f"schedule.warmup={WARMUP}", "schedule.warmup_from=0", "schedule.start=0", "schedule.final=0", *overrides)
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    rates = [line["learning_rate"] for line in lines if "learning_rate" in line]
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=LR)
    schedule = make(optimizer)
    expected = []
    for _ in range(STEPS):
        expected.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    assert rates == pytest.approx(expected, rel=1e-6, abs=1e-12)
