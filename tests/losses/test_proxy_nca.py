import math

import pytest
import torch
from pytorch_metric_learning import losses as pml_losses

from reid_kit.errors import InputError
from reid_kit.losses import build_loss
from tests.losses.pair_oracles import BATCHES, assert_equals_oracle, clustered

CLASSES, WIDTH = 6, 6


def proxy_nca(**options):
    torch.manual_seed(0)
    return build_loss("proxy_nca", classes=CLASSES, embedding_size=WIDTH, **options).double()


def equation_5(proxies, squared=False, positive_in_denominator=False, scale=1.0, normalize=False):
    def loss(x, y):
        total = 0
        for a, label in zip(x, y.tolist()):
            a, points = (a / a.norm(), [p / p.norm() for p in proxies]) if normalize else (a, proxies)
            d = [scale * ((a - p) @ (a - p) if squared else (a - p).norm()) for p in points]
            others = [torch.exp(-d[z]) for z in range(len(d)) if positive_in_denominator or z != label]
            total = total - torch.log(torch.exp(-d[label]) / sum(others))
        return total / len(x)

    return loss


OPTIONS = [
    {},
    {"squared": True},
    {"positive_in_denominator": True, "scale": 3.0},
    {"squared": True, "normalize": True, "scale": 8.0},
]


@pytest.mark.parametrize("batch", BATCHES)
@pytest.mark.parametrize("options", OPTIONS)
def test_is_equation_5(options, batch):
    loss = proxy_nca(**options)
    assert_equals_oracle(loss, equation_5(loss.proxies.detach(), **options), BATCHES[batch])


def test_gradient_of_the_proxies():
    loss = proxy_nca()
    x, y = clustered([3, 2, 1])
    loss(x, y).backward()
    proxies = loss.proxies.detach().clone().requires_grad_()
    equation_5(proxies)(x, y).backward()
    torch.testing.assert_close(loss.proxies.grad, proxies.grad)


def test_agrees_with_pytorch_metric_learning_in_its_form():
    ours = proxy_nca(squared=True, positive_in_denominator=True, normalize=True, scale=4.0)
    theirs = pml_losses.ProxyNCALoss(CLASSES, WIDTH, softmax_scale=4.0)
    theirs.proxies.data = ours.proxies.data.clone()
    assert_equals_oracle(ours, theirs, clustered([4, 3, 2, 1]))


def test_embeddings_on_proxies_at_equal_distances():
    loss = build_loss("proxy_nca", classes=3, embedding_size=3)
    loss.proxies.data = torch.eye(3)
    value = loss(torch.eye(3), torch.arange(3))
    assert value.item() == pytest.approx(math.log(2) - math.sqrt(2), abs=1e-5)
    assert loss.active_fraction == 0
    loss(torch.eye(3), torch.tensor([1, 2, 2]))
    assert loss.active_fraction.item() == pytest.approx(2 / 3)


def test_single_class_has_no_negative_and_a_zero_connected_to_the_graph():
    loss = build_loss("proxy_nca", classes=1, embedding_size=4)
    x = torch.randn(3, 4, requires_grad=True)
    value = loss(x, torch.zeros(3, dtype=torch.long))
    value.backward()
    assert value == 0 and x.grad.eq(0).all() and loss.proxies.grad.eq(0).all()


def test_gradcheck():
    x, y = clustered([2, 3, 1], seed=8)
    assert torch.autograd.gradcheck(lambda x: proxy_nca()(x, y), x.requires_grad_())


@pytest.mark.parametrize("label", [-1, CLASSES])
def test_labels_without_a_proxy_are_refused(label):
    with pytest.raises(InputError, match="proxy_nca"):
        proxy_nca()(torch.randn(2, WIDTH), torch.tensor([0, label]))


@pytest.mark.parametrize("option", ["classes", "embedding_size", "scale"])
def test_options_must_be_positive(option):
    with pytest.raises(InputError, match=option):
        build_loss("proxy_nca", **{"classes": 3, "embedding_size": 4, option: 0})


def test_embeddings_of_another_width_are_refused():
    with pytest.raises(InputError, match="proxy_nca was built for embedding_size=6, but the embeddings are 5 wide"):
        proxy_nca()(torch.randn(2, 5), torch.tensor([0, 1]))
