"""Turn the raw cuhk-03.mat into folders of images under the new protocol.

python tools/prepare_cuhk03.py --raw cuhk-03.mat --lists cuhk03_new_protocol_config_detected.mat --boxes detected
"""

import argparse
import sys
from pathlib import Path

from tqdm import tqdm

from reid_kit.data.cuhk03 import prepare_cuhk03


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--raw", required=True, metavar="FILE", help="the authors' cuhk-03.mat")
    parser.add_argument("--lists", required=True, metavar="FILE", help="cuhk03_new_protocol_config_*.mat")
    parser.add_argument("--boxes", default="detected", choices=("detected", "labeled"))
    parser.add_argument("--output", type=Path, default=Path("datasets/cuhk03-np"), metavar="DIR")


def main(arguments: argparse.Namespace) -> None:
    counts = prepare_cuhk03(
        arguments.raw,
        arguments.lists,
        arguments.output,
        arguments.boxes,
        progress=lambda images: tqdm(images, unit="image", leave=False, disable=not sys.stderr.isatty()),
    )
    for split, count in counts.items():
        print(f"{split:20}{count:>7,} images")
    print(f"written to {arguments.output / arguments.boxes}; python tools/doctor.py --data cuhk03_np checks it")
