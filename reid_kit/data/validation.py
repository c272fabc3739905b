"""Training identities held out, on whom weights and keys are chosen, so that the test set is looked at once."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from reid_kit.data.records import Record, RetrievalDataset
from reid_kit.errors import InputError


def hold_out(dataset: RetrievalDataset, share: float, fold: int = 0) -> tuple[RetrievalDataset, RetrievalDataset]:
    """The dataset without a share of its training identities, and a dataset that tests on these by the same protocol.

    Folds are disjoint shares of one fixed order of the identities, the same in every run, whatever its seed.

    Args:
        share: of the training identities, in (0, 0.5]. fold: which share, from 0.

    Returns:
        The dataset to train on, whose query and gallery are untouched, and the validation dataset. Its gallery is all
        images of the identities held out where the protocol has one set; its queries come from the domain that the
        test queries come from where those differ; else they are one image of each identity in each camera.

    Raises:
        InputError: a share or fold out of range, too few identities, or none with a query and a match.
    """
    identities = sorted({record.identity for record in dataset.train})
    if not 0 < share <= 0.5:
        raise InputError(f"DATA.VALIDATION must be above 0 and at most 0.5, a share of the identities; got {share:g}")
    folds = int(1 / share + 1e-9)
    if not 0 <= fold < folds:
        raise InputError(f"DATA.VALIDATION_FOLD {fold}: shares of {share:g} make folds 0 .. {folds - 1}")
    start, end = (round(number * share * len(identities)) for number in (fold, fold + 1))
    if end - start < 2:
        raise InputError(
            f"DATA.VALIDATION {share:g} of the {len(identities)} training identities of {dataset.name} is "
            f"{end - start} in fold {fold}; two or more are needed to test on"
        )
    order = np.random.default_rng(0).permutation(len(identities))
    held = {identities[place] for place in order[start:end]}
    kept = [record for record in dataset.train if record.identity not in held]
    query, gallery = sides(dataset, [record for record in dataset.train if record.identity in held])
    if not {record.identity for record in query} & {record.identity for record in gallery}:
        raise InputError(
            f"none of the {end - start} identities of {dataset.name} held out has a query and a match in the gallery"
        )
    return replace(dataset, train=kept), replace(
        dataset, name=f"{dataset.name} held out", train=[], query=query, gallery=gallery
    )


def sides(dataset: RetrievalDataset, held: Sequence[Record]) -> tuple[list[Record], list[Record]]:
    """Query and gallery records of the identities held out."""
    if dataset.protocol.same_set:
        return (list(held),) * 2
    asked, searched = ({record.domain for record in side} for side in (dataset.query, dataset.gallery))
    if not asked & searched:
        return [r for r in held if r.domain in asked], [r for r in held if r.domain in searched]
    query: dict[tuple, Record] = {}
    for record in held:
        query.setdefault((record.identity, record.camera), record)
    first = {id(record) for record in query.values()}
    return list(query.values()), [record for record in held if id(record) not in first]
