"""Embedding a large source by shards: slices of its list of images, a file of features each."""

from reid_kit.shards.folder import Shard, ShardFolder

__all__ = ["Shard", "ShardFolder"]
