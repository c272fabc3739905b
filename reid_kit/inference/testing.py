"""A model on a dataset's query and gallery: images to features to ranks."""

import warnings
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn

from reid_kit.data.augment import test_transform
from reid_kit.data.cache import DiskCache
from reid_kit.data.loader import TestLoader
from reid_kit.data.records import UNKNOWN_CAMERA, Protocol, Record, RetrievalDataset, camera_numbers
from reid_kit.distributed import gather_rows, rank, world_size
from reid_kit.errors import InputError
from reid_kit.evaluation import RetrievalResult, evaluate_distances, evaluate_retrieval, k_reciprocal_distance
from reid_kit.evaluation.clustering import normalized_mutual_information
from reid_kit.evaluation.distances import Distances, FeatureDistances, GivenDistances
from reid_kit.evaluation.expansion import expand_queries, pool_queries
from reid_kit.evaluation.features import Array, FeatureRows
from reid_kit.evaluation.image_set import ImageSet
from reid_kit.inference.features import extract_features
from reid_kit.operating_point import OperatingPoint
from reid_kit.report.ranked_list import RankedList, ranked_lists

CPU = torch.device("cpu")


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
    cache: DiskCache | None = None  # of the images as they are read
    feature: str = "inference"
    levels: tuple[str, ...] = ()  # of a multilevel model, those compared; none: all
    flip: bool = False
    metric: str = "euclidean"
    average_precision: str = "step"
    ranks: tuple[int, ...] = ()  # of CMC@k; empty: those of the dataset's protocol
    nmi: bool = False  # also where the protocol does not ask for it
    autocast: bool = False
    rerank: bool = False
    k1: int | None = None  # of the re-ranking; None: 20, the paper's, and for k2 6
    k2: int | None = None
    lambda_value: float = 0.3
    multi_query: str = ""  # mean | max: one query for all images of an identity in a camera
    expand: int = 0  # gallery neighbours that queries are averaged with, weighted by similarity ** alpha
    alpha: float = 0.0
    cameras: bool = True  # tell a model that takes cameras those of the images; they are those of its own dataset
    histogram: bool = False  # also count the distances, which a report shows

    def of_features(self, cut: str = "") -> str:
        """What the features depend on, beside the weights, in words.

        Args:
            cut: what is cut out of an image, where `use_box` does not say it.
        """
        levels = f" of levels {' + '.join(self.levels)}" if self.levels else ""
        centre = f" cut from {self.enlarge:g} times as many" if self.enlarge != 1 else ""
        cut = cut or ("box cut out" if self.use_box else "whole image")
        flip = "mean with the mirror image" if self.flip else "no flip"
        network = f"network in {'bfloat16' if self.autocast else 'float32'}"
        size = f"{self.height} x {self.width} pixels{centre}"
        return f"{self.feature} feature{levels}, {size}, {cut}, {flip}, {network}"


@dataclass(frozen=True)
class Tested:
    """The result and what it was computed from, which ranks as it was measured.

    distances: (Q, G) where they were re-ranked; None where they are those of the features, by the settings' metric.
    """

    result: RetrievalResult
    nmi: float | None
    query: ImageSet
    gallery: ImageSet
    dataset: RetrievalDataset
    settings: TestSettings
    distances: Tensor | None = None

    def ranked_lists(self, chosen: np.ndarray, length: int = 10) -> list[RankedList]:
        """The head of the measured ranking of the queries at the positions `chosen`."""
        distances = self.measured_distances(chosen)
        return ranked_lists(distances, chosen, *self.labels(), same_set=self.dataset.protocol.same_set, length=length)

    def measured_distances(self, chosen: np.ndarray | slice = slice(None), device: torch.device = CPU) -> Distances:
        """Those of the queries at the positions `chosen` and the gallery."""
        if self.distances is not None:
            return GivenDistances(self.distances[chosen], "re-ranked distance")
        cosine = self.settings.metric == "cosine"
        sides = (("query", self.query.features[chosen]), ("gallery", self.gallery.features))
        return FeatureDistances(*(FeatureRows(rows, name, device, cosine) for name, rows in sides))

    def labels(self) -> tuple[Array, Array, Array | None, Array | None]:
        """Identities of query and gallery, and their cameras where the protocol asks for them."""
        return labels(self.query, self.gallery, self.dataset.protocol)


