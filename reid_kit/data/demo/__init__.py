"""The demo data, rendered by the project itself: small, deterministic, in the layouts of the real datasets."""

from reid_kit.data.demo.writer import write_demo

__all__ = ["write_demo"]
