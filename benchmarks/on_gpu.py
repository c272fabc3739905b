"""What only a card can settle, in one table and under ten minutes: is it right there, and how fast is it.

  python benchmarks/on_gpu.py                       # on the first GPU
  python benchmarks/on_gpu.py --device cpu --smoke  # the same lines in seconds, to see that they run

A line that ends in NO is a fault. The lines in torchrun need two GPUs.
"""

import argparse
import copy
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from memory import peak_memory
from timing import in_turn, seconds

from reid_kit import evaluate_retrieval, k_reciprocal_distance
from reid_kit.build import autocast, build_model, choose_algorithms
from reid_kit.build_objective import build_objective
from reid_kit.config import load_config
from reid_kit.data.loader import TrainBatch
from reid_kit.losses import LOSSES, build_loss
from reid_kit.losses.registry import option_names
from reid_kit.training.optimizer import build_optimizer
from reid_kit.training.trainer import RECORD_EVERY, Recipe, Trainer

MINUTES = 10
ROOT = Path(__file__).parents[1]
Rows = Iterator[tuple[str, str]]


class Sizes:
    """Of the measurements: those of the field, or next to nothing."""

    def __init__(self, smoke: bool):
        self.market = (40, 300, 16) if smoke else (3368, 15913, 2048)
        self.msmt = (60, 500, 16) if smoke else (11659, 82161, 2048)
        self.backbone = "test_resnet" if smoke else "resnet50"
        self.image = (32, 32) if smoke else (256, 128)
        self.batch, self.steps, self.repeats = (8, 2, 1) if smoke else (72, 30, 5)
        self.ranks = (8,) if smoke else (72, 256, 1024)


def yes(right: bool) -> str:
    return "yes" if right else "NO"


def losses(device: torch.device, sizes: Sizes) -> Rows:
    """Value and gradient of each loss, there and on the CPU."""
    x, y = torch.randn(24, 16, generator=torch.Generator().manual_seed(0)), torch.arange(24) // 4
    wrong = []
    for name in sorted(set(LOSSES) - {"margin"}):  # whose miner draws at random
        filled = {"classes": 6, "embedding_size": 16}
        options = {key: value for key, value in filled.items() if key in option_names(name)}
        torch.manual_seed(0)
        loss, found = build_loss(name, **options), []
        for place in ("cpu", device):
            there, leaf = copy.deepcopy(loss).to(place), x.to(place).requires_grad_()
            value = there(leaf, y.to(place))
            value.backward()
            found.append((value.detach().cpu(), leaf.grad.cpu()))
        if not all(torch.allclose(a, b, rtol=1e-3, atol=1e-5) for a, b in zip(*found)):
            wrong.append(name)
    yield "losses: value and gradient as on the CPU", f"{len(LOSSES) - 1}: {yes(not wrong)} {' '.join(wrong)}"


