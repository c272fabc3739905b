"""Train several configs on several seeds and print one table, in the form of the papers.

  python tools/compare.py configs/market_softmax.yaml configs/market_srt.yaml --seeds 3 --output runs/compare_market

Each run has a folder in --output. The same command goes on where it was broken off, and leaves finished runs alone.
"""

import argparse
import csv
import io
import json
from collections.abc import Sequence
from pathlib import Path
from statistics import mean, stdev

from reid_kit.cli.train import train
from reid_kit.config import load_config
from reid_kit.distributed import rank, start_processes
from reid_kit.errors import InputError
from reid_kit.files import write_atomically
from reid_kit.report.markdown import markdown_table
from reid_kit.report.tables import in_percent


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("configs", nargs="+", metavar="CONFIG", help="YAML files, then KEY VALUE pairs for all of them")
    parser.add_argument("--seeds", type=int, default=1, metavar="N", help="seeds 0 .. N-1 of each (%(default)s)")
    parser.add_argument("--output", type=Path, default=Path("runs/compare"), metavar="DIR")


def main(arguments: argparse.Namespace) -> None:
    start_processes()
    files = [name for name in arguments.configs if name.endswith((".yaml", ".yml"))]
    overrides = arguments.configs[len(files) :]
    if not files or arguments.configs[: len(files)] != files:
        raise InputError("give the config files first, each ending in .yaml, then KEY VALUE pairs")
    rows = {}
    for file in files:
        rows[Path(file).stem] = [
            one_run(file, arguments.output / f"{Path(file).stem}-seed{seed}", seed, overrides)
            for seed in range(arguments.seeds)
        ]
    if rank() == 0:
        table = markdown(rows)
        write_atomically(arguments.output / "compare.md", table + "\n")
        write_atomically(arguments.output / "compare.csv", comma_separated(rows))
        print(f"\n{table}\n\n{arguments.output / 'compare.md'}, {arguments.output / 'compare.csv'}")


def one_run(file: str, folder: Path, seed: int, overrides: Sequence[str]) -> dict[str, float]:
    """The measures of a run; it is trained, or trained to its end, where it has none."""
    results = folder / "results.json"
    if not results.exists():
        config = load_config(file, [*overrides, "TRAIN.SEED", str(seed), "TRAIN.OUTPUT", str(folder)])
        train(config, resume=(folder / "last.pt").exists())
    return json.loads(results.read_text())["measures"]


def columns(rows: dict[str, list[dict[str, float]]]) -> list[str]:
    """The measures that the tables of the rows' datasets print."""
    return list(dict.fromkeys(measure for runs in rows.values() for run in runs for measure in run))


def markdown(rows: dict[str, list[dict[str, float]]]) -> str:
    """Means over the seeds in percent, with the standard deviation where there are several."""
    measures = columns(rows)
    lines = [
        [name, *(mean_and_spread([run.get(measure) for run in runs]) for measure in measures), str(len(runs))]
        for name, runs in rows.items()
    ]
    return markdown_table(["", *measures, "seeds"], lines)


def mean_and_spread(values: list[float | None]) -> str:
    if None in values:
        return in_percent(None)  # another dataset's measure
    return " ± ".join(map(in_percent, [mean(values), *([stdev(values)] if len(values) > 1 else [])]))


def comma_separated(rows: dict[str, list[dict[str, float]]]) -> str:
    """A line for each run."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    measures = columns(rows)
    writer.writerow(["config", "seed", *measures])
    for name, runs in rows.items():
        writer.writerows([name, seed, *(run.get(measure) for measure in measures)] for seed, run in enumerate(runs))
    return text.getvalue()
