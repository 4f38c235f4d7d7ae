"""Optical attention beside torch's scaled_dot_product_attention on one GPU: time and memory.

    benchmarks/compare/optical_attention.py --library build/release/lib [--json results.json]

Times are medians of CUDA events around one call; "forward" trains (ranges move), "both" adds the
backward pass. Peak memory is what a forward and backward call allocate above their inputs.
"""

import argparse
import json
import math
import pathlib
import statistics
import sys

import torch
import torch.nn.functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

SHAPES = [  # batch, heads, key/value heads, tokens, head width
    (8, 6, 6, 1024, 64),
    (8, 6, 2, 1024, 64),
    (2, 6, 6, 4096, 64),
    (1, 6, 6, 16384, 64),
    (8, 12, 12, 1024, 64),
    (4, 16, 16, 2048, 128),
]


def load(folder):
    for name in ("librefract_ops.so", "librefract_cuda.so"):
        torch.ops.load_library(str(pathlib.Path(folder) / name))


def median_ms(call, repeats=30):
    for _ in range(5):
        call()
    torch.cuda.synchronize()
    events = [
        (torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True))
        for _ in range(repeats)
    ]
    for start, end in events:
        start.record()
        call()
        end.record()
    torch.cuda.synchronize()
    return statistics.median(start.elapsed_time(end) for start, end in events)


def graphed(call):
    """The call as a CUDA graph, so that launches don't count."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            call()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        call()
    return graph.replay


def peak_mib(call):
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    call()
    torch.cuda.synchronize()
    return (torch.cuda.max_memory_allocated() - before) / 2**20


def optical(q, k, v, scale):
    ranges = torch.tensor([math.inf, -math.inf], device="cuda").expand(5, 2).contiguous()
    clock = torch.tensor([1, 0], device="cuda")
    settings = dict(scale=scale, train=True, noise=True, clock=clock, seed=1, streams=[1, 2])
    torch.ops.refract.optical_attention(q, k, v, ranges, **settings)  # sets the ranges
    return lambda q, k, v: torch.ops.refract.optical_attention(
        q, k, v, ranges, ranges_set=True, **settings
    )


def dense(backend):
    def call(q, k, v):
        with sdpa_kernel(backend):
            return F.scaled_dot_product_attention(
                q.transpose(1, 2),
                k.transpose(1, 2),
                v.transpose(1, 2),
                is_causal=True,
                enable_gqa=q.shape[2] != k.shape[2],
            ).transpose(1, 2)

    return call


def measure(attention, q, k, v, grad):
    def both():
        out = attention(q, k, v)
        return torch.autograd.grad(out, (q, k, v), grad)

    def forward():
        with torch.no_grad():
            return attention(q, k, v)

    return {
        "forward_ms": median_ms(graphed(forward)),
        "both_ms": median_ms(graphed(both)),
        "peak_mib": peak_mib(both),
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--library", required=True, help="folder of the built libraries")
    parser.add_argument("--json", help="file for the results")
    parser.add_argument("--dtype", default="bfloat16", choices=["bfloat16", "float16"])
    arguments = parser.parse_args()
    if not torch.cuda.is_available():
        sys.exit("optical_attention.py measures on a GPU, and there is none")
    load(arguments.library)
    torch.manual_seed(1)
    dtype = getattr(torch, arguments.dtype)
    results = []
    print(f"{torch.cuda.get_device_name()}, {arguments.dtype}, causal; ms forward / forward+backward, MiB")
    for batch, heads, kv_heads, tokens, width in SHAPES:
        def normal(n):
            return torch.randn(batch, tokens, n, width, device="cuda", dtype=dtype)

        q, k, v = (normal(n).requires_grad_() for n in (heads, kv_heads, kv_heads))
        grad = normal(heads)
        forms = {
            "optical": optical(q.detach(), k.detach(), v.detach(), width**-0.5),
            "flash": dense(SDPBackend.FLASH_ATTENTION),
            "cudnn": dense(SDPBackend.CUDNN_ATTENTION),
        }
        line = f"{batch}x{heads}/{kv_heads}x{tokens}x{width}:"
        for name, form in forms.items():
            result = measure(form, q, k, v, grad)
            results.append({"shape": [batch, heads, kv_heads, tokens, width], "form": name, **result})
            line += f"  {name} {result['forward_ms']:.3f} / {result['both_ms']:.3f}, {result['peak_mib']:.0f}"
        print(line, flush=True)
    if arguments.json:
        pathlib.Path(arguments.json).write_text(
            json.dumps({"device": torch.cuda.get_device_name(), "dtype": arguments.dtype, "results": results})
        )


if __name__ == "__main__":
    main()
