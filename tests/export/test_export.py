"""An exported file gives the model's features, in every batch, or is not written."""

import copy
import json

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
import torch.nn.functional as F
import yaml

from reid_kit import load_model
from reid_kit.cli.main import run
from reid_kit.errors import InputError
from reid_kit.export import files
from reid_kit.export.files import export_onnx
from reid_kit.export.graph import to_onnx
from reid_kit.export.proof import compare, prove, random_pictures
from reid_kit.model.checkpoint import save_checkpoint
from reid_kit.model.embedder import Embedder
from reid_kit.model.fingerprint import fingerprint
from reid_kit.operating_point import OperatingPoint

HEIGHT, WIDTH = 64, 32
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
CONFIG = "DATA: {NAME: demo, ROOT: /data}\nTRAIN: {OUTPUT: /home/alice/runs}\nTEST: {METRIC: cosine}"

POINT = OperatingPoint(0.3, 0.8, 0.01, (0.009, 0.012), 9_000)


def embedder(**options):
    torch.manual_seed(0)
    model = Embedder("test_resnet", "none", **{"height": HEIGHT, "width": WIDTH, **options})
    with torch.no_grad():
        for _ in range(3):
            model(pictures(16, seed=9))  # batch statistics of its own
    return model.eval()


def pictures(count, seed=1):
    return torch.from_numpy(random_pictures(count, HEIGHT, WIDTH, seed))


@pytest.fixture(scope="module")
def model():
    return embedder(pooling="gem", neck="bnneck", embedding_size=24, last_stride=1, mean=(0.4, 0.5, 0.6))


@pytest.fixture(scope="module")
def folder(model, tmp_path_factory):
    """A checkpoint and its exports of either input, one by the command."""
    folder = tmp_path_factory.mktemp("export")
    save_checkpoint(folder / "best.pt", model, dataset="demo", metrics={"mAP": 0.5}, config=CONFIG)
    assert run("export", ["--checkpoint", str(folder / "best.pt"), "--output", str(folder / "pixels.onnx")]) == 0
    loaded = load_model(folder / "best.pt", "cpu")
    loaded.thresholds = [POINT]
    export_onnx(loaded, folder / "normalized.onnx", "normalized")
    return folder


def features(path, images):
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (given,), (output,) = session.get_inputs(), session.get_outputs()
    assert given.shape == ["batch", 3, HEIGHT, WIDTH] and output.shape[0] == "batch" and len(output.shape) == 2
    return session.run(None, {given.name: images.numpy().astype(np.float32)})[0]


def normalized(images):
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (IMAGENET_MEAN, IMAGENET_STD))
    return (images / 255 - mean) / std


@pytest.mark.parametrize("inputs, fed", [("pixels", lambda images: images), ("normalized", normalized)])
@pytest.mark.parametrize("count", [1, 3, 20])
def test_the_file_alone_gives_the_features(model, folder, inputs, fed, count):
    images = pictures(count)
    with torch.no_grad():
        expected = F.normalize(model(images).inference)
    found = features(folder / f"{inputs}.onnx", fed(images))
    assert count == 1 or expected.std(0).mean() > 1e-3  # pictures that the model tells apart
    np.testing.assert_allclose(found, expected.numpy(), atol=2e-5)


