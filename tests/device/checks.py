"""What runs on the stand-in device; `test_device.py` starts it in a process of its own."""

import warnings

import numpy as np
import pytest
import torch

from tests.device import stand_in
from tests.device.examples import assert_same, sides
from tests.device.stand_in import COUNTS, DEVICE

if not stand_in.started():
    stand_in.start()

from reid_kit.errors import NonFiniteError  # noqa: E402
from reid_kit.evaluation import (  # noqa: E402
    distances,
    evaluate_distances,
    evaluate_retrieval,
    k_reciprocal_distance,
    neighbours,
    ranks,
)
from reid_kit.evaluation import features as features_module  # noqa: E402
from reid_kit.evaluation.clustering import normalized_mutual_information  # noqa: E402
from reid_kit.evaluation.expansion import expand_queries  # noqa: E402
from reid_kit.gallery.exact import nearest_among, nearest_rows  # noqa: E402
from reid_kit.losses.base import without_waits  # noqa: E402
from reid_kit.losses.cross_batch_memory import CrossBatchMemory  # noqa: E402
from reid_kit.losses.softmax import Softmax  # noqa: E402
from reid_kit.losses.weighted_sum import Term, WeightedSum  # noqa: E402
from reid_kit.training import trainer as trainer_module  # noqa: E402
from reid_kit.training.hard_identities import HardIdentities  # noqa: E402
from tests.losses.cases import CASES, DIMENSION, build  # noqa: E402
from tests.losses.pair_oracles import clustered  # noqa: E402
from tests.training.toys import ToyLoss, toy_trainer  # noqa: E402

WAITS = {  # of one call, forward and backward: a loss that is not named here has none
    "angular": 1,
    "facility_location": 8,
    "hdc": 14,
    "hierarchical_triplet": 2,
    "histogram": 4,
    "n_pair": 3,
    "quadruplet": 3,
    "smooth_ap": 1,
    "spectral_clustering": 5,
    "triplet": 1,
}


@pytest.fixture(autouse=True)
def _quiet():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
    COUNTS.clear()


@pytest.mark.parametrize("name, options", [*CASES, pytest.param("memory", {}, id="memory")])
def test_losses(name, options):
    """Value, gradient and active fraction are the CPU's and on the device, and waits are in the budget."""
    x, y = clustered([5, 3, 2, 1, 4, 1], seed=6, dimension=DIMENSION)
    outcomes = []
    for device in ("cpu", DEVICE):
        if name == "memory":
            loss = CrossBatchMemory(build("contrastive", {}, torch.float32), 20).to(device)
            loss(x.flip(0).to(device, torch.float32), y.flip(0).to(device))
        else:
            loss = build(name, options, torch.float32).to(device)
        leaf, labels = x.to(device, torch.float32).requires_grad_(), y.to(device)
        COUNTS.clear()
        with without_waits(y):
            value = loss(leaf, labels)
            value.backward()
        assert {value.device, leaf.grad.device, loss.active_fraction.device} == {leaf.device}
        own = [each.grad.cpu() for each in loss.parameters() if each.grad is not None]
        assert device == "cpu" or sum(COUNTS.waits.values()) - len(own) <= WAITS.get(name, 0), COUNTS.waits
        outcomes.append((value.detach().cpu(), leaf.grad.cpu(), loss.active_fraction.cpu(), own))
    torch.testing.assert_close(*outcomes)


def test_losses_say_what_is_wrong_with_their_input():
    loss, x, y = Softmax(4, 3).to(DEVICE), torch.ones(2, 3).to(DEVICE), torch.tensor([0, 1])
    with pytest.raises(NonFiniteError, match=r"1 of 2.*rows \[1\]"):
        loss(x * torch.tensor([[1.0], [torch.nan]]).to(DEVICE), y.to(DEVICE))
    with without_waits(torch.tensor([0, 9])), pytest.raises(ValueError, match="labels 0 to 9"):
        loss(x, y.to(DEVICE))


@pytest.mark.parametrize("place, few", [("cpu", False), (DEVICE, False), (DEVICE, True)])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"histogram": True},
        {"metric": "cosine", "histogram": True, "no_match": "zero"},
        {"average_precision": "trapezoid", "same_set": True},
    ],
    ids=str,
)
def test_evaluator(options, place, few, monkeypatch):
    q, g, *labels = sides()
    q, g = q + 1, g + 1  # none is zero
    if options.get("same_set"):
        g, labels = q, [labels[0], labels[0]]
    if few:
        monkeypatch.setattr(ranks, "ROWS_MEMORY", 1)
        monkeypatch.setattr(ranks, "MOST_COMPARED", 2)
        monkeypatch.setattr(distances, "GALLERY_BLOCK", 128)
    expected = evaluate_retrieval(q, g, *labels, **options)
    assert_same(evaluate_retrieval(q.to(place), g.to(place), *labels, **options, device=DEVICE), expected)


