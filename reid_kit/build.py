"""The one place that turns a config into objects; LOSS.TERMS has a file of its own, build_objective.py."""

import json
import os
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from yacs.config import CfgNode

from reid_kit.build_objective import build_objective
from reid_kit.config import config_from_text, load_config
from reid_kit.config_keys import KEYS
from reid_kit.data.augment import train_transform
from reid_kit.data.cache import DiskCache, RamCache
from reid_kit.data.loader import TrainLoader
from reid_kit.data.readers.registry import checked_options, load_dataset
from reid_kit.data.records import Record, RetrievalDataset, camera_numbers
from reid_kit.data.sampler import IdentitySampler, ShuffledSampler
from reid_kit.data.validation import hold_out
from reid_kit.device import usable_device
from reid_kit.distributed import rank, world_size
from reid_kit.errors import InputError, unknown_name
from reid_kit.evaluation import RetrievalResult
from reid_kit.files import short_hash
from reid_kit.inference.testing import TestSettings, test_retrieval
from reid_kit.model.batch_norm import synchronize_batch_norm
from reid_kit.model.checkpoint import load_checkpoint, load_model, save_checkpoint
from reid_kit.model.embedder import Embedder
from reid_kit.training.hard_identities import HardIdentities
from reid_kit.training.optimizer import build_optimizer
from reid_kit.training.parameter_groups import by_depth, refined
from reid_kit.training.run_folder import RunFolder
from reid_kit.training.schedule import build_schedule
from reid_kit.training.trainer import Recipe, Trainer

ADDED_BY_TRAINING = ("EMBEDDING_SIZE", "NECK", "PARTS", "CAMERA_EMBEDDING")  # to a backbone, of MODEL


def build_device(config: CfgNode) -> torch.device:
    """The device of TRAIN.DEVICE; "auto" is the local rank's GPU where there is one."""
    name = config.TRAIN.DEVICE
    if name == "auto":
        return torch.device("cuda", torch.cuda.current_device()) if torch.cuda.is_available() else torch.device("cpu")
    device = usable_device(name, "TRAIN.DEVICE")
    if device.type == "cuda":
        if world_size() > 1 and torch.device(name).index is not None:
            raise InputError(f"TRAIN.DEVICE {name!r} would put all processes on one GPU; with torchrun set it to auto")
        torch.cuda.set_device(device)
    return device


def autocast(wanted: bool, device: torch.device) -> bool:
    """Whether the backbone runs in bfloat16, which NVIDIA's cards have from Ampere on."""
    if not wanted or device.type != "cuda":
        return False
    able = torch.cuda.get_device_capability(device) >= (8, 0)
    if not able:
        card = torch.cuda.get_device_name(device)
        warnings.warn(f"{card} has no bfloat16; the network runs in float32", stacklevel=2)
    return able


def choose_algorithms(deterministic: bool) -> None:
    """Which of a GPU's algorithms training takes: those that give the same bits again, or the fastest."""
    torch.backends.cudnn.benchmark = not deterministic
    if deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read when the first product is computed
        torch.use_deterministic_algorithms(True)


def build_dataset(config: CfgNode) -> RetrievalDataset:
    """The dataset; a box without area is refused where boxes are used."""
    options = checked_options(config.DATA.NAME, config.DATA.OPTIONS)
    dataset = load_dataset(config.DATA.NAME, config.DATA.ROOT, **options)
    if config.DATA.USE_BOX and dataset.boxed_nothing:
        first, *more = dataset.boxed_nothing
        raise InputError(
            f"{first.source or first.path}: box {first.box} is inverted or empty, as are {len(more):,} more of "
            f"{dataset.name}; expected x1 < x2, y1 < y2. Mend or take out these lines, or set DATA.USE_BOX to false"
        )
    return dataset


def build_training_data(config: CfgNode) -> tuple[RetrievalDataset, RetrievalDataset]:
    """The dataset to train on, and the one that is tested in mid-run: itself, or DATA.VALIDATION's identities."""
    dataset = build_dataset(config)
    if not config.DATA.VALIDATION:
        return dataset, dataset
    return hold_out(dataset, config.DATA.VALIDATION, config.DATA.VALIDATION_FOLD)


def build_model(config: CfgNode, weights: str | None = None, cameras: Sequence[int] = (0,)) -> Embedder:
    """The embedder.

    Args:
        weights: takes the place of MODEL.WEIGHTS ("none" where a checkpoint is loaded next).
        cameras: of the training images, for MODEL.CAMERA_EMBEDDING.
    """
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
        enlarge=config.AUGMENT.ENLARGE,
        mean=config.MODEL.MEAN,
        std=config.MODEL.STD,
        parts=config.MODEL.PARTS,
        own_stage=config.MODEL.OWN_STAGE,
        patch_stride=config.MODEL.PATCH_STRIDE,
        drop_path=config.MODEL.DROP_PATH,
        cameras=cameras if config.MODEL.CAMERA_EMBEDDING else (),
        camera_weight=config.MODEL.CAMERA_EMBEDDING,
    )


