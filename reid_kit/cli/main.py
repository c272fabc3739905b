"""`reid-kit COMMAND`: the same commands as `python tools/COMMAND.py`."""

import argparse
import ast
import importlib
import io
import os
import re
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import reid_kit
from reid_kit.errors import InputError, printable, shortened
from reid_kit.memory import keep_freed_memory

COMMANDS = {
    "train": "train a model from a config",
    "test": "measure mAP and CMC of a run or a checkpoint",
    "doctor": "check a dataset's folder and say what to mend",
    "make_demo": "render the built-in demo data",
    "prepare_cuhk03": "turn the raw cuhk-03.mat into the new protocol's folders",
    "extract": "images to features",
    "export": "a model as a proven ONNX file",
    "index": "images to a gallery, to search in",
    "search": "find images in a gallery",
    "verify": "say whether two images are of one person",
    "serve": "a page to search a gallery with",
    "calibrate": "measure thresholds on a gallery's labels",
    "group": "propose identities for a gallery's images",
    "compare": "train several configs and print one table",
    "tune": "search the keys of a config on held-out identities",
    "plot_loss_weights": "draw what each pair weighs in each loss",
}

LOST = r"connection (closed|reset|refused|was closed)|broken pipe|timed out|socket|gloo|nccl"


def run(command: str, arguments: Sequence[str] | None = None, program: str | None = None) -> int:
    """Runs a command; bad input prints one message and gives exit status 2, Ctrl-C and SIGTERM give 130."""
    with answering(leave):  # libraries that are stopped in their import do not always let the interrupt through
        description, add_arguments = arguments_of(command)
        parser = argparse.ArgumentParser(
            prog=program, description=description, formatter_class=argparse.RawDescriptionHelpFormatter
        )
        if isinstance(sys.stdout, io.TextIOWrapper):
            sys.stdout.reconfigure(errors="backslashreplace")  # names of files may hold what no terminal can print
        add_arguments(parser)
        parsed = parser.parse_intermixed_args(arguments)  # KEY VALUE pairs may stand before and after flags
        warnings.formatwarning = lambda message, *_: f"warning: {message}\n"  # without a line of this toolkit's code
        module = importlib.import_module(f"reid_kit.cli.{command}")
    try:
        with answering(interrupt):
            check_arguments(parsed)
            keep_freed_memory()
            module.main(parsed)
            if "torch.distributed" in sys.modules:
                importlib.import_module("reid_kit.distributed").leave_processes()
    except (InputError, OSError, RecursionError, MemoryError) as error:
        print(f"error: {explain(error)}", file=sys.stderr)
        return 2
    except RuntimeError as error:
        if not is_loss_of_a_process(error):
            raise
        print("error: another process ended; its error stands above", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return 130
    return 0


def check_arguments(parsed: argparse.Namespace) -> None:
    """Raises InputError for text that no path or name can be: with a zero byte, or with bytes that are not UTF-8."""
    for value in vars(parsed).values():
        for text in map(str, value if isinstance(value, list) else [value]):
            if "\0" in text or printable(text) != text:
                raise InputError(
                    f"the argument {shortened(printable(text))} holds a zero byte or one that is not UTF-8; rename the "
                    f"file or folder that it stands for"
                )


def explain(error: Exception) -> str:
    """What went wrong, in a line: an InputError's own words; of the system's errors the file and the reason."""
    if isinstance(error, OSError):
        names = [str(name) for name in (error.filename, error.filename2) if name is not None]
        return printable(": ".join([*names[-1:], error.strerror or str(error) or type(error).__name__]))
    if isinstance(error, RecursionError):
        return "something in the input is nested too deep"
    if isinstance(error, MemoryError):
        return f"out of memory ({error or 'no more to be had'}); smaller batches or images take less"
    return printable(str(error))


def arguments_of(command: str) -> tuple[str, Callable[[argparse.ArgumentParser], None]]:
    """The docstring and `add_arguments` of a command's module. Of the module no more is run than what the names in that
    function stand for: `--help` and a mistyped option are answered without the seconds that importing torch takes."""
    source = Path(__file__).with_name(f"{command}.py")
    tree = ast.parse(source.read_text(encoding="utf-8"))
    bound = {name: node for node in tree.body for name in names_of(node)}
    used = {node.id for node in ast.walk(bound["add_arguments"]) if isinstance(node, ast.Name)}
    needed = [node for node in tree.body if used & names_of(node)]
    scope: dict = {}
    exec(compile(ast.Module([*needed, bound["add_arguments"]], []), source, "exec"), scope)
    return ast.get_docstring(tree), scope["add_arguments"]


def names_of(node: ast.stmt) -> set[str]:
    """What a statement of a module binds."""
    if isinstance(node, ast.Import | ast.ImportFrom):
        return {(alias.asname or alias.name).split(".")[0] for alias in node.names}
    if isinstance(node, ast.Assign):
        return {name.id for target in node.targets for name in ast.walk(target) if isinstance(name, ast.Name)}
    return {node.name} if isinstance(node, ast.FunctionDef | ast.ClassDef) else set()


def is_loss_of_a_process(error: RuntimeError) -> bool:
    """Whether torch.distributed raised it, which speaks C++ of its connections; the one cause has its own message."""
    if int(os.environ.get("WORLD_SIZE", 1)) == 1:
        return False
    return type(error).__name__.startswith("Dist") or re.search(LOST, str(error), re.IGNORECASE) is not None


def leave(number, frame) -> None:
    os.write(2, b"stopped\n")
    os._exit(130)


def interrupt(number, frame) -> None:
    raise KeyboardInterrupt


@contextmanager
def answering(handler: Callable) -> Iterator[None]:
    """Ctrl-C and SIGTERM call `handler` for a while; threads other than the main one take no signals."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, handler) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)


def main() -> None:
    """The console script."""
    names = "\n".join(f"  {name.replace('_', '-'):20}{what}" for name, what in COMMANDS.items())
    parser = argparse.ArgumentParser(
        prog="reid-kit",
        description=f"Person re-identification and fashion retrieval.\n\ncommands:\n{names}",
        epilog="reid-kit COMMAND --help tells a command's arguments",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=reid_kit.__version__)
    parser.add_argument("command", choices=[name.replace("_", "-") for name in COMMANDS], metavar="COMMAND")
    parser.add_argument("arguments", nargs=argparse.REMAINDER, metavar="...")
    parsed = parser.parse_args()
    sys.exit(run(parsed.command.replace("-", "_"), parsed.arguments, f"reid-kit {parsed.command}"))


if __name__ == "__main__":
    main()
