import importlib.util
import re
from pathlib import Path

from reid_kit.config import load_config
from reid_kit.losses import LOSSES

DOCS = Path(__file__).parents[2] / "docs"


def test_docs_losses_is_what_the_registry_gives():
    spec = importlib.util.spec_from_file_location("make_losses", DOCS / "make_losses.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert sorted(module.ENTRIES) == sorted(LOSSES)
    assert (DOCS / "losses.md").read_text() == module.document(), "run python docs/make_losses.py"


def test_every_loss_has_a_command_with_a_config_that_loads():
    commands = re.findall(r'--config (\S+) (LOSS\.TERMS) "(.*)"`', (DOCS / "losses.md").read_text())
    names = [load_config(DOCS.parent / path, pair).LOSS.TERMS[0]["name"] for path, *pair in commands]
    assert sorted(names) == sorted(LOSSES)
