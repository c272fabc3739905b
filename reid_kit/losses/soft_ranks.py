"""Soft ranks within lists of distances: sums of sigmoids, in tiles, or of long lists by polynomials."""

import math
from collections.abc import Callable, Iterator

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from reid_kit.precision import without_autocast

BLOCK = {"cpu": 2**19, "cuda": 2**25}  # numbers held at once: what fits the cache, what fills the device
WIDEST = 80.0  # between the ends of a row of distances: e^40 to the fourth power is within float32
TOLERANCE = {torch.float32: 1e-8, torch.float64: 1e-16}  # of one comparison, by polynomials
FACTOR = 8  # polynomials of degree n are products of FACTOR by n / FACTOR
LENGTH_A_DEGREE = 5  # entries of a list for each polynomial from which on that is faster than tiles


def soft_ranks(matrix: Tensor, temperature: float) -> Tensor:
    """R_ij = 1 + sum over k != j of sigmoid((d_ij - d_ik) / temperature) for an (A, G) matrix of distances."""
    return _SoftRanks.apply(matrix / temperature)


class _SoftRanks(torch.autograd.Function):
    """Ranks within each row at temperature 1, in O(A G) memory beside one block.

    dL/dd_m = g_m * sum_k s'(m, k) - sum_j g_j * s'(j, m), with s' = s - s^2, which is even.

    In tiles every entry is compared with every other, and again in the backward pass. There, on a CPU,
    sigmoid(d_j - d_k) = a_j / (a_j + a_k) and s' = a_j a_k / (a_j + a_k)^2 with a = exp(d), as a division takes a
    fraction of an exponential.
    """

    @staticmethod
    def forward(ctx, rows: Tensor) -> Tensor:
        middle, ctx.half = _span(rows)
        ctx.by_polynomials = _is_long(rows, ctx.half)
        if ctx.by_polynomials:
            ctx.save_for_backward(rows, middle)
            return _sums(rows, torch.ones_like(rows)[:, None], torch.sigmoid, middle, ctx.half)[:, 0] + 0.5
        powers = (rows - middle).exp_() if 2 * ctx.half < WIDEST else None
        ctx.save_for_backward(rows, powers)
        ranks = torch.empty_like(rows)
        for anchors, part in _tiles(rows):
            if powers is None:
                ranks[anchors, part] = _differences(rows[anchors, part], rows[anchors]).sigmoid_().sum(2)
            else:
                own = powers[anchors, part]
                ranks[anchors, part] = _inverse_sums(own, powers[anchors]).sum(2).mul_(own)
        return ranks + 0.5  # k = j gave sigmoid(0) where the definition has 1

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient: Tensor) -> Tensor:
        rows, saved = ctx.saved_tensors
        weights = torch.stack([torch.ones_like(gradient), gradient], dim=1)
        if ctx.by_polynomials:
            total, weighted = _sums(rows, weights, _slope, saved, ctx.half).unbind(1)
            return gradient * total - weighted
        powers = saved
        if powers is not None:
            weights.mul_(powers[:, None])
        result = torch.empty_like(rows)
        for anchors, part in _tiles(rows):
            if powers is None:
                s = _differences(rows[anchors], rows[anchors, part]).sigmoid_()
                slope = s.addcmul_(s, s, value=-1)
            else:
                slope = _inverse_sums(powers[anchors], powers[anchors, part]).square_()
            # (2, G) by (G, part): several times as fast as the slope, transposed, by two columns
            with without_autocast(rows.device):
                total, weighted = torch.bmm(weights[anchors], slope).unbind(1)
            result[anchors, part] = gradient[anchors, part] * total - weighted
        return result if powers is None else result.mul_(powers)


def _span(rows: Tensor) -> tuple[Tensor | None, float]:
    """(A, 1) the middle of each row, and half the longest, above 0; on a GPU not known, and taken for infinite."""
    if rows.device.type != "cpu" or not rows.numel():  # to look at the distances would be to wait for the GPU
        return None, math.inf
    least, most = rows.aminmax(dim=1, keepdim=True)
    return (least + most) / 2, max((most - least).amax().item() / 2, 1e-3)


