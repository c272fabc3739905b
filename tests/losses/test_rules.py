"""What holds for every loss: any batch, any order, finite and connected, nothing changed."""

import warnings

import pytest
import torch

from reid_kit.errors import InputError, NonFiniteError
from tests.losses.cases import CASES, CLASSES, DIMENSION, build
from tests.losses.pair_oracles import clustered

pytestmark = pytest.mark.filterwarnings("ignore:.*without any positive pair")


def ragged(seed=0):
    x, y = clustered([5, 3, 2, 1, 4, 1], seed=seed, dimension=DIMENSION)
    return x, y


def degenerate():
    x, y = ragged()
    twins = x.clone()
    twins[y == 1] = x[y == 0][0]
    return {
        "norm 100": (100 * torch.nn.functional.normalize(x), y),
        "norm 1e-4": (1e-4 * torch.nn.functional.normalize(x), y),
        "identical": (torch.ones_like(x), y),
        "identical to rounding": (torch.ones_like(x) + 1e-7 * x, y),
        "zero": (torch.zeros_like(x), y),
        "duplicates across identities": (twins, y),
        "one identity": (x, torch.zeros_like(y)),
        "all singletons": (x[:6], torch.arange(6)),
        "one image": (x[:1], y[:1]),
        "two identities of one image": (x[:2], torch.tensor([0, 1])),
        "one pair": (x[:2], torch.tensor([3, 3])),
    }


@pytest.mark.parametrize("name, options", CASES)
def test_invariant_to_the_order_of_the_batch(name, options):
    x, y = ragged(seed=1)
    order = torch.randperm(len(y), generator=torch.Generator().manual_seed(5))
    outcomes = []
    for rows in (torch.arange(len(y)), order):
        loss = build(name, options)
        leaf = x.clone().requires_grad_()
        value = loss(leaf[rows], y[rows])
        outcomes.append((value.detach(), torch.autograd.grad(value, leaf)[0], loss.active_fraction.double()))
    for one, two in zip(*outcomes):
        torch.testing.assert_close(one, two, rtol=1e-6, atol=1e-8)


# what these hold constant is part of their definition; their own tests compare the gradient with an oracle's
CONSTANTS_HELD = {
    "a_bier": "the boosting weights",
    "center": "the centres",
    "circle": "the pair weights",
    "circle_softmax": "the weights of the cosines",
    "ranked_list": "the gallery and the pair weights",
    "triplet_adaptive_weight": "the weights, with detach_weights",
}


def differentiable(name, options):
    held = {key: value for key, value in options.items() if key.startswith("detach")}
    return name not in CONSTANTS_HELD or (held and not any(held.values())) or (name.startswith("triplet") and not held)


@pytest.mark.parametrize("name, options", [case for case in CASES if differentiable(*case.values)])
def test_the_gradient_is_that_of_the_value(name, options):
    x, y = ragged(seed=7)
    loss = build(name, options)
    assert torch.autograd.gradcheck(lambda a: loss(a, y), x.requires_grad_(), atol=1e-6, rtol=1e-4, fast_mode=True)


# worth something without any pair: a classifier or proxies, a regulariser of the loss's own weights, tr(J J^T F F^+)
NEVER_EMPTY = (
    *("softmax", "cosine_softmax", "circle_softmax", "center", "proxy_nca", "proxy_anchor"),
    *("a_bier", "spectral_clustering"),
)


@pytest.mark.parametrize("name, options", [case for case in CASES if case.values[0] not in NEVER_EMPTY])
def test_no_pair_costs_exactly_nothing(name, options):
    x, y = ragged()
    leaf = x[:1].clone().requires_grad_()
    value = build(name, options)(leaf, y[:1])
    assert value == 0
    assert torch.equal(torch.autograd.grad(value, leaf)[0], torch.zeros_like(leaf))


@pytest.mark.parametrize("name, options", CASES)
def test_an_empty_batch_costs_nothing(name, options):
    leaf = torch.empty(0, DIMENSION, dtype=torch.float64, requires_grad=True)
    loss = build(name, options)
    value = loss(leaf, torch.empty(0, dtype=torch.int64))
    value.backward()
    assert value == 0 and loss.active_fraction == 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("name, options", CASES)
def test_finite_and_connected_on_degenerate_batches(name, options, dtype):
    for kind, (x, y) in degenerate().items():
        loss = build(name, options, dtype)
        leaf = x.to(dtype, copy=True).requires_grad_()
        value = loss(leaf, y)
        assert value.ndim == 0 and value.isfinite(), f"{kind}: {value}"
        assert value.requires_grad, kind
        value.backward()
        assert leaf.grad is not None and leaf.grad.isfinite().all(), kind
        assert loss.active_fraction.isfinite() and 0 <= loss.active_fraction <= 1, kind


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("name, options", CASES)
def test_half_precision_is_computed_in_float32(name, options, dtype):
    x, y = ragged(seed=2)
    x = x.to(dtype)
    leaf = x.clone().requires_grad_()
    value = build(name, options, torch.float32)(leaf, y)
    assert value.dtype == torch.float32
    torch.testing.assert_close(value, build(name, options, torch.float32)(x.float(), y))
    value.backward()
    assert leaf.grad.dtype == dtype and leaf.grad.isfinite().all()


@pytest.mark.parametrize("name, options", CASES)
def test_autocast_changes_nothing(name, options):
    x, y = ragged(seed=3)
    x = x.float()
    plain = build(name, options, torch.float32)(x, y)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(build(name, options, torch.float32)(x, y), plain)


@pytest.mark.parametrize("name, options", CASES)
def test_inputs_are_left_as_they_were(name, options):
    x, y = ragged(seed=4)
    before = x.clone(), y.clone()
    build(name, options)(x, y)
    assert torch.equal(x, before[0]) and torch.equal(y, before[1])


@pytest.mark.parametrize("name, options", CASES)
def test_bad_batches_are_named(name, options):
    x, y = ragged()
    loss = build(name, options)
    bad = x.clone()
    bad[[2, 5]] = float("nan")
    with pytest.raises(NonFiniteError, match=r"2 of 16 embeddings.*first rows \[2, 5\]"):
        loss(bad, y)
    with pytest.raises(InputError, match=r"labels must be a \(16,\) integer tensor.*\(15,\)"):
        loss(x, y[:-1])
    with pytest.raises(InputError, match="float"):
        loss(x, y.double())
    with pytest.raises(InputError, match=r"embeddings must be a \(B, D\)"):
        loss(x[0], y)


@pytest.mark.parametrize("name, options", CASES)
@pytest.mark.filterwarnings("default:.*without any positive pair")
def test_a_batch_without_positives_warns_once(name, options):
    x, y = torch.randn(CLASSES, DIMENSION, dtype=torch.float64), torch.arange(CLASSES)
    loss = build(name, options)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        loss(x, y)
        loss(x, y)
    assert sum("without any positive pair" in str(warning.message) for warning in caught) == loss.needs_positives
