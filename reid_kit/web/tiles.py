"""Answers as HTML. Pictures stand in it themselves, so that nothing of a gallery is served by a path."""

import base64
from functools import lru_cache
from html import escape
from pathlib import Path

import cv2
import numpy as np

from reid_kit.errors import InputError
from reid_kit.gallery.entries import box_of_text
from reid_kit.image import read_image, resize
from reid_kit.web.uploads import Upload

HEIGHT, WIDEST = 190, 260  # pixels of a tile
STYLE = """
.reid h3 {margin: 18px 0 8px; font-size: 1.05em} .reid p {margin: 6px 0; opacity: .8}
.reid .tiles {display: flex; flex-wrap: wrap; gap: 12px}
.reid figure {margin: 0; padding: 6px; border: 3px solid #9ca3af; border-radius: 8px}
.reid figure.match {border-color: #16a34a} .reid figure.other {border-color: #dc2626; opacity: .75}
.reid figure.query {border-style: dashed} .reid img {height: 190px; display: block; margin: 0 auto}
.reid figcaption {font-size: .8em; line-height: 1.35; margin-top: 4px; max-width: 250px; overflow-wrap: anywhere}
.reid .gone {height: 190px; width: 95px; background: #d1d5db; color: #374151; font-size: .8em; padding: 70px 8px 0}
.reid .verdict {font-size: 1.6em; font-weight: 700} .reid .same {color: #16a34a} .reid .different {color: #dc2626}
"""


def found_html(answer: dict, uploads: list[Upload]) -> str:
    parts, left = [f"<p>{escape(sentence(answer['about']))}</p>"], iter(uploads)
    for number, query in enumerate(answer["queries"], 1):
        own = [_figure("query", _picture(next(left).pixels), "searched for") for _ in query["pictures"]]
        tiles = []
        for rank, row in enumerate(query["matches"], 1):
            kind = {True: "match", False: "other", None: ""}[row["match"]]
            verdict = {True: "match", False: "no match", None: "not judged"}[row["match"]]
            named = " · ".join(filter(None, (row["identity"], row["camera"], row["time"]))) or Path(row["image"]).stem
            lines = [f"{number}.{rank} <b>{escape(named)}</b>", f"{row['distance']:.4f} {verdict}"]
            tiles.append(_figure(kind, _entry(row["image"], row["box"]), "<br>".join(lines)))
        title = escape(f"{', '.join(query['pictures'])}: {query['verdict']}")
        parts.append(f"<h3>{title}</h3><div class='tiles'>{''.join(own + tiles)}</div>")
    return f"<div class='reid'>{''.join(parts)}</div>"


def same_html(answer: dict, uploads: list[Upload]) -> str:
    tiles = "".join(_figure("query", _picture(upload.pixels), escape(upload.name)) for upload in uploads)
    kind = answer["verdict"].replace(" ", "-")
    return (
        f"<div class='reid'><div class='verdict {kind}'>{answer['verdict']}</div><p>Distance {answer['distance']:.4f}. "
        f"{escape(sentence(answer['about']))}</p><div class='tiles'>{tiles}</div></div>"
    )


def sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}."


def _figure(kind: str, picture: str, caption: str) -> str:
    return f"<figure class='{kind}'>{picture}<figcaption>{caption}</figcaption></figure>"


def _picture(pixels: np.ndarray) -> str:
    scale = min(HEIGHT / pixels.shape[0], WIDEST / pixels.shape[1])
    small = resize(pixels, *(max(round(side * scale), 1) for side in pixels.shape[:2]))
    data = cv2.imencode(".jpg", cv2.cvtColor(small, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, 85])[1]
    return f"<img alt='' src='data:image/jpeg;base64,{base64.b64encode(data).decode()}'>"


def _entry(path: str, box: str) -> str:
    try:
        return _kept(path, box, Path(path).stat().st_mtime_ns)
    except (OSError, InputError):
        return "<div class='gone'>the file is gone or cannot be read</div>"


@lru_cache(4096)
def _kept(path: str, box: str, changed: int) -> str:
    """Cutting boxes from photos of many pixels takes longer than the search."""
    return _picture(read_image(path, box_of_text(box)))
