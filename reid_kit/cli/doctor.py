"""Check a dataset's folder: layout, counts, cameras, identities, every image; and say what to mend.

python tools/doctor.py --data market1501 --root datasets
python tools/doctor.py --data cuhk03_np --root datasets boxes labeled
"""

import argparse
import sys

import yaml
from tqdm import tqdm

from reid_kit.cli.tables import dataset_table
from reid_kit.data.doctor import diagnose
from reid_kit.data.readers import READERS
from reid_kit.data.readers.registry import checked_options
from reid_kit.errors import InputError
from reid_kit.reading import parsing

SHOWN = 20  # findings of a kind


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--data", required=True, metavar="NAME", help=", ".join(sorted(READERS)))
    parser.add_argument("--root", default="datasets", metavar="DIR", help="the dataset's folder or its parent")
    parser.add_argument("--split", type=float, metavar="SHARE", help="of folder and csv without a split: draw one")
    parser.add_argument("--no-images", action="store_true", help="do not decode the images")
    parser.add_argument("options", nargs="*", metavar="OPTION VALUE", help="of the reader, as boxes labeled")


def main(arguments: argparse.Namespace) -> None:
    words = arguments.options
    if len(words) % 2:
        raise InputError(f"options of the reader come in pairs OPTION VALUE; {words[-1]!r} has no value")
    with parsing("the value of an option", "YAML, as true or labeled", yaml.YAMLError):
        values = [yaml.safe_load(text) for text in words[1::2]]
    options = dict(zip(words[::2], values))
    if arguments.split is not None:
        options["split"] = arguments.split
    options = checked_options(arguments.data, options)
    diagnosis = diagnose(
        arguments.data,
        arguments.root,
        check_images=not arguments.no_images,
        progress=lambda records: tqdm(
            records, desc="images", unit="image", leave=False, disable=not sys.stderr.isatty()
        ),
        **options,
    )
    print(dataset_table(diagnosis.dataset))
    for kind, findings in (("warning", diagnosis.warnings), ("problem", diagnosis.problems)):
        for finding in findings[:SHOWN]:
            print(f"{kind}: {finding}")
        if len(findings) > SHOWN:
            print(f"{kind}: and {len(findings) - SHOWN} more")
    if diagnosis.problems:
        raise InputError(f"{arguments.data} needs mending: {len(diagnosis.problems)} problems, listed above")
    print("fit to use" + (", but see the warnings" if diagnosis.warnings else ""))
