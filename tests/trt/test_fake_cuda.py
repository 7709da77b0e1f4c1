"""The fake GPU does its work when a GPU would have done it, and tells what a GPU would not forgive."""

from __future__ import annotations

import pytest
from trt_fake import DISCRETE, MisuseError, fake_cuda

from edgekit.errors import TargetError


def test_copies_are_done_in_the_stream():
    """A copy to the GPU and back arrives when the stream is waited for; GPU memory starts with what was in it before."""
    cuda = fake_cuda(DISCRETE)
    with cuda.active():
        stream, there, host, back = cuda.stream(), cuda.device_alloc(4), cuda.host_alloc(4, mapped=False), cuda.host_alloc(4, mapped=False)
        cuda.copy_to_host_async(back, there, stream)
        cuda.synchronize(stream)
        assert back.array.tolist() == [0xA5] * 4
        host.array[:] = [1, 2, 3, 4]
        cuda.copy_to_device_async(there, host, stream)
        cuda.copy_to_host_async(back, there, stream)
        assert back.array.tolist() == [0xA5] * 4
        cuda.synchronize(stream)
        assert back.array.tolist() == [1, 2, 3, 4]


def test_the_gpu_counts_what_is_not_freed():
    """Every resource is live until it is freed, once; calls outside `active` and after `close` are told."""
    cuda = fake_cuda(fail={"launch"})
    with pytest.raises(MisuseError, match="outside"):
        cuda.stream()
    with cuda.active():
        stream = cuda.stream()
        cuda.begin_capture(stream)
        graph = cuda.end_capture(stream)
        with pytest.raises(TargetError):
            cuda.launch(graph, stream)
        assert len(cuda.live) == 2
        for item in (stream, graph):
            cuda.free(item)
        with pytest.raises(MisuseError, match="freed"):
            cuda.free(stream)
    cuda.close()
    assert cuda.live == []
    with pytest.raises(MisuseError, match="after"), cuda.active():
        pass
