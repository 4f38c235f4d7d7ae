"""Structured linear layers: two factors, one after the other, each a matrix or block diagonal. They start as the projection of the
dense weight that they stand for, whatever `init` says, as in the program's runs that start from a model."""
import math

import torch
from torch import nn

from refract.library import ops
from refract.rules import BlockDense, BlockShuffle, LowRank, RuleError


def truncated_svd(weight, rank):
    """u [.., m, rank] and v [.., rank, n], whose product is the nearest of that rank; the singular values are shared evenly.

    Step by step as src/transforms/structured/factorization.cpp: an optical factor depends on the signs of its rows."""
    if weight.shape[-2] > weight.shape[-1]:
        u, v = truncated_svd(weight.mT, rank)
        return v.mT.contiguous(), u.mT.contiguous()
    smaller = weight.shape[-2]
    kept = min(rank, smaller)
    q = torch.linalg.eigh(weight @ weight.mT).eigenvectors[..., smaller - kept:].flip(-1)
    projected = q.mT @ weight
    root = projected.norm(dim=-1, keepdim=True).sqrt()
    u, v = q * root.mT, projected / torch.where(root > 0, root, 1.0)
    return nn.functional.pad(u, (0, rank - kept)), nn.functional.pad(v, (0, 0, 0, rank - kept))


def rank_of(kind, shape, blocks=1):
    return kind.rank or max(1, min(shape) // 4 // blocks) * blocks


def factor_shapes(kind, shape, name):
    """(blocks, out, in) of both factors of a layer of shape (out, in); a RuleError where the kind does not fit it."""
    outs, ins = shape
    if isinstance(kind, LowRank):
        rank = rank_of(kind, shape)
        if rank > min(shape):
            raise RuleError(f"{name!r} is {[outs, ins]}: low_rank's rank = {rank} exceeds its full rank; 1 to {min(shape)} would do")
        return (1, rank, ins), (1, outs, rank)
    blocks = kind.blocks
    if isinstance(kind, BlockDense):
        rank = rank_of(kind, shape, blocks)
        if ins % blocks or rank % blocks or rank > ins:
            raise RuleError(f"{name!r} has {ins} inputs: block_dense's blocks = {blocks} must divide them and rank = {rank}, and the rank "
                            "may not exceed them")
        return (blocks, rank // blocks, ins // blocks), (1, outs, rank)
    if math.gcd(outs, ins) % blocks:
        raise RuleError(f"{name!r} is {[outs, ins]}: block_shuffle's blocks = {blocks} doesn't divide both")
    inner = min(shape)
    return (blocks, inner // blocks, ins // blocks), (blocks, outs // blocks, inner // blocks)


def _low_rank(weight, first, second):
    u, v = truncated_svd(weight, first[1])
    return v.unsqueeze(0), u.unsqueeze(0)


def _block_dense(weight, first, second):
    """A block of the first factor meets the columns of its inputs only, so each column block has an SVD of its own."""
    outs, ins = weight.shape
    blocks, rank, _ = first
    u, v = truncated_svd(weight.view(outs, blocks, ins // blocks).transpose(0, 1), rank)
    return v, u.permute(1, 0, 2).reshape(second)


def _block_shuffle(weight, first, second):
    """Each block of the weight, as src/transforms/kinds/block_shuffle.cpp cuts it, has a truncated SVD of its own."""
    blocks, per_block, _ = first
    v, u = weight.new_zeros(first), weight.new_zeros(second)
    grid = weight.view(second[1], blocks, blocks, first[2])
    for source in range(blocks):
        for to in range(blocks):
            begin = (source * per_block - to + blocks - 1) // blocks
            end = ((source + 1) * per_block - to + blocks - 1) // blocks
            if begin == end:
                continue
            left, right = truncated_svd(grid[:, to, source], end - begin)
            u[to, :, begin:end] = left
            row = begin * blocks + to - source * per_block
            v[source, row:row + (end - begin - 1) * blocks + 1:blocks] = right
    return v, u


PROJECTIONS = {LowRank: _low_rank, BlockDense: _block_dense, BlockShuffle: _block_shuffle}


class Factor(nn.Module):
    """Block diagonal, or one matrix. `make(layer, name)` puts the inner kind in place of a dense block; None: there is none."""

    def __init__(self, blocks, name, dtype, make):
        super().__init__()
        blocks = blocks.to(dtype).contiguous()
        self.count = len(blocks)
        if make is None:
            self.weight, self.layers = nn.Parameter(blocks[0] if self.count == 1 else blocks), None
        else:
            names = [name] if self.count == 1 else [f"{name}.{b}" for b in range(self.count)]
            self.layers = nn.ModuleList(make(dense(block), each) for block, each in zip(blocks, names))

    def forward(self, x, interleaved):
        if self.layers is None:
            return nn.functional.linear(x, self.weight) if self.count == 1 else ops.block_linear(x, self.weight, *interleaved)
        if self.count == 1:
            return self.layers[0](x)
        grid = x.unflatten(-1, (-1, self.count) if interleaved[0] else (self.count, -1))
        parts = grid.unbind(-1 if interleaved[0] else -2)
        outputs = [layer(part) for layer, part in zip(self.layers, parts)]
        return torch.stack(outputs, -1).flatten(-2) if interleaved[1] else torch.cat(outputs, -1)


def dense(weight):
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias=False, device=weight.device, dtype=weight.dtype)
    layer.weight = nn.Parameter(weight.clone())
    return layer


class StructuredLinear(nn.Module):
    """y = U (V x) + bias."""

    def __init__(self, base, kind, name, transposed, make):
        super().__init__()
        weight = (base.weight.t() if transposed else base.weight).detach()
        shapes = factor_shapes(kind, tuple(weight.shape), name)
        first, second = PROJECTIONS[type(kind)](weight.double().cpu(), *shapes)
        first, second = first.to(weight.device), second.to(weight.device)
        shuffled = isinstance(kind, BlockShuffle)
        self.first, self.second = (False, False), (shuffled, shuffled)
        self.V = Factor(first, f"{name}.V", weight.dtype, make)
        self.U = Factor(second, f"{name}.U", weight.dtype, make)
        self.bias = base.bias

    def forward(self, x):
        y = self.U(self.V(x, self.first), self.second)
        return y if self.bias is None else y + self.bias
