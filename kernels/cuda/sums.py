"""Running totals over the threads of a block."""

from __future__ import annotations

from kernels.cuda._cuda import barrier, device
from kernels.primitives import Int, i64, u64
from kernels.typing import DeviceArray


@device
def running_sum(values: DeviceArray, thread: Int, threads: Int) -> None:
    """Replace each thread's value in shared memory by the sum of those up to it; barriers are inside."""
    step = 1
    barrier()
    while step < threads:
        below = i64(0)
        if thread >= step:
            below = values[u64(thread - step)]
        barrier()
        values[u64(thread)] += below
        barrier()
        step *= 2


@device
def running_max(values: DeviceArray, thread: Int, threads: Int) -> None:
    """Replace each thread's value in shared memory by the largest of those up to it; barriers are inside."""
    step = 1
    barrier()
    while step < threads:
        below = values[u64(thread)]
        if thread >= step:
            below = max(below, values[u64(thread - step)])
        barrier()
        values[u64(thread)] = below
        barrier()
        step *= 2
