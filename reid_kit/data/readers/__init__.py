"""Dataset readers, one family a file. Each module of this package registers its own; a new one is one new file here."""

import importlib
import pkgutil

from reid_kit.data.readers.registry import READERS, load_dataset

for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")

__all__ = ["READERS", "load_dataset"]
