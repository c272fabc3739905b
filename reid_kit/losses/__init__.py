"""The losses. Each module of this package registers its own; a new loss is one new file here."""

import importlib
import pkgutil

from reid_kit.losses.registry import LOSSES, build_loss

for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")

__all__ = ["LOSSES", "build_loss"]
