"""Writes docs/tables.md: every row of the three papers' tables, the command that runs it, and the paper's number."""

import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import yaml

from reid_kit.config import load_config
from reid_kit.report.markdown import markdown_table

CONFIGS = Path(__file__).parents[1] / "configs"
RLL, RAW, SRT = "Ranked list loss (RLL)", "RAW with VTHM", "Soft ranking threshold (the slides)"


class Row(NamedTuple):
    """A row of a table: the config that runs it, what is changed in it, and the paper's numbers.

    overrides: KEY, VALUE, ...; a run of its own, called after `run`, or with `test` another test of the config's run.
    """

    name: str
    config: str
    numbers: str
    overrides: Sequence[str] = ()
    run: str = ""
    test: bool = False

    @property
    def command(self) -> str:
        if not self.config:
            return "none: see below"
        tool = "test" if self.test else "train"
        output = ["TRAIN.OUTPUT", f"runs/{self.config}_{self.run}"] if self.run else []
        return f"`{shlex.join([f'tools/{tool}.py', '--config', place(self.config), *self.overrides, *output])}`"


class Table(NamedTuple):
    paper: str
    title: str
    columns: str
    rows: Sequence[Row]
    remark: str = ""


def place(config: str) -> str:
    """A config's path, from the root of the repository."""
    (found,) = [path for path in CONFIGS.glob("**/*.yaml") if path.stem == config and path.parent.name != "base"]
    return str(found.relative_to(CONFIGS.parent))


def by_dataset(methods: dict[str, str], numbers: dict[str, list[str]], form: str = "{dataset}_{method}") -> list[Row]:
    """Rows of methods on datasets; `numbers` has a list for each dataset, one for each method, "" where there is none."""
    return [
        Row(f"{name}, {title}", form.format(dataset=dataset, method=method), value)
        for dataset_title, values in numbers.items()
        for (dataset, title) in [dataset_title.split(":")]
        for (name, method), value in zip(methods.items(), values, strict=True)
        if value
    ]


RLL_METHODS = {
    "Triplet Semihard": "triplet_semihard",
    "Lifted Struct": "lifted",
    "N-pair-mc": "npair",
    "Struct Clust": "facility",
    "Spectral Clust": "spectral",
    "Proxy NCA": "proxy_nca",
    "RLL-H": "rll",
    "RLL-(L,M,H)": "rll_lmh",
}
RLL_1 = {
    "cars:CARS196": [
        "51.5 63.8 73.5 82.4, 53.4",
        "53.0 65.7 76.0 84.3, 56.9",
        "53.9 66.8 77.8 86.4, 57.8",
        "58.1 70.6 80.3 87.8, 59.0",
        "73.1 82.2 89.0 93.0, 64.3",
        "73.2 82.4 86.4 88.7, 64.9",
        "74.0 83.6 90.1 94.1, 65.4",
        "82.1 89.3 93.7 96.7, 71.8",
    ],
    "cub:CUB-200-2011": [
        "42.6 55.0 66.4 77.2, 55.4",
        "43.6 56.6 68.6 79.6, 56.5",
        "45.4 58.4 69.5 79.5, 57.2",
        "48.2 61.4 71.8 81.9, 59.2",
        "53.2 66.1 76.7 85.3, 59.2",
        "49.2 61.9 67.9 72.4, 59.5",
        "57.4 69.7 79.2 86.9, 63.6",
        "61.3 72.7 82.7 89.4, 66.1",
    ],
}
RLL_2 = {
    "sop:SOP": [
        "66.7 82.4 91.9, 89.5",
        "62.5 80.8 91.9, 88.7",
        "66.4 83.2 93.0, 89.4",
        "67.0 83.7 93.2, 89.5",
        "67.6 83.7 93.3, 89.4",
        "73.7 - -, 90.6",
        "76.1 89.1 95.4, 89.7",
        "79.8 91.3 96.3, 90.4",
    ]
}


