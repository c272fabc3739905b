"""Images to embeddings: backbone, pooling, embedding layer, neck."""

import math
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import accumulate, islice
from numbers import Integral
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from reid_kit.errors import InputError
from reid_kit.image import crop, read_image, resize_and_cut
from reid_kit.model.backbone import Backbone
from reid_kit.model.neck import build_neck
from reid_kit.model.parts import build_parts
from reid_kit.model.pooling import OF_TOKENS, build_pooling
from reid_kit.model.pretrained import save_pretrained
from reid_kit.model.tokens import CameraVectors, has_class_token
from reid_kit.model.weights import load_heads
from reid_kit.operating_point import OperatingPoint
from reid_kit.precision import without_autocast


class Features(NamedTuple):
    """(B, D) each: `metric` before the neck, `inference` after it; the same without a neck."""

    metric: Tensor
    inference: Tensor


class Head(nn.Module):
    """(B, C, h, w) to features: pooling, a linear layer of `embedding_size` outputs (0: none), neck.

    In float32 whatever the backbone ran in: a rounded feature would be compared with, and cost nothing less.
    """

    def __init__(self, channels: int, pooling: str, embedding_size: int, neck: str):
        super().__init__()
        self.pooling = build_pooling(pooling)
        channels *= getattr(self.pooling, "widens", 1)
        self.embedding = nn.Linear(channels, embedding_size) if embedding_size else nn.Identity()
        self.width = embedding_size or channels
        self.neck = build_neck(neck, self.width)

    def forward(self, maps: Tensor, token: Tensor | None = None) -> Features:
        with without_autocast(maps.device):
            wide = torch.promote_types(maps.dtype, torch.float32)
            metric = self.embedding(self.pooling(maps.to(wide), token if token is None else token.to(wide)))
            return Features(metric, self.neck(metric))


