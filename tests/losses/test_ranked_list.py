import math

import pytest
import torch

from reid_kit.errors import InputError
from reid_kit.losses import build_loss
from reid_kit.losses.base import Batch
from tests.losses.pair_oracles import (
    BATCHES,
    assert_equals_oracle,
    clustered,
    negatives,
    positives,
    unit,
    value_and_gradient,
)


def oracle(
    x, y, alpha=1.2, margin=0.4, temperature=10.0, detach_gallery=True, detach_weights=True, query_weight="uniform"
):
    """RLL eq. 8-14, one query after the other."""
    f, losses, masses = unit(x), [], []
    for i in range(len(y)):
        gallery = f.detach() if detach_gallery else f
        d = [(f[i] - gallery[j]).norm() for j in range(len(y))]
        P = [d[j] - (alpha - margin) for j in positives(y, i) if d[j] > alpha - margin]
        N = [alpha - d[j] for j in negatives(y, i) if d[j] < alpha]
        w = [torch.exp(temperature * (v.detach() if detach_weights else v)) for v in N]
        losses.append(sum(P) / max(len(P), 1) + sum(a * b for a, b in zip(w, N)) / (sum(w) if w else 1))
        masses.append(len(P) + float(sum(w)) if query_weight == "mined_mass" else 1.0)
    return sum(m * loss for m, loss in zip(masses, losses)) / max(sum(masses), 1)


@pytest.mark.parametrize("batch", BATCHES)
@pytest.mark.parametrize("query_weight", ["uniform", "mined_mass"])
@pytest.mark.parametrize("detach_weights", [True, False])
@pytest.mark.parametrize("detach_gallery", [True, False])
def test_equation_and_what_it_holds_constant(detach_gallery, detach_weights, query_weight, batch):
    options = {"detach_gallery": detach_gallery, "detach_weights": detach_weights, "query_weight": query_weight}
    loss = build_loss("ranked_list", **options)
    assert_equals_oracle(loss, lambda x, y: oracle(x, y, **options), BATCHES[batch], tolerance=3e-6)


@pytest.mark.parametrize(
    "options",
    [
        {"temperature": 0.0},
        {"temperature": 3.0, "alpha": 1.4},
        {"margin": 0.0},
        {"margin": 1.2},  # no mining of positives
        {"alpha": 0.6, "margin": 0.1},
    ],
)
def test_options(options):
    for batch in ("ragged", "ragged, easy"):
        loss = build_loss("ranked_list", **options)
        assert_equals_oracle(loss, lambda x, y: oracle(x, y, **options), BATCHES[batch], tolerance=3e-6)


def on_circle(*chords):
    """Points of the unit circle at the given distances from the first one, at angle 0."""
    angles = torch.tensor([0.0, *(2 * math.asin(chord / 2) for chord in chords)], dtype=torch.float64)
    return torch.stack([angles.cos(), angles.sin()], dim=1)


def first_query(x, y, **options):
    """The loss of the first row as the only query, and the share of its pairs that are mined."""
    loss = build_loss("ranked_list", **options)
    value = loss.compute(Batch(x[:1], y[:1], x, y))
    return float(value), float(loss.active_fraction)


def test_membership_is_exact():
    """Positives count from beyond 0.8, negatives up to 1.2."""
    value, active = first_query(
        on_circle(0.8 - 1e-5, 0.8 + 1e-5, 1.2 - 1e-5, 1.2 + 1e-5), torch.tensor([0, 0, 0, 1, 1])
    )
    assert value == pytest.approx(1e-5 + 1e-5, abs=1e-9)
    assert active == pytest.approx(2 / 4)


def test_temperature_runs_from_the_mean_to_the_hardest_negative():
    x, y = on_circle(0.3, 0.5, 1.0), torch.tensor([0, 1, 1, 1])
    terms = [0.9, 0.7, 0.2]
    assert first_query(x, y, temperature=0)[0] == pytest.approx(sum(terms) / 3)
    assert first_query(x, y, temperature=1000)[0] == pytest.approx(0.9)
    w = [math.exp(10 * v) for v in terms]
    assert first_query(x, y)[0] == pytest.approx(sum(a * b for a, b in zip(w, terms)) / sum(w))


def test_only_the_query_is_updated():
    x, y = BATCHES["ragged"]
    for detach_gallery in (True, False):
        anchors, gallery = x[:1].clone().requires_grad_(), x.clone().requires_grad_()
        loss = build_loss("ranked_list", detach_gallery=detach_gallery)
        loss.compute(Batch(anchors, y[:1], gallery, y)).backward()
        assert anchors.grad.any()
        assert (gallery.grad is None or not gallery.grad.any()) == detach_gallery


def test_a_negative_pushes_with_unit_norm():
    """RLL eq. 10, on the sphere: of the unit direction from one point to the other the tangent part is left."""
    x = on_circle(0.3)
    _, gradient = value_and_gradient(build_loss("ranked_list"), x, torch.tensor([0, 1]))
    tangent = math.cos(math.asin(0.3 / 2))
    assert gradient.norm(dim=1).tolist() == pytest.approx([tangent / 2] * 2)  # each query is half of the mean


def test_a_collapsed_batch_is_worth_alpha():
    y = torch.tensor([0, 0, 1, 1, 2])
    for dtype in (torch.float32, torch.float16, torch.bfloat16):
        value, gradient = value_and_gradient(build_loss("ranked_list"), torch.ones(5, 8, dtype=dtype), y)
        assert float(value) == pytest.approx(1.2, abs=1e-4)
        assert gradient.isfinite().all()


def test_one_scale_of_embedding_is_as_good_as_another():
    x, y = BATCHES["ragged"]
    loss = build_loss("ranked_list", temperature=1000.0)
    for scale in (1e-4, 100.0):
        torch.testing.assert_close(loss(x * scale, y), loss(x, y))


@pytest.mark.parametrize("temperature", [0.0, 10.0])
def test_gradcheck(temperature):
    x, y = clustered([3, 2, 1], seed=2)
    loss = build_loss("ranked_list", temperature=temperature, detach_gallery=False, detach_weights=False)
    assert torch.autograd.gradcheck(lambda x: loss(x, y), x.requires_grad_())


@pytest.mark.parametrize(
    "options, message",
    [
        ({"alpha": 0}, "alpha of ranked_list must be a number above 0"),
        ({"margin": -0.4}, "margin of ranked_list must be a number of at least 0"),
        ({"temperature": -1}, "temperature of ranked_list must be a number of at least 0"),
        ({"query_weight": "mass"}, "unknown query_weight of ranked_list: 'mass'"),
        ({"query_weight": "mined_mass", "temperature": 60.0}, r"temperature \* alpha of at most 60"),
    ],
)
def test_a_wrong_option_is_named(options, message):
    with pytest.raises(InputError, match=message):
        build_loss("ranked_list", **options)
