"""Time of a feed-forward (two layers and GELU), forward and backward: plain PyTorch dense, ours dense and structured.

    python benchmarks/compare/structured_mlp.py --library build/release/lib --json mlp.json

All contestants run in this process on the same input, in bf16, each as one captured CUDA graph; every one is first
checked against float64 composition of its own weights. The time is the median of many replays between events. The three
structured kinds have about 31% of the dense parameters (the 32% settings of Wei et al., arXiv 2406.16450): LowRank of
rank C/4, BlockDense of rank C/3 in 2 blocks, BlockShuffle of 4 blocks. --forward times the forward pass alone.
"""

import argparse
import json
import pathlib
import statistics

import torch
import torch.nn.functional as F

KINDS = ("torch", "dense", "low_rank", "block_dense", "block_shuffle")


def parameter(*shape):
    return (torch.randn(*shape, device="cuda") / shape[-1] ** 0.5).bfloat16().requires_grad_()


def make_parameters(kind, C):
    """The weights of a kind, in the order its forward takes them."""
    M = 4 * C
    up_bias, down_bias = parameter(M), parameter(C)
    if kind in ("torch", "dense"):
        return [parameter(M, C), up_bias, parameter(C, M), down_bias]
    if kind == "low_rank":
        R = C // 4
        return [parameter(R, C), parameter(M, R), up_bias, parameter(R, M), parameter(C, R), down_bias]
    if kind == "block_dense":
        B, R = 2, C // 3 // 128 * 128
        return [parameter(B, R // B, C // B), parameter(M, R), up_bias,
                parameter(B, R // B, M // B), parameter(C, R), down_bias]
    B = 4
    return [parameter(B, C // B, C // B), parameter(B, M // B, C // B), up_bias,
            parameter(B, C // B, M // B), parameter(B, C // B, C // B), down_bias]


def forward(kind, x, p):
    ops = torch.ops.refract
    if kind == "torch":
        return F.linear(F.gelu(F.linear(x, p[0], p[1]), approximate="tanh"), p[2], p[3])
    if kind == "dense":
        return F.linear(ops.linear_gelu(x, p[0], p[1]), p[2], p[3])
    if kind == "low_rank":
        y = ops.linear_gelu(F.linear(x, p[0]), p[1], p[2])
        return F.linear(F.linear(y, p[3]), p[4], p[5])
    if kind == "block_dense":
        y = ops.linear_gelu(ops.block_linear(x, p[0]), p[1], p[2])
        return F.linear(ops.block_linear(y, p[3]), p[4], p[5])
    inner = ops.block_linear(x, p[0], feature_major=True)
    h = ops.block_linear(inner, p[1], interleaved_in=True, interleaved_out=True, feature_major=True)
    y = ops.row_bias_gelu(h.t(), p[2], True).t()
    inner = ops.block_linear(y, p[3], feature_major=True)
    y = ops.block_linear(inner, p[4], interleaved_in=True, interleaved_out=True, feature_major=True)
    return ops.transposed_copy(y.t(), p[5])


def merged(kind, p):
    """The two dense weights a kind stands for, from its definition, in float64."""
    p = [t.detach().double() for t in p]
    if kind in ("torch", "dense"):
        return p[0], p[1], p[2], p[3]

    def shuffle(v, u):  # [B, h, n], [B, m, h]
        B, h, n = v.shape
        first = torch.block_diag(*v).view(h, B, B * n).transpose(0, 1).reshape(B * h, B * n)
        return (torch.block_diag(*u) @ first).view(B, u.shape[1], B * n).transpose(0, 1).reshape(-1, B * n)

    combine = {"low_rank": lambda v, u: u @ v, "block_dense": lambda v, u: u @ torch.block_diag(*v),
               "block_shuffle": shuffle}[kind]
    return combine(p[0], p[1]), p[2], combine(p[3], p[4]), p[5]


def relative(a, b):
    return ((a.double() - b).norm() / b.norm()).item()


def check(kind, x, grad, p):
    """Output, input gradient and the up bias's gradient against the merged dense form in float64."""
    y = forward(kind, x, p)
    got = torch.autograd.grad(y, [x, p[1] if kind in ("torch", "dense") else p[2]], grad)
    w1, b1, w2, b2 = merged(kind, p)
    xd, b1 = x.detach().double().requires_grad_(), b1.requires_grad_()
    yd = F.linear(F.gelu(F.linear(xd, w1, b1), approximate="tanh"), w2, b2)
    wanted = torch.autograd.grad(yd, [xd, b1], grad.double())
    errors = [relative(y, yd)] + [relative(a, b) for a, b in zip(got, wanted)]
    if not max(errors) < 2e-2:
        raise SystemExit(f"{kind}: relative errors {errors} against float64 are too large for bf16")
    return max(errors)


def capture(work):
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            work()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        work()
    return graph


def milliseconds(graph, budget):
    graph.replay()
    torch.cuda.synchronize()
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    times = []
    while sum(times) < budget or len(times) < 20:
        start.record()
        for _ in range(5):
            graph.replay()
        end.record()
        torch.cuda.synchronize()
        times.append(start.elapsed_time(end) / 5)
    return statistics.median(times)


def run_one(kind, C, tokens, options):
    torch.manual_seed(0)
    p = make_parameters(kind, C)
    x = torch.randn(tokens, C, device="cuda").bfloat16().requires_grad_()
    grad = torch.randn(tokens, C, device="cuda").bfloat16()
    few = min(tokens, 1024)
    error = check(kind, x.detach()[:few].requires_grad_(), grad[:few], p)

    def work():
        if options.forward:
            with torch.no_grad():
                return forward(kind, x, p)
        return torch.autograd.grad(forward(kind, x, p), [x, *p], grad)

    return milliseconds(capture(work), options.budget), sum(t.numel() for t in p), error


def profile(kind, C, tokens):
    """Where the time of one forward and backward pass goes, by kernel."""
    p = make_parameters(kind, C)
    x = torch.randn(tokens, C, device="cuda").bfloat16().requires_grad_()
    grad = torch.randn(tokens, C, device="cuda").bfloat16()
    for _ in range(3):
        torch.autograd.grad(forward(kind, x, p), [x, *p], grad)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as trace:
        torch.autograd.grad(forward(kind, x, p), [x, *p], grad)
        torch.cuda.synchronize()
    rows = sorted(trace.key_averages(), key=lambda e: -e.device_time_total)[:14]
    print(f"\n{kind}, width {C}, {tokens} tokens: kernels by time")
    for row in rows:
        print(f"{row.device_time_total / 1e3:8.3f} ms  {row.count:3d}x  {row.key[:110]}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--library", required=True, help="folder of librefract_ops.so and librefract_cuda.so")
    parser.add_argument("--widths", default="1536,2048")
    parser.add_argument("--tokens", default="16384,2048")
    parser.add_argument("--forward", action="store_true", help="the forward pass alone")
    parser.add_argument("--budget", type=float, default=150, help="milliseconds of replays per figure")
    parser.add_argument("--profile", default="", help="kinds to profile at the first width and token count")
    parser.add_argument("--json", help="write the results here too")
    options = parser.parse_args()
    for name in ("librefract_ops.so", "librefract_cuda.so"):
        torch.ops.load_library(str(pathlib.Path(options.library) / name))
    results = []
    print(f"{torch.cuda.get_device_name()}, bf16, {'forward' if options.forward else 'forward and backward'}")
    print(f"{'width':>6}{'tokens':>8}  {'':<14}{'ms':>9}{'gain':>8}{'params':>8}{'error':>10}")
    for C in map(int, options.widths.split(",")):
        for tokens in map(int, options.tokens.split(",")):
            base = base_parameters = None
            for kind in KINDS:
                ms, parameters, error = run_one(kind, C, tokens, options)
                base, base_parameters = base or ms, base_parameters or parameters
                print(f"{C:>6}{tokens:>8}  {kind:<14}{ms:>9.4f}{base / ms:>7.2f}x{parameters / base_parameters:>8.1%}"
                      f"{error:>10.1e}", flush=True)
                results.append({"width": C, "tokens": tokens, "kind": kind, "ms": ms, "gain": base / ms,
                                "parameters": parameters, "error": error})
    if options.json:
        pathlib.Path(options.json).write_text(json.dumps({"device": torch.cuda.get_device_name(),
                                                          "forward": options.forward, "results": results}, indent=1))
    for kind in filter(None, options.profile.split(",")):
        profile(kind, int(options.widths.split(",")[0]), int(options.tokens.split(",")[0]))


if __name__ == "__main__":
    main()
