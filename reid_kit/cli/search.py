"""Find images in a gallery.

  python tools/search.py people --checkpoint runs/market_srt/best.pt --image a.jpg b.jpg
  python tools/search.py people --checkpoint runs/market_srt/best.pt --images queries --top 5 --output found
  python tools/search.py people --checkpoint runs/market_srt/best.pt --image a.jpg --not-camera c1 --threshold 0.4

Matches are what is nearer than a threshold: --threshold, or that of a false-match rate (reid-kit calibrate). --output
gets matches.csv, matches.json and matches.png.
"""

import argparse
import csv
import io
import json
import os
import warnings
from pathlib import Path

import numpy as np
import torch

from reid_kit.build import open_model
from reid_kit.cli.contact_sheet import contact_sheet
from reid_kit.cli.threshold_arguments import add_threshold_arguments
from reid_kit.errors import InputError
from reid_kit.evaluation import k_reciprocal_distance
from reid_kit.files import hold, take_folder, write_atomically
from reid_kit.gallery import Match, open_gallery
from reid_kit.gallery.calibration import FALSE_MATCH_RATE, operating_point, rates_of
from reid_kit.gallery.entries import EMBED_DISTANCES, Description, box_text
from reid_kit.gallery.gallery import Gallery
from reid_kit.image_files import find_images
from reid_kit.report.markdown import markdown_table

KIND = "output of search"  # of matches.json
RERANKED = 200  # nearest entries of a query that are ranked anew
SHOWN = 30  # queries on the contact sheet


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("gallery", metavar="GALLERY", help="a folder, name.db or http://host:port")
    parser.add_argument("--checkpoint", type=Path, metavar="FILE", help="the one that made the gallery")
    parser.add_argument("--config", metavar="FILE", help="or the config whose untrained backbone made it")
    parser.add_argument("--image", type=Path, nargs="+", default=[], metavar="FILE", help="what to search for")
    parser.add_argument("--images", type=Path, metavar="DIR", help="all images below a folder")
    parser.add_argument("--top", type=int, default=10, metavar="K", help="at most so many matches (%(default)s)")
    parser.add_argument("--camera", action="append", metavar="NAME", help="of this camera alone; may be repeated")
    parser.add_argument("--not-camera", action="append", metavar="NAME", help="of no such camera; may be repeated")
    parser.add_argument("--identity", action="append", metavar="NAME", help="of this identity alone; may be repeated")
    add_threshold_arguments(parser)
    parser.add_argument("--pool", action="store_true", help="the images are of one person or product: one query")
    parser.add_argument("--rerank", action="store_true", help="order by k-reciprocal encoding (Zhong et al. 2017)")
    parser.add_argument("--output", type=Path, metavar="DIR", help="a new folder for matches.csv, .json and .png")
    parser.add_argument("overrides", nargs="*", metavar="KEY VALUE", help="as TRAIN.DEVICE cpu")


def main(arguments: argparse.Namespace) -> None:
    paths = list(arguments.image)
    if arguments.images is not None:
        paths += find_images(arguments.images).paths
    if not paths:
        raise InputError("nothing to search for: give --image FILE or --images DIR")
    if arguments.top < 1:
        raise InputError(f"--top must be at least 1, got {arguments.top}")
    gallery = open_gallery(arguments.gallery)  # whose errors come before the model's
    model, *_ = open_model(arguments.checkpoint, arguments.config, arguments.overrides)
    gallery = open_gallery(arguments.gallery, model)
    threshold, said = threshold_of(arguments, gallery.description)
    vectors = gallery.vectors_of(paths)
    queries = [[str(path)] for path in paths]
    if arguments.pool:
        vectors, queries = torch.nn.functional.normalize(vectors.mean(0, keepdim=True)), [list(map(str, paths))]
    about = {"camera": arguments.camera, "not_camera": arguments.not_camera, "identity": arguments.identity}
    wanted = max(arguments.top, RERANKED) if arguments.rerank else arguments.top
    ranked = gallery.search(vectors, wanted, **about)
    if arguments.rerank:
        ranked = [reranked(gallery, vector[None], matches) for vector, matches in zip(vectors, ranked)]
    nearest = [min((match.distance for match in matches), default=np.inf) for matches in ranked]
    found = [
        [m for m in matches if threshold is None or m.distance <= threshold][: arguments.top] for matches in ranked
    ]
    print(f"{terminal_table(queries, found, nearest, threshold)}\n\n{said}")
    if arguments.top > gallery.count():
        print(f"the gallery has {gallery.count():,} entries, fewer than --top {arguments.top}")
    if threshold is not None and arguments.threshold is None:
        rate = operating_point(gallery.description.thresholds, asked_rate(arguments)).false_match_rate
        print(f"of {gallery.count():,} entries about {rate * gallery.count():.1f} strangers lie within it by chance")
    gone = {match.path for matches in found for match in matches if is_gone(match)}
    if gone:
        warnings.warn(f"{len(gone):,} files of matches are gone, as {min(gone)}; reid-kit index --prune", stacklevel=2)
    if arguments.output:
        height, width = gallery.description.height, gallery.description.width
        write(arguments.output, arguments.gallery, queries, found, nearest, threshold, said, (height, width))
        print(f"{arguments.output}: matches.csv, matches.json, matches.png")


