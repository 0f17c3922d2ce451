# SPDX-License-Identifier: MIT
"""The limits that an arena has to fit, read from made-up /proc and /sys trees."""

from pathlib import Path

import pytest

from shmalloc.room import Limit, limits, shortages

MIB = 1 << 20


def write(root: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def found(root: Path) -> dict[str, int]:
    return {limit.source.replace(str(root), ""): limit.free_bytes for limit in limits(root, root)}


def test_available_memory(tmp_path: Path) -> None:
    write(tmp_path, {"proc/meminfo": "MemTotal:  999 kB\nMemAvailable:  2048 kB\nSwapFree: 77 kB\n"})
    assert found(tmp_path)["MemAvailable"] == 2 * MIB


def test_the_file_system_counts_always(tmp_path: Path) -> None:
    assert list(found(tmp_path)) == [""]  # of tmp_path itself; nothing else can be read there


def test_cgroup_version_2_counts_every_level(tmp_path: Path) -> None:
    write(
        tmp_path,
        {
            "proc/self/cgroup": "0::/outer/inner\n",
            "proc/self/mountinfo": "31 23 0:28 / /sys/fs/cgroup rw,relatime shared:4 - cgroup2 cgroup2 rw\n",
            "sys/fs/cgroup/outer/memory.max": f"{100 * MIB}\n",
            "sys/fs/cgroup/outer/memory.current": f"{30 * MIB}\n",
            "sys/fs/cgroup/outer/memory.stat": f"anon 5\ninactive_file {7 * MIB}\n",
            "sys/fs/cgroup/outer/inner/memory.max": "max\n",
            "sys/fs/cgroup/outer/inner/memory.current": "1\n",
        },
    )
    assert found(tmp_path)["cgroup limit /sys/fs/cgroup/outer/memory.max"] == 77 * MIB
    assert not [source for source in found(tmp_path) if "inner" in source]


def test_cgroup_version_1(tmp_path: Path) -> None:
    write(
        tmp_path,
        {
            "proc/self/cgroup": "5:cpu,cpuacct:/a\n4:memory:/job/1\n0::/\n",
            "proc/self/mountinfo": "35 31 0:32 /job /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n",
            "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n",
            "sys/fs/cgroup/memory/memory.usage_in_bytes": "1\n",
            "sys/fs/cgroup/memory/1/memory.limit_in_bytes": f"{50 * MIB}\n",
            "sys/fs/cgroup/memory/1/memory.usage_in_bytes": f"{60 * MIB}\n",
        },
    )
    name = "cgroup limit /sys/fs/cgroup/memory/1/memory.limit_in_bytes"
    assert found(tmp_path)[name] == 0
    assert [source for source in found(tmp_path) if "cgroup" in source] == [name]


def test_no_shared_memory_is_no_room(tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    assert limits(gone, tmp_path) == [Limit(str(gone), 0)]


def test_this_machine_has_memory() -> None:
    sources = {limit.source: limit.free_bytes for limit in limits()}
    assert sources["/dev/shm"] > 0
    assert sources["MemAvailable"] > 0


@pytest.mark.parametrize(("size", "short"), [(10, []), (11, ["a"]), (21, ["a", "b"])])
def test_shortages(size: int, short: list[str]) -> None:
    assert [limit.source for limit in shortages(size, [Limit("a", 10), Limit("b", 20)])] == short
