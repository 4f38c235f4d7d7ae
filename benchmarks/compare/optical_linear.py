"""Time of the optical linear layer on a GPU beside the dense layer and mase-triton's OpticalTransformerLinear.

    python benchmarks/compare/optical_linear.py [--library build/release/lib] [--out results.json]

Shapes are rows x in x out, bf16, x of [rows / 1024, 1024, in], no bias. Ours and the dense layer are timed inside a
captured CUDA graph, as a training step runs them, over several sets of inputs in turn; the reference asks the host for
its ranges and can't be captured, so it is timed as it runs, between events. "once" has the weight quantized once for
many calls (micro-batches), "each" before every call (one micro-batch per step). Medians of --repeats.
"""

import argparse
import json
import pathlib
import statistics

import torch
import torch.nn.functional as F

SHAPES = [(8192, 768, 768), (8192, 768, 2688), (8192, 2688, 768), (16384, 2048, 8192)]
INF = float("inf")
SETS = 4  # of inputs, used in turn
CALLS = 8  # per graph


def median_ms(run, repeats, calls):
    times = []
    for _ in range(repeats):
        start, stop = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        run()
        stop.record()
        stop.synchronize()
        times.append(start.elapsed_time(stop) / calls)
    return statistics.median(times)


def graph_ms(call, repeats):
    """`call(i)` for i = 0 .. CALLS - 1, captured."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for i in range(CALLS):
            call(i)
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        kept = [call(i) for i in range(CALLS)]
    graph.replay()
    ms = median_ms(graph.replay, repeats, CALLS)
    del kept
    return ms


def eager_ms(call, repeats):
    def run():
        for i in range(CALLS):
            call(i)

    run()
    run()
    return median_ms(run, repeats, CALLS)


class Ours:
    """What the layer does in a training step: quantize the weight, then call the op."""

    def __init__(self, weight):
        self.weight = weight
        unset = lambda: torch.tensor([INF, -INF], device="cuda")
        self.x_range, self.w_range, self.out_range = unset(), unset(), unset()
        self.clock = torch.tensor([1, 0], device="cuda")
        self.ranges_set = False

    def settings(self):
        return dict(train=True, noise=True, clock=self.clock, seed=1, streams=[2], ranges_set=self.ranges_set)

    def encode(self):
        weight = self.weight.detach()
        self.encoded = list(
            torch.ops.refract.optical_encode(weight, [self.w_range], [weight.shape[0]], ranges_set=self.ranges_set)
        )

    def __call__(self, x, fresh):
        if fresh:
            self.encode()
        return torch.ops.refract.optical_linear(
            x, self.weight, None, self.x_range, [self.w_range], [self.out_range], [self.weight.shape[0]],
            self.encoded, fresh, **self.settings(),
        )


def measure(shape, repeats, mase):
    rows, width, out = shape
    torch.manual_seed(1)
    inputs = [
        torch.randn(rows // 1024, 1024, width, device="cuda").bfloat16().requires_grad_() for _ in range(SETS)
    ]
    grads = [torch.randn(rows // 1024, 1024, out, device="cuda").bfloat16() for _ in range(SETS)]
    weight = (torch.randn(out, width, device="cuda") * 0.02).bfloat16().requires_grad_()
    row = {"shape": "x".join(map(str, shape))}

    def both(layer):
        def forward(i):
            return layer(inputs[i % SETS])

        def forward_backward(i):
            return torch.autograd.grad(forward(i), (inputs[i % SETS], weight), grads[i % SETS])

        return forward, forward_backward

    def time_ours(name, layer, timer):
        forward, forward_backward = both(layer)
        with torch.no_grad():
            row[f"{name} forward"] = timer(forward, repeats)
        row[f"{name} both"] = timer(forward_backward, repeats)

    ours = Ours(weight)
    for fresh in (True, False):  # sets the ranges
        ours(inputs[0], fresh)
    ours.ranges_set = True
    time_ours("dense", lambda x: F.linear(x, weight), graph_ms)
    time_ours("once", lambda x: ours(x, False), graph_ms)
    time_ours("each", lambda x: ours(x, True), graph_ms)
    time_ours("eager", lambda x: ours(x, True), eager_ms)
    if mase is not None:
        module = mase(width, out, bias=False, device="cuda", dtype=torch.bfloat16)
        module.weight.data.copy_(weight)
        module.train()

        def forward(i):
            return module(inputs[i % SETS])

        def forward_backward(i):
            return torch.autograd.grad(forward(i), (inputs[i % SETS], module.weight), grads[i % SETS])

        with torch.no_grad():
            row["mase forward"] = eager_ms(forward, max(repeats // 4, 3))
        row["mase both"] = eager_ms(forward_backward, max(repeats // 4, 3))
    return row


def kernels(shape):
    """Time of each kernel of one training call with its backward pass."""
    rows, width, out = shape
    x = torch.randn(rows, width, device="cuda").bfloat16().requires_grad_()
    weight = (torch.randn(out, width, device="cuda") * 0.02).bfloat16().requires_grad_()
    ours = Ours(weight)
    ours(x, True)
    ours.ranges_set = True
    grad = torch.randn(rows, out, device="cuda").bfloat16()
    for _ in range(3):
        torch.autograd.grad(ours(x, True), (x, weight), grad)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        for _ in range(10):
            torch.autograd.grad(ours(x, True), (x, weight), grad)
    events = [e for e in profile.key_averages() if e.self_device_time_total > 0]
    return {e.key[:80]: e.self_device_time_total / 10 for e in events}  # microseconds


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--library", default="build/release/lib", help="folder of librefract_*.so")
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--out", help="JSON file for the results")
    parser.add_argument("--no-reference", action="store_true", help="leave mase-triton out")
    options = parser.parse_args()
    folder = pathlib.Path(options.library).resolve()
    torch.ops.load_library(str(folder / "librefract_ops.so"))
    torch.ops.load_library(str(folder / "librefract_cuda.so"))
    mase = None
    if not options.no_reference:
        from mase_triton.optical_compute.layers import OpticalTransformerLinear as mase
    results = {"device": torch.cuda.get_device_name(), "torch": torch.__version__, "rows": []}
    for shape in SHAPES:
        results["rows"].append(measure(shape, options.repeats, mase))
    results["kernels"] = {"x".join(map(str, s)): kernels(s) for s in SHAPES}
    if options.out:
        pathlib.Path(options.out).write_text(json.dumps(results, indent=1))
    print(results["device"], "torch", results["torch"], "milliseconds; forward, forward + backward")
    names = ("dense", "once", "each", "eager", "mase")
    print(f"{'shape':>18}" + "".join(f"{n:>18}" for n in names) + "   each/dense  mase/each")
    for row in results["rows"]:
        cells = "".join(
            f"{row[n + ' forward']:>9.4f}{row[n + ' both']:>9.4f}" if n + " both" in row else f"{'-':>18}"
            for n in names
        )
        ratio = "".join(f"{row['each ' + k] / row['dense ' + k]:>6.2f}" for k in ("forward", "both"))
        times = row["mase both"] / row["each both"] if "mase both" in row else float("nan")
        print(f"{row['shape']:>18}{cells}{ratio}{times:>11.1f}")
    for shape, times in results["kernels"].items():
        print(shape, "microseconds per kernel")
        for name, us in sorted(times.items(), key=lambda t: -t[1]):
            print(f"  {us:>9.2f}  {name}")


if __name__ == "__main__":
    main()
