import warnings
import weakref

import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F

from reid_kit.errors import InputError
from reid_kit.image import resize
from reid_kit.model.backbone import Backbone
from reid_kit.model.embedder import Embedder
from reid_kit.model.neck import build_neck
from reid_kit.model.pooling import build_pooling


def embedder(backbone="test_resnet", **options):
    torch.manual_seed(0)
    return Embedder(backbone, "none", **{"height": 64, "width": 32, **options})


IMAGES = torch.randint(0, 256, (3, 3, 64, 32), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)


WIDTHS = {
    "resnet18": 512,
    "mobilenetv2_100": 1280,
    "vit_tiny_patch16_224": 192,
    "convnext_atto": 320,
    "swin_tiny_patch4_window7_224": 768,
}


@pytest.mark.parametrize("name, width", WIDTHS.items())
def test_any_backbone(name, width):
    features = embedder(name).eval()(IMAGES)
    assert features.metric.shape == features.inference.shape == (3, width)
    assert features.metric.isfinite().all()


def test_images_are_normalised_once_inside():
    model = embedder(mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4)).eval()
    seen = []
    model.backbone.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    model(IMAGES)
    for channel, (mean, std) in enumerate(zip((0.5, 0.4, 0.3), (0.2, 0.3, 0.4))):
        expected = (IMAGES[:, channel].double() / 255 - mean) / std
        torch.testing.assert_close(seen[0][:, channel].double(), expected, rtol=1e-5, atol=1e-5)


def test_images_that_look_scaled_are_warned_of():
    model = embedder().eval()
    with pytest.warns(UserWarning, match=r"\(3, 3, 64, 32\) images is 1: the model takes 0 .. 255"):
        model(IMAGES / 255)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for images in (IMAGES, IMAGES.float(), torch.zeros(2, 3, 64, 32), torch.ones(2, 3, 64, 32, dtype=torch.uint8)):
            model(images)


BY_POOLING = ["resnet50d", "res2net50_26w_4s", "resnest14d", "resnetblur18"]  # not by convolutions alone


@pytest.mark.parametrize("name", ["resnet18", "resnet50", "mobilenetv2_100", "seresnet18", "resnet10t", *BY_POOLING])
def test_last_stride_one_keeps_the_resolution(name):
    images = torch.zeros(1, 3, 128, 64)
    with torch.no_grad():
        coarse, fine = (Backbone(name, "none", stride, (), 128, 64).eval()(images)[0] for stride in (2, 1))
    assert fine.shape[1] == coarse.shape[1]
    assert fine.shape[2:] == (2 * coarse.shape[2], 2 * coarse.shape[3])


@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "convnext_atto", "levit_128s", "bn_inception"])
def test_last_stride_where_it_cannot_be_one(name):
    with pytest.raises(InputError, match=f"LAST_STRIDE 1 is not possible for {name}"):
        embedder(name, last_stride=1)


def test_images_of_a_size_that_a_backbone_cannot_take():
    with pytest.raises(InputError, match="vit_tiny_patch16_224 cannot take images of 8 x 8 pixels"):
        embedder("vit_tiny_patch16_224", height=8, width=8)


def test_poolings():
    maps = torch.rand(2, 5, 4, 3) + 0.1
    torch.testing.assert_close(build_pooling("average")(maps), maps.flatten(2).mean(2))
    torch.testing.assert_close(build_pooling("max")(maps), maps.flatten(2).max(2).values)
    gem = build_pooling("gem")
    torch.testing.assert_close(gem(maps), maps.flatten(2).pow(3).mean(2).pow(1 / 3))
    with torch.no_grad():
        gem.p.fill_(1.0)
    torch.testing.assert_close(gem(maps), maps.flatten(2).mean(2))
    assert gem(torch.zeros(1, 1, 2, 2)).isfinite().all()


def test_bnneck_has_no_shift():
    neck = build_neck("bnneck", 4)
    assert not neck.bias.requires_grad and neck.weight.requires_grad
    x = torch.randn(16, 4) * 3 + 1
    torch.testing.assert_close(neck(x).mean(0), torch.zeros(4), atol=1e-5, rtol=0)


def test_metric_features_stand_before_the_neck():
    model = embedder(neck="bnneck", embedding_size=7)
    features = model.train()(IMAGES)
    assert features.metric.shape == (3, 7)
    expected = F.batch_norm(features.metric, None, None, training=True)
    torch.testing.assert_close(features.inference, expected, rtol=1e-4, atol=1e-4)


def test_levels_side_by_side():
    model = embedder("resnet18", levels=("low", "middle", "high"), embedding_size=6)
    assert model.backbone.channels == [128, 256, 512] and model.level_sizes == [6, 6, 6] and model.embedding_size == 18
    trained, tested = model.train()(IMAGES).metric, model.eval()(IMAGES)
    assert trained.shape == (3, 18)
    for part in tested.inference.split(6, dim=1):
        torch.testing.assert_close(part.norm(dim=1), torch.ones(3))
    maps = model.backbone((IMAGES - model.mean) / model.std)
    expected = [F.normalize(head(m).metric) for head, m in zip(model.heads, maps)]
    torch.testing.assert_close(tested.metric, torch.cat(expected, 1))
    torch.testing.assert_close(maps[2], model.backbone.network.forward_features((IMAGES - model.mean) / model.std))


