import importlib.util
from pathlib import Path

from reid_kit.losses import LOSSES

DOCS = Path(__file__).parents[2] / "docs"


def test_docs_losses_is_what_the_registry_gives():
    spec = importlib.util.spec_from_file_location("make_losses", DOCS / "make_losses.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert sorted(module.ENTRIES) == sorted(LOSSES)
    assert (DOCS / "losses.md").read_text() == module.document(), "run python docs/make_losses.py"
