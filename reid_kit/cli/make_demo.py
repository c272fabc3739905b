"""Render the built-in demo data: pedestrians seen by six cameras, and garments in shops and streets.

python tools/make_demo.py
"""

import argparse
from pathlib import Path

from reid_kit.data.demo import write_demo


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--root", type=Path, default=Path("datasets/demo"), help="where to write (%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="another seed gives other people (%(default)s)")


def main(arguments: argparse.Namespace) -> None:
    write_demo(arguments.root, seed=arguments.seed)
    print(f"demo data in {arguments.root}")
