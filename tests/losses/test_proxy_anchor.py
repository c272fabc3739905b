import math

import pytest
import torch
from pytorch_metric_learning import losses as pml_losses

from reid_kit.errors import InputError
from reid_kit.losses import build_loss
from tests.losses.pair_oracles import BATCHES, assert_equals_oracle, clustered

CLASSES, WIDTH = 6, 6


def proxy_anchor(**options):
    torch.manual_seed(0)
    return build_loss("proxy_anchor", classes=CLASSES, embedding_size=WIDTH, **options).double()


def equation_4(x, y, proxies, alpha=32.0, delta=0.1):
    present, attraction, repulsion = 0, 0, 0
    for c, p in enumerate(proxies):
        s = [(f / f.norm()) @ (p / p.norm()) for f in x]
        own = [v for v, label in zip(s, y.tolist()) if label == c]
        others = [v for v, label in zip(s, y.tolist()) if label != c]
        if own:
            present += 1
            attraction = attraction + torch.log(1 + sum(torch.exp(-alpha * (v - delta)) for v in own))
        if others:
            repulsion = repulsion + torch.log(1 + sum(torch.exp(alpha * (v + delta)) for v in others))
    return attraction / present + repulsion / len(proxies)


@pytest.mark.parametrize("batch", BATCHES)
@pytest.mark.parametrize("options", [{}, {"alpha": 4.0, "delta": 0.3}])
def test_is_equation_4(options, batch):
    loss = proxy_anchor(**options)
    x, y = BATCHES[batch]
    assert_equals_oracle(loss, lambda x, y: equation_4(x, y, loss.proxies.detach(), **options), (x, y))
    proxies = loss.proxies.detach().clone().requires_grad_()
    theirs = torch.autograd.grad(equation_4(x, y, proxies, **options), proxies)[0]
    torch.testing.assert_close(torch.autograd.grad(loss(x, y), loss.proxies)[0], theirs)


def test_agrees_with_pytorch_metric_learning():
    ours, theirs = proxy_anchor(), pml_losses.ProxyAnchorLoss(CLASSES, WIDTH, margin=0.1, alpha=32)
    theirs.proxies.data = ours.proxies.data.clone()
    assert_equals_oracle(ours, theirs, clustered([4, 3, 2, 1]))


def test_embeddings_on_orthogonal_proxies():
    loss = build_loss("proxy_anchor", classes=3, embedding_size=3, alpha=2.0, delta=0.1)
    loss.proxies.data = torch.eye(3)
    value = loss(torch.eye(3)[:2], torch.tensor([0, 1]))
    attraction = math.log(1 + math.exp(-2 * 0.9))
    repulsion = (2 * math.log(1 + math.exp(0.2)) + math.log(1 + 2 * math.exp(0.2))) / 3
    assert value.item() == pytest.approx(attraction + repulsion, rel=1e-6)
    assert loss.active_fraction == 0
    loss(torch.eye(3), torch.tensor([1, 1, 2]))
    assert loss.active_fraction.item() == pytest.approx(1 / 3)


def test_bad_input():
    with pytest.raises(InputError, match="proxy_anchor was built for classes=0..5"):
        proxy_anchor()(torch.randn(2, WIDTH), torch.tensor([0, 6]))
    with pytest.raises(InputError, match="proxy_anchor was built for embedding_size=6"):
        proxy_anchor()(torch.randn(2, 4), torch.tensor([0, 1]))
    with pytest.raises(InputError, match="alpha of proxy_anchor must be a number above 0"):
        proxy_anchor(alpha=0)
    with pytest.raises(InputError, match="delta of proxy_anchor must be a number of at least 0"):
        proxy_anchor(delta=-1)