def is_gone(match: Match) -> bool:
    """Whether an entry's file is no more; an image within a tar has that for its source."""
    of_tar = match.path.startswith(f"{match.source}/") and os.path.isfile(match.source)
    return not of_tar and not os.path.exists(match.path)


def asked_rate(arguments: argparse.Namespace) -> float:
    return FALSE_MATCH_RATE if arguments.false_match_rate is None else arguments.false_match_rate


def threshold_of(arguments: argparse.Namespace, description: Description) -> tuple[float | None, str]:
    """The threshold, None where none is known and none was asked for; and what is to be said of it."""
    distance = EMBED_DISTANCES[description.metric]
    if arguments.threshold is not None:
        if arguments.false_match_rate is not None:
            raise InputError("give --threshold or --false-match-rate, not both")
        if not 0 <= arguments.threshold <= 2:
            raise InputError(f"--threshold lies on the {distance}, in 0 .. 2, got {arguments.threshold:g}")
        return arguments.threshold, f"a match has a {distance} of at most {arguments.threshold:g}"
    if not description.thresholds and arguments.false_match_rate is None:
        return None, f"no threshold is known, so that nothing says which are matches (reid-kit calibrate); {distance}"
    point = operating_point(description.thresholds, asked_rate(arguments))
    return point.threshold, rates_of(point, description)


def reranked(gallery: Gallery, vector: torch.Tensor, matches: list[Match]) -> list[Match]:
    """A query's nearest in the order of re-ranking among themselves, whatever else is searched for; distances stay."""
    if len(matches) < 3:
        return matches
    k1 = min(20, len(matches))
    distances = k_reciprocal_distance(vector, gallery.vectors_at(matches), k1=k1, k2=min(6, k1))
    order = distances[0].argsort(stable=True)
    return [matches[place] for place in order.tolist()]


def verdict(matches: list[Match], threshold: float | None) -> str:
    return "not judged" if threshold is None else "match" if matches else "no match"


def terminal_table(
    queries: list[list[str]], found: list[list[Match]], nearest: list[float], threshold: float | None
) -> str:
    rows = []
    for query, matches, near in zip(queries, found, nearest):
        name = query[0] if len(query) == 1 else f"{query[0]} and {len(query) - 1} more"
        judged = verdict(matches, threshold)
        if not matches:
            rows.append([name, "-", "-", "-", f"nearest {near:.4f}" if np.isfinite(near) else "-", judged])
        for place, match in enumerate(matches):
            path = os.path.relpath(match.path) if match.path.startswith(os.getcwd() + os.sep) else match.path
            seen = [match.identity or "-", match.camera or "-", f"{match.distance:.4f}", judged]
            rows.append(["" if place else name, path, *seen])
    return markdown_table(["query", "path", "identity", "camera", "distance", "verdict"], rows)


def write(
    folder: Path,
    gallery: str,
    queries: list[list[str]],
    found: list[list[Match]],
    nearest: list[float],
    threshold: float | None,
    said: str,
    size: tuple[int, int],
) -> None:
    """matches.csv, .png and, last, .json, in a folder that is new, empty or holds those of an earlier search."""
    answers = [
        {
            "query": query,
            "verdict": verdict(matches, threshold),
            "nearest": float(near) if np.isfinite(near) else None,
            "matches": [{**vars(match), "columns": dict(match.columns)} for match in matches],
        }
        for query, matches, near in zip(queries, found, nearest)
    ]
    further = sorted({name for matches in found for match in matches for name in match.columns})
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(["query", "verdict", "rank", "path", "box", "identity", "camera", "time", "distance", *further])
    for answer, matches in zip(answers, found):
        start = [";".join(answer["query"]), answer["verdict"]]
        if not matches:
            table.writerow([*start, *[""] * (7 + len(further))])
        for rank, m in enumerate(matches, 1):
            columns = [m.columns.get(name, "") for name in further]
            table.writerow(
                [*start, rank, m.path, box_text(m.box), m.identity, m.camera, m.time, f"{m.distance:.6f}", *columns]
            )
    rows = []
    for answer, matches in list(zip(answers, found))[:SHOWN]:
        heading = f"{Path(answer['query'][0]).name}: {answer['verdict']}"
        tiles = [(path, None, "query", None) for path in answer["query"][:3]]
        tiles += [(m.path, m.box, caption(m), True if threshold is not None else None) for m in matches]
        rows.append((heading, tiles))
    title = f"{gallery}: nearest entries" + (
        f" (the first {SHOWN} of {len(found)} queries)" if len(found) > SHOWN else ""
    )
    content = {"kind": KIND, "gallery": gallery, "threshold": threshold, "about": said, "queries": answers}
    with hold(folder, "choose another --output"):
        take_folder(folder, "matches.json", KIND, "choose another --output")
        write_atomically(folder / "matches.csv", text.getvalue())
        write_atomically(folder / "matches.png", contact_sheet(rows, title, *size))
        write_atomically(folder / "matches.json", json.dumps(content, indent=1, ensure_ascii=False))


def caption(match: Match) -> str:
    name = match.identity or Path(match.path).stem
    return f"{name} {match.camera}\n{match.distance:.4f}"
