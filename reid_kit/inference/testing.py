"""A model on a dataset's query and gallery: images to features to ranks."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from reid_kit.data.augment import test_transform
from reid_kit.data.loader import TestLoader
from reid_kit.data.records import UNKNOWN_CAMERA, Protocol, Record, RetrievalDataset, camera_numbers
from reid_kit.distributed import gather_rows, rank, world_size
from reid_kit.errors import InputError
from reid_kit.evaluation import RetrievalResult, evaluate_distances, evaluate_retrieval, k_reciprocal_distance
from reid_kit.evaluation.clustering import normalized_mutual_information
from reid_kit.evaluation.expansion import expand_queries, pool_queries
from reid_kit.evaluation.feature_files import FeatureSet
from reid_kit.inference.features import extract_features


@dataclass(frozen=True)
class TestSettings:
    """How images are read, which feature is compared, and how. Height and width are in pixels."""

    __test__ = False  # no test case, whatever its name

    height: int
    width: int
    device: torch.device
    enlarge: float = 1.0
    batch_size: int = 128
    workers: int = 0
    use_box: bool = False
    on_bad_image: str = "error"
    feature: str = "inference"
    levels: tuple[str, ...] = ()  # of a multilevel model, those compared; none: all
    flip: bool = False
    metric: str = "euclidean"
    average_precision: str = "step"
    autocast: bool = False
    rerank: bool = False
    multi_query: str = ""  # mean | max: one query for all images of an identity in a camera
    expand: int = 0  # gallery neighbours that queries are averaged with, weighted by similarity ** alpha
    alpha: float = 0.0
    cameras: bool = True  # tell a model that takes cameras those of the images; they are those of its own dataset
    histogram: bool = False  # also count the distances, which a report shows


@dataclass(frozen=True)
class ImageSet:
    """Records and their (N, D) features."""

    records: list[Record]
    features: Tensor

    @property
    def identities(self) -> Tensor:
        return torch.tensor([record.identity for record in self.records])

    @property
    def cameras(self) -> Tensor | None:
        """(N,) int64; None where any record has no camera."""
        cameras = [record.camera for record in self.records]
        return None if None in cameras else torch.tensor(cameras)

    def with_features(self, features: Tensor, positions: Sequence[int] | None = None) -> "ImageSet":
        """Other features of the same images, or of those at `positions`."""
        return ImageSet(self.records if positions is None else [self.records[p] for p in positions], features)


Side = ImageSet | FeatureSet  # query or gallery: features, identities and cameras


@dataclass(frozen=True)
class Tested:
    """The result and what it was computed from."""

    result: RetrievalResult
    nmi: float | None
    query: ImageSet
    gallery: ImageSet
    dataset: RetrievalDataset
    settings: TestSettings


def embed_records(model: nn.Module, records: list[Record], settings: TestSettings, title: str) -> ImageSet:
    """The features of `records`, less the images that could not be read and were to be skipped.

    Several processes embed a share each and return all features.
    """
    first, last = (len(records) * part // world_size() for part in (rank(), rank() + 1))
    loader = TestLoader(
        records[first:last],
        test_transform(settings.height, settings.width, settings.enlarge),
        batch_size=settings.batch_size,
        workers=settings.workers,
        use_box=settings.use_box,
        on_bad_image=settings.on_bad_image,
    )
    features, positions = extract_features(
        model,
        loader,
        settings.device,
        feature=settings.feature,
        flip=settings.flip,
        autocast=settings.autocast,
        title=title,
        cameras=known_cameras(model, records[first:last]) if settings.cameras else None,
    )
    positions = positions + first
    if world_size() > 1:
        features, positions = (gather_rows(rows.to(settings.device)).cpu() for rows in (features, positions))
    if settings.levels:
        features = features[:, model.columns(settings.levels)]
    return ImageSet([records[position] for position in positions.tolist()], features)


def known_cameras(model: nn.Module, records: list[Record]) -> Tensor | None:
    """The records' cameras for a model that takes them; those that training never saw count as unknown."""
    if getattr(model, "cameras", None) is None:
        return None
    numbers = camera_numbers(records)
    new = sorted({*numbers} - {*model.arguments["cameras"], UNKNOWN_CAMERA})
    if new:
        warnings.warn(
            f"{'camera' if len(new) == 1 else 'cameras'} {', '.join(map(str, new))} was not in the training set, which "
            f"has {', '.join(map(str, model.arguments['cameras']))}; images of it are embedded as of an unknown camera",
            stacklevel=2,
        )
    return torch.tensor(numbers)