def ablation(option: str, letter: str, numbers: dict[str, str], default: str) -> list[Row]:
    """RLL on SOP with one of its options changed; its default is the main table's run."""
    return [
        Row(f"{letter} = {value}", "sop_rll_lmh", found)
        if value == default
        else Row(
            f"{letter} = {value}",
            "sop_rll_lmh",
            found,
            ["LOSS.TERMS", f"[{{name: ranked_list, {option}: {value}}}]"],
            f"{option}_{value}",
        )
        for value, found in numbers.items()
    ]


ALPHA = {"1.4": "76.2 89.4 95.6", "1.2": "79.8 91.3 96.3", "1.0": "78.7 90.5 95.9"}
M = {
    "0": "76.1 89.8 95.7",
    "0.2": "79.0 91.2 96.3",
    "0.4": "79.8 91.3 96.3",
    "0.6": "79.2 90.6 96.0",
    "1.2": "79.1 90.5 95.8",
}
T = {
    "0": "78.8 90.7 96.1",
    "5": "79.1 91.0 96.2",
    "10": "79.8 91.3 96.3",
    "15": "79.3 90.9 96.0",
    "20": "78.6 90.5 95.7",
}
LEVELS = {"L": ("low", "76.1 88.8 94.9"), "M": ("middle", "76.9 89.6 95.5"), "H": ("high", "76.1 89.1 95.4")}
LEVEL_ROWS = [Row(k, "sop_rll_lmh", v, ["TEST.LEVELS", f"[{name}]"], test=True) for k, (name, v) in LEVELS.items()]
BATCHES = {
    40: "79.2 90.9 96.2",
    50: "79.5 91.1 96.2",
    55: "79.7 91.2 96.3",
    60: "79.8 91.3 96.3",
    65: "79.8 91.3 96.3",
}
BATCH_ROWS = [
    Row(f"{3 * p} = {p} x 3", "sop_rll_lmh", v, *([] if p == 60 else [["SAMPLER.P", str(p)], f"batch_{3 * p}"]))
    for p, v in BATCHES.items()
]
RAW_1_METHODS = {
    "Binomial": "binomial",
    "RAW": "raw",
    "VTHM": "vthm",
    "Binomial+VTHM": "binomial_vthm",
    "RAW+DW": "raw_dw",
    "RAW+SemiHard": "raw_semihard",
    "RAW+VTHM": "raw_vthm",
}
RAW_1 = {
    "cub:CUB-200": ["64.45", "65.06", "61.55", "65.34", "65.67", "64.97", "66.85"],
    "cars:Cars-196": ["80.78", "81.27", "76.61", "81.48", "80.70", "80.48", "83.69"],
    "sop:SOP": ["73.4", "77.0", "76.82", "77.22", "77.39", "77.12", "78.18"],
    "inshop_dml:In-shop": ["84.78", "88.38", "88.72", "88.87", "88.79", "88.66", "89.64"],
}
RAW_METHODS = {
    "HDC": "hdc",
    "Clustering": "facility",
    "Proxy-NCA": "proxy_nca",
    "Margin": "margin",
    "HTL": "htl",
    "ABIER": "abier",
    "RAW+VTHM": "raw_vthm",
}
RAW_2 = {
    "cub:CUB-200-2011": [
        "53.6 65.7 77.0 85.6 91.5 95.5",
        "48.2 61.4 71.8 81.9 - -",
        "49.2 61.9 67.9 72.4 - -",
        "63.6 74.4 83.1 90.0 94.2 -",
        "57.1 68.8 78.7 86.5 92.5 95.5",
        "57.5 68.7 78.3 86.2 91.9 95.5",
        "66.85 77.84 85.8 91.29 94.94 97.42",
    ],
    "cars:Cars-196": [
        "73.7 83.2 89.5 93.8 96.7 98.4",
        "58.1 70.6 80.3 87.8 - -",
        "73.2 82.4 86.4 87.8 - -",
        "79.6 86.5 91.9 95.1 97.3 -",
        "81.4 88.0 92.7 95.7 97.4 99.0",
        "82.0 89.0 93.2 96.1 97.8 98.7",
        "83.69 90.27 94.53 97.16 98.65 99.36",
    ],
}
SMART_MINING = [
    Row("Smart Mining, CUB-200-2011", "", "49.8 62.3 74.1 83.3 - -"),
    Row("Smart Mining, Cars-196", "", "64.7 76.2 84.2 90.2 - -"),
]
RAW_3 = {
    "sop:SOP": [
        "69.5 84.4 92.8 97.7",
        "67.0 83.7 93.2 -",
        "73.7 - - -",
        "72.7 86.2 93.8 98.0",
        "74.8 88.3 94.8 98.4",
        "74.2 86.9 94.0 97.8",
        "78.18 90.47 96.0 98.74",
    ],
    "inshop_dml:In-shop": [
        "62.1 84.9 89.0 91.2 92.3 93.1",
        "",
        "",
        "",
        "80.9 94.3 95.8 97.2 97.4 97.8",
        "83.1 95.1 96.9 97.5 97.8 98.0",
        "89.64 97.87 98.47 98.84 99.05 99.20",
    ],
}
SRT_METHODS = {
    "Softmax": "softmax",
    "Tri.": "triplet",
    "Tri-HN": "triplet_hn",
    "Tri-BH": "triplet_bh",
    "Tri-AW": "triplet_aw",
    "SRT": "srt_plain",
    "SRT-F": "srt",
}
PEOPLE = {
    "market:Market1501": ["53.8 79.2", "68.7 85.0", "73.0 87.9", "74.0 88.5", "75.3 89.4", "77.3 90.1", "78.6 90.3"],
    "cuhk03np:CUHK03-NP": ["23.6 28.9", "52.4 58.9", "55.3 61.4", "56.0 59.4", "58.2 64.0", "59.4 65.3", "62.1 67.5"],
    "duke:DukeMTMC": ["27.9 31.8", "56.4 62.9", "58.4 65.1", "58.9 64.4", "60.7 66.9", "62.9 68.6", "65.1 70.5"],
}
STARS = {
    "market:Market1501": {"Tri-AW*": "76.5 89.7", "SRT-F*": "79.2 90.8"},
    "cuhk03np:CUHK03-NP": {"Tri-AW*": "58.9 64.5", "SRT-F*": "63.0 68.1"},
    "duke:DukeMTMC": {"Tri-AW*": "61.1 67.1", "SRT-F*": "65.8 71.3"},
}
STAR_ROWS = [
    Row(
        f"{name}, {dataset.split(':')[1]}",
        f"{dataset.split(':')[0]}_{SRT_METHODS[name[:-1]]}",
        number,
        ["SAMPLER.HARD_IDENTITY_POOL", "50"],
        "pool",
    )
    for dataset, found in STARS.items()
    for name, number in found.items()
]
FASHION = {
    "nobbox:w/o bbox": {
        "consumer2shop": ["x x", "13.8 45.0", "20.6 56.5", "x x", "19.7 55.8", "19.4 55.1", "21.2 58.0"],
        "inshop": ["53.0 73.2", "65.4 81.6", "69.2 85.4", "69.3 85.2", "70.4 85.9", "71.4 87.2", "71.6 86.9"],
    },
    "bbox:w/ bbox": {
        "consumer2shop": ["x x", "20.2 57.0", "28.8 68.5", "26.3 64.1", "27.1 66.9", "27.3 67.0", "28.9 68.7"],
        "inshop": ["51.3 71.2", "65.5 81.8", "68.1 84.4", "68.1 83.5", "70.3 85.8", "71.4 86.9", "71.2 86.5"],
    },
}
FASHION_TITLES = {"consumer2shop": "Consumer-to-shop", "inshop": "In-shop"}
FASHION_ROWS = [
    row
    for dataset, title in FASHION_TITLES.items()
    for box, found in FASHION.items()
    for row in by_dataset(
        SRT_METHODS,
        {f"{dataset}:{title} {box.split(':')[1]}": found[dataset]},
        f"{{dataset}}_{{method}}_{box.split(':')[0]}",
    )
]

