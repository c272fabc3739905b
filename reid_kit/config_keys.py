"""Every key of a run, in one place: its default, what it means, and which values it takes."""

from collections.abc import Sequence
from dataclasses import dataclass

MANY = 2**31 - 1  # more of anything than a run has


@dataclass(frozen=True)
class Key:
    """One key of a config. Its type is that of `default`.

    choices: the values it takes; none: any. least, most: the range of a number. numbers: it is a list of numbers.
    length: of that list, where it is not empty.
    """

    default: object
    meaning: str
    choices: Sequence = ()
    least: float | None = None
    most: float = MANY
    numbers: bool = False
    length: int | None = None


KEYS = {
    "DATA.NAME": Key("market1501", "a reader's name: see `reid-kit doctor --help`"),
    "DATA.ROOT": Key("datasets", "the dataset's own folder or its parent"),
    "DATA.OPTIONS": Key({}, "what the reader takes beside the root, for example {boxes: labeled}"),
    "DATA.HEIGHT": Key(256, "of the network's input, in pixels", least=1, most=4096),
    "DATA.WIDTH": Key(128, "of the network's input, in pixels", least=1, most=4096),
    "DATA.USE_BOX": Key(False, "crop the annotated box in training, query and gallery alike"),
    "DATA.WORKERS": Key(4, "processes that read images; 0 reads in the main one", least=0, most=256),
    "DATA.CACHE": Key(
        "none",
        "keeps decoded and resized images: ram, those of the training; disk, all, for later runs too",
        choices=("none", "ram", "disk"),
    ),
    "DATA.CACHE_GB": Key(20.0, "what the cache may take; of memory at most half of what is free", least=0),
    "DATA.CACHE_FOLDER": Key("~/.cache/reid_kit/images", "of CACHE disk"),
    "DATA.VALIDATION": Key(
        0.0,
        "share of the training identities held out to choose best.pt on; 0: chosen on the test set",
        least=0,
        most=0.5,
    ),
    "DATA.VALIDATION_FOLD": Key(0, "which of these shares", least=0),
    "DATA.ON_BAD_IMAGE": Key("error", "what an unreadable image does", choices=("error", "skip")),
    #
    "AUGMENT.FLIP": Key(0.5, "probability of a horizontal flip", least=0, most=1),
    "AUGMENT.PAD": Key(10, "pixels added on each side before the random crop", least=0, most=1024),
    "AUGMENT.ENLARGE": Key(1.0, "factor on height and width before the random crop", least=1, most=8),
    "AUGMENT.ERASING": Key(0.0, "probability of random erasing", least=0, most=1),
    "AUGMENT.COLOR_JITTER": Key(0.0, "strength of brightness, contrast and saturation changes", least=0, most=1),
    "AUGMENT.GREY": Key(0.0, "probability of a grey image", least=0, most=1),
    "AUGMENT.GREY_PATCH": Key(0.0, "probability of a rectangle turned grey", least=0, most=1),
    "AUGMENT.BLUR": Key(0.0, "probability of a Gaussian blur", least=0, most=1),
    "AUGMENT.TRIVIAL": Key(0.0, "probability of TrivialAugment: one random change of random strength", least=0, most=1),
    "AUGMENT.RAND": Key(0.0, "probability of RandAugment: two random changes of medium strength", least=0, most=1),
    #
    "SAMPLER.NAME": Key(
        "identity", "identity: P x K batches; shuffled: images in random order", choices=("identity", "shuffled")
    ),
    "SAMPLER.P": Key(18, "identities a batch", least=1, most=65536),
    "SAMPLER.K": Key(4, "images an identity", least=1, most=65536),
    "SAMPLER.BATCHES_PER_EPOCH": Key(0, "0: as many as one pass over the images takes", least=0),
    "SAMPLER.HARD_IDENTITY_POOL": Key(0, "size of each identity's pool of confusing identities; 0: no pool", least=0),
    "SAMPLER.DOMAINS": Key(
        "any", "mixed: an identity's K images come from both of its domains", choices=("any", "mixed")
    ),
    #
    "MODEL.BACKBONE": Key(
        "resnet50",
        "any timm name, hf-hub:OWNER/MODEL for one of timm on the hub, bn_inception, resnet50_ibn_a, resnet101_ibn_a, "
        "osnet_x1_0, osnet_x0_75, osnet_x0_5 or osnet_x0_25",
    ),
    "MODEL.WEIGHTS": Key(
        "imagenet", "imagenet (timm's), none, or the path of a local file, as the field publishes them"
    ),
    "MODEL.MEAN": Key(
        [],
        "of red, green and blue of images in 0 .. 1; []: what timm's weights expect",
        numbers=True,
        length=3,
        least=0,
        most=1,
    ),
    "MODEL.STD": Key([], "the deviation, as MEAN", numbers=True, length=3, least=1e-4, most=10),
    "MODEL.LAST_STRIDE": Key(2, "stride of the backbone's last stage; 1 gives a finer map", choices=(1, 2)),
    "MODEL.POOLING": Key(
        "average",
        "from the map to a vector; of a transformer: cls, its class token; patch, the mean of its patches; both",
        choices=("average", "max", "gem", "cls", "patch", "both"),
    ),
    "MODEL.EMBEDDING_SIZE": Key(0, "width of a linear layer after the pooling; 0: no layer", least=0, most=65536),
    "MODEL.NECK": Key("none", "between the metric and the inference feature", choices=("none", "bnneck")),
    "MODEL.LEVELS": Key([], "for example [low, middle, high]: an embedding after each of several stages"),
    "MODEL.PARTS": Key(
        [],
        "for example [{stripes: 2, whole: true}, {channels: 2}]: pieces of the last map with heads of their own beside "
        "the whole map's (global); whole: the entry's whole map too; also its own pooling and embedding_size",
    ),
    "MODEL.OWN_STAGE": Key(False, "each entry of PARTS has a copy of the backbone's last stage, as in MGN"),
    "MODEL.PATCH_STRIDE": Key(0, "pixels between a transformer's patches, below their size; 0: their size", least=0),
    "MODEL.DROP_PATH": Key(
        0.0, "probability that training leaves out the last residual block; less of those before", least=0, most=0.99
    ),
    "MODEL.CAMERA_EMBEDDING": Key(
        0.0, "weight of a learned vector for each training camera, added to a transformer's tokens; 0: none", least=0
    ),
    #
    "LOSS.TERMS": Key(
        [{"name": "soft_ranking_threshold", "thresholds": "hard", "margin": "soft"}],
        "a weighted sum; each term: name, weight (1.0), feature (metric or inference; the loss knows its own), memory "
        "(size of a cross-batch memory; 0), parts (names of parts, as [global, stripes2]; all), and the loss's options",
    ),
    #
    "OPTIMIZER.NAME": Key("adam", "adamw decouples the weight decay", choices=("adam", "adamw", "sgd")),
    "OPTIMIZER.LR": Key(3e-4, "learning rate of the backbone", least=0, most=1e6),
    "OPTIMIZER.WEIGHT_DECAY": Key(5e-4, "of every parameter, norms, biases and the losses' own too", least=0, most=1e6),
    "OPTIMIZER.MOMENTUM": Key(0.9, "sgd only", least=0, most=1),
    "OPTIMIZER.NESTEROV": Key(True, "sgd only: Nesterov's momentum; false: the plain one, as Caffe has it"),
    "OPTIMIZER.HEAD_LR_FACTOR": Key(1.0, "on LR, for the layers that no pre-trained weights gave", least=0, most=1e6),
    "OPTIMIZER.LOSS_LR_FACTOR": Key(
        1.0, "on LR, for what the losses own: class weights, proxies, boundaries", least=0, most=1e6
    ),
    "OPTIMIZER.BIAS_LR_FACTOR": Key(1.0, "on LR, for biases, beside the other factors", least=0, most=1e6),
    "OPTIMIZER.LAYER_DECAY": Key(
        1.0, "on LR, for each layer of the backbone below its last, multiplied on the way down", least=0.01, most=1
    ),
    "OPTIMIZER.DECAY_ALL": Key(True, "false: no weight decay of norms, biases and a transformer's tokens"),
    "OPTIMIZER.CLIP_NORM": Key(0.0, "largest norm of the gradient; 0: no clipping", least=0, most=1e6),
    #
    "SCHEDULE.NAME": Key("constant", "stepped every iteration", choices=("constant", "step", "cosine", "exponential")),
    "SCHEDULE.WARMUP_EPOCHS": Key(0.0, "linear from LR / 100", least=0),
    "SCHEDULE.STEPS": Key([], "step: epochs at which LR is multiplied by GAMMA", numbers=True, least=0),
    "SCHEDULE.GAMMA": Key(0.1, "step: the factor", least=0, most=1),
    "SCHEDULE.DECAY_START": Key(0.0, "exponential: epoch at which the decay begins", least=0),
    "SCHEDULE.END_FACTOR": Key(0.001, "cosine, exponential: LR at the end, as a share of LR", least=0, most=1),
    #
    "TRAIN.OUTPUT": Key("", "the run folder; empty: runs/ and the config file's name"),
    "TRAIN.EPOCHS": Key(60, "passes of the sampler", least=1),
    "TRAIN.SEED": Key(0, "of weights, batches and augmentation", least=0),
    "TRAIN.DEVICE": Key("auto", "auto (cuda where there is one), cpu, cuda, cuda:1"),
    "TRAIN.AMP": Key(True, "bfloat16 autocast on GPUs that have it"),
    "TRAIN.DETERMINISTIC": Key(False, "the same bits again on a GPU, for some of its speed; a CPU gives them anyway"),
    "TRAIN.COMPILE": Key(False, "torch.compile of the backbone"),
    "TRAIN.FREEZE_EPOCHS": Key(0, "epochs at the start in which the backbone stays as it is", least=0),
    "TRAIN.EMA": Key(0.0, "decay of the averaged weights that are tested and kept; 0: none", least=0, most=1),
    "TRAIN.EVAL_EVERY": Key(10, "epochs; the last epoch is always tested", least=1),
    "TRAIN.CHECKPOINT_EVERY": Key(0, "iterations; 0: at the end of each epoch", least=0),
    #
    "TEST.BATCH_SIZE": Key(128, "images", least=1, most=65536),
    "TEST.AMP": Key(False, "bfloat16 autocast of the backbone in tests and extraction, on GPUs that have it"),
    "TEST.METRIC": Key("euclidean", "distance of two features", choices=("euclidean", "cosine")),
    "TEST.FEATURE": Key("inference", "inference: after the neck; metric: before it", choices=("inference", "metric")),
    "TEST.LEVELS": Key([], "those of MODEL.LEVELS whose features are compared, side by side; []: all"),
    "TEST.FLIP": Key(False, "average the features of an image and its mirror image"),
    "TEST.RANKS": Key([], "the k of CMC@k (Recall@k); []: the dataset's own", numbers=True),
    "TEST.NMI": Key(False, "also cluster the gallery and give the normalised mutual information"),
    "TEST.AVERAGE_PRECISION": Key("step", "trapezoid: Market-1501's script", choices=("step", "trapezoid")),
    #
    "LOG.TRACKERS": Key(["tensorboard"], "where curves go beside metrics.jsonl: tensorboard, mlflow, wandb"),
}
