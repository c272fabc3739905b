"""`reid-kit COMMAND`: the same commands as `python tools/COMMAND.py`."""

import argparse
import importlib
import sys
import warnings
from collections.abc import Sequence

from reid_kit.errors import InputError

COMMANDS = {
    "train": "train a model from a config",
    "test": "measure mAP and CMC of a run or a checkpoint",
    "doctor": "check a dataset's folder and say what to mend",
    "make_demo": "render the built-in demo data",
    "prepare_cuhk03": "turn the raw cuhk-03.mat into the new protocol's folders",
    "extract": "images to features",
    "compare": "train several configs and print one table",
    "plot_loss_weights": "draw what each pair weighs in each loss",
}


def run(command: str, arguments: Sequence[str] | None = None, program: str | None = None) -> int:
    """Runs a command; bad input prints one message and gives exit status 2, Ctrl-C gives 130."""
    module = importlib.import_module(f"reid_kit.cli.{command}")
    parser = argparse.ArgumentParser(
        prog=program, description=module.__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    module.add_arguments(parser)
    warnings.formatwarning = lambda message, *_: f"warning: {message}\n"  # without a line of this toolkit's code
    parsed = parser.parse_intermixed_args(arguments)  # KEY VALUE pairs may stand before and after flags
    try:
        module.main(parsed)
        if "torch.distributed" in sys.modules:
            importlib.import_module("reid_kit.distributed").leave_processes()
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return 130
    return 0


def main() -> None:
    """The console script."""
    names = "\n".join(f"  {name.replace('_', '-'):20}{what}" for name, what in COMMANDS.items())
    parser = argparse.ArgumentParser(
        prog="reid-kit",
        description=f"Person re-identification and fashion retrieval.\n\ncommands:\n{names}",
        epilog="reid-kit COMMAND --help tells a command's arguments",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("command", choices=[name.replace("_", "-") for name in COMMANDS], metavar="COMMAND")
    parser.add_argument("arguments", nargs=argparse.REMAINDER, metavar="...")
    parsed = parser.parse_args()
    sys.exit(run(parsed.command.replace("-", "_"), parsed.arguments, f"reid-kit {parsed.command}"))


if __name__ == "__main__":
    main()
