"""What the page does, without the page: find in a gallery, compare two pictures, delete; each is written down."""

import json
import os
import threading
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

import numpy as np
import torch

from reid_kit.errors import InputError
from reid_kit.gallery.calibration import FALSE_MATCH_RATE, operating_point, rates_of, same_or_not
from reid_kit.gallery.entries import EMBED_DISTANCES, Entry, box_of_text, box_text
from reid_kit.gallery.gallery import Gallery
from reid_kit.web.uploads import Upload

TOP = 100  # entries that are shown at most


@dataclass(frozen=True)
class _Asked:
    pixels: list[np.ndarray]
    vectors: Future


class Desk:
    """A gallery and the log of what was asked of it.

    Several threads may ask: the gallery is asked by one at a time. Answers are dictionaries that JSON can hold. Nothing
    is answered that cannot be logged.
    """

    def __init__(self, gallery: Gallery, log: Path):
        self.gallery, self.log = gallery, log
        self._lock, self._turn = threading.Lock(), threading.Lock()
        self._waiting: deque[_Asked] = deque()
        self._cores = max(torch.get_num_threads() - 1, 1)  # to embed: one is left to those who answer HTTP
        gallery.model.eval()  # `embed` leaves a model in the mode it found, whoever else is at it
        self._write()  # a log that cannot be written is known before the first search

    def find(
        self,
        uploads: Sequence[Upload],
        who: str,
        *,
        camera: Sequence[str] = (),
        identity: Sequence[str] = (),
        threshold: float | None = None,
        top: int = 10,
        pool: bool = False,
    ) -> dict:
        """The nearest entries of each picture, with verdicts.

        Args:
            who: for the log.
            camera, identity: to look among these alone.
            threshold: on the gallery's distance; None judges nothing.
            pool: the pictures show one person or product: one query.

        Raises:
            InputError: a threshold or number out of range; a camera or identity that is not there; an empty gallery.
        """
        said = self.rates(threshold)
        if not 1 <= top <= TOP:
            raise InputError(f"between 1 and {TOP} entries can be shown, asked for were {top}")
        vectors = self._vectors_of(uploads)
        if pool:
            vectors = torch.nn.functional.normalize(vectors.mean(0, keepdim=True))
        with self._lock:
            ranked = self.gallery.search(vectors, int(top), camera=camera, identity=identity)
        queries = []
        for place, matches in enumerate(ranked):
            rows = [
                {
                    "image": match.path,  # not "path": gradio's client would fetch what is called so
                    "box": box_text(match.box),
                    "identity": match.identity,
                    "camera": match.camera,
                    "time": match.time,
                    "columns": dict(match.columns),
                    "distance": match.distance,
                    "match": None if threshold is None else match.distance <= threshold,
                }
                for match in matches
            ]
            verdict = "not judged" if threshold is None else "match" if any(r["match"] for r in rows) else "no match"
            names = [upload.name for upload in (uploads if pool else uploads[place : place + 1])]
            queries.append({"pictures": names, "verdict": verdict, "matches": rows})
        shown = [
            [{name: row[name] for name in ("image", "box", "distance", "match")} for row in query["matches"]]
            for query in queries
        ]
        asked = {"camera": list(camera or ()), "identity": list(identity or ()), "threshold": threshold, "pool": pool}
        self._write(who, "find", pictures=[upload.sha256 for upload in uploads], **asked, shown=shown)
        return {"threshold": threshold, "about": said, "queries": queries}

    def same(self, uploads: Sequence[Upload], who: str, threshold: float | None = None) -> dict:
        """Whether two pictures show the same person or product: "same", "different" or "not judged"."""
        if len(uploads) != 2:
            raise InputError(f"two pictures are compared, got {len(uploads)}")
        said = self.rates(threshold)
        verdict, distance = same_or_not(self._vectors_of(uploads), self.gallery.description.metric, threshold)
        shown = {"verdict": verdict, "distance": distance}
        self._write(who, "same", pictures=[upload.sha256 for upload in uploads], threshold=threshold, shown=shown)
        return {"threshold": threshold, "about": said, **shown}

    def delete(self, image: str, box: str, who: str) -> dict:
        """Removes an entry from the gallery, not its file.

        Raises:
            InputError: there is none of that path of an image and box (`box_text`); another process writes.
        """
        try:
            entry = Entry(image, box_of_text(box))
        except ValueError as error:
            raise InputError(f"a box is four numbers x1 y1 x2 y2 or nothing, got {box!r}") from error
        with self._lock:
            self._write(who, "delete", image=image, box=box)
            deleted = self.gallery.delete([entry])
        if not deleted:
            raise InputError(f"no entry {image} {box} in the gallery any more".replace("  ", " "))
        return {"deleted": deleted}

    def threshold(self) -> float | None:
        """The one to begin with: of the false-match rate FALSE_MATCH_RATE, where it is known."""
        try:
            return operating_point(self.gallery.description.thresholds, FALSE_MATCH_RATE).threshold
        except InputError:
            return None

    def rates(self, threshold: float | None) -> str:
        """What is known of a threshold.

        Raises:
            InputError: it is no distance.
        """
        about = self.gallery.description
        distance = EMBED_DISTANCES[about.metric]
        if threshold is None:
            return f"no threshold is set, so nothing says which are matches; ordered by {distance}"
        if not 0 <= threshold <= 2:
            raise InputError(f"the threshold lies on the {distance}, in 0 .. 2, got {threshold:g}")
        if not about.thresholds:
            return f"a match has a {distance} of at most {threshold:.4f}; its error rates are not known (calibrate)"
        nearest = min(about.thresholds, key=lambda point: abs(point.threshold - threshold))
        if abs(nearest.threshold - threshold) < 1e-4:  # as it was rounded for the page
            return rates_of(nearest, about)
        return f"a match has a {distance} of at most {threshold:.4f}. The nearest that was measured: " + rates_of(
            nearest, about
        )

    def _vectors_of(self, uploads: Sequence[Upload]) -> torch.Tensor:
        """Whoever's turn it is embeds in one batch what all who wait have brought."""
        asked = _Asked([upload.pixels for upload in uploads], Future())
        self._waiting.append(asked)
        with self._turn:
            if not asked.vectors.done():
                together = [self._waiting.popleft() for _ in range(len(self._waiting))]
                torch.get_num_threads()  # what is set before a thread's first use of torch does not last
                torch.set_num_threads(self._cores)  # a thread that began while a search was at one core has one
                try:
                    vectors = self.gallery.vectors_of(sum((each.pixels for each in together), []))
                except BaseException as error:  # whatever it is, all who wait get it
                    for each in together:
                        each.vectors.set_exception(error)
                else:
                    for each, part in zip(together, vectors.split([len(each.pixels) for each in together])):
                        each.vectors.set_result(part)
        return asked.vectors.result()

    def _write(self, who: str = "", what: str = "", **content) -> None:
        """A line of the log, in one piece."""
        line = ""
        if what:
            now = datetime.now(timezone.utc).isoformat(timespec="milliseconds")
            line = json.dumps({"time": now, "who": who, "what": what, **content}, ensure_ascii=False) + "\n"
        try:
            descriptor = os.open(self.log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
            try:
                os.write(descriptor, line.encode())
            finally:
                os.close(descriptor)
        except OSError as error:
            raise InputError(
                f"the log {self.log} cannot be written ({error.strerror}), and no search goes unlogged; mend that or "
                f"choose another --log FILE"
            ) from error