def test_evaluator_where_the_features_do_not_fit(monkeypatch):
    monkeypatch.setattr(features_module, "room", lambda device: 0)
    q, g, *labels = sides(1)
    assert_same(evaluate_retrieval(q, g.half(), *labels, device=DEVICE), evaluate_retrieval(q, g, *labels))


def test_given_distances():
    q, g, *labels = sides(2)
    given = torch.cdist(q, g)
    for options in ({}, {"histogram": True}):
        there = evaluate_distances(given.to(DEVICE), *labels, **options)
        assert_same(there, evaluate_distances(given, *labels, **options))


def test_evaluator_waits_once_whatever_the_size(monkeypatch):
    """Features copied, checked and counted: no block of queries waits."""
    monkeypatch.setattr(ranks, "ROWS_MEMORY", 4 * 64 * 900)
    monkeypatch.setattr(ranks, "LEAST_QUERIES", 64)
    waits = []
    for queries in (64, 640):
        q, g, *labels = sides(3, queries)
        q, g = q.to(DEVICE), g.to(DEVICE)
        COUNTS.clear()
        evaluate_retrieval(q, g, *labels)
        waits.append(dict(COUNTS.waits))
    assert waits[0] == waits[1] and sum(waits[0].values()) <= 4, (
        waits
    )  # the device and both sides checked, the counts fetched


def test_features_go_to_the_device_once():
    q, g, *labels = sides(4, 300)
    COUNTS.clear()
    evaluate_retrieval(q, g, *labels, device=DEVICE)
    assert sum(times for (what, _), times in COUNTS.waits.items() if what == "to the device") == 2, COUNTS.waits


@pytest.mark.parametrize(
    "queries, gallery, identities, histogram",
    [(500, 66_000, 30_000, True), (40, 140_000, 30_000, True), (60, 30_000, 2, False)],
)
def test_evaluator_memory(queries, gallery, identities, histogram):
    """Below 256 MB beside the features, in blocks and in pieces, and where an identity has 15,000 images."""
    random = np.random.default_rng(5)
    q, g = (torch.from_numpy(random.standard_normal((n, 2)).astype(np.float32)).to(DEVICE) for n in (queries, gallery))
    qi, gi = (random.integers(0, identities, n) for n in (queries, gallery))
    COUNTS.clear()
    before = COUNTS.held
    evaluate_retrieval(q, g, qi, gi, histogram=histogram)
    assert COUNTS.peak - before < 256 * 10**6, COUNTS.peak - before


def test_re_ranking(monkeypatch):
    monkeypatch.setattr(neighbours, "GALLERY_BLOCK", 100)
    random = np.random.default_rng(6)
    q, g = (torch.from_numpy(random.standard_normal((n, 7)).astype(np.float32)) for n in (30, 270))
    expected = k_reciprocal_distance(q, g, k1=9)
    for place in ("cpu", DEVICE):
        found = k_reciprocal_distance(q.to(place), g.to(place), k1=9, device=DEVICE)
        assert found.device == torch.device(DEVICE)
        torch.testing.assert_close(found.cpu(), expected)


def test_expansion_and_clusters():
    q, g, qi, *_ = sides(7)
    q, g = q + 1, g + 1
    found = expand_queries(q, g, 5, alpha=3.0, device=DEVICE)
    assert found.device == torch.device(DEVICE)
    torch.testing.assert_close(found.cpu().sum(1), expand_queries(q, g, 5, alpha=3.0).sum(1), rtol=0.05, atol=0)
    assert normalized_mutual_information(q.to(DEVICE), qi) == pytest.approx(normalized_mutual_information(q, qi))


def on_the_device(folder, **options):
    trainer = toy_trainer(None, **options)
    rebuilt = toy_trainer(folder, device=DEVICE, **options) if folder else toy_trainer(None, device=DEVICE, **options)
    rebuilt.model.load_state_dict(trainer.model.state_dict())
    return rebuilt


def srt_and_softmax():
    terms = [
        Term(
            "srt",
            build("soft_ranking_threshold", {"thresholds": "hard", "margin": "soft"}, torch.float32),
            1.0,
            "metric",
        )
    ]
    return WeightedSum([*terms, Term("softmax", Softmax(6, 8), 1.0, "inference")])


