r"""Search the keys of a config for what is best on held-out training identities; the test set is not looked at.

  python tools/tune.py --config market_srt --output runs/tune_market --trials 20 DATA.VALIDATION 0.15 \
      --search OPTIMIZER.LR 1e-4 1e-2 log --search SAMPLER.K 2 8 --search MODEL.POOLING "[average, gem]"

Each trial is a run with a folder in --output. The same command goes on where it was broken off, also with more
--trials. At the end best.yaml holds the best config, tune.md the trials, best first, tune.png the mAP by each key.
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import yaml
from yacs.config import CfgNode

from reid_kit.cli.train import train
from reid_kit.config import load_config
from reid_kit.errors import InputError, NonFiniteError
from reid_kit.files import LOCK, hold, take_folder, write_atomically
from reid_kit.model.checkpoint import load_checkpoint
from reid_kit.reading import parsing
from reid_kit.report.tuning import Trial, trial_table, tuning_curves

STAMP, KIND = "tune.json", "search of reid_kit"  # the file that says of a folder that a search may write there
STUDY = "study.db"  # the trials, as Optuna keeps them


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--config", required=True, metavar="FILE", help="what the trials have in common")
    parser.add_argument(
        "--search",
        required=True,
        action="append",
        nargs="+",
        metavar="KEY",
        help="KEY LEAST MOST, or KEY LEAST MOST log, or KEY '[VALUE, VALUE]'; may be repeated",
    )
    parser.add_argument("--trials", type=int, default=20, metavar="N", help="in all (%(default)s)")
    parser.add_argument("--output", required=True, type=Path, metavar="DIR")
    parser.add_argument("overrides", nargs="*", metavar="KEY VALUE", help="keys of reid_kit/config_keys.py and values")


class Space(NamedTuple):
    """The values of a key: numbers from `least` to `most`, evenly or by their logarithm; or `choices`, as YAML."""

    least: float | None = None
    most: float | None = None
    log: bool = False
    choices: tuple[str, ...] = ()


def main(arguments: argparse.Namespace) -> None:
    try:
        import optuna
    except ImportError as error:
        raise InputError(f"a search needs Optuna ({error}): pip install 'reid_kit[tune]'") from error
    config = load_config(arguments.config, arguments.overrides)
    if not config.DATA.VALIDATION:
        raise InputError("a search is decided on held-out identities: add DATA.VALIDATION and a share, as 0.15")
    if arguments.trials < 1:
        raise InputError(f"--trials must be at least 1, got {arguments.trials}")
    spaces = search_spaces(arguments.search, arguments.overrides[::2])
    output, otherwise = arguments.output, "choose another --output"
    asked = {"config": config.dump(), "search": {key: list(space) for key, space in spaces.items()}}
    asked = json.loads(json.dumps(asked))
    with hold(output, otherwise):
        found = take_folder(output, STAMP, KIND, otherwise)
        if found and found.get("asked") != asked:
            if any(path.name not in (STAMP, STUDY, LOCK) for path in output.iterdir()):
                raise InputError(f"{output} holds a search of another config or of other keys; {otherwise}")
            (output / STUDY).unlink(missing_ok=True)  # of a search that came to no trial
        write_atomically(output / STAMP, json.dumps({"kind": KIND, "version": 1, "asked": asked}))
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        study = optuna.create_study(
            storage=f"sqlite:///{(output / STUDY).resolve()}",
            study_name="tune",
            load_if_exists=True,
            direction="maximize",
        )
        study.sampler = optuna.samplers.TPESampler(seed=len(study.trials))  # a search that goes on draws other values
        search(study, arguments, spaces)


def search_spaces(searches: Sequence[Sequence[str]], set_keys: Sequence[str]) -> dict[str, Space]:
    """The values of each key that is searched.

    Raises:
        InputError: as `search_space`; a key that is searched twice, or searched and set; a folder for all trials.
    """
    spaces: dict[str, Space] = {}
    for key, space in map(search_space, searches):
        if key in spaces or key in set_keys:
            raise InputError(f"{key} is searched twice, or searched and set; give its values once")
        spaces[key] = space
    if "TRAIN.OUTPUT" in set_keys:
        raise InputError("TRAIN.OUTPUT would have no effect: each trial has a folder of its own in --output")
    return spaces


def search_space(words: Sequence[str]) -> tuple[str, Space]:
    """A key and its values, from the words after --search.

    Raises:
        InputError: no such form; a key that does not exist or is no number; values that the key does not take.
    """
    key, *values = words
    form = f"--search {' '.join(words)}: expected KEY LEAST MOST, KEY LEAST MOST log, or KEY '[VALUE, VALUE]'"
    if len(values) == 1:
        with parsing(form, "a list of values", yaml.YAMLError):
            choices = yaml.safe_load(values[0])
        if not isinstance(choices, list) or len(choices) < 2 or any(choices.count(each) > 1 for each in choices):
            raise InputError(f"{form}, with two values or more that differ")
        lines = [yaml.safe_dump(choice, default_flow_style=True, width=float("inf")) for choice in choices]
        space = Space(choices=tuple(line.split("\n")[0] for line in lines))
        for choice in space.choices:
            load_config(None, [key, choice])  # says what the key does not take
    elif len(values) == 2 or values[2:] == ["log"]:
        least, most = (of_key(load_config(None, [key, end]), key) for end in values[:2])
        if type(least) not in (int, float):
            raise InputError(f"{form}; {key} is no number, so list its values")
        space = Space(least, most, len(values) == 3)
        if not least < most or (space.log and least <= 0):
            raise InputError(f"{form}, with LEAST below MOST, and above 0 for log")
    else:
        raise InputError(form)
    if key in ("DATA.VALIDATION", "DATA.VALIDATION_FOLD", "TRAIN.OUTPUT", "DATA.NAME", "DATA.ROOT"):
        raise InputError(f"--search {key}: trials with other values of it could not be compared")
    return key, space


def of_key(config: CfgNode, key: str):
    section, word = key.split(".")
    return config[section][word]


def distribution(space: Space):
    from optuna import distributions

    if space.choices:
        return distributions.CategoricalDistribution(space.choices)
    kind = distributions.IntDistribution if isinstance(space.least, int) else distributions.FloatDistribution
    return kind(space.least, space.most, log=space.log)


def search(study, arguments: argparse.Namespace, spaces: dict[str, Space]) -> None:
    """Trials until there are as many as asked for; each is told to the study, in --output, once it has ended."""
    from optuna.trial import TrialState

    distributions = {key: distribution(space) for key, space in spaces.items()}
    for broken_off in study.get_trials(states=[TrialState.RUNNING]):  # its run goes on as another trial
        study.tell(broken_off.number, state=TrialState.FAIL)
        folder = broken_off.user_attrs.get("folder", f"trial-{broken_off.number:03}")
        study.enqueue_trial(broken_off.params, user_attrs={"folder": folder})
    while len(ended := ended_trials(study)) < arguments.trials:
        trial = study.ask(distributions)
        folder = arguments.output / trial.user_attrs.setdefault("folder", f"trial-{trial.number:03}")
        trial.set_user_attr("folder", folder.name)
        values = [text for key, value in trial.params.items() for text in (key, str(value))]
        print(f"\ntrial {len(ended) + 1} of {arguments.trials}: {' '.join(values)}", flush=True)
        try:
            trial.set_user_attr("mAP", held_out_mAP(arguments, values, folder))
            study.tell(trial, trial.user_attrs["mAP"])
        except NonFiniteError as error:
            print(f"this trial failed: {error}", flush=True)
            trial.set_user_attr("mAP", 0.0)
            study.tell(trial, 0.0)
        report(study, arguments, spaces)


def held_out_mAP(arguments: argparse.Namespace, values: Sequence[str], folder: Path) -> float:
    """Trains a trial to its end and gives the mAP of its best weights on the identities held out."""
    config = load_config(arguments.config, [*arguments.overrides, *values, "TRAIN.OUTPUT", str(folder)])
    train(config, resume=(folder / "last.pt").exists(), look_at_test_set=False)
    return load_checkpoint(folder / "best.pt")["metrics"]["mAP"]


def ended_trials(study) -> list[Trial]:
    return [
        Trial(trial.user_attrs["folder"], trial.params, trial.value)
        for trial in study.get_trials(deepcopy=False)
        if trial.value is not None
    ]


def report(study, arguments: argparse.Namespace, spaces: dict[str, Space]) -> None:
    """Writes best.yaml, tune.md and tune.png, and prints how the search stands."""
    trials, output = ended_trials(study), arguments.output
    best = max(trials, key=lambda trial: trial.mAP)
    values = [text for key, value in best.values.items() for text in (key, str(value))]
    config = load_config(arguments.config, [*arguments.overrides, *values, "TRAIN.OUTPUT", str(output / "best")])
    write_atomically(output / "best.yaml", config.dump())
    write_atomically(output / "tune.md", trial_table(trials) + "\n")
    write_atomically(output / "tune.png", tuning_curves(trials, {key for key, space in spaces.items() if space.log}))
    print(f"\n{trial_table(trials[-1:])}\nthe best of {len(trials)}: {best.folder}, {100 * best.mAP:.1f}")
    print(f"{output / 'best.yaml'}, {output / 'tune.md'}, {output / 'tune.png'}", flush=True)
