"""Writes docs/tables.md from tables.yaml and the configs: every row of the three papers' tables and how it is run."""

import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import yaml

from reid_kit.config import load_config

DOCS = Path(__file__).parent
ROOT = DOCS.parent
PAPERS = {"SRT": "Soft ranking threshold (the slides)", "RLL": "Ranked list loss (RLL)", "RAW": "RAW with VTHM"}
CONFIGS = {path.stem: path for path in (ROOT / "configs").glob("**/*.yaml") if path.parent.name != "base"}


class Row(NamedTuple):
    """A row of a paper's table.

    numbers: the paper's. run: the name of a run of its own with `change`, KEY VALUE, made in the config; or "test":
    another test of the config's run.
    """

    name: str
    config: str
    numbers: str
    run: str = ""
    change: str = ""

    @property
    def overrides(self) -> list[str]:
        return self.change.split(" ", 1) if self.change else []

    @property
    def command(self) -> list[str]:
        own_run = self.run not in ("", "test")
        output = ["TRAIN.OUTPUT", f"runs/{self.config}_{self.run}"] if own_run else []
        tool = "tools/test.py" if self.run == "test" else "tools/train.py"
        return [tool, "--config", str(CONFIGS[self.config].relative_to(ROOT)), *self.overrides, *output]

    @property
    def settings(self) -> str:
        """The batch, the optimizer's rate and the length of the run."""
        config = load_config(CONFIGS[self.config], self.overrides)
        batches, epochs, optimizer = config.SAMPLER.BATCHES_PER_EPOCH, config.TRAIN.EPOCHS, config.OPTIMIZER
        length = f"{epochs * batches:,} iterations" if batches else f"{epochs} epochs"
        return f"{config.SAMPLER.P} x {config.SAMPLER.K}, {optimizer.NAME} {optimizer.LR:g}, {length}"

    @property
    def cells(self) -> list[str]:
        if self.config not in CONFIGS:
            return [self.name, "none", "", self.numbers, "not measured"]
        return [self.name, f"`{shlex.join(self.command)}`", self.settings, self.numbers, "not measured"]


def rows(table: dict) -> list[Row]:
    return [Row(*line.split(" | ")) for line in table["rows"].splitlines()]


def tables() -> list[dict]:
    return yaml.safe_load((DOCS / "tables.yaml").read_text())


def bases(path: Path) -> Iterator[Path]:
    """Everything that a config inherits."""
    found = yaml.safe_load(path.read_text()).get("_BASE_", [])
    for base in [found] if isinstance(found, str) else found:
        yield (path.parent / base).resolve()
        yield from bases(path.parent / base)


def remark(path: Path) -> str:
    """The comment that a file begins with, in one line."""
    lines = path.read_text().splitlines()
    return " ".join(line.lstrip("# ") for line in lines[: next(i for i, line in enumerate(lines) if line[:1] != "#")])


def section(table: dict) -> str:
    heads = ["row", "command", "settings", f"the paper's {table['measures']}", "ours"]
    lines = [" | ".join(cells) for cells in (heads, ["---"] * len(heads), *(row.cells for row in rows(table)))]
    inherited = {base for row in rows(table) if row.config in CONFIGS for base in bases(CONFIGS[row.config])}
    whose = [f"- `{path.relative_to(ROOT)}`: {remark(path)}" for path in sorted(inherited) if remark(path)]
    head = "\n\n".join([f"### {table['title']}", *([table["remark"]] if "remark" in table else [])])
    return "\n\n".join([head, "\n".join(f"| {line} |" for line in lines), "Whose the settings are:", "\n".join(whose)])


def others() -> str:
    """The configs of the metric-learning tables' losses and sets that no table has."""
    used = {row.config for table in tables() for row in rows(table)}
    names = [name for name, path in sorted(CONFIGS.items()) if path.parent.name == "metric_learning"]
    listed = ", ".join(f"`{name}`" for name in names if name not in used)
    return f"## Configs of the metric-learning sets that are in none of the tables\n\nAll ours: {listed}."


def document() -> str:
    parts = [HEADER.strip()]
    for paper, title in PAPERS.items():
        parts += [f"## {title}", *(section(table) for table in tables() if table["paper"] == paper)]
    return "\n\n".join([*parts, others()]) + "\n"


HEADER = """
# The papers' tables

Written by `python docs/make_tables.py` from [tables.yaml](tables.yaml) and the configs: every row of the three papers'
tables, the command that runs it (from the root of the repository, after `python`), the paper's number and ours, in
percent. None of these rows has been run yet; what has been measured, with other settings than the papers', stands in
[results.md](results.md). `python tools/compare.py CONFIG ... --seeds 3` runs several rows and prints their measures.

## BN-Inception and its weights

RLL and RAW train GoogLeNet V2, `MODEL.BACKBONE bn_inception`. timm has no ImageNet weights of it; the file that the
field shares is `bn_inception-52deb4733.pth` of the project pretrained-models.pytorch (an older copy is called
`bn_inception-9f5701afb96c8044.pth`). Give its path: `MODEL.WEIGHTS path/to/bn_inception-52deb4733.pth`. It was trained
on BGR images in 0 .. 255 less the means 104, 117 and 128, not divided by a deviation. All of that is done inside, and
images go in as RGB. Its keys are `conv1_7x7_s2.weight`, `conv1_7x7_s2_bn.running_mean`, `inception_3a_1x1.weight` and
so on; a classifier is left out. With several levels the network has the auxiliary blocks of its own training too:
`loss1_conv`, `loss1_fc`, `loss2_conv`, `loss2_fc` and their batch norms. That file lacks them, so they begin at random
and learn at the rate of new layers, ten times the others' in RLL. A file that has them is read, and they then learn as
the rest.

Without these weights a row runs on any timm backbone: add `MODEL.BACKBONE resnet50`, whose weights are downloaded. Its
levels are the last three stages, pooled, with a layer each. The result is then another network's.

## Memory

BN-Inception at 227 x 227 keeps 44 MiB an image for the backward pass in float32 (counted): 8 GiB for RLL's 180 images
and 54 GiB for Spectral Clust's 1,260; bfloat16 autocast takes about half. `torchrun --nproc-per-node N` divides them,
and the loss stays that of the whole batch. On a small GPU Spectral Clust learns from 252 images too, with a narrower
embedding: `SAMPLER.K 14 MODEL.EMBEDDING_SIZE 64` on CUB and Cars196.
"""

if __name__ == "__main__":
    (DOCS / "tables.md").write_text(document())