@pytest.mark.parametrize("options", [{}, {"ema": 0.9}, {"clip_norm": 1.0}], ids=str)
def test_a_training_step_waits_for_nothing(options):
    """The budget is 0: whoever adds an .item(), a print of a loss or a check on the device finds it here."""
    trainer = toy_trainer(
        None, device=DEVICE, objective=srt_and_softmax(), hard_identities=HardIdentities(6, 2), **options
    )
    for number, batch in enumerate(trainer.loader):
        COUNTS.clear()
        trainer.train_batch(batch)
        found = {
            key: times for key, times in COUNTS.waits.items() if key[1] != "elsewhere" or key[0] != "to the device"
        }
        assert number == 0 or not found, found
    COUNTS.clear()
    trainer.read()
    assert sum(COUNTS.waits.values()) == 1
    assert not trainer.unread


def test_a_few_operators_for_the_moving_average():
    model = torch.nn.Sequential(*[torch.nn.BatchNorm2d(3) for _ in range(20)]).to(DEVICE)
    average = trainer_module.MovingAverage(model, 0.9)
    average.update(model)
    COUNTS.clear()
    average.update(model)
    assert sum(times for name, times in COUNTS.launches.items() if "foreach" in name) == 2
    assert not COUNTS.waits and sum(COUNTS.launches.values()) < 200


class Spoil(ToyLoss):
    """Is not a number from its n-th call on."""

    def __init__(self, call):
        super().__init__()
        self.left = call

    def compute(self, batch):
        self.left -= 1
        return super().compute(batch) * (torch.nan if self.left <= 0 else 1.0)


@pytest.mark.parametrize("call, kept", [(1, 0), (2, 0), (3, 2), (5, 4), (12, 10)])
def test_a_spoilt_loss_is_found_before_the_next_checkpoint(call, kept, tmp_path):
    """The batch and its files are named, though the device went on, and last.pt is from before it."""
    trainer = toy_trainer(tmp_path, device=DEVICE, loss=Spoil(call), checkpoint_every=2)
    with pytest.raises(NonFiniteError, match=f"iteration {call - 1}: the loss is not finite") as error:
        trainer.fit()
    order = [int(index) for epoch in range(4) for batch in epoch_of(trainer, epoch) for index in batch]
    files = {f"image_{index}.jpg" for index in order[4 * (call - 1) : 4 * call]}
    assert files == {line.strip() for line in str(error.value).splitlines()[1:]}
    state = torch.load(tmp_path / "last.pt", weights_only=True)["training"]
    assert 3 * state["epoch"] + state["position"] in (kept, 3 * (kept // 3 + (kept % 3 == 2)))
    assert 3 * state["epoch"] + state["position"] < call
    assert all(value.isfinite().all() for value in state["model"].values())


def epoch_of(trainer, epoch):
    trainer.sampler.set_epoch(epoch)
    return list(trainer.sampler)


def test_a_resumed_run_is_the_unbroken_one(tmp_path):
    whole = toy_trainer(tmp_path / "whole", device=DEVICE, ema=0.9)
    whole.fit()
    broken = toy_trainer(tmp_path / "broken", device=DEVICE, ema=0.9, checkpoint_every=2, loss=Spoil(8))
    with pytest.raises(NonFiniteError):
        broken.fit()
    resumed = toy_trainer(tmp_path / "broken", device=DEVICE, ema=0.9, resume=True)
    resumed.load_state_dict(torch.load(tmp_path / "broken/last.pt", weights_only=True)["training"])
    resumed.fit()
    for name, value in whole.tested_model.state_dict().items():
        assert torch.equal(value.cpu(), resumed.tested_model.state_dict()[name].cpu())
    assert whole.run.records() == resumed.run.records()


@pytest.mark.parametrize("cosine", [False, True])
def test_search(cosine):
    q, g = sides(gallery=5000)[:2]
    q, g = q + 1, g + 1  # no zero rows
    allowed = np.arange(5000) % 3 > 0
    among = np.random.default_rng(0).permuted(np.tile(np.arange(-1, 49), (90, 1)), axis=1)
    found = []
    for place in ("cpu", DEVICE):
        rows = (features_module.FeatureRows(side.to(place), "", torch.device(place), cosine) for side in (q, g))
        compared = distances.FeatureDistances(*rows)
        found.append([nearest_rows(compared, 7, allowed), nearest_among(compared, among, 7)])
    np.testing.assert_array_equal(found[0][0], found[1][0])
    np.testing.assert_array_equal(found[0][1], found[1][1])