def shape(queries: int, gallery: int, width: int) -> tuple:
    """Random features around identities, identities and cameras."""
    random, generator = np.random.default_rng(0), torch.Generator().manual_seed(0)
    ids = [random.integers(0, max(gallery // 20, 2), n) for n in (queries, gallery)]
    centres = torch.randn(max(gallery // 20, 2), width, generator=generator)
    rows = [0.3 * centres[each] + torch.randn(len(each), width, generator=generator) for each in ids]
    return (*rows, *ids, *(random.integers(0, 6, n) for n in (queries, gallery)))


def evaluator(device: torch.device, sizes: Sizes) -> Rows:
    """Its numbers, its memory, and its time beside the bare product."""
    for name, size in (("Market-1501", sizes.market), ("MSMT17", sizes.msmt)):
        q, g, *labels = shape(*size)
        there = q.to(device), g.to(device)
        if name == "Market-1501":
            one, other = evaluate_retrieval(q, g, *labels), evaluate_retrieval(*there, *labels)
            yield "evaluator: mAP as on the CPU to 1e-5", yes(abs(one.mAP - other.mAP) < 1e-5)

        def product(there=there) -> None:
            for rows in there[0].split(512):
                for part in there[1].split(4096):
                    rows @ part.T

        contenders = {
            "product": product,
            "there": lambda there=there, labels=labels: evaluate_retrieval(*there, *labels),
            "with a histogram": lambda there=there, labels=labels: evaluate_retrieval(*there, *labels, histogram=True),
            "features on the CPU": lambda q=q, g=g, labels=labels: evaluate_retrieval(q, g, *labels, device=device),
        }
        held = peak_memory(contenders["with a histogram"], str(device))
        spent, _ = in_turn(contenders, sizes.repeats, str(device))
        least = {contender: min(found) for contender, found in spent.items()}
        for contender, found in least.items():
            yield f"evaluator, {name}: {contender}", f"{1000 * found:.1f} ms, {found / least['product']:.2f} times"
        yield f"evaluator, {name}: memory beside the features", f"{held:.0f} MB, below 256: {yes(not held >= 256)}"


def ties(device: torch.device, sizes: Sizes) -> Rows:
    """Equal rows at the edges of blocks, and in the ragged end, tie to the bit."""
    random, right = torch.Generator().manual_seed(1), True
    for width in (64, 512, 2048):
        g = torch.randn(8192 + 77, width, generator=random)
        copies = [0, 63, 64, 4095, 4096, 8191, 8192, 8192 + 76]
        g[copies] = g[0].clone()
        q = g[:1] + 1e-3 * torch.randn(70, width, generator=random)
        ids = torch.ones(len(g), dtype=torch.int64)
        ids[0] = 7
        for metric in ("euclidean", "cosine"):
            found = evaluate_retrieval(q, g, [7] * 70, ids, metric=metric, device=device)
            right &= bool((found.first_match_rank == len(copies)).all())
    yield "equal rows tie to the bit wherever they stand", yes(right)


def re_ranking(device: torch.device, sizes: Sizes) -> Rows:
    q, g, *_ = shape(*sizes.market)
    k1 = min(20, len(g) // 3)
    took, found = seconds(lambda: k_reciprocal_distance(q, g, k1=k1, device=device), str(device))
    few = slice(0, 200)
    right = torch.allclose(found[few].cpu(), k_reciprocal_distance(q, g, k1=k1)[few], atol=1e-3)
    yield "re-ranking, Market-1501", f"{took:.2f} s, as on the CPU: {yes(right)}"


def soft_ranks(device: torch.device, sizes: Sizes) -> Rows:
    """The soft ranking threshold loss beside the sigmoids of all triples."""
    loss = build_loss("soft_ranking_threshold")
    for size in sizes.ranks:
        x = torch.randn(size, 64, device=device, requires_grad=True)
        y = torch.arange(size, device=device) // 4

        def naive(x=x) -> None:
            d = torch.cdist(x, x)
            (d[:, :, None] - d[:, None, :]).sigmoid().sum(2).square().mean().backward()

        spent, _ = in_turn({"ours": lambda x=x, y=y: loss(x, y).backward(), "naive": naive}, 5, str(device))
        yield f"SRT, B {size}", f"{1000 * min(spent['ours']):.2f} ms, B^3 at once {1000 * min(spent['naive']):.2f} ms"


def trainer_of(device: torch.device, sizes: Sizes, *overrides: str) -> tuple[Trainer, list[TrainBatch]]:
    """A trainer of the SRT loss and softmax, and batches in memory."""
    height, width = map(str, sizes.image)
    options = ["MODEL.BACKBONE", sizes.backbone, "MODEL.WEIGHTS", "none", "DATA.HEIGHT", height, "DATA.WIDTH", width]
    terms = "[{name: soft_ranking_threshold, thresholds: hard, margin: soft}, {name: softmax}]"
    config = load_config(None, [*options, "MODEL.NECK", "bnneck", "LOSS.TERMS", terms, *overrides])
    torch.manual_seed(0)
    if device.type == "cuda":
        choose_algorithms(config.TRAIN.DETERMINISTIC)
    model = build_model(config).to(device)
    if config.TRAIN.COMPILE:
        model.backbone.compile()
    objective = build_objective(config, 100, model).to(device)
    optimizer = build_optimizer("adam", [([*model.parameters(), *objective.parameters()], 1.0)], 1e-4, 0.0)
    recipe = Recipe(epochs=1, autocast=autocast(config.TRAIN.AMP, device), ema=config.TRAIN.EMA)
    nothing = {"loader": None, "sampler": range(10**6), "files": [], "test": None, "save": None, "run": None}
    trainer = Trainer(model, objective, optimizer, lambda i: 1.0, recipe=recipe, device=device, **nothing)
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(sizes.batch) // 4
    batches = []
    for _ in range(sizes.steps):
        images = torch.randint(0, 256, (sizes.batch, 3, *sizes.image), generator=generator, dtype=torch.uint8)
        images = images.contiguous(memory_format=torch.channels_last)
        pinned = [each.pin_memory() if device.type == "cuda" else each for each in (images, labels)]
        batches.append(TrainBatch(*pinned, torch.arange(sizes.batch)))
    return trainer, batches


def steps(trainer: Trainer, batches: list[TrainBatch]) -> None:
    for batch in batches:
        trainer.train_batch(batch)
        trainer.position += 1


def training(device: torch.device, sizes: Sizes) -> Rows:
    """Images a second of the trainer, waits within its steps, and the same bits again."""
    variants = {"bfloat16": [], "float32": ["TRAIN.AMP", "False"], "EMA": ["TRAIN.EMA", "0.999"]}
    variants["deterministic"] = ["TRAIN.DETERMINISTIC", "True"]
    if device.type == "cuda":
        variants["compiled"] = ["TRAIN.COMPILE", "True"]
    for name, overrides in variants.items():
        trainer, batches = trainer_of(device, sizes, *overrides)
        steps(trainer, batches[:3])
        took, _ = seconds(lambda t=trainer, b=batches: steps(t, b), str(device))
        yield (
            f"training, {sizes.backbone}, B {sizes.batch}: {name}",
            f"{len(batches) * sizes.batch / took:,.0f} images/s",
        )
        torch.use_deterministic_algorithms(False)
    weights = []
    for _ in range(2):
        trainer, batches = trainer_of(device, sizes, "TRAIN.DETERMINISTIC", "True")
        steps(trainer, batches)
        weights.append([value.detach().cpu() for value in trainer.model.state_dict().values()])
    torch.use_deterministic_algorithms(False)
    yield "TRAIN.DETERMINISTIC gives the same bits again", yes(all(torch.equal(a, b) for a, b in zip(*weights)))
    trainer, batches = trainer_of(device, sizes)
    steps(trainer, batches[:2])
    trainer.read()
    if device.type == "cuda":
        trainer.read_every = RECORD_EVERY**6  # never within these steps
        torch.cuda.set_sync_debug_mode("warn")
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        steps(trainer, batches)
    if device.type == "cuda":
        torch.cuda.set_sync_debug_mode("default")
    waits = [str(each.message) for each in found if "synchroniz" in str(each.message)]
    yield f"waits for the GPU in {len(batches)} steps", f"{len(waits)}: {yes(not waits)} {''.join(waits[:1])}"


def embedding(device: torch.device, sizes: Sizes) -> Rows:
    """Features with and without autocast: how far apart, and images a second."""
    trainer, batches = trainer_of(device, sizes)
    model, images, found = trainer.model.eval(), batches[0].images.to(device), {}
    for cast in (False, True):
        with torch.no_grad(), torch.autocast(device.type, torch.bfloat16, enabled=cast):
            model(images)
            took, features = seconds(lambda: [model(images).inference for _ in range(sizes.steps)][-1], str(device))
        found[cast] = features
        rate = sizes.steps * len(images) / took
        name = f"embedding, {'bfloat16' if cast else 'float32'}"
        yield name, f"{rate:,.0f} images/s, features are float32: {yes(features.dtype == torch.float32)}"
    apart = torch.nn.functional.cosine_similarity(found[False], found[True]).mean()
    yield "cosine of the features of both", f"{apart:.6f}"


def several(device: torch.device, sizes: Sizes) -> Rows:
    """Two processes train the demo to the end, and their results are there."""
    if device.type != "cuda" or torch.cuda.device_count() < 2:
        yield "torchrun on two GPUs to the end", "not tried: there are no two"
        return
    with tempfile.TemporaryDirectory() as folder:
        config = [str(ROOT / "tools/train.py"), "--config", str(ROOT / "configs/demo_srt.yaml")]
        options = ["TRAIN.OUTPUT", f"{folder}/run", "TRAIN.EPOCHS", "2", "DATA.ROOT", f"{folder}/demo"]
        made = [sys.executable, str(ROOT / "tools/make_demo.py"), "--root", f"{folder}/demo"]
        subprocess.run(made, check=True, capture_output=True)
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
        found = subprocess.run([*command, *config, *options], capture_output=True, text=True, timeout=200)
        right = found.returncode == 0 and Path(folder, "run/results.json").exists()
        yield "torchrun on two GPUs to the end", yes(right) + ("" if right else " " + found.stderr[-300:])


SECTIONS: list[Callable[[torch.device, Sizes], Rows]] = [
    losses,
    ties,
    evaluator,
    training,
    embedding,
    soft_ranks,
    several,
    re_ranking,
]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda:0")
    parser.add_argument("--smoke", action="store_true", help="sizes that take seconds on a CPU; no figure counts")
    parser.add_argument("--output", type=Path, help="also write the table there")
    arguments = parser.parse_args()
    device, sizes, start = torch.device(arguments.device), Sizes(arguments.smoke), time.perf_counter()
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    lines = [f"{name}, torch {torch.__version__}\n", "| what | found |", "|:--|:--|"]
    print(*lines, sep="\n")
    for section in SECTIONS:
        try:
            late = time.perf_counter() - start > 60 * MINUTES
            rows = [(section.__name__, "not tried: ten minutes are over")] if late else section(device, sizes)
            for what, found in rows:
                lines.append(f"| {what} | {found} |")
                print(lines[-1], flush=True)
        except Exception as error:  # noqa: BLE001 the other lines are wanted all the same
            lines.append(f"| {section.__name__} | NO: {type(error).__name__}: {str(error).splitlines()[0][:200]} |")
            print(lines[-1], flush=True)
    print(f"\n{time.perf_counter() - start:.0f} s")
    if arguments.output:
        arguments.output.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