def test_retrieval(model: nn.Module, dataset: RetrievalDataset, settings: TestSettings) -> Tested:
    """mAP, CMC and mINP of `model` on the dataset's query and gallery, by the dataset's protocol."""
    protocol = dataset.protocol
    gallery = embed_records(model, dataset.gallery, settings, f"{dataset.name} gallery")
    query = gallery if protocol.same_set else embed_records(model, dataset.query, settings, f"{dataset.name} query")
    query = better_queries(query, gallery, protocol, settings)
    result = evaluate(query, gallery, protocol, settings)
    result = replace(result, protocol=f"{result.protocol}, network in {'bfloat16' if settings.autocast else 'float32'}")
    nmi = None
    if protocol.nmi and rank() == 0:  # who reports; all at once would only share the cores
        nmi = normalized_mutual_information(gallery.features, gallery.identities)
    return Tested(result, nmi, query, gallery, dataset, settings)


test_retrieval.__test__ = False


def better_queries(query: Side, gallery: Side, protocol: Protocol, settings: TestSettings) -> Side:
    """The queries, pooled and expanded where the settings ask for it."""
    if settings.multi_query:
        if protocol.same_set or query.cameras is None:
            raise InputError("there are no queries with cameras here, whose images could be pooled into one query")
        features = torch.as_tensor(query.features)
        pooled, first = pool_queries(features, query.identities, query.cameras, settings.multi_query)
        if len(first) == len(features):
            raise InputError(
                "there is one query of an identity in a camera, nothing to pool; Market-1501's other images come with "
                "DATA.OPTIONS {multi_query: true}"
            )
        query = query.with_features(pooled, first)
    if settings.expand:
        if settings.metric != "cosine":
            raise InputError("expanded queries are compared by direction: set TEST.METRIC cosine")
        sides = query.features, gallery.features
        features = expand_queries(*sides, settings.expand, settings.alpha, settings.device)
        query = query.with_features(features.cpu())
    return query


def evaluate(query: Side, gallery: Side, protocol: Protocol, settings: TestSettings) -> RetrievalResult:
    """The evaluator on two sets of features, by the protocol."""
    cameras = (query.cameras, gallery.cameras) if protocol.camera_aware else (None, None)
    labels = (query.identities, gallery.identities, *cameras)
    options = {
        "average_precision": settings.average_precision,
        "ranks": protocol.ranks,
        "same_set": protocol.same_set,
        "histogram": settings.histogram,
    }
    if settings.rerank:
        sides = (torch.nn.functional.normalize(torch.as_tensor(side.features).float()) for side in (query, gallery))
        distances = k_reciprocal_distance(*sides, device=settings.device)
        result = evaluate_distances(distances, *labels, name="k-reciprocal re-ranked distance", **options)
    else:
        sides = (query.features, gallery.features)
        result = evaluate_retrieval(*sides, *labels, metric=settings.metric, device=settings.device, **options)
    changes = [f", levels {' + '.join(settings.levels)}"] * bool(settings.levels)
    changes += [f", queries pooled by {settings.multi_query}"] * bool(settings.multi_query)
    changes += [f", queries expanded by {settings.expand} neighbours, alpha {settings.alpha:g}"] * bool(settings.expand)
    return replace(result, protocol=result.protocol + "".join(changes))
