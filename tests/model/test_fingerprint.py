import pytest
import torch

from reid_kit import load_model
from reid_kit.model.checkpoint import save_checkpoint
from reid_kit.model.embedder import Embedder
from reid_kit.model.fingerprint import fingerprint

ARGUMENTS = {"backbone": "test_resnet", "weights": "none", "neck": "bnneck", "height": 64, "width": 32}


def model(seed=0, **changes):
    torch.manual_seed(seed)
    return Embedder(**{**ARGUMENTS, **changes}).eval()


def test_the_same_weights_have_the_same_fingerprint_wherever_they_come_from(tmp_path):
    one = model()
    save_checkpoint(tmp_path / "a.pt", one)
    found = fingerprint(one)
    assert len(found) == 64 and found == fingerprint(load_model(tmp_path / "a.pt", "cpu")) == fingerprint(model())
    assert found == fingerprint(one.to(memory_format=torch.contiguous_format))  # a model is channels-last


def change_one_bit(one):
    one.backbone.network.conv1[0].weight.data.view(torch.int32)[0, 1, 2, 1] ^= 1


def count_a_batch(one):
    one.heads[0].neck.running_var[0] += 1e-3


@pytest.mark.parametrize("change", [change_one_bit, count_a_batch])
def test_any_change_of_the_weights_changes_it(change):
    one = model()
    change(one)
    assert fingerprint(one) != fingerprint(model())


@pytest.mark.parametrize(
    "changes",
    [{"pooling": "max"}, {"last_stride": 1}, {"mean": (0.1, 0.2, 0.3)}, {"enlarge": 1.1}, {"width": 64}],
    ids=str,
)
def test_what_has_no_weights_but_changes_the_vectors_counts_too(changes):
    assert fingerprint(model(**changes)) != fingerprint(model())


def test_an_argument_at_its_default_does_not_count():
    one = model()
    found = fingerprint(one)
    del one.arguments["last_stride"]  # as in a checkpoint of a release that did not have it
    assert fingerprint(one) == found


def test_odd_states():
    class Odd(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("count", torch.tensor(3))
            self.register_buffer("empty", torch.empty(0, 4))
            self.register_buffer("bfloat", torch.ones(3, 2, dtype=torch.bfloat16).T)
            self.register_buffer("flag", torch.tensor(True))

    assert fingerprint(Odd()) == fingerprint(Odd())
