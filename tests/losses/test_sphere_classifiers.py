"""cosine_softmax and circle_softmax: classification of identities by cosines."""

import math

import pytest
import torch
import torch.nn.functional as F
from pytorch_metric_learning import losses as pml_losses

from reid_kit.errors import InputError
from reid_kit.losses import build_loss
from tests.losses.pair_oracles import BATCHES, assert_equals_oracle, clustered

CLASSES, WIDTH = 6, 6


def classifier(name, **options):
    torch.manual_seed(0)
    return build_loss(name, classes=CLASSES, embedding_size=WIDTH, **options).double()


def cross_entropy(score, smoothing=0.0):
    """The loop: mean over images of -sum over c of target_c * log softmax_c; score(c, own, cosine) is a logit."""

    def loss(x, y, weight):
        total = 0
        for f, label in zip(x, y.tolist()):
            cosines = [(f / f.norm()) @ (w / w.norm()) for w in weight]
            logits = torch.stack([score(c == label, cosine) for c, cosine in enumerate(cosines)])
            logs = logits - logits.exp().sum().log()
            total = total - (1 - smoothing) * logs[label] - smoothing * logs.mean()
        return total / len(x)

    return loss


def arcface(own, cosine, s=30.0, m=0.5):
    if not own:
        return s * cosine
    theta = torch.acos(cosine)
    return s * (torch.cos(theta + m) if theta + m <= math.pi else cosine - m * math.sin(m))


def circle(own, cosine, gamma=64.0, m=0.35, detach=True):
    held = cosine.detach() if detach else cosine
    if own:
        return -gamma * torch.relu(1 + m - held) * (1 - m - cosine)
    return gamma * torch.relu(held + m) * (cosine - m)


CASES = [
    ("cosine_softmax", {}, lambda own, s: 30.0 * s),
    ("cosine_softmax", {"scale": 12.0, "margin": 0.35}, lambda own, s: 12.0 * (s - 0.35 if own else s)),
    ("cosine_softmax", {"margin": 0.5, "margin_on": "angle"}, arcface),
    ("circle_softmax", {}, circle),
    ("circle_softmax", {"detach_weights": False}, lambda own, s: circle(own, s, detach=False)),
    ("circle_softmax", {"gamma": 8.0, "margin": 0.0}, lambda own, s: circle(own, s, 8.0, 0.0)),
]


@pytest.mark.parametrize("batch", BATCHES)
@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("name, options, score", CASES)
def test_is_the_papers_loop(name, options, score, smoothing, batch):
    loss = classifier(name, **options, label_smoothing=smoothing)
    oracle = cross_entropy(score, smoothing)
    x, y = BATCHES[batch]
    assert_equals_oracle(loss, lambda x, y: oracle(x, y, loss.weight.detach()), (x, y))
    weight = loss.weight.detach().clone().requires_grad_()
    theirs = torch.autograd.grad(oracle(x, y, weight), weight)[0]
    torch.testing.assert_close(torch.autograd.grad(loss(x, y), loss.weight)[0], theirs)


@pytest.mark.parametrize(
    "options, theirs",
    [
        ({"scale": 16.0}, lambda: pml_losses.CosFaceLoss(CLASSES, WIDTH, margin=0.0, scale=16)),
        ({"scale": 16.0, "margin": 0.35}, lambda: pml_losses.CosFaceLoss(CLASSES, WIDTH, margin=0.35, scale=16)),
        (
            {"scale": 16.0, "margin": 0.5, "margin_on": "angle"},
            lambda: pml_losses.ArcFaceLoss(CLASSES, WIDTH, margin=math.degrees(0.5), scale=16),
        ),
    ],
    ids=["NormFace", "CosFace", "ArcFace"],
)
def test_agrees_with_pytorch_metric_learning(options, theirs):
    ours, theirs = classifier("cosine_softmax", **options), theirs()
    theirs.W.data = ours.weight.data.T.clone()
    for batch in (clustered([4, 3, 2, 1]), clustered([1, 2, 3, 4, 1, 1], seed=11, noise=2.0)):  # the latter passes pi
        assert_equals_oracle(ours, theirs, batch)


def test_circle_softmax_is_the_circle_loss_against_one_image_an_identity():
    """With an identity's weights in the place of its other image, the pairs' circle loss has the same value."""
    loss = classifier("circle_softmax")
    x, y = clustered([1] * CLASSES, seed=2)
    s = F.normalize(x) @ F.normalize(loss.weight.detach()).T
    expected = 0
    for row, label in zip(s, y.tolist()):
        negatives = [v for c, v in enumerate(row) if c != label]
        left = sum(math.exp(64 * max(v + 0.35, 0) * (v - 0.35)) for v in negatives)
        expected += math.log(1 + left * math.exp(-64 * max(1.35 - row[label], 0) * (row[label] - 0.65)))
    assert loss(x, y).item() == pytest.approx(expected / CLASSES)


def test_a_feature_on_its_identity_has_a_finite_gradient_under_an_angle():
    loss = classifier("cosine_softmax", margin=0.5, margin_on="angle")
    x = torch.cat([loss.weight.detach()[:2], -loss.weight.detach()[:2]]).requires_grad_()
    value = loss(x, torch.tensor([0, 1, 0, 1]))
    assert torch.autograd.grad(value, x)[0].isfinite().all()
    assert float(classifier("cosine_softmax")(x, torch.tensor([0, 1, 0, 1]))) < float(value)


def test_active_fraction_is_the_share_of_wrong_answers():
    for name in ("cosine_softmax", "circle_softmax"):
        loss = classifier(name)
        loss.weight.data = torch.eye(CLASSES, dtype=torch.float64)
        loss(5 * torch.eye(CLASSES, dtype=torch.float64)[[0, 1, 2, 3]], torch.tensor([0, 1, 2, 0]))
        assert float(loss.active_fraction) == 0.25


@pytest.mark.parametrize("name", ["cosine_softmax", "circle_softmax"])
def test_what_does_not_fit_its_weights(name):
    x, y = clustered([3, 2])
    with pytest.raises(InputError, match=f"{name} was built for classes=0..5, but the batch has labels 0 to 6"):
        classifier(name)(x, y.where(y != 1, 6))
    with pytest.raises(InputError, match=f"{name} was built for embedding_size=6, but the embeddings are 5 wide"):
        classifier(name)(x[:, :5], y)


@pytest.mark.parametrize(
    "name, options, words",
    [
        ("cosine_softmax", {"scale": 0}, "scale of cosine_softmax must be a number above 0"),
        ("cosine_softmax", {"margin": -0.1}, "margin of cosine_softmax must be a number of at least 0"),
        ("cosine_softmax", {"margin_on": "angel"}, "margin_on of cosine_softmax: 'angel'.*Did you mean 'angle'"),
        ("cosine_softmax", {"margin": 28.6, "margin_on": "angle"}, "an angle in radians below pi, got 28.6"),
        ("cosine_softmax", {"label_smoothing": 1}, "label_smoothing of cosine_softmax must be below 1"),
        ("circle_softmax", {"gamma": 0}, "gamma of circle_softmax"),
        ("circle_softmax", {"margin": "soft"}, "margin of circle_softmax"),
        ("circle_softmax", {"classes": 0}, "classes of circle_softmax must be a whole number"),
    ],
)
def test_bad_options(name, options, words):
    with pytest.raises(InputError, match=words):
        classifier(name, **options) if "classes" not in options else build_loss(name, embedding_size=4, **options)
