"""See `python tools/serve.py --help`."""

import sys

from reid_kit.cli.main import run

if __name__ == "__main__":  # processes that are not forked import this file
    sys.exit(run("serve"))
