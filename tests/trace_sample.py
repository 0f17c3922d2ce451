# SPDX-License-Identifier: MIT
"""Recorded events to print: one of each kind that the kernel has."""

import io

from harness.tracing.kernel_text import write_text
from shmalloc.trace import Events

HZ = 2_500_000_000


def text_of(events: Events, style: str) -> str:
    file = io.StringIO()
    write_text(events, file, style)
    return file.getvalue()


EVERY = [
    {
        "event": "kmem:kmalloc",
        "ptr": 640,
        "bytes_req": 100,
        "bytes_alloc": 128,
        "gfp_flags": 0xDC0,
        "call_site": 5,
    },
    {
        "event": "kmem:kmem_cache_alloc",
        "ptr": 768,
        "cache": 0,
        "gfp_flags": 0x820,
        "flags": ["accounted"],
        "node": 1,
    },
    {"event": "kmem:kfree", "ptr": 640, "ctx": "nmi", "level": 1},
    {"event": "kmem:kmem_cache_free", "ptr": 768, "cache": 0, "ctx": "irq", "level": 1, "cpu": 3},
    {"event": "kmem:mm_page_alloc", "ptr": 8192, "pfn": 2, "order": 1, "migratetype": 1, "gfp_flags": 0x2800},
    {"event": "kmem:mm_page_alloc", "order": 3, "gfp_flags": 0},
    {"event": "kmem:mm_page_free", "ptr": 8192, "pfn": 2, "order": 1, "ctx": "softirq"},
    {"event": "kmem:mm_page_free_batched", "ptr": 8192, "pfn": 2},
    {"event": "kmem:mm_page_alloc_zone_locked", "ptr": 8192, "pfn": 2, "flags": ["percpu_refill"]},
    {"event": "kmem:mm_page_pcpu_drain", "ptr": 8192, "pfn": 2, "migratetype": 1},
    {
        "event": "kmem:mm_page_alloc_extfrag",
        "ptr": 8192,
        "pfn": 2,
        "fallback_order": 10,
        "flags": ["change_ownership"],
    },
]


def every() -> Events:
    return Events.synthetic(
        [row | {"ts": (i + 1) * HZ // 10} for i, row in enumerate(EVERY)],
        tsc_hz=HZ,
        caches=("names",),
        symbols={5: "shm_user+0x1c"},
        pids={0: 4711, 3: 99999},
    )