def test_embed_takes_arrays_and_files(tmp_path):
    model = embedder().train()
    random = np.random.default_rng(0)
    images = [random.integers(0, 256, (90, 50, 3), dtype=np.uint8) for _ in range(5)]
    paths = []
    for number, image in enumerate(images):
        paths.append(tmp_path / f"{number}.png")
        cv2.imwrite(str(paths[-1]), image[..., ::-1])
    found = model.embed(images, batch_size=2)
    assert model.training  # left as it was
    assert found.shape == (5, model.embedding_size) and found.dtype == torch.float32
    torch.testing.assert_close(found.norm(dim=1), torch.ones(5))
    torch.testing.assert_close(found, model.embed(paths, batch_size=5), rtol=1e-4, atol=1e-5)
    batch = torch.from_numpy(np.stack([resize(image, 64, 32) for image in images])).permute(0, 3, 1, 2)
    torch.testing.assert_close(found, F.normalize(model.eval()(batch).inference), rtol=1e-4, atol=1e-5)
    assert model.embed([]).shape == (0, model.embedding_size)
    torch.testing.assert_close(found, model.embed(path for path in paths), rtol=1e-4, atol=1e-5)


def test_embeddings_can_be_trained_on():
    model = embedder()
    found = model.embed(IMAGES.permute(0, 2, 3, 1))
    probe = torch.nn.Linear(model.embedding_size, 1, bias=False)
    probe(found).sum().backward()
    torch.testing.assert_close(probe.weight.grad[0], found.sum(0))


@pytest.mark.parametrize(
    "images, words",
    [
        ("query.jpg", r"takes a list of images; for one, write \['query.jpg'\]"),
        ([np.zeros((9, 9), np.uint8)], r"\(H, W, 3\) uint8 RGB array, got \(9, 9\) uint8"),
        ([np.zeros((9, 9, 3), np.float32)], r"got \(9, 9, 3\) float32"),
        (IMAGES, r"got \(3, 64, 32\) uint8"),
        (["nowhere.jpg"], "cannot read image nowhere.jpg"),
    ],
    ids=["lone path", "grey", "float", "channels first", "missing"],
)
def test_images_that_cannot_be_embedded(images, words):
    model = embedder().train()
    with pytest.raises(InputError, match=words):
        model.embed(images)
    assert model.training  # left as it was


def test_flipped_images_give_the_same_embedding():
    model = embedder()
    images = IMAGES.permute(0, 2, 3, 1).numpy()
    mirrored = np.ascontiguousarray(images[:, :, ::-1])
    torch.testing.assert_close(model.embed(images, flip=True), model.embed(mirrored, flip=True), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "options, words",
    [
        ({"backbone": "resnet51"}, "unknown MODEL.BACKBONE 'resnet51'.*resnet"),
        ({"backbone": "resnet50.none"}, "unknown MODEL.BACKBONE 'resnet50.none'.*resnet50"),
        ({"pooling": "mean"}, "average, both, cls, gem, max, patch"),
        ({"neck": "bn"}, "bnneck, none"),
        ({"levels": ("lowest",)}, "high, low, middle"),
    ],
    ids=str,
)
def test_unknown_names(options, words):
    with pytest.raises(InputError, match=words):
        embedder(**options)


def test_an_empty_crop_and_its_place_are_named():
    model = Embedder("test_resnet", "none", height=64, width=32).eval()
    frame = np.zeros((40, 60, 3), np.uint8)
    with pytest.raises(InputError, match="image 2 of the list is empty"):
        model.embed([frame, frame[:, :20], frame[10:30, 60:75]], batch_size=2)
    for size in (0, -1, 1.5, True):
        with pytest.raises(InputError, match="batch_size"):
            model.embed([frame], batch_size=size)
    mirrored = frame[:, ::-1]
    assert torch.equal(model.embed([mirrored]), model.embed([mirrored.copy()]))


def test_embed_holds_no_more_than_a_batch():
    model, alive, most = embedder(), [], []

    def frames():
        for number in range(9):
            image = np.full((40, 20, 3), number, np.uint8)
            alive.append(weakref.ref(image))
            yield image
            del image
            most.append(sum(reference() is not None for reference in alive))

    assert model.embed(frames(), batch_size=3).shape == (9, model.embedding_size)
    assert max(most) <= 2  # the one at hand, and the one before it; each is resized as it comes


class Detections:
    def __init__(self, xyxy):
        self.xyxy = xyxy


def test_boxes_of_a_frame_are_what_cutting_by_hand_gives():
    model = embedder()
    frame = np.random.default_rng(0).integers(0, 256, (120, 90, 3), dtype=np.uint8)
    boxes = np.array([[3.4, 5.2, 40, 100], [-10, -10, 30.6, 200], [60, 20, 89, 119]])
    by_hand = [frame[5:100, 3:40], frame[0:120, 0:31], frame[20:119, 60:89]]
    expected = model.embed(by_hand)
    for given in (boxes, boxes.tolist(), torch.from_numpy(boxes), Detections(torch.from_numpy(boxes))):
        assert torch.equal(model.embed_boxes(frame, given), expected)
    assert torch.equal(model.embed_boxes(frame, boxes, flip=True), model.embed(by_hand, flip=True))
    for none in ([], np.empty((0, 4)), Detections(torch.empty(0, 4))):
        assert model.embed_boxes(frame, none).shape == (0, model.embedding_size)


@pytest.mark.parametrize(
    "boxes, words",
    [
        ([[0, 0, 9, 9], [200, 0, 210, 9]], "box 1 of the frame: .* holds no pixel of the 90 x 120 image"),
        ([[9, 9, 0, 0]], "box 0 of the frame"),
        ([0, 0, 9, 9], r"\(n, 4\) finite x1, y1, x2, y2 in pixels, got shape \(4,\)"),
        ([[0, 0, 9, 9, 0.5]], r"got shape \(1, 5\)"),
        ([[0, 0, 9, float("nan")]], "finite"),
    ],
)
def test_boxes_that_cannot_be_cut(boxes, words):
    with pytest.raises(InputError, match=words):
        embedder().embed_boxes(np.zeros((120, 90, 3), np.uint8), boxes)
