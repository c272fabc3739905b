"""What search and verify ask of a threshold; apart from them, so that their --help waits for no library."""

import argparse


def add_threshold_arguments(parser: argparse.ArgumentParser) -> None:
    """--threshold and --false-match-rate."""
    parser.add_argument("--threshold", type=float, metavar="T", help="on the distance; nearer is a match")
    parser.add_argument("--false-match-rate", type=float, metavar="R", help="the threshold of it (0.001)")