def _inverse_sums(left: Tensor, right: Tensor) -> Tensor:
    """(b, L, R): 1 / (a_ij + a_ik) for j in `left` (b, L) and k in `right` (b, R)."""
    return (left[:, :, None] + right[:, None, :]).reciprocal_()


def _differences(left: Tensor, right: Tensor) -> Tensor:
    """(b, L, R): d_ij - d_ik for j in `left` (b, L) and k in `right` (b, R)."""
    return left[:, :, None] - right[:, None, :]


def _tiles(rows: Tensor) -> Iterator[tuple[slice, slice]]:
    """Anchors, and the part of their lists, whose differences to the whole lists fit one block."""
    count, length = rows.shape
    block = BLOCK.get(rows.device.type, BLOCK["cuda"])
    high, wide = max(1, block // length**2), max(1, min(length, block // length))
    for i in range(0, count, high):
        for j in range(0, length, wide):
            yield slice(i, i + high), slice(j, j + wide)


# of long lists


def _is_long(rows: Tensor, half: float) -> bool:
    """Whether polynomials are the faster way."""
    length = rows.shape[1]
    return rows.dtype in TOLERANCE and half < length and LENGTH_A_DEGREE * _degree(half, rows.dtype) <= length


def _degree(half: float, dtype: torch.dtype) -> int:
    """How many polynomials give sigmoid(x - y) for |x|, |y| <= half, in whole FACTORs: its nearest poles are at
    x - y = +- i pi, so that each lowers the error by a factor b + sqrt(b^2 + 1) with b = pi / half (Trefethen 2013,
    theorem 8.2).
    """
    return FACTOR * math.ceil(-math.log(TOLERANCE[dtype]) / math.asinh(math.pi / half) / FACTOR)


def _sums(rows: Tensor, weights: Tensor, kernel: Callable[[Tensor], Tensor], middle: Tensor, half: float) -> Tensor:
    """(A, W, G): sum over k of w_k * kernel(d_j - d_k) for each of W weightings (A, W, G) and each j of a row.

    With kernel(x - y) = sum over l, m of c_lm p_l(x) p_m(y) the sums over k are taken once for each polynomial p_m, and
    not for each j: O(G) in place of O(G^2). In float64, as so many terms are summed.
    """
    degree = _degree(half, rows.dtype)
    nodes = (math.pi * (torch.arange(degree, dtype=torch.float64) + 0.5) / degree).cos()
    low, high = _polynomials(nodes, degree)
    at_nodes = (low[:, None] * high).flatten(0, 1).mT
    c = torch.linalg.solve(at_nodes, kernel(half * (nodes[:, None] - nodes)))
    c = torch.linalg.solve(at_nodes, c.mT)  # of l and m, transposed
    sums, anchors = torch.empty_like(weights), max(1, BLOCK["cpu"] // (4 * FACTOR * rows.shape[1]))
    for row, weight, centre, found in zip(*(each.split(anchors) for each in (rows, weights, middle, sums))):
        low, high = _polynomials((row.double() - centre) / half, degree)
        low, high = low[:, None], high[:, None]
        moments = (weight[:, :, None].double() * low) @ high.mT
        values = (moments.flatten(2) @ c).unflatten(2, (FACTOR, -1)) @ high
        found.copy_((values * low).sum(2))
    return sums


def _polynomials(x: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Of (..., G) numbers in -1 .. 1: T_l(x), (..., FACTOR, G), and T_m(T_FACTOR(x)), (..., count / FACTOR, G).

    T_m(T_FACTOR(x)) is the Chebyshev polynomial T_(m FACTOR)(x), so that their products span those below `count`, and
    a few of them are computed in place of `count`.
    """
    low = _chebyshev(x, FACTOR + 1)
    return low[..., :FACTOR, :].contiguous(), _chebyshev(low[..., FACTOR, :], count // FACTOR)


def _chebyshev(x: Tensor, count: int) -> Tensor:
    """(..., count, G): T_0 .. of (..., G) numbers."""
    T = [torch.ones_like(x), x]
    while len(T) < count:
        T.append(2 * x * T[-1] - T[-2])
    return torch.stack(T[:count], dim=-2)


def _slope(difference: Tensor) -> Tensor:
    """The derivative of the sigmoid."""
    s = difference.sigmoid()
    return s - s * s
