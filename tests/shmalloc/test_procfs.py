# SPDX-License-Identifier: MIT
"""The texts of /proc: one parser for each format, written from the kernel's, reads ours and the real files.

The parser is strict: it rebuilds every line from what it read, by the widths that the kernel prints
with, and the line must come out the same.
"""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from audit_sample import Sample

from shmalloc import procfs

# printf formats, as the kernel has them
COUNT, WIDE_COUNT = "%6d ", "%12d "
ZONE_HEAD, TYPE_HEAD = "Node %d, zone %8s ", "Node %4d, zone %8s, type %12s "
ORDERS_TITLE, BLOCKS_TITLE, BLOCKS_TYPE = "%-43s ", "%-23s", "%12s "
SLAB_ROW = "%-17s %6d %6d %6d %4d %4d : tunables %4d %4d %4d : slabdata %6d %6d %6d"
SLAB_COLUMNS = [
    "active_objs",
    "num_objs",
    "objsize",
    "objperslab",
    "pagesperslab",
    "limit",
    "batchcount",
    "sharedfactor",
    "active_slabs",
    "num_slabs",
    "sharedavail",
]


def numbers(text: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", text)]


def parse_slabinfo(text: str) -> dict[str, dict[str, int]]:
    version, header, *rows = text.splitlines()
    assert version == "slabinfo - version: 2.1"
    assert header == (
        "# name            <active_objs> <num_objs> <objsize> <objperslab> <pagesperslab> : tunables <limit> "
        "<batchcount> <sharedfactor> : slabdata <active_slabs> <num_slabs> <sharedavail>"
    )
    caches = {}
    for row in rows:
        name, _, rest = row.partition(" ")
        values = numbers(rest)
        assert SLAB_ROW % (name, *values) == row
        caches[name] = dict(zip(SLAB_COLUMNS, values, strict=True))
    return caches


def printed(head: str, values: tuple[Any, ...], count: str, counts: list[int]) -> str:
    """Print a row of counts as the kernel would."""
    return head % values + "".join(count % number for number in counts)


def parse_buddyinfo(text: str) -> dict[tuple[int, str], list[int]]:
    zones = {}
    for row in text.splitlines():
        match = re.match(r"Node (\d+), zone +(\w+)(.*)", row)
        assert match, row
        zone, counts = (int(match[1]), match[2]), numbers(match[3])
        assert printed(ZONE_HEAD, zone, COUNT, counts) == row
        zones[zone] = counts
    return zones


def parse_pagetypeinfo(text: str) -> dict[str, Any]:
    first, second, empty, header, *rest = text.splitlines()
    order = int(first.removeprefix("Page block order: "))
    assert second == f"Pages per block:  {1 << order}" and empty == ""
    orders = numbers(header)
    assert printed(ORDERS_TITLE, ("Free pages count per migrate type at order",), COUNT, orders) == header
    gap = rest.index("")
    free = {}
    for row in rest[:gap]:
        match = re.match(r"Node +(\d+), zone +(\w+), type +(\w+) (.*)", row)
        assert match, row
        key, counts = (int(match[1]), match[2], match[3]), numbers(match[4])
        assert ">" in row or printed(TYPE_HEAD, key, COUNT, counts) == row
        free[key] = counts
    kinds = rest[gap + 1].split()[4:]
    assert (
        BLOCKS_TITLE % "Number of blocks type" + "".join(BLOCKS_TYPE % kind for kind in kinds)
        == rest[gap + 1]
    )
    blocks = {}
    for row in rest[gap + 2 :]:
        match = re.match(r"Node (\d+), zone +(\w+)(.*)", row)
        assert match, row
        zone, counts = (int(match[1]), match[2]), numbers(match[3])
        assert printed(ZONE_HEAD, zone, WIDE_COUNT, counts) == row
        blocks[zone] = dict(zip(kinds, counts, strict=True))
    return {"order": order, "orders": orders, "free": free, "blocks": blocks}


ZONE_LINES = [
    (r"  per-node stats", lambda m: "  per-node stats"),
    (r"  pages free     (\d+)", lambda m: f"  pages free     {m[1]}"),
    (
        r"        (boost|min|low|high|promo|spanned|present|managed|cma) +(\d+)",
        lambda m: f"        {m[1]:<8} {m[2]}",
    ),
    (r"        protection: \((\d+(?:, \d+)*)\)", lambda m: f"        protection: ({m[1]})"),
    (r"      (\w+) +(\d+)", lambda m: f"      {m[1]:<12} {m[2]}"),
    (r"  pagesets", lambda m: "  pagesets"),
    (r"    cpu: (\d+)", lambda m: f"    cpu: {m[1]}"),
    (
        r"              (count|high|batch|high_min|high_max): +(-?\d+)",
        lambda m: f"              {m[1] + ':':<9} {m[2]}",
    ),
    (r"  vm stats threshold: (\d+)", lambda m: f"  vm stats threshold: {m[1]}"),
    (r"  node_unreclaimable:  (\d+)", lambda m: f"  node_unreclaimable:  {m[1]}"),
    (r"  start_pfn:           (\d+)", lambda m: f"  start_pfn:           {m[1]}"),
]


def parse_zoneinfo(text: str) -> dict[tuple[int, str], dict[str, Any]]:
    zones: dict[tuple[int, str], dict[str, Any]] = {}
    zone: dict[str, Any] = {}
    for row in text.splitlines():
        if match := re.fullmatch(r"Node (\d+), zone +(\w+)", row):
            assert row == f"Node {match[1]}, zone {match[2]:>8}"
            zone = zones.setdefault((int(match[1]), match[2]), {"cpus": []})
            into = zone
            continue
        rule = next((rule for rule in ZONE_LINES if re.fullmatch(rule[0], row)), None)
        assert rule, row
        match = re.fullmatch(rule[0], row)
        assert match and rule[1](match) == row
        if row.startswith("    cpu:"):
            zone["cpus"].append(into := {})
        elif row.startswith("  node_unreclaimable"):
            into = zone
        key, _, value = row.strip().partition(" ")
        into[key.rstrip(":")] = value.strip()
    return zones


@pytest.mark.parametrize(
    ("name", "parse"),
    [
        ("slabinfo", parse_slabinfo),
        ("buddyinfo", parse_buddyinfo),
        ("pagetypeinfo", parse_pagetypeinfo),
        ("zoneinfo", parse_zoneinfo),
    ],
)
def test_the_parser_reads_the_kernels_own_file(name: str, parse: Callable[[str], Any]) -> None:
    path = Path("/proc", name)
    try:
        text = path.read_text()
    except OSError as error:
        pytest.skip(f"{path} cannot be read here: {error.strerror}")
    assert parse(text)
    assert parse(getattr(procfs, name)(Sample()))


def test_slabinfo() -> None:
    text = procfs.slabinfo(Sample())
    caches = parse_slabinfo(text)
    assert list(caches) == ["hardened", "tracked", "large", "small"]  # the newest first
    small = caches["small"]
    assert (small["num_objs"], small["objsize"], small["objperslab"], small["pagesperslab"]) == (40, 64, 8, 1)
    assert small["active_objs"] == 40 - 3 - 1  # only what is free on node partial lists counts as free
    assert small["num_slabs"] == small["active_slabs"] == 5
    assert caches["large"]["pagesperslab"] == 2
    assert caches["tracked"]["num_slabs"] == 3  # a deferred slab that was never counted is not here


def test_long_cache_name_pushes_its_row() -> None:
    sample = Sample()
    sample.region("caches")["name"][0] = b"a-cache-with-a-long-name"
    assert "a-cache-with-a-long-name     36     40     64    8    1 : tunables" in procfs.slabinfo(sample)


def test_buddyinfo() -> None:
    sample = Sample()
    zones = parse_buddyinfo(procfs.buddyinfo(sample))
    assert list(zones) == [(0, "DMA32"), (0, "Normal"), (1, "Normal")]
    for index, counts in enumerate(zones.values()):
        assert counts == sample.region("zones")["free_area"]["nr_free"][index].tolist()
        assert (
            sum(n << order for order, n in enumerate(counts)) == sample.region("zones")["free_pages"][index]
        )


def test_pagetypeinfo() -> None:
    sample = Sample()
    found = parse_pagetypeinfo(procfs.pagetypeinfo(sample))
    assert found["order"] == 4 and found["orders"] == list(range(11))
    assert found["blocks"][0, "DMA32"] == {"Unmovable": 1, "Movable": 5, "Reclaimable": 1, "HighAtomic": 1}
    buddies = parse_buddyinfo(procfs.buddyinfo(sample))
    for (node, zone), counts in buddies.items():
        rows = [row for (n, z, _), row in found["free"].items() if (n, z) == (node, zone)]
        assert [sum(column) for column in zip(*rows, strict=True)] == counts
    assert found["free"][0, "DMA32", "HighAtomic"][4] == 1


def test_pagetypeinfo_stops_counting() -> None:
    sample = Sample()
    assert ">" not in procfs.pagetypeinfo(sample)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(procfs, "_MOST_COUNTED", 1)
        assert ">     1 " in procfs.pagetypeinfo(sample)


def test_zoneinfo() -> None:
    sample = Sample()
    zone = sample.region("zones")[1]
    zone["wmark"], zone["wmark_boost"], zone["lowmem_reserve"] = (5, 6, 7, 8), 100, (0, 0, 3, 4)
    sample.region("pagesets")["numa_hit"][1] = (20, 3)
    sample.region("pagesets")["high_max"][0, 1] = 77
    zones = parse_zoneinfo(procfs.zoneinfo(sample))
    normal = zones[0, "Normal"]
    marks = [normal[key] for key in ("boost", "min", "low", "high", "promo")]
    assert marks == ["100", "105", "106", "107", "108"]
    assert normal["protection"] == "(0, 0, 3, 4)" and normal["numa_hit"] == "23"
    assert normal["managed"] == "256" and normal["start_pfn"] == "128"
    assert normal["nr_free_pages_blocks"] == "240" and normal["nr_free_pages"] == "243"
    assert "nr_slab_unreclaimable" not in normal  # printed with the node's first zone only
    assert zones[0, "DMA32"]["nr_slab_unreclaimable"] == "10"
    cpus = zones[0, "DMA32"]["cpus"]
    assert [cpu["count"] for cpu in cpus] == ["1", "8"] and cpus[1]["high_max"] == "77"


def test_page_cache_and_what_reclaim_has_done() -> None:
    sample = Sample()
    retries = sample.c["MAX_RECLAIM_RETRIES"]
    node = sample.region("nodes")
    node["nr_lru"][0], node["kswapd_failures"][0] = 23, retries - 1
    node["pgsteal_kswapd"][0], node["pageoutrun"][0] = 101, 3
    sample.region("zones")["nr_lru"][:] = (3, 20, 0)
    zones = parse_zoneinfo(procfs.zoneinfo(sample))
    assert zones[0, "DMA32"]["nr_inactive_file"] == zones[0, "DMA32"]["nr_file_pages"] == "23"
    assert [zones[0, name]["nr_zone_inactive_file"] for name in ("DMA32", "Normal")] == ["3", "20"]
    assert zones[0, "Normal"]["node_unreclaimable"] == "0"
    node["kswapd_failures"][0] = retries
    assert parse_zoneinfo(procfs.zoneinfo(sample))[0, "Normal"]["node_unreclaimable"] == "1"
    lines = procfs.vmstat(sample).splitlines()
    assert {"nr_inactive_file 23", "pgsteal_kswapd 101", "pgsteal_direct 0", "pageoutrun 3"} <= set(lines)


def test_reclaimable_slabs_are_told_apart() -> None:
    sample = Sample()
    sample.region("caches")["flags"][1] |= sample.c["SLAB_RECLAIM_ACCOUNT"]
    lines = procfs.vmstat(sample).splitlines()
    assert "nr_slab_reclaimable 4" in lines and "nr_slab_unreclaimable 11" in lines


def test_vmstat_has_the_kernels_names_in_its_order() -> None:
    sample = Sample()
    sample.region("pagesets")["pgalloc"][:, 0] = (1, 10, 100)
    sample.region("pagesets")["pgfree"] = 7
    rows = [row.split(" ") for row in procfs.vmstat(sample).splitlines()]
    found = {name: int(number) for name, number in rows}
    assert found["pgalloc_dma32"] == 1 and found["pgalloc_normal"] == 110 and found["pgalloc_dma"] == 0
    assert found["pgfree"] == 42
    try:
        real = [row.split(" ")[0] for row in Path("/proc/vmstat").read_text().splitlines()]
    except OSError as error:
        pytest.skip(f"/proc/vmstat cannot be read here: {error.strerror}")
    shared = [name for name in found if name in real]
    assert len(shared) > 15 and shared == [name for name in real if name in found]


def test_numastat_of_a_node() -> None:
    sample = Sample()
    for number, event in enumerate(("numa_hit", "numa_miss", "numa_foreign", "numa_local", "numa_other")):
        sample.region("pagesets")[event] = number + 1
    text = procfs.numastat(sample, 0)
    expected = {"numa_hit": 4, "numa_miss": 8, "numa_foreign": 12, "interleave_hit": 0}
    expected |= {"local_node": 16, "other_node": 20}  # two zones of two pagesets
    assert text == "".join(f"{name} {number}\n" for name, number in expected.items())
    path = Path("/sys/devices/system/node/node0/numastat")
    if not path.is_file():
        pytest.skip(f"{path} is not there: a kernel without NUMA")
    assert [row.split()[0] for row in path.read_text().splitlines()] == list(expected)


def test_numastat_of_all_nodes() -> None:
    header, *rows = procfs.numastat(Sample()).splitlines()
    assert header.split() == ["node0", "node1"]
    assert {len(row) for row in (header, *rows)} == {48} and len(rows) == 6


def test_numastat_of_no_node() -> None:
    with pytest.raises(ValueError, match=r"node = 2: allowed is 0\.\.1"):
        procfs.numastat(Sample(), 2)
