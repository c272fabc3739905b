"""What a process does with the memory that its tensors leave."""

import resource
import sys

import pytest
import torch

from reid_kit.memory import keep_freed_memory


def pages_touched_anew(megabytes: int, times: int) -> int:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(times):
        torch.ones(megabytes * 2**18)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's allocator")
def test_freed_memory_is_used_again_without_being_mapped_anew():
    keep_freed_memory()
    pages_touched_anew(64, 10)
    assert pages_touched_anew(64, 10) < 2**14, "pages of 4 kB that one tensor of 64 MB has"