def test_openvino_reads_it_and_agrees(model, folder):
    openvino = pytest.importorskip("openvino")
    compiled = openvino.Core().compile_model(str(folder / "pixels.onnx"), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    for count in (1, 7):
        images = pictures(count, seed=3)
        found = compiled(images.numpy().astype(np.float32))[0]
        np.testing.assert_allclose(found, model.embed(list(images.permute(0, 2, 3, 1).numpy())).numpy(), atol=1e-4)


def test_what_the_file_says(model, folder):
    proto = onnx.load(folder / "pixels.onnx")
    onnx.checker.check_model(proto)
    assert [entry.version for entry in proto.opset_import if entry.domain == ""] >= [17]
    assert [output.name for output in proto.graph.output] == ["features"]
    assert b"/home/alice" not in proto.SerializeToString() and b".py" not in proto.SerializeToString()


def test_the_side_cars(model, folder):
    facts = json.loads((folder / "pixels.onnx.json").read_text())
    assert facts["fingerprint"] == fingerprint(model) and facts["embedding_size"] == 24 and facts["metric"] == "cosine"
    assert (facts["height"], facts["width"], facts["colors"], facts["range"]) == (HEIGHT, WIDTH, "RGB", [0, 255])
    np.testing.assert_allclose(facts["mean"], (0.4, 0.5, 0.6))
    assert facts["thresholds"] == [] and facts["metrics"] == {"mAP": 0.5}
    block = yaml.safe_load((folder / "pixels.deepstream.yaml").read_text())["ReID"]
    assert block["inferDims"] == [3, HEIGHT, WIDTH] and block["reidFeatureSize"] == 24
    assert (block["netScaleFactor"], block["offsets"], block["colorFormat"]) == (1, [0, 0, 0], 0)
    assert block["onnxFile"] == "pixels.onnx" and block["addFeatureNormalization"] == 0  # it is inside
    others = json.loads((folder / "normalized.onnx.json").read_text())
    assert others["mean"] == list(IMAGENET_MEAN) and others["thresholds"][0]["threshold"] == 0.3
    boxmot = json.loads((folder / "normalized.onnx.metadata.json").read_text())
    assert boxmot["model_name"] == "test_resnet" and boxmot["preprocess"] == "resize"
    assert boxmot["img_size"] == boxmot["model_kwargs"]["img_size"] == [HEIGHT, WIDTH]


@pytest.mark.parametrize("inputs", ["pixels", "normalized"])
def test_it_stands_in_for_the_checkpoint(model, folder, inputs):
    exported = load_model(folder / f"{inputs}.onnx", "cpu")
    images = pictures(5)
    with torch.no_grad():
        torch.testing.assert_close(exported(images).inference, model(images).inference, atol=1e-4, rtol=1e-4)
    arrays = [np.random.default_rng(0).integers(0, 256, (90, 70, 3), dtype=np.uint8) for _ in range(3)]
    for flip in (False, True):
        expected = model.embed(arrays, batch_size=2, flip=flip)
        torch.testing.assert_close(exported.embed(arrays, batch_size=2, flip=flip), expected, atol=1e-4, rtol=0)
    assert exported.embedding_size == 24 and (exported.height, exported.width) == (HEIGHT, WIDTH)
    assert exported.thresholds == ([POINT] if inputs == "normalized" else [])
    assert fingerprint(exported) == fingerprint(model) and exported.facts["dataset"] == "demo"
    with pytest.raises(InputError, match="inference feature alone"):
        _ = exported(images).metric
    with pytest.raises(InputError, match="exported model already"):
        to_onnx(exported)
    with pytest.raises(InputError, match="no weights to share"):
        exported.save_pretrained(folder / "shared")


@pytest.mark.parametrize(
    "name, options, half",
    [
        ("test_resnet", {"levels": ["low", "middle", "high"], "neck": "bnneck", "pooling": "max"}, True),
        ("test_resnet", {"parts": [{"stripes": 2, "whole": True}, {"channels": 2}], "own_stage": True}, False),
        ("test_vit", {"height": 160, "width": 160, "pooling": "both"}, False),
    ],
    ids=["levels in half", "parts", "class token"],
)
def test_architectures(name, options, half, tmp_path):
    torch.manual_seed(0)
    model = Embedder(name, "none", **{"height": HEIGHT, "width": WIDTH, **options}).eval()
    _, parities = export_onnx(model, tmp_path / "a.onnx", half=half)
    assert [parity.batch for parity in parities] == [1, 2, 7, 64]
    assert all(parity.cosine > (0.999 if half else 0.9999) for parity in parities)
    proto = onnx.load(tmp_path / "a.onnx")
    types = {constant.data_type for constant in proto.graph.initializer}
    assert (onnx.TensorProto.FLOAT16 in types) == half
    ends = (*proto.graph.input, *proto.graph.output)
    assert {end.type.tensor_type.elem_type for end in ends} == {onnx.TensorProto.FLOAT}


class Shifted(torch.nn.Module):
    """Gives each row the features of the row before, as a faulty graph does in batches above 1."""

    def __init__(self, backbone):
        super().__init__()
        self.backbone, self.class_token = backbone, backbone.class_token

    def forward(self, images, vectors=None):
        return [maps.roll(1, 0) for maps in self.backbone(images)]


class Mixed(Shifted):
    """Takes from each row the mean of its batch."""

    def forward(self, images, vectors=None):
        return [maps - maps.mean(0, keepdim=True) for maps in self.backbone(images)]


class Stubborn(Shifted):
    """Asks for the value of a number, which no graph knows."""

    def forward(self, images, vectors=None):
        return [maps * maps.max().item().__round__() for maps in self.backbone(images)]


def with_backbone(model, kind):
    model = copy.deepcopy(model)
    model.backbone = kind(model.backbone)
    return model


@pytest.mark.parametrize("fault", [Shifted, Mixed])
def test_a_graph_that_gives_other_features_is_not_written(model, folder, tmp_path, monkeypatch, fault):
    monkeypatch.setattr(files, "to_onnx", lambda *_: onnx.load(folder / "pixels.onnx"))
    with pytest.raises(InputError, match="a batch of .* Nothing was written"):
        export_onnx(with_backbone(model, fault), tmp_path / "a.onnx")
    assert list(tmp_path.iterdir()) == []


def test_what_the_proof_refuses():
    rows = F.normalize(torch.randn(7, 5, generator=torch.Generator().manual_seed(0))).numpy()
    near = F.normalize(torch.from_numpy(rows) * 1e-4 + torch.ones(5)).numpy()  # rows that all but agree
    assert compare(rows, rows, 0.9999, "rows").cosine == pytest.approx(1)
    compare(near, near, 0.9999, "rows")
    for found, expected, words in (
        (rows[[1, 0, 2, 3, 4, 5, 6]], rows, "cosine"),
        (near[[1, 0, 3, 2, 5, 4, 6]], near, "otherwise"),
        (2 * rows, rows, "length 1"),
        (np.where(rows > 0, np.nan, rows), rows, "cosine nan"),
        (rows[:1], rows, "shape"),
    ):
        with pytest.raises(InputError, match=words):
            compare(found, expected, 0.9999, "rows")


def test_what_cannot_be_exported_is_named(model, tmp_path):
    with pytest.raises(InputError, match="test_resnet cannot be exported to ONNX"):
        export_onnx(with_backbone(model, Stubborn), tmp_path / "a.onnx")
    assert list(tmp_path.iterdir()) == []


def test_arguments_that_cannot_be_used(folder, capsys):
    before = (folder / "pixels.onnx").read_bytes()
    checkpoint = ["--checkpoint", str(folder / "best.pt"), "--output"]
    for arguments, words in (
        ([*checkpoint, str(folder / "pixels.onnx")], "pixels.onnx is there already"),
        ([*checkpoint, str(folder / "model.pt")], "must end in .onnx"),
        (["--checkpoint", str(folder / "pixels.onnx"), "--output", str(folder / "b.onnx")], "exported model already"),
        (["--checkpoint", str(folder / "none.pt"), "--output", str(folder / "b.onnx")], "no checkpoint"),
    ):
        assert run("export", arguments) == 2
        assert words in capsys.readouterr().err
    assert (folder / "pixels.onnx").read_bytes() == before and not (folder / "b.onnx").exists()


def test_files_of_others_and_damaged_ones(folder, tmp_path):
    content = (folder / "pixels.onnx").read_bytes()
    theirs = onnx.load(folder / "pixels.onnx")
    del theirs.metadata_props[:]
    (tmp_path / "theirs.onnx").write_bytes(theirs.SerializeToString())
    (tmp_path / "cut.onnx").write_bytes(content[: len(content) // 2])
    (tmp_path / "text.onnx").write_text("no model")
    (tmp_path / "empty.onnx").write_bytes(b"")
    flipped = bytearray(content)
    flipped[len(content) // 2] ^= 16
    (tmp_path / "flipped.onnx").write_bytes(flipped)
    for name, words in (
        ("theirs", "was not written by `reid-kit export`"),
        ("cut", "cannot be read|damaged|not written"),
        ("text", "a whole ONNX file"),
        ("empty", "not written"),
        ("flipped", "damaged"),
        ("none", "no exported model"),
    ):
        with pytest.raises(InputError, match=words) as caught:
            load_model(tmp_path / f"{name}.onnx", "cpu")
        assert f"{name}.onnx" in str(caught.value)


def test_without_the_libraries_one_line_says_what_to_install(model, folder, tmp_path, monkeypatch):
    for missing in ("onnx", "onnxscript"):
        with monkeypatch.context() as patch:
            patch.setitem(__import__("sys").modules, missing, None)
            with pytest.raises(InputError, match=r"reid_kit\[export\]"):
                export_onnx(model, tmp_path / "a.onnx")
    monkeypatch.setitem(__import__("sys").modules, "onnxruntime", None)
    with pytest.raises(InputError, match=r"reid_kit\[export\]"):
        load_model(folder / "pixels.onnx", "cpu")


def test_the_proof_is_of_the_very_model(model, folder):
    """A file of other weights does not pass for it."""
    other = embedder(pooling="gem", neck="bnneck", embedding_size=24, last_stride=1)
    with torch.no_grad():
        other.heads[0].embedding.weight[0] *= -1
    with pytest.raises(InputError, match="a batch of 1 "):
        prove(onnx.load(folder / "pixels.onnx"), other, "pixels", False)


@pytest.mark.parametrize(
    "options, half",
    [
        ({"parts": [{"stripes": 2, "whole": True}, {"channels": 2}], "own_stage": True, "neck": "bnneck"}, False),
        ({"pooling": "both", "parts": [{"stripes": 5}], "own_stage": True, "patch_stride": 12}, True),
        ({"pooling": "cls", "cameras": [1, 2], "camera_weight": 3.0}, False),
    ],
    ids=["parts", "parts of tokens", "camera vectors"],
)
def test_parts_and_tokens(options, half):
    torch.manual_seed(0)
    backbone = "test_vit" if "pooling" in options else "test_resnet"
    given = Embedder(backbone, "none", height=HEIGHT, width=WIDTH, **options)
    with torch.no_grad():
        given(pictures(16, seed=9))
    given.eval()
    assert prove(to_onnx(given, half=half), given, "pixels", half)
