"""Are two images of the same person or product?

python tools/verify.py --checkpoint runs/market_srt/best.pt a.jpg b.jpg
python tools/verify.py --checkpoint runs/market_srt/best.pt --gallery people --false-match-rate 1e-4 a.jpg b.jpg
"""

import argparse
from pathlib import Path

from reid_kit.build import open_model
from reid_kit.cli.search import threshold_of
from reid_kit.cli.threshold_arguments import add_threshold_arguments
from reid_kit.gallery import open_gallery
from reid_kit.gallery.address import describe_model
from reid_kit.gallery.calibration import same_or_not
from reid_kit.gallery.entries import EMBED_DISTANCES


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--checkpoint", type=Path, metavar="FILE")
    parser.add_argument("--config", metavar="FILE", help="its backbone with its pre-trained weights, untrained")
    parser.add_argument(
        "--gallery", metavar="GALLERY", help="whose thresholds are taken in place of the training run's"
    )
    add_threshold_arguments(parser)
    parser.add_argument("images", nargs=2, metavar="IMAGE")


def main(arguments: argparse.Namespace) -> None:
    model, config, _ = open_model(arguments.checkpoint, arguments.config)
    if arguments.gallery is None:
        about = describe_model(model, flip=config.TEST.FLIP)
    else:
        about = open_gallery(arguments.gallery, model).description
    threshold, said = threshold_of(arguments, about)
    verdict, distance = same_or_not(model.embed(arguments.images, flip=about.flip), about.metric, threshold)
    print(f"{verdict}: {EMBED_DISTANCES[about.metric]} {distance:.4f}\n{said}")
