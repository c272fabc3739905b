from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reid_kit.data.sampler import IdentitySampler, ShuffledSampler
from reid_kit.errors import InputError


@st.composite
def datasets(draw):
    """Images an identity, in any order of records, and a P that fits."""
    counts = draw(st.lists(st.integers(1, 9), min_size=1, max_size=12))
    identities = draw(st.permutations([identity for identity, count in enumerate(counts) for _ in range(count)]))
    return identities, draw(st.integers(1, len(counts))), draw(st.integers(1, 5))


@settings(max_examples=150, deadline=None)
@given(datasets(), st.integers(0, 3), st.integers(0, 5), st.booleans())
def test_the_promises_of_the_identity_sampler(dataset, seed, epoch, pooled):
    identities, p, k = dataset
    sampler = IdentitySampler(identities, p, k, seed=seed, hard_identity_pool=pooled)
    if pooled:
        everyone = sorted(set(identities))
        sampler.set_hard_identities({i: [j for j in everyone if j != i][:3] for i in everyone})
    batches = sampler.epoch_batches(epoch)
    assert len(batches) == len(sampler)
    seen = Counter()
    for batch in batches:
        counts = Counter(identities[index] for index in batch)
        assert len(counts) == p and set(counts.values()) == {k}
        for identity in counts:
            images = Counter(index for index in batch if identities[index] == identity)
            available = identities.count(identity)
            assert len(images) == min(k, available)
            assert min(images.values()) >= k // max(available, k)
        seen.update(batch)
    assert {identities[index] for index in seen} == set(identities)
    assert batches == sampler.epoch_batches(epoch)


@settings(max_examples=60, deadline=None)
@given(datasets(), st.integers(0, 3))
def test_images_of_an_identity_come_in_turn(dataset, epoch):
    identities, p, k = dataset
    sampler = IdentitySampler(identities, p, k)
    seen = Counter(index for batch in sampler.epoch_batches(epoch) for index in batch)
    for identity in set(identities):
        times = [seen[index] for index, other in enumerate(identities) if other == identity]
        if len(times) % k == 0 or len(times) >= k * len(sampler):  # whole turns, or less than one
            assert max(times) - min(times) <= 1


@settings(max_examples=40, deadline=None)
@given(datasets(), st.sampled_from([1, 2, 3, 4]))
def test_the_shares_of_the_processes_make_the_batch(dataset, world):
    identities, p, k = dataset
    if p * k % world:
        with pytest.raises(InputError, match=f"multiple of {world}"):
            IdentitySampler(identities, p, k, world_size=world)
        return
    shares = [IdentitySampler(identities, p, k, rank=rank, world_size=world) for rank in range(world)]
    whole = IdentitySampler(identities, p, k)
    for sampler in [*shares, whole]:
        sampler.set_epoch(2)
    for batch, *parts in zip(whole, *shares, strict=True):
        assert [draw for part in parts for draw in part] == batch


def test_epochs_differ_and_augmentation_seeds_with_them():
    sampler = IdentitySampler([i // 6 for i in range(60)], 5, 4)
    sampler.set_epoch(0)
    one = list(sampler)
    sampler.set_epoch(1)
    two = list(sampler)
    assert one != two
    seeds = [draw.seed for batch in one + two for draw in batch]
    assert len(set(seeds)) == len(seeds)


def test_starting_within_an_epoch_yields_its_rest():
    sampler = IdentitySampler([i // 6 for i in range(60)], 5, 4, seed=3)
    sampler.set_epoch(4)
    whole = list(sampler)
    sampler.set_epoch(4, start=2)
    assert list(sampler) == whole[2:]


@pytest.mark.parametrize("images, p, k, length", [(12936, 18, 4, 180), (100, 25, 4, 25), (40, 2, 2, 25)])
def test_the_length_of_an_epoch(images, p, k, length):
    identities = [i % (751 if images > 1000 else 50 if images == 40 else 100) for i in range(max(images, 50))]
    assert len(IdentitySampler(identities, p, k)) == max(
        round(len(identities) / (p * k)), -(-len(set(identities)) // p)
    )


def test_an_asked_length_is_kept_or_refused():
    identities = [i // 2 for i in range(20)]
    assert len(IdentitySampler(identities, 5, 2, batches_per_epoch=7)) == 7
    with pytest.raises(InputError, match="BATCHES_PER_EPOCH is 1, but 10 identities.*take 2"):
        IdentitySampler(identities, 5, 2, batches_per_epoch=1)


def test_more_identities_asked_than_there_are():
    with pytest.raises(InputError, match="SAMPLER.P is 4, but the training set has 3 identities"):
        IdentitySampler([0, 1, 2], 4, 2)


def test_hard_identities_fill_half_of_each_batch():
    identities = [i // 4 for i in range(80)]
    sampler = IdentitySampler(identities, 6, 2, hard_identity_pool=True)
    plain = sampler.epoch_batches(0)
    pool = {i: [i ^ 1] for i in range(20)}  # each is confused with its neighbour
    sampler.set_hard_identities(pool)
    for batch in sampler.epoch_batches(0):
        chosen = {identities[index] for index in batch}
        assert sum(i ^ 1 in chosen for i in chosen) >= 4  # at least two whole pairs of six identities
    assert len(sampler.epoch_batches(0)) == len(plain)


def test_mixed_domains_share_each_identity_s_images():
    identities = [i // 6 for i in range(36)] + [6, 6]
    domains = ["shop" if i % 6 < 2 else "consumer" for i in range(36)] + ["shop", "shop"]
    sampler = IdentitySampler(identities, 3, 3, domains=domains)
    for epoch in range(5):
        for batch in sampler.epoch_batches(epoch):
            for identity in {identities[index] for index in batch}:
                of = Counter(domains[index] for index in batch if identities[index] == identity)
                assert sum(of.values()) == 3
                assert set(of.values()) == ({1, 2} if identity < 6 else {3})


@pytest.mark.parametrize("domain, words", [("shop", "shop alone"), (None, "no domain alone")])
def test_mixed_domains_need_two(domain, words):
    with pytest.raises(InputError, match=f"SAMPLER.DOMAINS is mixed.*have {words}"):
        IdentitySampler([0, 0, 1, 1], 2, 2, domains=[domain] * 4)


def test_shuffled_batches_hold_each_image_once():
    sampler = ShuffledSampler(23, 5, seed=1)
    batches = sampler.epoch_batches(0)
    assert len(batches) == len(sampler) == 4
    flat = [index for batch in batches for index in batch]
    assert len(set(flat)) == 20 and set(flat) <= set(range(23))
    assert batches == ShuffledSampler(23, 5, seed=1).epoch_batches(0) != sampler.epoch_batches(1)
    with pytest.raises(InputError, match="more than the 3"):
        ShuffledSampler(3, 5)