def training_cameras(config: CfgNode, dataset: RetrievalDataset) -> list[int]:
    """The numbers of the cameras of the training images, where MODEL.CAMERA_EMBEDDING asks for them."""
    if not config.MODEL.CAMERA_EMBEDDING:
        return []
    cameras = sorted({record.camera for record in dataset.train} - {None})
    if not cameras:
        raise InputError(
            f"MODEL.CAMERA_EMBEDDING needs the cameras of the training images, and {dataset.name} names none; "
            f"set it to 0"
        )
    return cameras


def open_model(
    checkpoint: str | Path | None,
    config_file: str | Path | None,
    overrides: Sequence[str] = (),
    dataset: str | None = None,
    root: str | None = None,
) -> tuple[Embedder, CfgNode, Mapping]:
    """The model of a checkpoint, or of a config the backbone with its pre-trained weights as it is.

    Beside it its settings, and what the checkpoint says: at least `config`, `model_name` and what it was `chosen` by.

    Args:
        dataset, root: another dataset than its own, and where the datasets are.

    Raises:
        InputError: both files or neither are given; the config has no pre-trained weights.
    """
    if (checkpoint is None) == (config_file is None):
        raise InputError("give either --checkpoint FILE, or --config FILE for its backbone without training")
    if checkpoint is not None:
        content = load_checkpoint(checkpoint)
        config = config_from_text(content["config"], overrides, dataset, root)
        return load_model(checkpoint, build_device(config)), config, content
    text = load_config(config_file, overrides).dump()
    config = config_from_text(text, (), dataset, root)
    content = {"config": text, "model_name": config.MODEL.BACKBONE, "chosen": "pre-trained weights without training"}
    return untrained_model(config, config_file), config, content


def untrained_model(config: CfgNode, name: str | Path) -> Embedder:
    """The backbone and pooling of a config with its pre-trained weights: what training adds to them is left out."""
    if config.MODEL.WEIGHTS == "none":
        raise InputError(f"{name} has MODEL.WEIGHTS none: without training its features say nothing; train it first")
    config = config.clone()
    config.defrost()
    for word in ADDED_BY_TRAINING:
        config.MODEL[word] = KEYS[f"MODEL.{word}"].default
    return build_model(config).eval().to(build_device(config))


def label_map(records: list[Record]) -> dict[str, int]:
    """The names of training identities to labels 0 .. C - 1, in the order of the identities' numbers."""
    names = {record.identity: record.identity_name for record in records}
    return {names[identity]: label for label, identity in enumerate(sorted(names))}


def build_loader(config: CfgNode, records: list[Record], labels: dict[str, int]):
    """The training loader and the sampler that orders it."""
    if config.SAMPLER.P * config.SAMPLER.K < 2:
        raise InputError(
            "SAMPLER.P x SAMPLER.K is a batch of one image, which has no pairs; set one of them to 2 or more"
        )
    identities = [labels[record.identity_name] for record in records]
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
        grey=config.AUGMENT.GREY,
        blur=config.AUGMENT.BLUR,
        trivial=config.AUGMENT.TRIVIAL,
        rand=config.AUGMENT.RAND,
        grey_patch=config.AUGMENT.GREY_PATCH,
    )
    cache = disk_cache(config)
    if config.DATA.CACHE == "ram":
        cache = RamCache(len(records), transform.resized, config.DATA.CACHE_GB * 1e9)
    loader = TrainLoader(
        records,
        identities,
        sampler,
        transform,
        workers=config.DATA.WORKERS,
        use_box=config.DATA.USE_BOX,
        on_bad_image=config.DATA.ON_BAD_IMAGE,
        cache=cache,
    )
    return loader, sampler


def disk_cache(config: CfgNode) -> DiskCache | None:
    return DiskCache(config.DATA.CACHE_FOLDER, config.DATA.CACHE_GB * 1e9) if config.DATA.CACHE == "disk" else None


def build_test_settings(config: CfgNode, device: torch.device) -> TestSettings:
    for level in config.TEST.LEVELS:
        if level not in config.MODEL.LEVELS:
            raise unknown_name("level of TEST.LEVELS, which are those of MODEL.LEVELS:", level, config.MODEL.LEVELS)
    if not all(type(k) is int and k >= 1 for k in config.TEST.RANKS):
        raise InputError(f"TEST.RANKS must be whole numbers from 1 on, got {config.TEST.RANKS}")
    return TestSettings(
        height=config.DATA.HEIGHT,
        width=config.DATA.WIDTH,
        enlarge=config.AUGMENT.ENLARGE,
        device=device,
        batch_size=config.TEST.BATCH_SIZE,
        workers=config.DATA.WORKERS,
        use_box=config.DATA.USE_BOX,
        on_bad_image=config.DATA.ON_BAD_IMAGE,
        cache=disk_cache(config),
        feature=config.TEST.FEATURE,
        levels=tuple(config.TEST.LEVELS),
        flip=config.TEST.FLIP,
        metric=config.TEST.METRIC,
        average_precision=config.TEST.AVERAGE_PRECISION,
        ranks=tuple(config.TEST.RANKS),
        nmi=config.TEST.NMI,
        autocast=autocast(config.TEST.AMP, device),
    )


