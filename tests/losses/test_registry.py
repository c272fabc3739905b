import math

import pytest

from reid_kit.errors import InputError
from reid_kit.losses import LOSSES, build_loss
from reid_kit.losses.registry import option_names, register
from reid_kit.losses.triplet import TripletBatchHard
from tests.losses.cases import OPTIONS


def test_a_registered_class_is_built_by_its_name(monkeypatch):
    monkeypatch.setattr("reid_kit.losses.registry.LOSSES", {})

    @register("pull")
    class Pull:
        def __init__(self, strength: float, soft: bool = False):
            self.strength, self.soft = strength, soft

    assert Pull.name == "pull"
    loss = build_loss("pull", strength=2.0, soft=True)
    assert (loss.strength, loss.soft) == (2.0, True)
    assert option_names("pull") == ["strength", "soft"]


def test_options_may_be_those_of_a_base_class():
    assert option_names("triplet_batch_hard") == ["margin", "distance", "normalize"]
    loss = build_loss("triplet_batch_hard", margin="soft")
    assert isinstance(loss, TripletBatchHard) and loss.margin == "soft"


@pytest.mark.parametrize(
    "name, options, words",
    [
        ("tripplet", {}, "unknown loss 'tripplet'. Did you mean 'triplet'"),
        ("triplet", {"margn": 0.3}, "option of loss 'triplet'.*'margn'.*Did you mean 'margin'"),
        ("softmax", {"classes": 3}, "loss 'softmax'.*embedding_size.*Options: classes, embedding_size"),
        ("triplet", {"normalize": "false"}, "normalize of triplet must be true or false, got 'false'"),
        ("triplet", {"normalize": 1}, "true or false, got 1"),
    ],
)
def test_bad_names_and_options(name, options, words):
    with pytest.raises(InputError, match=words):
        build_loss(name, **options)


def test_options_of_an_unknown_loss():
    with pytest.raises(InputError, match="Choices: .*triplet"):
        option_names("none")


def test_every_loss_knows_its_name_and_says_what_it_is():
    for name, loss in LOSSES.items():
        assert loss.name == name
        assert loss.__doc__ and loss.feature in ("metric", "inference")


NO_CHOICE = ("nonsense", ["nonsense"], math.nan, math.inf)
OPTIONS_OF_ALL = [(name, option) for name in LOSSES for option in option_names(name)]


@pytest.mark.parametrize("name, option", OPTIONS_OF_ALL)
def test_a_value_that_no_option_can_take_is_refused_when_the_loss_is_built(name, option):
    """Not at its first batch, and not by an error that does not name the option."""
    for value in NO_CHOICE:
        with pytest.raises(InputError, match=option.removesuffix("s")):
            build_loss(name, **{**OPTIONS.get(name, {}), option: value})


@pytest.mark.parametrize("name, option", [("softmax", "classes"), ("histogram", "bins"), ("a_bier", "hidden")])
def test_a_count_is_a_whole_number(name, option):
    with pytest.raises(InputError, match=f"{option} of {name} must be a whole number of at least [12], got 2.5"):
        build_loss(name, **{**OPTIONS.get(name, {}), option: 2.5})