TABLES = [
    Table(
        RLL,
        "Table 1: CARS196 and CUB-200-2011",
        "R@1 R@2 R@4 R@8, NMI",
        by_dataset(RLL_METHODS, RLL_1),
        "RLL-H is the high level of the network of RLL-(L,M,H), which its rows in tables 2 and 6 show; to train it once "
        'for both, test the run of `_rll_lmh` with `TEST.LEVELS "[high]"`. Proxy NCA as RLL eq. 5 prints it is '
        '`LOSS.TERMS "[{name: proxy_nca, normalize: true}]"`. The paper says that it tested its competitors under its '
        "own setting, and prints the numbers that their papers print.",
    ),
    Table(RLL, "Table 2: SOP", "R@1 R@10 R@100, NMI", by_dataset(RLL_METHODS, RLL_2)),
    Table(RLL, "Table 3: alpha, on SOP", "R@1 R@10 R@100", ablation("alpha", "alpha", ALPHA, "1.2")),
    Table(RLL, "Table 4: m, on SOP", "R@1 R@10 R@100", ablation("margin", "m", M, "0.4")),
    Table(RLL, "Table 5: T, on SOP", "R@1 R@10 R@100", ablation("temperature", "T", T, "10")),
    Table(
        RLL,
        "Table 6: levels, on SOP",
        "R@1 R@10 R@100",
        [*LEVEL_ROWS, Row("(L,M,H)", "sop_rll_lmh", "79.8 91.3 96.3", test=True)],
        "Four tests of one run, `tools/train.py --config configs/metric_learning/sop_rll_lmh.yaml`.",
    ),
    Table(RLL, "Table 7: batch size, on SOP", "R@1 R@10 R@100", BATCH_ROWS),
    Table(RAW, "Table 1: weights and miners", "R@1", by_dataset(RAW_1_METHODS, RAW_1)),
    Table(
        RAW,
        "Table 2: CUB-200-2011 and Cars-196",
        "R@1 R@2 R@4 R@8 R@16 R@32",
        [*by_dataset(RAW_METHODS, RAW_2), *SMART_MINING],
        "Smart Mining (Harwood et al., ICCV 2017) is not built: it takes its triplets from an approximate nearest-"
        "neighbour graph over the whole training set, with a controller of how hard they are, and adds a global loss to "
        "the triplets'. No code of it is public, and what its paper prints was not at hand to check a copy against. "
        "Clustering and Proxy-NCA run under RLL's settings, in whose tables they stand too; the paper took all rows but "
        "its own from their papers.",
    ),
    Table(
        RAW,
        "Table 3: SOP and In-shop",
        "R@1 R@10 R@100 R@1000; R@1 R@10 R@20 R@30 R@40 R@50",
        by_dataset(RAW_METHODS, RAW_3),
    ),
    Table(
        SRT,
        "Person ReID",
        "mAP CMC@1",
        [*by_dataset(SRT_METHODS, PEOPLE), *STAR_ROWS],
        "The slides do not define the star of Tri-AW* and SRT-F*. The nearest that is ours are batches half of which are "
        "made of identities that are confused with the other half (Ristani and Tomasi 2018), with pools of 50.",
    ),
    Table(
        SRT,
        "Fashion Retrieval",
        "mAP CMC@20 of Consumer-to-shop, mAP CMC@1 of In-shop",
        FASHION_ROWS,
        "x is the slides' own and not explained there. The gallery of Consumer-to-shop is the test pairs' shop images, "
        'as the set\'s README 1.1 has it; `DATA.OPTIONS "{gallery: val+test}"` is what other code takes. The slides do '
        "not say which is theirs.",
    ),
]