def build_trainer(
    config: CfgNode,
    dataset: RetrievalDataset,
    device: torch.device,
    run: RunFolder | None,
    validation: RetrievalDataset | None = None,
) -> Trainer:
    """The whole of a run.

    Args:
        run: None in processes other than the first. validation: what is tested in mid-run; None: the dataset.
    """
    torch.manual_seed(config.TRAIN.SEED)
    if device.type == "cuda":
        choose_algorithms(config.TRAIN.DETERMINISTIC)
    labels = label_map(dataset.train)
    model = build_model(config, cameras=training_cameras(config, dataset)).to(device)
    objective = build_objective(config, len(labels), model).to(device)
    if world_size() > 1:
        model = synchronize_batch_norm(model, device)
    if config.TRAIN.COMPILE:
        model.backbone.compile()
    loader, sampler = build_loader(config, dataset.train, labels)
    rates = config.OPTIMIZER
    groups = [
        *by_depth(model.backbone.network, model.backbone.given_parameters(), rates.LAYER_DECAY),
        (model.head_parameters(), rates.HEAD_LR_FACTOR),
        (objective.parameters(), rates.LOSS_LR_FACTOR),
    ]
    optimizer = build_optimizer(
        rates.NAME,
        refined(groups, (model, objective), rates.BIAS_LR_FACTOR, rates.DECAY_ALL),
        rates.LR,
        rates.WEIGHT_DECAY,
        rates.MOMENTUM,
        rates.NESTEROV,
    )
    schedule = build_schedule(
        config.SCHEDULE.NAME,
        config.TRAIN.EPOCHS * len(sampler),
        len(sampler),
        warmup_epochs=config.SCHEDULE.WARMUP_EPOCHS,
        steps=config.SCHEDULE.STEPS,
        gamma=config.SCHEDULE.GAMMA,
        decay_start=config.SCHEDULE.DECAY_START,
        end_factor=config.SCHEDULE.END_FACTOR,
    )
    settings = build_test_settings(config, device)

    def test(model: Embedder) -> dict[str, float]:
        return headline(test_retrieval(model, validation or dataset, settings).result)

    digest = records_digest(dataset.train)

    def save(path: Path, model: Embedder, training: dict | None, metrics: dict[str, float]) -> None:
        described = {"config": config.dump(), "dataset": dataset.name, "labels": labels}
        described["chosen"] = chosen(config, training and training["epoch"])
        training = training and {**training, "images": digest}
        save_checkpoint(path, model, **described, metrics=metrics, training=training)

    pool = config.SAMPLER.HARD_IDENTITY_POOL
    return Trainer(
        model,
        objective,
        optimizer,
        schedule,
        loader,
        sampler,
        files=[record.path for record in dataset.train],
        cameras=camera_numbers(dataset.train) if model.cameras is not None else None,
        test=test,
        save=save,
        run=run,
        recipe=Recipe(
            epochs=config.TRAIN.EPOCHS,
            seed=config.TRAIN.SEED,
            autocast=autocast(config.TRAIN.AMP, device),
            ema=config.TRAIN.EMA,
            clip_norm=config.OPTIMIZER.CLIP_NORM,
            eval_every=config.TRAIN.EVAL_EVERY,
            checkpoint_every=config.TRAIN.CHECKPOINT_EVERY,
            freeze_epochs=config.TRAIN.FREEZE_EPOCHS,
        ),
        device=device,
        hard_identities=HardIdentities(len(labels), pool) if pool else None,
    )


def chosen(config: CfgNode, epoch: int | None) -> str:
    """Which weights of a run a checkpoint holds: those of an epoch, or (None) those that did best in its tests."""
    epochs = config.TRAIN.EPOCHS
    if epoch is None and config.TRAIN.EVAL_EVERY < epochs:
        share = config.DATA.VALIDATION
        if not share:
            return "best of the test-set evaluations"
        return f"best on held-out training identities, a share of {share:g}, fold {config.DATA.VALIDATION_FOLD}"
    return "last epoch" if epoch in (None, epochs) else f"epoch {epoch} of {epochs}"


def records_digest(records: list[Record]) -> str:
    """What a run is trained on: how many images, and a hash of their paths, identities, boxes and domains in order.

    Paths count from the folder that holds them all, so that a dataset may be moved.
    """
    top = os.path.commonpath([record.path.parent for record in records])
    lines = [[os.path.relpath(record.path, top), record.identity_name, record.box, record.domain] for record in records]
    return f"{len(records):,} images, {short_hash(json.dumps(lines))}"


def headline(result: RetrievalResult) -> dict[str, float]:
    """The numbers of a result that a run logs."""
    return {"mAP": result.mAP, **{f"CMC@{k}": value for k, value in result.cmc.items()}, "mINP": result.mINP}
