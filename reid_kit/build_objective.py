"""LOSS.TERMS to the objective: each term's loss, with what follows from the data and the model filled in."""

import torch
from yacs.config import CfgNode

from reid_kit.errors import InputError, shortened, unknown_name
from reid_kit.losses import build_loss
from reid_kit.losses.cross_batch_memory import CrossBatchMemory
from reid_kit.losses.multilevel import MultiLevel
from reid_kit.losses.registry import option_names
from reid_kit.losses.weighted_sum import Term, WeightedSum
from reid_kit.model.embedder import Embedder, Features


def build_objective(config: CfgNode, classes: int, model: Embedder) -> WeightedSum:
    """The weighted sum of LOSS.TERMS; options that follow from data and model are filled in."""
    if not config.LOSS.TERMS:
        raise InputError("LOSS.TERMS is empty; give at least one term, like [{name: softmax}]")
    terms = []
    for number, entry in enumerate(config.LOSS.TERMS):
        if not isinstance(entry, dict) or not isinstance(entry.get("name"), str):
            raise InputError(
                f"LOSS.TERMS[{number}] must be a mapping with a name, like {{name: softmax}}, got {shortened(entry)}"
            )
        if not all(isinstance(key, str) for key in entry):
            raise InputError(f"LOSS.TERMS[{number}]: options have names, got {shortened(entry)}")
        options = dict(entry)
        name, weight, memory = options.pop("name"), options.pop("weight", 1.0), options.pop("memory", 0)
        if type(weight) not in (int, float) or not abs(weight) <= 1e9 or type(memory) is not int or memory < 0:
            raise InputError(
                f"LOSS.TERMS[{number}]: weight must be a number and memory a whole one, got {shortened(entry)}"
            )
        options.pop("feature", None)
        parts = options.pop("parts", [])
        loss = _build_term(name, options, classes, model, _places(f"parts of LOSS.TERMS[{number}]", parts, model))
        if memory:
            loss = CrossBatchMemory(loss, memory)
        feature = entry.get("feature", loss.feature)
        if not isinstance(feature, str) or feature not in Features._fields:
            raise unknown_name(f"feature of LOSS.TERMS[{number}]:", feature, Features._fields)
        terms.append(Term(name, loss, weight, feature))
    return WeightedSum(terms)


def _places(key: str, wanted: str | list[str], model: Embedder) -> list[int]:
    """Where the parts that a term names stand: `stripes2` is all of stripes2.whole, stripes2.1 and stripes2.2."""
    wanted, names, places = [wanted] if isinstance(wanted, str) else wanted, model.level_names, []
    if not isinstance(wanted, list):
        raise InputError(f"{key} must be a name or a list of names, got {wanted!r}; there are {', '.join(names)}")
    for part in wanted:
        found = [place for place, name in enumerate(names) if part in (name, name.split(".")[0])]
        if not found:
            raise unknown_name(f"one of {key}:", part, {*names, *(name.split(".")[0] for name in names)})
        places += found
    return sorted(set(places))


def _build_term(name: str, options: dict, classes: int, model: Embedder, places: list[int]) -> torch.nn.Module:
    """A loss with what follows from data and model filled in; of several levels or parts, each has its own.

    The losses of levels are summed, those of parts averaged. `places` of those that have the loss; empty: all.
    """
    known, sizes = option_names(name), model.level_sizes
    if len(sizes) > 1 and "sizes" not in known:
        follows = [{"classes": classes, "embedding_size": sizes[place]} for place in places or range(len(sizes))]
        losses = [build_loss(name, **_filled(options, known, own)) for own in follows]
        return MultiLevel(losses, sizes, places, mean=bool(model.parts))
    if "sizes" in known and places:
        raise InputError(f"{name} divides all features itself and takes no parts")
    follows = {"classes": classes, "embedding_size": model.embedding_size, "sizes": sizes}
    return build_loss(name, **_filled(options, known, follows))


def _filled(options: dict, known: list[str], follows: dict) -> dict:
    return {**{key: value for key, value in follows.items() if key in known}, **options}