HEADER = """# The papers' tables

Written by `python docs/make_tables.py` from the configs. Every row of the three papers' tables, the command that runs it
(from the root of the repository, after `python`), the paper's number and ours. The numbers are percents. What has been
measured with other settings than the papers' stands in [results.md](results.md); none of these rows has been run yet.

`python tools/compare.py CONFIG ... --seeds 3` runs several rows and prints the measures of their table.

## BN-Inception and its weights

RLL and RAW train GoogLeNet V2, `MODEL.BACKBONE bn_inception`. No package index has its ImageNet weights; the file that
the field shares is `bn_inception-52deb4733.pth` of the project pretrained-models.pytorch (an older copy is called
`bn_inception-9f5701afb96c8044.pth`). Give its path: `MODEL.WEIGHTS path/to/bn_inception-52deb4733.pth`. It was trained on
BGR images in 0 .. 255 less the means 104, 117 and 128, not divided by a deviation. All of that is done inside; images go
in as RGB. Its keys are `conv1_7x7_s2.weight`, `conv1_7x7_s2_bn.running_mean`, `inception_3a_1x1.weight` and so on; a
classifier is left out. With several levels the network has the auxiliary blocks of its training, `loss1_conv`,
`loss1_fc`, `loss2_conv`, `loss2_fc` and their batch norms; that file lacks them, so they begin at random and learn at
ten times the rate, as RLL's new layers do. A file that has them is read, and they then learn as the rest.

Without these weights a row runs on any timm backbone: add `MODEL.BACKBONE resnet50`, whose weights are downloaded. Its
levels are the last three stages, pooled, with a layer each. What comes out is then another network's number.

## Memory

BN-Inception at 227 x 227 keeps 44 MiB an image for the backward pass in float32 (counted): 8 GiB for RLL's 180 images
and 54 GiB for Spectral Clust's 1,260; bfloat16 autocast needs about half. `torchrun --nproc-per-node N` divides them, and
the loss is that of the whole batch. On a small GPU Spectral Clust learns from 252 images as well, of another width:
`SAMPLER.K 14 MODEL.EMBEDDING_SIZE 64` on CUB and Cars196."""


