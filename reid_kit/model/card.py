"""The README.md that a shared model carries."""

from collections.abc import Mapping, Sequence

TERMS = {  # of the data a model was trained on, as far as known
    "market1501": "Market-1501: released for academic research",
    "cuhk03_np": "CUHK03: released for academic research",
    "dukemtmc_reid": "DukeMTMC-reID: withdrawn by its authors in 2019",
    "msmt17": "MSMT17: released under an agreement, for research",
    "inshop": "DeepFashion: for non-commercial research",
    "consumer_to_shop": "DeepFashion: for non-commercial research",
    "cub200": "CUB-200-2011: its images belong to their photographers; for research and education",
    "demo": "rendered by reid_kit; free of any terms",
    "demo_inshop": "rendered by reid_kit; free of any terms",
    "demo_consumer_to_shop": "rendered by reid_kit; free of any terms",
}
UNKNOWN = "not known to the toolkit; ask the source of the data"

TEMPLATE = """---
library_name: reid_kit
pipeline_tag: image-feature-extraction
tags: [image-retrieval, person-re-identification, embedding]
license: other
---
# {backbone}, {size} numbers, trained on {dataset}

An image of a person or a product to a vector of {size} numbers; the nearer two vectors, the likelier the same identity.

```python
import reid_kit

model = reid_kit.load_model("path/to/this/folder")  # or hf://organisation/name
features = model.embed(["a.jpg", "b.jpg"])  # (2, {size}), L2-normalised
```

## Training

Dataset: {dataset}. Backbone: {backbone}, pooling {pooling}, neck {neck}. Images are resized to a height of {height}
and a width of {width} pixels; mean and deviation are applied inside, in the order RGB. Every setting of the run stands
under `config` in `config.json`.

## Measured

{measured}

## Thresholds

On the distance 1 - a @ b of two rows of `embed`:

{thresholds}

## Intended use and limits

For research, and for search where the law allows it, where those who are filmed know it, and where somebody answers for
the errors: a wrong match accuses the wrong person. Not for decisions about people without a human check. On cameras,
countries, seasons and people unlike those of the training data it does worse, by an amount that only a test on your own
data tells: calibrate the threshold there.

## Licence

Of the weights: as their owner says. Of the data: {terms}.

Fingerprint of the weights: `{fingerprint}`
"""


def card(description: Mapping) -> str:
    """The card of a model that `pretrained.describe` describes."""
    embedder, dataset = description["embedder"], description.get("dataset") or "data that its checkpoint does not name"
    return TEMPLATE.format(
        backbone=embedder["backbone"],
        size=description["embedding_size"],
        dataset=dataset,
        measured=measured(description),
        thresholds=thresholds(description.get("thresholds") or ()),
        terms=TERMS.get(dataset, UNKNOWN),
        fingerprint=description["fingerprint"],
        **{name: embedder[name] for name in ("pooling", "neck", "height", "width")},
    )


def measured(description: Mapping) -> str:
    metrics, protocol = description.get("metrics") or {}, description.get("protocol")
    lines = [f"- {name}: {100 * value:.1f} %" for name, value in metrics.items()]
    lines += [f"\nWeights: {description['chosen']}"] if description.get("chosen") else []
    lines += [f"\nProtocol: {protocol}"] if protocol else []
    return "\n".join(lines) or "The checkpoint tells of no test."


def thresholds(points: Sequence[Mapping]) -> str:
    """A line for each, with every number that is known of it."""
    lines = []
    for point in points:
        facts = [f"{name.replace('_', ' ')} {shown(value)}" for name, value in point.items()]
        lines.append(f"- {', '.join(facts)}")
    return "\n".join(lines) or "None came with the checkpoint; find them on pairs of your own."


def shown(value: object) -> str:
    if isinstance(value, list | tuple):
        return " to ".join(map(shown, value))
    return f"{value:.4g}" if isinstance(value, float) else str(value)
