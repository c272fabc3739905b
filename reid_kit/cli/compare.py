"""Train several configs on several seeds and print one table, in the form of the papers.

  python tools/compare.py configs/market_softmax.yaml configs/market_srt.yaml --seeds 3 --output runs/compare_market

Each run has a folder in --output, by the name of its config and its seed. The same command goes on where it was broken
off, and leaves finished runs alone.
"""

import argparse
import csv
import io
import json
from collections.abc import Sequence
from itertools import takewhile
from pathlib import Path
from statistics import mean, stdev
from typing import NamedTuple

import numpy as np

from reid_kit.cli.train import check_same, train
from reid_kit.config import load_config
from reid_kit.config_files import find_config
from reid_kit.distributed import rank, start_processes
from reid_kit.errors import InputError, unknown_name
from reid_kit.files import hold, short_hash, write_atomically
from reid_kit.report.comparisons import comparison_table
from reid_kit.report.markdown import markdown_table
from reid_kit.report.tables import in_percent


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("configs", nargs="+", metavar="CONFIG", help="files or names, then KEY VALUE pairs for all")
    parser.add_argument("--seeds", type=int, default=1, metavar="N", help="seeds 0 .. N-1 of each (%(default)s)")
    parser.add_argument(
        "--against", metavar="NAME", help="the row that the others are compared with; else each with each"
    )
    parser.add_argument("--output", type=Path, default=Path("runs/compare"), metavar="DIR")


def main(arguments: argparse.Namespace) -> None:
    start_processes()
    files = list(takewhile(is_config, arguments.configs))
    overrides = arguments.configs[len(files) :]
    if not files:
        raise InputError("give the configs first, by file or by name, then KEY VALUE pairs")
    if arguments.seeds < 1:
        raise InputError(f"--seeds must be at least 1, got {arguments.seeds}")
    set_here = {"TRAIN.SEED": "--seeds", "TRAIN.OUTPUT": "--output"}
    for key in overrides[::2]:
        if key in set_here:
            raise InputError(f"{key} would have no effect: compare sets it for each run; give {set_here[key]}")
    names = row_names(files)
    if arguments.against not in (None, *names):
        raise unknown_name("row for --against:", arguments.against, names)
    found = {}
    for name, file in names.items():
        found[name] = [
            one_run(file, arguments.output / f"{name}-seed{seed}", seed, overrides) for seed in range(arguments.seeds)
        ]
    if rank() == 0:
        rows = {name: [run.measures for run in runs] for name, runs in found.items()}
        table, lines = f"{markdown(rows)}\n{comparisons(found, arguments.against)}", comma_separated(rows)
        with hold(arguments.output, "choose another --output"):
            place = table_place(arguments.output, lines)
            write_atomically(place.with_suffix(".md"), table + "\n")
            write_atomically(place.with_suffix(".csv"), lines)
        print(f"\n{table}\n\n{place.with_suffix('.md')}, {place.with_suffix('.csv')}")


def is_config(argument: str) -> bool:
    """Whether it is a config's file or name, and no key, which has a dot."""
    return argument.endswith((".yaml", ".yml")) or "." not in argument


def row_names(files: Sequence[str]) -> dict[str, str]:
    """The file of each row by the row's name: the file's without suffix, with its folders' where several have it."""
    paths = [find_config(file).resolve() for file in files]
    if len(set(paths)) < len(paths):
        raise InputError(f"a config is given twice: {', '.join(files)}")
    parts = [path.with_suffix("").parts for path in paths]
    names = []
    for own in parts:
        length = 1
        while sum(other[-length:] == own[-length:] for other in parts) > 1 and length < len(own):
            length += 1
        names.append("-".join(part.strip("/") for part in own[-length:]))
    if len(set(names)) < len(names):
        raise InputError(f"two of the configs would have one row, as {names}; rename one")
    return dict(zip(names, files))


def table_place(output: Path, lines: str) -> Path:
    """Where the table goes, without suffix: compare, unless that holds a table with rows that this one has not."""
    place = output / "compare"
    there = [place.with_suffix(suffix).exists() for suffix in (".md", ".csv")]
    if any(there):
        before = place.with_suffix(".csv").read_text(errors="replace").splitlines() if all(there) else ["unknown"]
        if not set(before) <= set(lines.splitlines()):
            return output / f"compare-{short_hash(lines)}"
    return place


class Run(NamedTuple):
    """What a run was measured to be. query_ids, average_precision: (Q,) of its queries, NaN where one was skipped."""

    measures: dict[str, float]
    query_ids: np.ndarray
    average_precision: np.ndarray


def comparisons(found: dict[str, list[Run]], against: str | None) -> str:
    """The table of differences, where there are several rows, tested on the same queries."""
    if len(found) < 2:
        return ""
    runs = [run for each in found.values() for run in each]
    if not all(np.array_equal(run.query_ids, runs[0].query_ids) for run in runs):
        return "\nThe rows were tested on other queries each, so that they cannot be compared query for query."
    values = {name: [run.average_precision for run in each] for name, each in found.items()}
    return f"\n{comparison_table(values, runs[0].query_ids, against)}"


def one_run(file: str, folder: Path, seed: int, overrides: Sequence[str]) -> Run:
    """The measures of a run; it is trained, or trained to its end, where it has none.

    Raises:
        InputError: what stands in its folder is of another config, or its results cannot be read.
    """
    results = folder / "results.json"
    config = load_config(file, [*overrides, "TRAIN.SEED", str(seed), "TRAIN.OUTPUT", str(folder)])
    if results.exists():
        saved = folder / "config.yaml"
        if not saved.exists():
            raise InputError(
                f"{results} stands there without {saved.name}, so that nobody knows what it is of; move it"
            )
        check_same(config, saved.read_text(), saved)
    else:
        train(config, resume=(folder / "last.pt").exists())
    try:
        found = json.loads(results.read_bytes())
        return Run(
            {name: float(value) for name, value in found["measures"].items()},
            np.array(found["query_ids"], np.int64),
            np.array(found["average_precision"], np.float64),
        )
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise InputError(
            f"{results} cannot be read as a run's results ({type(error).__name__}: {error}). Delete it: the "
            f"same command then tests the run again"
        ) from error


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
