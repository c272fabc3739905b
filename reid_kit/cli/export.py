"""A model as an ONNX file, proven on onnxruntime before it is written.

  python tools/export.py --checkpoint runs/market_srt/best.pt --output market.onnx
  python tools/export.py --checkpoint runs/market_srt/best.pt --output market.onnx --input normalized --half

With `pixels` the file takes RGB in 0 .. 255 and normalises inside (onnxruntime, Triton, DeepStream, OpenVINO); with
`normalized` it takes what BoxMOT and TAO feed. Beside it: FILE.onnx.json, which says all that a reader must know, and
the side-car of DeepStream or of BoxMOT. It stands in for a checkpoint in test and extract. See docs/export.md.
"""

import argparse
from pathlib import Path

from reid_kit.config import config_from_text
from reid_kit.export.files import export_onnx
from reid_kit.export.proof import parity_table
from reid_kit.model.checkpoint import load_model


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--checkpoint", required=True, metavar="FILE", help="or a shared folder, or hf://org/name")
    parser.add_argument("--output", required=True, type=Path, metavar="FILE", help="FILE.onnx")
    parser.add_argument(
        "--input", choices=("pixels", "normalized"), default="pixels", help="what the file takes (%(default)s)"
    )
    parser.add_argument("--half", action="store_true", help="the backbone in float16; input and output stay float32")


def main(arguments: argparse.Namespace) -> None:
    model = load_model(arguments.checkpoint, "cpu")
    metric = config_from_text(model.facts.get("config") or "").TEST.METRIC
    files, parities = export_onnx(model, arguments.output, arguments.input, arguments.half, metric)
    print(f"as {arguments.checkpoint} on random pictures:\n{parity_table(parities)}")
    print(f"{', '.join(str(path) for path in files)}: {model.embedding_size} numbers an image, input {arguments.input}")
    if model.enlarge != 1:
        print(f"resize to {model.enlarge:g} times height and width and cut the centre; BoxMOT and DeepStream do not")
