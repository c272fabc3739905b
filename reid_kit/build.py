"""The one place that turns a config into objects."""

import torch
from reid_kit.data.augment import train_transform
from reid_kit.data.loader import train_loader
from reid_kit.data.sampler import IdentitySampler, ShuffledSampler
from reid_kit.losses.cross_batch_memory import CrossBatchMemory
from reid_kit.model.embedder import Embedder
from yacs.config import CfgNode

from reid_kit.data.readers import load_dataset
from reid_kit.data.records import Record, RetrievalDataset
from reid_kit.distributed import rank, world_size
from reid_kit.errors import InputError
from reid_kit.losses.weighted_sum import Term, WeightedSum
from reid_kit.training.testing import TestSettings


def build_device(config: CfgNode) -> torch.device:
    """The device of TRAIN.DEVICE; "auto" is the local rank's GPU where there is one."""
    name = config.TRAIN.DEVICE
    if name == "auto":
        return torch.device("cuda", torch.cuda.current_device()) if torch.cuda.is_available() else torch.device("cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise InputError(f"TRAIN.DEVICE {name!r} cannot be used here ({error}); cpu always can") from error
    return device


def autocast(config: CfgNode, device: torch.device) -> bool:
    return config.TRAIN.AMP and device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)


def build_dataset(config: CfgNode) -> RetrievalDataset:
    return load_dataset(config.DATA.NAME, config.DATA.ROOT, **config.DATA.OPTIONS)


def build_model(config: CfgNode, weights: str | None = None) -> Embedder:
    """The embedder; `weights` takes the place of MODEL.WEIGHTS ("none" where a checkpoint is loaded next)."""
    return Embedder(
        backbone=config.MODEL.BACKBONE,
        weights=weights or config.MODEL.WEIGHTS,
        last_stride=config.MODEL.LAST_STRIDE,
        pooling=config.MODEL.POOLING,
        embedding_size=config.MODEL.EMBEDDING_SIZE,
        neck=config.MODEL.NECK,
        levels=config.MODEL.LEVELS,
        height=config.DATA.HEIGHT,
        width=config.DATA.WIDTH,
    )


def label_map(records: list[Record]) -> dict[int, int]:
    """Training identities to labels 0 .. C - 1, in the order of identities."""
    return {identity: label for label, identity in enumerate(sorted({record.identity for record in records}))}


def build_objective(config: CfgNode, classes: int, model: Embedder) -> WeightedSum:
    """The weighted sum of LOSS.TERMS; options that follow from data and model are filled in."""
    terms = []
    for number, entry in enumerate(config.LOSS.TERMS):
        if not isinstance(entry, dict) or "name" not in entry:
            raise InputError(
                f"LOSS.TERMS[{number}] must be a mapping with a name, like {{name: softmax}}, got {entry!r}"
            )
        options = dict(entry)
        name, weight, memory = options.pop("name"), float(options.pop("weight", 1.0)), int(options.pop("memory", 0))
        feature = options.pop("feature", None)
        loss = _build_term(name, options, classes, model)
        if memory:
            loss = CrossBatchMemory(loss, memory)
        terms.append(Term(name, loss, weight, feature or loss.feature))
    return WeightedSum(terms)


def build_loader(config: CfgNode, records: list[Record], labels: dict[int, int]):
    """The training loader and the sampler that orders it."""
    identities = [labels[record.identity] for record in records]
    shared = {"seed": config.TRAIN.SEED, "rank": rank(), "world_size": world_size()}
    if config.SAMPLER.NAME == "shuffled":
        sampler = ShuffledSampler(len(records), config.SAMPLER.P * config.SAMPLER.K, **shared)
    else:
        sampler = IdentitySampler(
            identities,
            config.SAMPLER.P,
            config.SAMPLER.K,
            batches_per_epoch=config.SAMPLER.BATCHES_PER_EPOCH or None,
            domains=[record.domain for record in records] if config.SAMPLER.DOMAINS == "mixed" else None,
            hard_identity_pool=config.SAMPLER.HARD_IDENTITY_POOL > 0,
            **shared,
        )
    transform = train_transform(
        config.DATA.HEIGHT,
        config.DATA.WIDTH,
        flip=config.AUGMENT.FLIP,
        pad=config.AUGMENT.PAD,
        enlarge=config.AUGMENT.ENLARGE,
        erasing=config.AUGMENT.ERASING,
        color_jitter=config.AUGMENT.COLOR_JITTER,
    )
    loader = train_loader(
        records,
        identities,
        sampler,
        transform,
        workers=config.DATA.WORKERS,
        use_box=config.DATA.USE_BOX,
        on_bad_image=config.DATA.ON_BAD_IMAGE,
    )
    return loader, sampler


def build_test_settings(config: CfgNode, device: torch.device) -> TestSettings:
    return TestSettings(
        height=config.DATA.HEIGHT,
        width=config.DATA.WIDTH,
        device=device,
        batch_size=config.TEST.BATCH_SIZE,
        workers=config.DATA.WORKERS,
        use_box=config.DATA.USE_BOX,
        on_bad_image=config.DATA.ON_BAD_IMAGE,
        feature=config.TEST.FEATURE,
        flip=config.TEST.FLIP,
        metric=config.TEST.METRIC,
        average_precision=config.TEST.AVERAGE_PRECISION,
        autocast=autocast(config, device),
    )