class Embedder(nn.Module):
    """The model. It takes uint8 images and normalises them itself, so that nothing can be normalised twice.

    Args:
        backbone, weights, last_stride, levels: see `Backbone`.
        pooling: "average", "max" or "gem" of a map; of a transformer also its class token, "cls", the mean of its
            patches, "patch", or "both" side by side.
        embedding_size: width of a linear layer after the pooling; 0: none.
        neck: "none" or "bnneck".
        height, width: of the images, in pixels.
        enlarge: images are resized to so many times height and width, and the centre is taken.
        mean, std: of images in 0 .. 1, for three channels; where not given, what the backbone's weights expect.
        parts: of the last map, each with a head of its own, see `build_parts`.
        own_stage: each entry of `parts` has a copy of the backbone's last stage of its own (MGN, LightMBN).
        patch_stride, drop_path, backbone_options: see `Backbone`.
        cameras: numbers of the cameras that have a learned vector, added with `camera_weight`; see `CameraVectors`.

    With `levels` every level has a head, and with `parts` every part beside the whole map, "global". The features are
    theirs side by side, `level_sizes` wide and called `level_names`; out of training each is L2-normalised first
    (ranked list loss, section 3.4).

    thresholds: on the cosine distance of `embed`'s features, 1 - a @ b, as the run measured them that the weights come
    from; see `OperatingPoint`. Empty where none are known.
    """

    def __init__(
        self,
        backbone: str = "resnet50",
        weights: str = "imagenet",
        last_stride: int = 2,
        pooling: str = "average",
        embedding_size: int = 0,
        neck: str = "none",
        levels: Sequence[str] = (),
        height: int = 256,
        width: int = 128,
        enlarge: float = 1.0,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        parts: Sequence[Mapping] = (),
        own_stage: bool = False,
        patch_stride: int = 0,
        drop_path: float = 0.0,
        cameras: Sequence[int] = (),
        camera_weight: float = 0.0,
        backbone_options: Mapping | None = None,
    ):
        super().__init__()
        if levels and (pooling in OF_TOKENS or (parts and levels[-1] != "high")):
            raise InputError("MODEL.LEVELS go with POOLING average, max or gem, and beside MODEL.PARTS end with high")
        self.takes_token = pooling in ("cls", "both")
        self.backbone = Backbone(
            backbone,
            weights,
            last_stride,
            levels,
            height,
            width,
            copies=1 + len(parts) * own_stage,
            class_token=self.takes_token,
            patch_stride=patch_stride,
            drop_path=drop_path,
            vectors=bool(cameras),
            options=backbone_options,
        )
        if pooling == "patch" and not has_class_token(self.backbone.network):
            raise InputError(f"MODEL.POOLING patch is for transformers; average is the same of {backbone}'s maps")
        channels = self.backbone.channels
        last = max(len(levels), 1) - 1
        self.parts = build_parts(parts, channels[last], self.backbone.rows)
        # what each head takes: one of the backbone's maps, and the part of it, None where it is the whole
        self.pieces = [(source, None) for source in range(last + 1)]
        self.pieces += [(last + (1 + part.entry) * own_stage, part) for part in self.parts]
        self.heads = nn.ModuleList(Head(c, pooling, embedding_size, neck) for c in channels[: last + 1])
        others = "average" if pooling in OF_TOKENS else pooling  # of parts
        for part in self.parts:
            wide = channels[last] if part.kind == "stripes" else channels[last] // part.count
            size = embedding_size if part.embedding_size is None else part.embedding_size
            self.heads.append(Head(wide, part.pooling or others, size, neck))
        if self.backbone.weights_of_heads is not None:
            load_heads(self.heads, self.backbone.weights_of_heads, weights)
            self.backbone.weights_of_heads = None
        self.level_sizes = [head.width for head in self.heads]
        self.level_names = [*(levels or ["global"]), *(part.name for part in self.parts)]
        self.cameras = CameraVectors(list(cameras), channels[last], camera_weight) if cameras else None
        self.height, self.width, self.enlarge = height, width, enlarge
        self.facts: dict = {}  # what a checkpoint tells of the model's training
        self.thresholds: list[OperatingPoint] = []
        mean, std = mean or self.backbone.mean, std or self.backbone.std
        if not (len(mean) == len(std) == 3 and all(map(math.isfinite, mean)) and all(0 < s < math.inf for s in std)):
            raise InputError(f"mean and std are three numbers each, and std above 0; got {mean} and {std}")
        self.register_buffer("mean", 255 * torch.tensor(mean).view(3, 1, 1), persistent=False)
        self.register_buffer("std", 255 * torch.tensor(std).view(3, 1, 1), persistent=False)
        self.to(memory_format=torch.channels_last)  # convolutions are faster, by a tenth to a quarter on a CPU
        self.arguments = {  # what a checkpoint needs to build the model again
            "backbone": self.backbone.name,
            "weights": "none",
            "last_stride": last_stride,
            "pooling": pooling,
            "embedding_size": embedding_size,
            "neck": neck,
            "levels": list(levels),
            "height": height,
            "width": width,
            "enlarge": enlarge,
            "mean": list(mean),
            "std": list(std),
            "parts": [dict(entry) for entry in parts],
            "own_stage": own_stage,
            "patch_stride": patch_stride,
            "drop_path": drop_path,
            "cameras": list(cameras),
            "camera_weight": camera_weight,
            "backbone_options": self.backbone.options,
        }

    @property
    def embedding_size(self) -> int:
        """D, the width of the features."""
        return sum(self.level_sizes)

    def forward(self, images: Tensor, cameras: Tensor | None = None) -> Features:
        """Features of (B, 3, height, width) RGB images in 0 .. 255, uint8 or float; a warning where floats look scaled.

        Args:
            cameras: (B,) numbers of their cameras, for a model that was trained with them.
        """
        if images.is_floating_point() and not (images.is_meta or torch.compiler.is_compiling()):
            warn_of_scaled(images)
        images = (images.to(self.mean.dtype) - self.mean) / self.std
        vectors = self.cameras(cameras) if self.cameras is not None and cameras is not None else None
        maps = self.backbone(images) if vectors is None else self.backbone(images, vectors)
        token = maps.pop() if self.takes_token else None
        pieces = [maps[source] if part is None else part.cut(maps[source]) for source, part in self.pieces]
        levels = [head(piece, token) for head, piece in zip(self.heads, pieces)]
        if len(levels) == 1:
            return levels[0]
        if not self.training:
            levels = [Features(F.normalize(metric), F.normalize(inference)) for metric, inference in levels]
        return Features(*(torch.cat(features, dim=1) for features in zip(*levels)))

    @torch.no_grad()  # tensors of inference_mode could not be trained on
    def embed(
        self, images_or_paths: Iterable[np.ndarray | Tensor | str | Path], batch_size: int = 64, flip: bool = False
    ) -> Tensor:
        """(N, D) float32 L2-normalised embeddings, on the CPU.

        Args:
            images_or_paths: image files, or (H, W, 3) uint8 RGB arrays of any size; taken one by one, so that an
                iterator may give more than the memory holds.
            flip: average with the embedding of the mirror image.

        Raises:
            InputError: an image that cannot be read, or an array of another shape or type.
        """
        if isinstance(images_or_paths, (str, Path)):
            raise InputError(f"embed takes a list of images; for one, write [{str(images_or_paths)!r}]")
        items = enumerate(images_or_paths)
        if isinstance(batch_size, bool) or not isinstance(batch_size, Integral) or batch_size < 1:
            raise InputError(f"batch_size must be a whole number of at least 1, got {batch_size!r}")
        training = self.training
        self.eval()
        found = [torch.empty(0, self.embedding_size)]
        try:
            while sized := [self._sized(*item) for item in islice(items, batch_size)]:
                images = torch.from_numpy(np.stack(sized)).permute(0, 3, 1, 2).to(self.mean.device)
                features = self(images).inference.float()
                if flip:
                    features = features + self(images.flip(-1)).inference.float()
                found.append(F.normalize(features).cpu())
        finally:
            self.train(training)
        return torch.cat(found)

    def embed_boxes(
        self, frame: np.ndarray | Tensor, boxes: object, batch_size: int = 64, flip: bool = False
    ) -> Tensor:
        """(n, D) embeddings, as `embed` gives them, of the boxes of one video frame.

        Args:
            frame: (H, W, 3) uint8 RGB.
            boxes: (n, 4) x1, y1, x2, y2 in pixels, x2 and y2 exclusive: an array, a tensor, a list, or an object that
                holds them as `.xyxy`, as detectors return it. What lies outside the frame is cut off.

        Raises:
            InputError: boxes of another shape, or one without a pixel in the frame.
        """
        boxes = getattr(boxes, "xyxy", boxes)
        corners = np.asarray(boxes.detach().cpu() if isinstance(boxes, Tensor) else boxes, dtype=float)
        corners = corners.reshape(0, 4) if corners.size == 0 else corners
        if corners.ndim != 2 or corners.shape[1] != 4 or not np.isfinite(corners).all():
            raise InputError(f"boxes must be (n, 4) finite x1, y1, x2, y2 in pixels, got shape {corners.shape}")
        image = checked(frame, 0)
        cut = (crop(image, tuple(box.tolist()), f"box {number} of the frame") for number, box in enumerate(corners))
        return self.embed(cut, batch_size, flip)

    def _sized(self, number: int, item: np.ndarray | Tensor | str | Path) -> np.ndarray:
        image = read_image(item, wanted=self.resized) if isinstance(item, (str, Path)) else checked(item, number)
        return resize_and_cut(image, self.height, self.width, self.enlarge)

    @property
    def resized(self) -> tuple[int, int]:
        """(height, width) that an image is resized to before its centre is cut out."""
        return round(self.height * self.enlarge), round(self.width * self.enlarge)

    def save_pretrained(self, folder: str | Path) -> None:
        """Writes the model to a new folder that can be shared: see `reid_kit.model.pretrained`."""
        save_pretrained(self, folder)

    def head_parameters(self) -> Iterator[nn.Parameter]:
        """The parameters that no pre-trained weights gave."""
        yield from self.heads.parameters()
        yield from self.backbone.new_parameters()
        if self.cameras is not None:
            yield from self.cameras.parameters()

    def columns(self, levels: Sequence[str]) -> list[int]:
        """Where the features of these of the model's levels stand among all features."""
        ends = dict(zip(self.arguments["levels"], accumulate(self.level_sizes)))
        sizes = dict(zip(self.arguments["levels"], self.level_sizes))
        return [column for level in levels for column in range(ends[level] - sizes[level], ends[level])]


def checked(item: object, number: int) -> np.ndarray:
    """The pixels of the image that stands at position `number` of a list."""
    try:
        image = item.detach().cpu().numpy() if isinstance(item, Tensor) else np.asarray(item)
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputError(f"image {number} of the list is neither a path nor an array: {error}") from error
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        raise InputError(
            f"image {number} of the list: an image must be an (H, W, 3) uint8 RGB array, "
            f"got {image.shape} {image.dtype}"
        )
    if 0 in image.shape:
        raise InputError(f"image {number} of the list is empty, {image.shape}: a box outside its picture, perhaps")
    return np.ascontiguousarray(image)


def warn_of_scaled(images: Tensor) -> None:
    """Images in 0 .. 1, or normalised ones, would give features that are all alike, without a word."""
    largest = float(images.detach().abs().amax()) if images.numel() else 0.0
    if 0 < largest <= 5:
        warnings.warn(
            f"the largest value of these {tuple(images.shape)} images is {largest:.3g}: the model takes 0 .. 255 and "
            "normalises them itself, so give it the uint8 pixels",
            stacklevel=5,
        )
