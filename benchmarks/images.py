"""Image files to the network's input: decoded whole and reduced, kept in a cache, augmented.

Images a CPU second of one core; contenders run in turn.

  python benchmarks/images.py --height 256 --width 128

JPEGs of 750 x 1,101 pixels, as In-shop's, and of 64 x 128, as Market-1501's, are drawn with detail of every size. The
error is the mean absolute difference, of 255, of the resized picture to that of the whole one; beside it stands what
the JPEG's own coding has changed.
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np

from reid_kit.data.augment import train_transform
from reid_kit.data.cache import DiskCache, RamCache
from reid_kit.image import read_image, read_resized, resize


def scene(height: int, width: int, seed: int) -> np.ndarray:
    """(H, W, 3) uint8: noise of every scale, and edges."""
    random, picture = np.random.default_rng(seed), np.full((height, width, 3), 128, np.float32)
    for power in range(1, 10):
        noise = random.normal(0, 60 / 2 ** (power / 2), (2**power + 1, 2**power + 1, 3)).astype(np.float32)
        picture += cv2.resize(noise, (width, height), interpolation=cv2.INTER_CUBIC)
    for _ in range(12):
        cv2.fillPoly(
            picture, [random.integers(0, [width, height], (4, 2)).astype(np.int32)], random.uniform(0, 255, 3).tolist()
        )
    return np.clip(picture, 0, 255).astype(np.uint8)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--height", type=int, default=256)
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--images", type=int, default=24)
    parser.add_argument("--quality", type=int, default=85, help="of the JPEGs")
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    cv2.setNumThreads(0)
    size = (arguments.height, arguments.width)
    print("| file | step | images a second | ms | times the first |\n|:--|:--|--:|--:|--:|")
    with tempfile.TemporaryDirectory() as folder:
        for height, width in ((1101, 750), (128, 64)):
            paths, errors = [], []
            for number in range(arguments.images):
                path, picture = Path(folder) / f"{height}_{number}.jpg", scene(height, width, number)
                cv2.imwrite(str(path), picture[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, arguments.quality])
                paths.append(path)
                whole = resize(read_image(path), *size).astype(int)
                compared = (read_resized(path, None, None, size), resize(picture, *size))
                errors.append([np.abs(whole - other).mean() for other in compared])
            measure(f"{width} x {height}", paths, size, folder, arguments.rounds)
            reduced, coded = np.mean(errors, axis=0)
            print(f"| | error {reduced:.2f} (largest {max(errors)[0]:.2f}); of the JPEG's coding {coded:.2f} | | | |")


def measure(name: str, paths: list[Path], size: tuple[int, int], folder: str, rounds: int) -> None:
    ram, disk = RamCache(len(paths), size, 1e9), DiskCache(Path(folder) / "cache", 1e9)
    transform, image = train_transform(*size, erasing=0.5), read_resized(paths[0], None, None, size)

    def with_one_seed_each(seed: int) -> np.ndarray:
        transform.compose.set_random_seed(seed)
        return transform.compose(image=image)["image"]

    steps = {
        "decoded whole, resized": lambda number: resize(read_image(paths[number]), *size),
        "as the loaders read it": lambda number: read_resized(paths[number], None, None, size),
        "DATA.CACHE disk": lambda number: disk.read(number, paths[number], None, None, size),
        "DATA.CACHE ram": lambda number: ram.read(number, paths[number], None, None, size),
        "augmenting, each step seeded": with_one_seed_each,
        "augmenting as it is": lambda number: transform(image, number),
    }
    spent: dict[str, list[float]] = {step: [] for step in steps}
    for turn in range(rounds + 1):  # the first fills the caches
        for step, run in steps.items():
            start = time.process_time()
            for number in range(len(paths)):
                run(number)
            if turn:
                spent[step].append((time.process_time() - start) / len(paths))
    first = statistics.median(spent["decoded whole, resized"])
    for step, seconds in spent.items():
        took = statistics.median(seconds)
        print(f"| {name} | {step} | {1 / took:,.0f} | {1000 * took:.2f} | {first / took:.1f} |")


if __name__ == "__main__":
    main()