def labels(query: ImageSet, gallery: ImageSet, protocol: Protocol) -> tuple[Array, Array, Array | None, Array | None]:
    cameras = (query.cameras, gallery.cameras) if protocol.camera_aware else (None, None)
    return query.identities, gallery.identities, *cameras


def image_set(records: list[Record], features: Tensor) -> ImageSet:
    """Records and their (N, D) features; without cameras where any record has none."""
    cameras = [record.camera for record in records]
    identities = torch.tensor([record.identity for record in records])
    return ImageSet(features, identities, None if None in cameras else torch.tensor(cameras), records)


def embed_records(model: nn.Module, records: list[Record], settings: TestSettings, title: str) -> ImageSet:
    """The features of `records`, less the images that could not be read and were to be skipped.

    Several processes embed a share each and return all features.

    Raises:
        InputError: an image cannot be read; the model takes no images of this size.
    """
    check_size(model, settings)
    first, last = (len(records) * part // world_size() for part in (rank(), rank() + 1))
    loader = TestLoader(
        records[first:last],
        test_transform(settings.height, settings.width, settings.enlarge),
        batch_size=settings.batch_size,
        workers=settings.workers,
        use_box=settings.use_box,
        on_bad_image=settings.on_bad_image,
        cache=settings.cache,
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
    return image_set([records[position] for position in positions.tolist()], features)


def takes_cameras(model: nn.Module) -> bool:
    return getattr(model, "cameras", None) is not None


def known_cameras(model: nn.Module, records: list[Record]) -> Tensor | None:
    """The records' cameras for a model that takes them; those that training never saw count as unknown."""
    if not takes_cameras(model):
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


@torch.inference_mode()
def check_size(model: nn.Module, settings: TestSettings) -> None:
    """
    Raises:
        InputError: images are to be of another size than the model was trained on, and it takes no other.
    """
    size = settings.height, settings.width
    if size == (model.height, model.width):
        return
    training = model.training
    try:
        model.eval()(torch.zeros(1, 3, *size, dtype=torch.uint8, device=settings.device))
    except (RuntimeError, AssertionError) as error:
        raise InputError(
            f"the model was trained on {model.height} x {model.width} pixels and cannot take {size[0]} x {size[1]} "
            f"({error}); leave DATA.HEIGHT and DATA.WIDTH as they are"
        ) from error
    finally:
        model.train(training)


def test_retrieval(model: nn.Module, dataset: RetrievalDataset, settings: TestSettings, checkpoint: str = "") -> Tested:
    """mAP, CMC and mINP of `model` on the dataset's query and gallery, by the dataset's protocol.

    Args:
        checkpoint: what the weights were chosen by, for the protocol line.
    """
    gallery = embed_records(model, dataset.gallery, settings, f"{dataset.name} gallery")
    query = gallery
    if not dataset.protocol.same_set:
        query = embed_records(model, dataset.query, settings, f"{dataset.name} query")
    source = [settings.of_features()]
    if takes_cameras(model):
        source.append(f"cameras {'told' if settings.cameras else 'not told'} to the model")
    if checkpoint:
        source.append(f"checkpoint: {checkpoint}")
    return measure(query, gallery, dataset, settings, ", ".join(source))


test_retrieval.__test__ = False


def measure(
    query: ImageSet, gallery: ImageSet, dataset: RetrievalDataset, settings: TestSettings, source: str
) -> Tested:
    """Ranks the gallery for each query in the way that the settings ask for, and measures by the dataset's protocol.

    Args:
        source: what the features are, for the protocol line.
    """
    protocol = dataset.protocol
    nmi = None
    if (protocol.nmi or settings.nmi) and rank() == 0:  # who reports; all at once would only share the cores
        nmi = normalized_mutual_information(gallery.features, gallery.identities)
    query, changes = better_queries(query, gallery, protocol, settings)
    options = {
        "average_precision": settings.average_precision,
        "ranks": settings.ranks or protocol.ranks,
        "same_set": protocol.same_set,
        "histogram": settings.histogram,
    }
    distances = None
    if settings.rerank:
        distances, name = rerank(query, gallery, protocol, settings)
        result = evaluate_distances(distances, *labels(query, gallery, protocol), name=name, **options)
    else:
        sides = (query.features, gallery.features, *labels(query, gallery, protocol))
        result = evaluate_retrieval(*sides, metric=settings.metric, device=settings.device, **options)
    line = ", ".join([result.protocol, *changes, source])
    return Tested(replace(result, protocol=line), nmi, query, gallery, dataset, settings, distances)


def embed_thresholds(model: nn.Module, tested: Tested) -> dict[float, OperatingPoint]:
    """Thresholds on the cosine distance of `model.embed`'s features, by the false-match rate that each keeps to.

    From the pairs of a test by the run's own settings. `embed` gives the inference feature of the image alone.
    """
    settings, dataset = tested.settings, tested.dataset
    as_embed = replace(settings, feature="inference", levels=(), flip=False, metric="cosine", histogram=True, nmi=False)
    if takes_cameras(model):
        as_embed = replace(as_embed, cameras=False)  # `embed` is not told them
    dataset = replace(dataset, protocol=replace(dataset.protocol, nmi=False))
    try:
        if replace(as_embed, metric=settings.metric, nmi=settings.nmi) == settings:
            tested = measure(tested.query, tested.gallery, dataset, as_embed, "")
        else:
            tested = test_retrieval(model, dataset, as_embed)
    except InputError as error:  # features without a direction
        warnings.warn(f"no thresholds were measured: {error}", stacklevel=2)
        return {}
    return tested.result.histogram.points()


def better_queries(
    query: ImageSet, gallery: ImageSet, protocol: Protocol, settings: TestSettings
) -> tuple[ImageSet, list[str]]:
    """The queries, pooled and expanded where the settings ask for it; and what was done, for the protocol line."""
    changes = []
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
        changes.append(f"queries pooled by {settings.multi_query}")
    if settings.expand:
        if settings.metric != "cosine":
            raise InputError("expanded queries are compared by direction: set TEST.METRIC cosine")
        if settings.rerank and protocol.same_set:
            raise InputError("in a set that is its own gallery either --rerank or --expand; both would change one side")
        sides = query.features, gallery.features
        same_set = protocol.same_set
        features = expand_queries(*sides, settings.expand, settings.alpha, same_set, settings.device)
        query = query.with_features(features.cpu())
        changes.append(f"queries expanded by {settings.expand} neighbours, alpha {settings.alpha:g}")
    return query, changes


def rerank(query: ImageSet, gallery: ImageSet, protocol: Protocol, settings: TestSettings) -> tuple[Tensor, str]:
    """(Q, G) re-ranked distances of the L2-normalised features, and what they are called, with what they depend on.

    A set too small for the constants of the paper takes as many neighbours as it has.
    """
    same_set = protocol.same_set
    images = len(gallery) + (0 if same_set else len(query))
    k1 = min(20, images - 1) if settings.k1 is None else settings.k1
    k2 = min(6, k1) if settings.k2 is None else settings.k2
    sides = (torch.nn.functional.normalize(torch.as_tensor(side.features).float()) for side in (query, gallery))
    found = k_reciprocal_distance(*sides, k1, k2, settings.lambda_value, device=settings.device, same_set=same_set)
    return found, f"k-reciprocal re-ranked distance (k1 {k1}, k2 {k2}, lambda {settings.lambda_value:g})"
