from pathlib import Path

import pytest

from reid_kit.data.records import Protocol, Record, RetrievalDataset
from reid_kit.data.validation import hold_out
from reid_kit.errors import InputError

PEOPLE = Protocol()


def dataset(protocol=PEOPLE, domains=(None,), identities=20):
    train = [
        Record(Path(f"{i}_{camera}_{n}.jpg"), i, camera=camera, domain=domain)
        for i in range(identities)
        for camera in (1, 2)
        for n, domain in enumerate(domains * 2)
    ]
    query, gallery = (
        [Record(Path("q.jpg"), 99, 1, domain=domains[0])],
        [Record(Path("g.jpg"), 99, 2, domain=domains[-1])],
    )
    return RetrievalDataset("toy", train, query, query if protocol.same_set else gallery, protocol)


def test_identities_are_held_out_whole_and_the_test_set_stays():
    whole = dataset()
    kept, held = hold_out(whole, 0.25)
    of = lambda records: {record.identity for record in records}  # noqa: E731
    assert len(of(held.query)) == 5 and of(held.query) == of(held.gallery) and not of(held.query) & of(kept.train)
    assert of(kept.train) | of(held.query) == of(whole.train)
    assert (kept.query, kept.gallery) == (whole.query, whole.gallery) and held.protocol == whole.protocol
    assert len(held.query) == 10 and len(held.query) + len(held.gallery) + len(kept.train) == len(whole.train)
    assert not {r.path for r in held.query} & {r.path for r in held.gallery}


def test_folds_are_disjoint_and_cover_all():
    folds = [{r.identity for r in hold_out(dataset(), 0.25, fold)[1].gallery} for fold in range(4)]
    assert sum(map(len, folds)) == 20 and set.union(*folds) == set(range(20))
    assert folds[1] == {r.identity for r in hold_out(dataset(), 0.25, 1)[1].gallery}


@pytest.mark.parametrize("identities, share", [(20, 0.33), (30, 0.12), (23, 0.15), (17, 0.13), (50, 0.07)])
def test_every_fold_holds_its_share_where_identities_do_not_divide(identities, share):
    folds = [
        {r.identity for r in hold_out(dataset(identities=identities), share, fold)[1].gallery}
        for fold in range(int(1 / share))
    ]
    assert all(abs(len(fold) - share * identities) < 1 for fold in folds)
    assert sum(map(len, folds)) == len(set.union(*folds))


def test_a_fold_of_one_identity_tests_nothing():
    with pytest.raises(InputError, match="is 1 in fold 1; two or more"):
        hold_out(dataset(identities=3), 0.5, 1)


def test_one_set_is_query_and_gallery_at_once():
    _, held = hold_out(dataset(Protocol(camera_aware=False, same_set=True)), 0.1)
    assert held.query is held.gallery and len(held.query) == 8


def test_queries_come_from_their_own_domain():
    _, held = hold_out(dataset(Protocol(camera_aware=False), ("consumer", "shop")), 0.2)
    assert {r.domain for r in held.query} == {"consumer"} and {r.domain for r in held.gallery} == {"shop"}


@pytest.mark.parametrize(
    "share, fold, words",
    [
        (0.0, 0, "got 0"),
        (0.6, 0, "at most 0.5"),
        (float("nan"), 0, "nan"),
        (0.25, 4, "folds 0 .. 3"),
        (0.25, -1, "folds 0 .. 3"),
        (0.05, 0, "is 1 in fold 0; two or more"),
    ],
)
def test_bad_shares(share, fold, words):
    with pytest.raises(InputError, match=words):
        hold_out(dataset(), share, fold)


def test_identities_without_a_match():
    lonely = dataset()
    train = [record for record in lonely.train if record.path.name.endswith("_1_0.jpg")]
    with pytest.raises(InputError, match="none of the 5 identities"):
        hold_out(RetrievalDataset("toy", train, lonely.query, lonely.gallery), 0.25)
