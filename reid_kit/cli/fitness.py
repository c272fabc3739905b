"""What the doctor knows, asked before a run or a test begins."""

from collections import Counter

from yacs.config import CfgNode

from reid_kit.data.doctor import (
    SPLITS,
    Diagnosis,
    check_areas,
    check_boxes,
    check_domains,
    check_empty,
    check_matches,
    check_split,
)
from reid_kit.data.records import RetrievalDataset
from reid_kit.errors import InputError


def check_fitness(config: CfgNode, dataset: RetrievalDataset, trained: bool = True) -> list[str]:
    """What the config and the dataset allow, and few would want.

    Args:
        trained: whether the dataset is trained on, too.

    Raises:
        InputError: nothing can come of it: an empty split, no query with a match, boxes that are not there.
    """
    found = Diagnosis(dataset, warnings=list(dataset.left_out))
    splits = SPLITS if trained else SPLITS[1:]
    check_areas(found)
    check_empty(found, splits)
    check_matches(found)
    if not (config.DATA.USE_BOX and config.DATA.ON_BAD_IMAGE == "skip"):
        check_boxes(found, config.DATA.USE_BOX, splits)
    if found.problems:
        raise InputError("; ".join(found.problems))
    if trained:
        check_split(found)
        check_domains(found)
        check_sampler(found, config)
    return [*found.problems, *found.warnings]


def check_sampler(found: Diagnosis, config: CfgNode) -> None:
    """The batches and the schedule against the training images."""
    images = Counter(record.identity for record in found.dataset.train)
    short = sum(count < config.SAMPLER.K for count in images.values())
    if config.SAMPLER.NAME == "identity" and short:
        found.warnings.append(
            f"{short:,} of {len(images):,} training identities have fewer than SAMPLER.K, {config.SAMPLER.K}, images; "
            f"theirs are repeated in a batch"
        )
    if config.SCHEDULE.NAME == "exponential" and config.SCHEDULE.DECAY_START >= config.TRAIN.EPOCHS:
        found.warnings.append(
            f"the learning rate stays constant, as SCHEDULE.DECAY_START, epoch {config.SCHEDULE.DECAY_START:g}, is not "
            f"before TRAIN.EPOCHS {config.TRAIN.EPOCHS}"
        )
