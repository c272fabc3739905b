"""Measure on a gallery's labelled entries which distance has which false-match rate, and keep the thresholds.

python tools/calibrate.py people
python tools/calibrate.py people --false-match-rate 1e-3 1e-5
"""

import argparse
from dataclasses import replace

from reid_kit.errors import InputError
from reid_kit.gallery import open_gallery
from reid_kit.gallery.calibration import calibrate
from reid_kit.gallery.entries import EMBED_DISTANCES
from reid_kit.operating_point import FALSE_MATCH_RATES
from reid_kit.report.tables import threshold_table


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("gallery", metavar="GALLERY", help="a folder, name.db or http://host:port")
    parser.add_argument(
        "--false-match-rate", type=float, nargs="+", default=FALSE_MATCH_RATES, metavar="R", help="(%(default)s)"
    )


def main(arguments: argparse.Namespace) -> None:
    gallery = open_gallery(arguments.gallery)
    found = calibrate(gallery, arguments.false_match_rate)
    data = f"{found.entries:,} labelled entries of {found.identities:,} identities in this gallery, {found.pairs_of}"
    print(f"{data}; {found.negatives:,} pairs of different identities\n")
    if found.points:
        print(threshold_table(found.points, EMBED_DISTANCES[gallery.description.metric]))
    for rate in sorted(set(arguments.false_match_rate) - set(found.points)):
        print(f"{rate:g}: no threshold; it is less than one of {found.negatives:,} pairs")
    if not found.points:
        raise InputError(f"{arguments.gallery} has too few labelled entries for these rates; nothing was kept")
    with gallery.writing():
        points = tuple(found.points.values())
        gallery.describe_as(replace(gallery.description, thresholds=points, thresholds_from=data))
    print(f"\nkept in {arguments.gallery}; search takes them")
