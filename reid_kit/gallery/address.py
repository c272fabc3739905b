"""Where a gallery is decides what stores it."""

from dataclasses import replace
from pathlib import Path

from reid_kit.errors import InputError, unknown_name
from reid_kit.evaluation.retrieval import METRICS
from reid_kit.gallery.entries import Description
from reid_kit.gallery.folder import MANIFEST, FolderGallery
from reid_kit.gallery.gallery import Gallery
from reid_kit.model.checkpoint import load_model
from reid_kit.model.fingerprint import fingerprint

METRIC = "cosine"  # of a new gallery: the one that a model's thresholds are on
NUMBER_TYPES = ("float32", "float16")


def open_gallery(
    address: str | Path,
    model=None,
    *,
    metric: str | None = None,
    flip: bool | None = None,
    number_type: str | None = None,
) -> Gallery:
    """A gallery that is there; with a model, a new one where there is none.

    Args:
        address: a folder; or `name.db`, Milvus Lite; or `http://host:port` or `http://host:port/collection`, a Milvus
            server or cluster.
        model: an Embedder or what `load_model` takes. Without one, vectors are added and searched for.
        metric, flip, number_type: of a new gallery, "cosine", False and "float32" where not given; one that is there
            has its own, and others are refused. flip: embed each image with its mirror image.

    Raises:
        InputError: nothing is there and no model is given; the vectors there are of another model or other settings;
            the place holds something else, or does not answer.
    """
    for name, value, choices in (("metric", metric, METRICS), ("number_type", number_type, NUMBER_TYPES)):
        if value is not None and value not in choices:
            raise unknown_name(name, value, choices)
    address = str(address)
    store = FolderGallery
    if "://" in address or (address.endswith(".db") and not Path(address, MANIFEST).exists()):
        from reid_kit.gallery.milvus import MilvusGallery as store  # noqa: N813
    if isinstance(model, (str, Path)):
        model = load_model(model)
    asked = {"metric": metric, "flip": flip, "number_type": number_type}
    gallery = store.open(address, model)
    if gallery is not None:
        found = gallery.description
        if model is not None and fingerprint(model) != found.fingerprint:
            raise InputError(
                f"the gallery {address} was made by another model: {found.backbone} at {found.height} x {found.width}, "
                f"weights {found.fingerprint[:12]}; this one is {name_of(model)} at {model.height} x {model.width}, "
                f"weights {fingerprint(model)[:12]}. Give the checkpoint that made it, or choose another gallery"
            )
        for name, value in asked.items():
            if value not in (None, getattr(found, name)):
                raise InputError(
                    f"the gallery {address} has {name} {getattr(found, name)}, asked for was {value}; leave that out, "
                    f"or choose another gallery"
                )
        return gallery
    if model is None:
        raise InputError(f"no gallery {address}; `reid-kit index {address} --checkpoint FILE --images DIR` makes one")
    return store.create(address, describe_model(model, metric, flip, number_type), model)


def describe_model(
    model, metric: str | None = None, flip: bool | None = None, number_type: str | None = None
) -> Description:
    """The description of a gallery that a model makes, with the thresholds that its training run measured."""
    metric = metric or METRIC
    points = tuple(getattr(model, "thresholds", ()))  # on the cosine distance, 1 - a @ b
    if metric == "euclidean":  # |a - b|^2 = 2 - 2 a @ b
        points = tuple(replace(point, threshold=max(2 * point.threshold, 0) ** 0.5) for point in points)
    return Description(
        fingerprint(model),
        name_of(model),
        model.height,
        model.width,
        bool(flip),
        model.embedding_size,
        metric,
        number_type or NUMBER_TYPES[0],
        points,
        "the test of the training run" if points else "",
    )


def name_of(model) -> str:
    return getattr(model, "arguments", {}).get("backbone", type(model).__name__)
