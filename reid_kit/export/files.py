"""What an export writes: the .onnx file, and beside it what those who read it must know."""

import json
from collections.abc import Mapping
from pathlib import Path

import yaml

from reid_kit.errors import InputError, unknown_name
from reid_kit.export.graph import INPUTS, before_norm, to_onnx
from reid_kit.export.proof import Parity, prove
from reid_kit.files import write_atomically
from reid_kit.model.embedder import Embedder
from reid_kit.model.exported import IMAGENET, note
from reid_kit.model.pretrained import describe

DEEPSTREAM_NOTE = """# The ReID block of a tracker's configuration (Gst-nvtracker: NvDCF, NvDeepSORT). Mean, deviation
# and L2 are inside the model; it was trained on crops stretched to inferDims, so keepAspc is 0.
"""


def export_onnx(
    model: Embedder, output: str | Path, inputs: str = "pixels", half: bool = False, metric: str = "cosine"
) -> tuple[list[Path], list[Parity]]:
    """Writes a model as FILE.onnx once it has been proven, and beside it FILE.onnx.json and a side-car of its readers.

    Args:
        inputs, half: see `to_onnx`. metric: that the model's rankings are measured by.

    Returns:
        The files, and what the proof found.

    Raises:
        InputError: a file is there already; the model cannot be exported, or its graph gives other features. Then
            nothing is written.
    """
    output = Path(output)
    if inputs not in INPUTS:
        raise unknown_name("input", inputs, INPUTS)
    if output.suffix != ".onnx":
        raise InputError(f"the file to write must end in .onnx, got {output}")
    for_all = output.with_name(f"{output.name}.json")
    for_one = output.with_name(
        f"{output.stem}.deepstream.yaml" if inputs == "pixels" else f"{output.name}.metadata.json"
    )
    for path in (output, for_all, for_one):
        if path.exists():
            raise InputError(f"{path} is there already; give another --output, or move it away")

    proto = to_onnx(model, inputs, half)
    parities = prove(proto, model, inputs, half)
    export = {"input": inputs, "half": half, "metric": metric, "before_norm": before_norm(proto)}
    description = {**describe(model, keep_data_root=True), "export": export}
    note(proto, description)

    output.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(output, proto.SerializeToString())  # the largest first: where the disk is full, nothing is left
    write_atomically(for_all, as_json(reader_facts(description)))
    text = deepstream(description, output.name) if inputs == "pixels" else as_json(boxmot(description))
    write_atomically(for_one, text)
    return [output, for_all, for_one], parities


def as_json(content: Mapping) -> str:
    return json.dumps(content, indent=1) + "\n"


def reader_facts(description: Mapping) -> dict:
    """All that a program must know to feed the file and to judge what it gives."""
    embedder, export = description["embedder"], description["export"]
    inside = export["input"] == "pixels"
    mean, std = (embedder["mean"], embedder["std"]) if inside else IMAGENET
    return {
        "model_name": description["model_name"],
        "input": export["input"],
        "layout": "NCHW",
        "colors": "RGB",
        "height": embedder["height"],
        "width": embedder["width"],
        "resize": {"enlarge": embedder["enlarge"], "keep_aspect": False},
        "range": [0, 255] if inside else [0, 1],
        "mean": list(mean),
        "std": list(std),
        "normalization": "inside: feed RGB in 0 .. 255" if inside else "outside: feed (RGB / 255 - mean) / std",
        "embedding_size": description["embedding_size"],
        "l2_normalized": True,
        "half": export["half"],
        "metric": export["metric"],
        "thresholds": description["thresholds"],
        "thresholds_on": "1 - a @ b of two rows",
        "fingerprint": description["fingerprint"],
        "dataset": description.get("dataset", ""),
        "metrics": description.get("metrics", {}),
    }


def boxmot(description: Mapping) -> dict:
    """FILE.onnx.metadata.json, as BoxMOT reads it; of `model_kwargs` it takes the size."""
    size = [description["embedder"]["height"], description["embedder"]["width"]]
    return {
        "model_name": description["model_name"],
        "preprocess": "resize",
        "img_size": size,
        "model_kwargs": {"img_size": size},
    }


def deepstream(description: Mapping, name: str) -> str:
    embedder = description["embedder"]
    block = {
        "reidType": 2,
        "onnxFile": name,
        "batchSize": 100,
        "workspaceSize": 1000,
        "reidFeatureSize": description["embedding_size"],
        "reidHistorySize": 100,
        "inferDims": [3, embedder["height"], embedder["width"]],
        "networkMode": int(description["export"]["half"]),
        "inputOrder": 0,
        "colorFormat": 0,
        "offsets": [0.0, 0.0, 0.0],
        "netScaleFactor": 1.0,
        "keepAspc": 0,
        "addFeatureNormalization": 0,
    }
    return DEEPSTREAM_NOTE + yaml.safe_dump({"ReID": block}, sort_keys=False, default_flow_style=None)
