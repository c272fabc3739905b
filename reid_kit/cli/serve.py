"""A page to search a gallery with, and the same over HTTP (pip install 'reid_kit[web]').

python tools/serve.py people --checkpoint runs/market_srt/best.pt
python tools/serve.py people --checkpoint runs/market_srt/best.pt --host 0.0.0.0 --user ann:PASSWORD

It serves this machine alone unless told otherwise, and needs a password there. In place of --user, which others on this
machine may see, the environment variable REID_KIT_USER may hold NAME:PASSWORD. Every search is logged.
"""

import argparse
import os
from pathlib import Path

from reid_kit.build import open_model
from reid_kit.errors import InputError
from reid_kit.gallery import open_gallery
from reid_kit.gallery.folder import FolderGallery
from reid_kit.web.desk import Desk
from reid_kit.web.server import check_users, serve

LOG = "searches.jsonl"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("gallery", metavar="GALLERY", help="a folder, name.db or http://host:port")
    parser.add_argument("--checkpoint", type=Path, metavar="FILE", help="the one that made the gallery")
    parser.add_argument("--config", metavar="FILE", help="or the config whose untrained backbone made it")
    parser.add_argument("--host", default="127.0.0.1", help="the address to serve on (%(default)s)")
    parser.add_argument("--port", type=int, default=7860, help="0 takes a free one (%(default)s)")
    parser.add_argument("--user", action="append", metavar="NAME:PASSWORD", help="may be repeated")
    parser.add_argument("--log", type=Path, metavar="FILE", help=f"of searches, as JSON lines (GALLERY/{LOG})")
    parser.add_argument("overrides", nargs="*", metavar="KEY VALUE", help="as TRAIN.DEVICE cpu")


def main(arguments: argparse.Namespace) -> None:
    users = arguments.user or [user for user in [os.environ.get("REID_KIT_USER")] if user is not None]
    check_users(users)
    gallery = open_gallery(arguments.gallery)  # whose errors come before the model's
    if arguments.log is None and not isinstance(gallery, FolderGallery):
        raise InputError(f"{arguments.gallery} is no folder that could hold the log of searches; give --log FILE")
    model, *_ = open_model(arguments.checkpoint, arguments.config, arguments.overrides)
    gallery = open_gallery(arguments.gallery, model)
    serve(Desk(gallery, arguments.log or Path(arguments.gallery, LOG)), arguments.host, arguments.port, users)