def bases(path: Path) -> Iterator[Path]:
    """Everything that a config inherits, the most general first."""
    found = yaml.safe_load(path.read_text()).get("_BASE_", [])
    for base in [found] if isinstance(found, str) else found:
        yield from bases(path.parent / base)
        yield path.parent / base


def remark_of(path: Path) -> str:
    """The comment that a file begins with, in one line."""
    lines = path.read_text().splitlines()
    return " ".join(line.lstrip("# ") for line in lines[: next(i for i, line in enumerate(lines) if line[:1] != "#")])


def settings(row: Row) -> str:
    """The batch, the rate and the length of a row's run."""
    config = load_config(CONFIGS.parent / place(row.config), row.overrides)
    batches, epochs, optimizer = config.SAMPLER.BATCHES_PER_EPOCH, config.TRAIN.EPOCHS, config.OPTIMIZER
    length = f"{epochs * batches:,} iterations" if batches else f"{epochs} epochs"
    return f"{config.SAMPLER.P} x {config.SAMPLER.K}, {optimizer.NAME} {optimizer.LR:g}, {length}"


def section(table: Table) -> str:
    rows = [
        [row.name, row.command, settings(row) if row.config else "-", row.numbers, "not measured"] for row in table.rows
    ]
    paths = {base.resolve() for row in table.rows if row.config for base in bases(CONFIGS.parent / place(row.config))}
    remarks = [(str(path.relative_to(CONFIGS)), remark_of(path)) for path in sorted(paths)]
    whose = [f"- `{path}`: {remark}" for path, remark in remarks if remark]
    lines = [f"### {table.title}", "", *([table.remark, ""] if table.remark else [])]
    lines += [markdown_table(["row", "command", "settings", f"the paper's {table.columns}", "ours"], rows), ""]
    return "\n".join([*lines, "Whose the settings are:", "", *whose])


def others() -> str:
    """The configs that no table has."""
    used = {row.config for table in TABLES for row in table.rows}
    paths = [path for path in sorted(CONFIGS.glob("**/*.yaml")) if path.parent.name != "base"]
    names = [f"`{path.stem}`" for path in paths if path.stem not in used]
    text = "Ours, or of losses that the papers name without a row: "
    return f"## Configs that are in none of the tables\n\n{text}{', '.join(names)}."


def document() -> str:
    parts = [HEADER]
    for paper in (SRT, RLL, RAW):
        parts += [f"## {paper}", *(section(table) for table in TABLES if table.paper == paper)]
    return "\n\n".join([*parts, others()]) + "\n"


if __name__ == "__main__":
    (Path(__file__).parent / "tables.md").write_text(document())
