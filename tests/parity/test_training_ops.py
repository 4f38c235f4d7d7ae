"""The loss, the optimizer and the embedding as Python sees them, against torch's own."""

import pytest
import torch
import torch.nn.functional as F
from ops_library import load_ops

ops = load_ops()


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(1)


def hyper(lr, betas, step):
    return torch.tensor([lr, 1 - betas[0] ** step, 1 - betas[1] ** step, 0.0])


@pytest.mark.parametrize("kind", ["adamw", "adam"])
@pytest.mark.parametrize("betas", [(0.9, 0.999), (0.9, 0.95)])
def test_adamw_is_torchs(kind, betas):
    n, n_decay, lr, decay = 1003, 700, 3e-3, 0.1 if kind == "adamw" else 0.0
    start = torch.randn(n)
    parts = [start[:n_decay].clone().requires_grad_(), start[n_decay:].clone().requires_grad_()]
    groups = [{"params": [parts[0]], "weight_decay": decay}, {"params": [parts[1]], "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW if kind == "adamw" else torch.optim.Adam
    reference = optimizer(groups, lr=lr, betas=betas, eps=1e-8, foreach=False)
    master, m, v = start.clone(), torch.zeros(n), torch.zeros(n)
    control = torch.zeros(4)
    for step in range(1, 21):
        grad = torch.randn(n)
        norm = ops.global_norm(grad)
        ops.step_control_(control, norm, torch.tensor(1.0), 5.0, torch.tensor([step]))
        parts[0].grad, parts[1].grad = grad[:n_decay].clone(), grad[n_decay:].clone()
        expected = torch.nn.utils.clip_grad_norm_(parts, 5.0)
        torch.testing.assert_close(norm, expected, rtol=1e-6, atol=0)
        reference.step()
        ops.adamw_(
            master, None, grad, m, v, hyper(lr, betas, step), control, *betas, 1e-8, decay, n_decay
        )
        torch.testing.assert_close(master, torch.cat(parts).detach(), rtol=2e-6, atol=2e-7)


@pytest.mark.parametrize("momentum, nesterov", [(0.9, False), (0.9, True), (0.0, False)])
def test_sgd_is_torchs(momentum, nesterov):
    """Within 2e-6 of the weights after 20 steps: torch adds the same products in the same order and may fuse a product with a sum."""
    n, n_decay, lr, decay = 1003, 700, 0.1, 5e-4
    start = torch.randn(n)
    parts = [start[:n_decay].clone().requires_grad_(), start[n_decay:].clone().requires_grad_()]
    groups = [{"params": [parts[0]], "weight_decay": decay}, {"params": [parts[1]], "weight_decay": 0.0}]
    reference = torch.optim.SGD(groups, lr=lr, momentum=momentum, nesterov=nesterov, foreach=False)
    master, buffer, control = start.clone(), torch.zeros(n), torch.zeros(4)
    for step in range(1, 21):
        grad = torch.randn(n)
        ops.step_control_(control, ops.global_norm(grad), torch.tensor(1.0), 5.0, torch.tensor([step]))
        parts[0].grad, parts[1].grad = grad[:n_decay].clone(), grad[n_decay:].clone()
        torch.nn.utils.clip_grad_norm_(parts, 5.0)
        reference.step()
        ops.sgd_(master, None, grad, buffer, torch.tensor([lr, 0.0, 0.0, 0.0]), control, momentum, decay, n_decay, nesterov)
        torch.testing.assert_close(master, torch.cat(parts).detach(), rtol=2e-6, atol=2e-7)


@pytest.mark.parametrize("shape", [(24, 40), (40, 24), (16, 16)])
@pytest.mark.parametrize("nesterov", [True, False])
def test_muon_is_torchs(shape, nesterov):
    """torch iterates in bf16 only, whose rounding the two take at different places: a step's entries agree to 4% of their largest."""
    lr, momentum, decay = 0.02, 0.95, 0.1
    weight = torch.randn(shape).requires_grad_()
    reference = torch.optim.Muon([weight], lr=lr, momentum=momentum, nesterov=nesterov, weight_decay=decay, adjust_lr_fn="match_rms_adamw")
    master, buffer, control = weight.detach().clone(), torch.zeros(shape), torch.tensor([1.0, 0, 0, 0])
    for _ in range(5):
        before = weight.detach().clone()
        weight.grad = torch.randn(shape)
        master.copy_(before)
        ops.muon_(master, None, weight.grad.clone(), buffer, torch.tensor([lr, 0.0, 0.0, 0.0]), control, momentum, decay, nesterov, 5, True)
        reference.step()
        step = (weight.detach() - before).abs().max()
        assert step > 1e-3
        torch.testing.assert_close(master, weight.detach(), rtol=0, atol=0.04 * step.item())
        torch.testing.assert_close(buffer, reference.state[weight]["momentum_buffer"], rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("dtype,rtol,atol", [(torch.float32, 1e-5, 1e-6), (torch.float64, 1e-12, 1e-12)])
@pytest.mark.parametrize("width", [32, 96])
def test_linear_cross_entropy_is_torchs(dtype, rtol, atol, width):
    rows, classes, padded = 150, 2003, 2048
    x = torch.randn(2, rows // 2, width, dtype=dtype, requires_grad=True)
    weight = torch.randn(padded, width, dtype=dtype, requires_grad=True)
    targets = torch.randint(classes, (2, rows // 2))
    targets[0, 3] = -100
    loss, correct = ops.linear_cross_entropy(x, weight, targets, classes)
    got = torch.autograd.grad(loss / rows, [x, weight])
    logits = F.linear(x, weight[:classes])
    expected = F.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="sum")
    wanted = torch.autograd.grad(expected / rows, [x, weight])
    torch.testing.assert_close(loss, expected, rtol=rtol, atol=atol)
    assert correct.item() == (logits.argmax(-1) == targets).sum().item()
    for a, b in zip(got, wanted):
        torch.testing.assert_close(a, b, rtol=rtol, atol=atol)


def test_embed_is_torchs():
    tokens = torch.randint(50, (3, 7))
    wte = torch.randn(50, 24, requires_grad=True)
    wpe = torch.randn(16, 24, requires_grad=True)
    out = ops.embed(tokens, wte, wpe, 4)
    expected = F.embedding(tokens, wte) + wpe[4:11]
    assert torch.equal(out, expected)
    grad = torch.randn_like(out)
    for a, b in zip(*(torch.autograd.grad(y, [wte, wpe], grad) for y in (out, expected))):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-6)
