import importlib.util
import re
import shlex
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from reid_kit.build import build_test_settings
from reid_kit.build_objective import build_objective
from reid_kit.config import load_config

ROOT = Path(__file__).parents[2]
SPEC = importlib.util.spec_from_file_location("make_tables", ROOT / "docs/make_tables.py")
make_tables = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(make_tables)

ROWS = [(table["paper"], table["title"], row) for table in make_tables.tables() for row in make_tables.rows(table)]
RUNNABLE = [(paper, title, row) for paper, title, row in ROWS if row.config != "-"]
ITERATIONS = {"cars196": 10_000, "cub200": 10_000, "sop": 16_000}


def test_docs_tables_is_what_the_configs_give():
    assert (ROOT / "docs/tables.md").read_text() == make_tables.document(), "run python docs/make_tables.py"


def test_every_row_of_the_papers_is_there():
    counts = {}
    for paper, title, row in ROWS:
        counts[f"{paper} {title.split(':')[0]}"] = counts.get(f"{paper} {title.split(':')[0]}", 0) + 1
        assert re.search(r"[0-9x]", row.numbers)
    ablations = {f"RLL Table {number}": count for number, count in zip(range(3, 8), (3, 5, 5, 4, 5))}
    assert counts == {
        "SRT Person ReID": 9 * 3,
        "SRT Fashion Retrieval": 7 * 4,
        "RLL Table 1": 8 * 2,
        "RLL Table 2": 8,
        **ablations,
        "RAW Table 1": 7 * 4,
        "RAW Table 2": 8 * 2,
        "RAW Table 3": 7 + 4,
    }
    without = {row.name.split(",")[0] for *_, row in ROWS if row.config == "-"}
    assert without == {"Smart Mining"} and "Smart Mining (Harwood" in (ROOT / "docs/tables.md").read_text()


def test_every_config_of_the_folder_is_named():
    text = (ROOT / "docs/tables.md").read_text()
    for path in (ROOT / "configs/metric_learning").glob("*.yaml"):
        assert re.search(rf"\b{path.stem}\b", text), path


@pytest.mark.parametrize("paper, title, row", RUNNABLE, ids=lambda value: getattr(value, "name", None))
def test_a_row_runs_as_its_paper_says(paper, title, row):
    """The command's config and changes load, a changed loss teaches, and what the paper prints is as printed."""
    _, _, path, *overrides = shlex.split(shlex.join(row.command))
    config = load_config(ROOT / path, overrides)
    build_test_settings(config, torch.device("cpu"))
    if "LOSS.TERMS" in row.change:  # the configs' own are tested in tests/test_build.py
        model = SimpleNamespace(level_sizes=[8] * 3, embedding_size=24, level_names=config.MODEL.LEVELS, parts=[])
        features = torch.randn(12, 24, generator=torch.Generator().manual_seed(0), requires_grad=True)
        labels = torch.arange(4).repeat_interleave(3)
        value, _ = build_objective(config, 4, model)(SimpleNamespace(metric=features, inference=features), labels)
        value.backward()
        assert features.grad.abs().max() > 1e-3

    optimizer, sampler = config.OPTIMIZER, config.SAMPLER
    if paper != "SRT":  # RLL 3.4, RAW 6
        assert (config.MODEL.BACKBONE, config.MODEL.EMBEDDING_SIZE, config.AUGMENT.FLIP) == ("bn_inception", 512, 0.5)
        assert config.DATA.HEIGHT == config.DATA.WIDTH == 227 and config.TEST.METRIC == "cosine"
        assert round(227 * config.AUGMENT.ENLARGE) == 256 and not config.TEST.FLIP
    if paper == "RLL":  # 3.4, 4.1
        assert (optimizer.NAME, optimizer.MOMENTUM, optimizer.NESTEROV) == ("sgd", 0.9, False)
        assert (optimizer.WEIGHT_DECAY, optimizer.HEAD_LR_FACTOR) == (1e-5, 10)
        assert optimizer.LR == (1e-3 if config.DATA.NAME == "cub200" else 1e-2)
        if config.LOSS.TERMS[0]["name"] == "spectral_clustering":
            assert sampler.P * sampler.K == 1260 > 512  # 2.1.2
        else:
            assert sampler.BATCHES_PER_EPOCH * config.TRAIN.EPOCHS == ITERATIONS[config.DATA.NAME]
            classes = int(row.name.split()[2]) if "Table 7" in title else 60
            assert (sampler.P, sampler.K) == (classes, 2 if "N-pair" in row.name else 3)
        if config.LOSS.TERMS[0]["name"] == "ranked_list":
            assert config.MODEL.LEVELS == ["low", "middle", "high"]
            tested = {"RLL-H": ["high"], "L": ["low"], "M": ["middle"], "H": ["high"]}
            assert config.TEST.LEVELS == tested.get(row.name.split(", ")[0], [])
    if paper == "RAW" and "facility" not in row.config and "proxy" not in row.config:  # 6
        assert (optimizer.NAME, optimizer.LR, config.SCHEDULE.NAME) == ("adam", 1e-5, "constant")
        assert sampler.K == (5 if config.DATA.NAME in ("cub200", "cars196") else 4)
