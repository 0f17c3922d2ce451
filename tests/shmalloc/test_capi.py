# SPDX-License-Identifier: MIT
"""The C face: arenas by name, CPUs, memory, caches, and every error with its words."""

import errno
import os
import re
import struct
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from auditing import clean
from libshmalloc import ANY_CPU, LINUX_6_18, ORACLE, SPARSE, Program, elsewhere, fresh_name

from shmalloc import Arena, Cpu, linking
from shmalloc.errors import BadFree, ShmallocError
from shmalloc.segments import list_segments, remove

KERNELS = {"7.0": 0, "6.18": LINUX_6_18}
SHM = Path("/dev/shm")


@pytest.fixture
def program() -> Iterator[Program]:
    made = Program()
    yield made
    made.close()


@pytest.fixture(params=KERNELS)
def joined(request: pytest.FixtureRequest, program: Program) -> Program:
    """A program that is CPU 0 of an arena of its own, whose oracle sees every wrong free."""
    assert program.create(flags=ORACLE | KERNELS[request.param]) == 0, program.error()
    assert program.lib.shmalloc_join(ANY_CPU) == 0
    return program


def own_segments() -> set[str]:
    return {name for name in os.listdir(SHM) if name.startswith(f"shmalloc-{os.getpid()}-")}


# --- arenas ---------------------------------------------------------------------------------------------


def test_an_arena_is_created_found_and_removed(program: Program) -> None:
    name = fresh_name()
    assert program.create(name) == 0
    assert (program.arena.bytes, program.arena.nr_cpus, program.arena.nr_roots) == (16 << 20, 16, 64)
    assert [program.arena.roots[i] for i in range(64)] == [0] * 64
    other = elsewhere(
        "assert program.attach(sys.argv[1]) == 0; print(program.arena.nr_cpus, program.arena.bytes)", name
    )
    assert other.stdout.split() == ["16", str(16 << 20)], other.stderr
    assert program.lib.shmalloc_unlink(name.encode()) == 0
    assert program.lib.shmalloc_unlink(name.encode()) == -errno.ENOENT
    assert program.detach() == 0
    assert program.attach(name) == -errno.ENOENT
    assert program.error() == f"/dev/shm{name}: there is none of this name"


def test_an_arena_without_a_name_leaves_none_and_is_inherited(program: Program) -> None:
    assert program.create(cpus=2) == 0
    assert own_segments() == set()
    assert program.lib.shmalloc_join(0) == 0
    program.arena.roots[0] = off = program.lib.shm_malloc(64)
    program.write(off, b"of the parent")
    child = os.fork()
    if not child:  # it is no CPU yet, whatever its parent is
        fine = program.lib.shm_malloc(8) == 0 and program.lib.shmalloc_join(1) == 1
        fine = fine and program.read(program.arena.roots[0], 13) == b"of the parent"
        os._exit(0 if fine and program.lib.shm_free(off) == 0 else 1)
    assert os.waitpid(child, 0)[1] == 0


def test_full_takes_its_memory_at_once_and_sparse_when_touched(program: Program) -> None:
    for flags, taken in ((0, True), (SPARSE, False)):
        name = fresh_name()
        assert program.create(name, 64 << 20, flags=flags) == 0
        assert ((SHM / name[1:]).stat().st_blocks * 512 >= 64 << 20) is taken
        assert ((SHM / name[1:]).stat().st_mode & 0o777) == 0o600
        program.detach()


@pytest.mark.parametrize(
    ("how", "error", "text"),
    [
        ({"size": 100}, errno.EINVAL, r"bytes = 100: allowed are \d+ to \d+ with 16 CPUs and \d+ caches"),
        ({"size": 1 << 44}, errno.ENOSPC, r"an arena of 17592186044416 bytes does not fit: .* has \d+ bytes"),
        ({"flags": 8}, errno.EINVAL, r"options.flags = 0x8: allowed are the bits 0x7"),
        ({"cpus": 129}, errno.EINVAL, r"options.cpus = 129: allowed are 1 to 128, and 0 for 16"),
        ({"caches": 1001}, errno.EINVAL, r"options.caches = 1001: allowed are 1 to 1000, and 0 for 32"),
        ({"sheaf_factor": 17}, errno.EINVAL, r"options.sheaf_factor = 17: allowed are 1 to 16, and 0$"),
        ({"name": "/a/b"}, errno.EINVAL, r'name = "/a/b": allowed are 1 to 254 characters, and no slash'),
        ({"name": ".."}, errno.EINVAL, r'name = "..": allowed'),
        ({"name": ""}, errno.EINVAL, r'name = "": allowed'),
        ({"name": "x" * 255}, errno.EINVAL, r"allowed are 1 to 254 characters"),
    ],
)
def test_what_cannot_be_made_is_refused_in_words(program: Program, how: dict, error: int, text: str) -> None:
    assert program.create(**{"name": fresh_name(), **how}) == -error
    assert re.search(text, program.error())
    assert own_segments() == set()
    assert not program.arena.base


def test_a_reserved_field_must_be_zero(program: Program) -> None:
    assert program.create(reserved=(0, 0, 7, 0)) == -errno.EINVAL
    assert program.error() == "options.reserved[2] = 7: allowed is 0"


def test_a_name_that_is_taken_is_left_alone(program: Program) -> None:
    name = fresh_name()
    (SHM / name[1:]).write_text("mine")
    try:
        assert program.create(name) == -errno.EEXIST
        assert program.error() == f"/dev/shm{name}: there is one of this name"
        assert (SHM / name[1:]).read_text() == "mine"
    finally:
        (SHM / name[1:]).unlink()


def test_no_room_leaves_nothing_behind() -> None:
    name = fresh_name()
    done = elsewhere(
        "import resource; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (4 << 20, 4 << 20))\n"
        "print(program.create(sys.argv[1]), program.error())",
        name,
    )
    assert done.stdout.strip() == f"{-errno.ENOSPC} /dev/shm{name}: no room", done.stderr
    assert not (SHM / name[1:]).exists()


def test_one_arena_at_a_time(program: Program) -> None:
    name = fresh_name()
    assert program.create(name) == 0
    for again in (program.create(), program.attach(name)):
        assert again == -errno.EBUSY
        assert program.error() == "this process is attached to an arena; one at a time"


def test_detach_needs_the_arena_that_is_attached(program: Program) -> None:
    assert program.detach() == -errno.ENOTCONN
    assert program.create() == 0
    assert program.detach() == 0
    assert not program.arena.base
    assert program.detach() == -errno.ENOTCONN


# --- segments that are none ---------------------------------------------------------------------------------


def spoilt(offset: int, data: bytes, program: Program, length: int = -1) -> int:
    """Attach to an arena after some bytes of it were written over, and it was cut."""
    name = fresh_name()
    assert program.create(name) == 0
    assert program.detach() == 0
    with (SHM / name[1:]).open("r+b") as file:
        file.seek(offset)
        file.write(data)
        if length >= 0:
            file.truncate(length)
    return program.attach(name)


def test_an_arena_of_another_layout_is_refused(program: Program) -> None:
    assert spoilt(8, struct.pack("<Q", 0x1234), program) == -errno.EPROTO
    assert re.search(r"its layout's hash is 0x1234, this library's is 0x[0-9a-f]+$", program.error())


def test_what_is_no_arena_is_refused(program: Program) -> None:
    assert spoilt(0, b"something", program) == -errno.ENOEXEC
    assert program.error().endswith("16777216 bytes: not an arena")


def test_a_cut_segment_is_refused(program: Program) -> None:
    assert spoilt(0, b"", program, 1 << 20) == -errno.EMSGSIZE
    assert spoilt(0, b"", program, 100) == -errno.ENOEXEC
    assert spoilt(0, b"", program, 0) == -errno.EAGAIN


def test_a_hostile_header_is_refused(program: Program) -> None:
    regions = 0x500
    assert spoilt(regions, b"\xff" * 256, program) == -errno.EBADMSG


def test_a_folder_a_link_and_a_pipe_are_refused(program: Program) -> None:
    name = fresh_name()
    path = SHM / name[1:]
    for make, drop in ((path.mkdir, path.rmdir), (lambda: os.mkfifo(path), path.unlink)):
        make()
        try:
            assert program.attach(name) == -errno.ENOEXEC
        finally:
            drop()
    path.symlink_to("/dev/zero")
    try:
        assert program.attach(name) == -errno.ENOEXEC
    finally:
        path.unlink()


# --- CPUs -----------------------------------------------------------------------------------------------


def test_a_process_joins_leaves_and_joins_again(program: Program) -> None:
    assert program.lib.shmalloc_join(ANY_CPU) == -errno.ENOTCONN
    assert program.create(cpus=3) == 0
    assert program.lib.shmalloc_leave() == -errno.ENOTCONN
    assert program.lib.shmalloc_join(3) == -errno.EINVAL
    assert program.error() == "cpu = 3: allowed are 0 to 2, and SHMALLOC_ANY_CPU"
    assert program.lib.shmalloc_join(2) == 2
    assert program.lib.shmalloc_join(1) == -errno.EALREADY
    assert program.error() == "this process is CPU 2 already"
    assert program.lib.shmalloc_leave() == 0
    assert program.lib.shmalloc_join(ANY_CPU) == 0


def test_a_cpu_has_one_process_and_an_arena_so_many_cpus(program: Program) -> None:
    name = fresh_name()
    assert program.create(name, cpus=2) == 0
    assert program.lib.shmalloc_join(0) == 0
    join = "program.attach(sys.argv[1]); print(lib.shmalloc_join({}), program.error()); "
    busy = elsewhere(join.format(0), name).stdout
    assert busy.strip() == f"{-errno.EBUSY} CPU 0 is process {os.getpid()}"
    assert elsewhere(join.format(ANY_CPU), name).stdout.startswith("1 ")
    both = elsewhere(
        f"{join.format(ANY_CPU)}"
        "child = os.fork()\n"
        "if not child: print(lib.shmalloc_join(-1), program.error(), flush=True); os._exit(0)\n"
        "os.waitpid(child, 0)",
        name,
    )
    assert f"{-errno.EBUSY} all 2 CPUs of the arena are taken" in both.stdout, both.stderr


def test_the_cpu_of_a_dead_process_is_taken_over(program: Program) -> None:
    name = fresh_name()
    assert program.create(name, cpus=1) == 0
    died = elsewhere(
        "program.attach(sys.argv[1]); assert lib.shmalloc_join(0) == 0\n"
        "program.arena.roots[0] = lib.shm_malloc(100)\n"
        "program.write(program.arena.roots[0], b'left'); os.kill(os.getpid(), 9)",
        name,
    )
    assert died.returncode == -9
    assert program.lib.shmalloc_join(ANY_CPU) == 0
    assert program.read(program.arena.roots[0], 4) == b"left"
    assert program.lib.shm_free(program.arena.roots[0]) == 0


def test_a_process_that_exits_leaves(program: Program) -> None:
    name = fresh_name()
    assert program.create(name, cpus=1) == 0
    assert elsewhere("program.attach(sys.argv[1]); assert lib.shmalloc_join(0) == 0", name).returncode == 0
    (info,) = [info for info in list_segments() if info.name == name]
    assert info.cpus == ()


def test_another_thread_is_refused(joined: Program) -> None:
    off = joined.lib.shm_malloc(100)
    found = []

    def elsewhere_in_this_process() -> None:
        found.append(joined.lib.shm_malloc(100))
        found.append(joined.reason())
        found.append(joined.lib.shm_free(off))
        found.append(joined.lib.shmalloc_leave())
        found.append(joined.error())

    thread = threading.Thread(target=elsewhere_in_this_process)
    thread.start()
    thread.join()
    assert found == [
        *(0, "this thread is no CPU", -errno.EPERM, -errno.EPERM),
        "this process is CPU 0, but by another thread",
    ]
    assert joined.lib.shm_free(off) == 0


# --- memory ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 8, 100, 4096, 8192, 8193, 100_000, 4 << 20])
def test_objects_are_as_large_as_asked_and_zero_if_asked(joined: Program, size: int) -> None:
    lib = joined.lib
    off = lib.shm_malloc(size)
    assert off % 8 == 0
    assert lib.shm_ksize(off) >= size
    joined.write(off, b"\xff" * size)
    assert lib.shm_free(off) == 0
    zeroed = lib.shm_zalloc(size)
    assert joined.read(zeroed, size) == bytes(size)
    assert lib.shm_free(zeroed) == 0


def test_a_wrong_free_is_refused(joined: Program) -> None:
    lib = joined.lib
    off = lib.shm_malloc(100)
    for wrong in (off + 8, 24, 1 << 40, joined.arena.bytes - 8):
        assert lib.shm_free(wrong) == -errno.EINVAL
    assert lib.shm_free(0) == 0
    assert lib.shm_free(off) == 0
    assert lib.shm_free(off) == -errno.EINVAL
    assert lib.shm_free_nolock(off) == -errno.EINVAL
    assert lib.shmalloc_verdict(joined.arena) is None


def test_realloc_keeps_what_there_was(joined: Program) -> None:
    lib = joined.lib
    off = lib.shm_realloc(0, 10)
    joined.write(off, b"0123456789")
    grown = lib.shm_realloc(off, 5000)
    assert grown != off
    assert joined.read(grown, 10) == b"0123456789"
    assert lib.shm_realloc(grown, 20) == grown
    assert lib.shm_realloc(grown, 8 << 20) == 0
    assert joined.reason() == "size_limit"
    assert joined.read(grown, 10) == b"0123456789"
    large = lib.shm_realloc(grown, 50_000)
    assert joined.read(large, 10) == b"0123456789"
    nothing = lib.shm_realloc(large, 0)
    assert nothing
    assert lib.shm_free(nothing) == 0
    assert lib.shm_free(large) == -errno.EINVAL
    assert lib.shm_realloc(large, 10) == 0


def test_what_never_waits(joined: Program) -> None:
    lib = joined.lib
    off = lib.shm_malloc_nolock(100)
    assert lib.shm_free(off) == 0
    assert lib.shm_free_nolock(lib.shm_malloc(100)) == 0
    assert lib.shm_malloc_nolock(8193) == 0
    assert joined.reason() == "size_limit"
    large = lib.shm_malloc(100_000)
    assert lib.shm_free_nolock(large) == 0


def test_a_handler_may_free_what_is_large(joined: Program) -> None:
    lib = joined.lib
    large, small = lib.shm_malloc(100_000), lib.shm_malloc(100)
    previous = lib.shm_handler_enter()
    assert lib.shm_malloc(100_000) == 0
    inside = lib.shm_malloc(64)
    assert inside
    assert [lib.shm_free(off) for off in (large, small, inside)] == [0, 0, 0]
    assert lib.shmalloc_cache(b"mine", 64, 0) == -errno.EDEADLK
    assert lib.shm_handler_leave(previous) == 0
    assert lib.shm_handler_leave(previous) == -errno.EINVAL


def test_handlers_nest_as_deep_as_there_are_levels(joined: Program) -> None:
    lib = joined.lib
    previous = [lib.shm_handler_enter() for _ in range(7)]
    assert previous == [0, *[1] * 6]
    assert lib.shm_handler_enter() == -errno.EBUSY
    assert [lib.shm_handler_leave(each) for each in reversed(previous)] == [0] * 7


def test_pages(joined: Program) -> None:
    lib = joined.lib
    off = lib.shm_pages(3)
    assert off % 4096 == 0
    assert lib.shm_pages_free(off, 2) == -errno.EINVAL
    assert lib.shm_pages_free(off, 3) == 0
    assert lib.shm_pages(11) == 0
    assert joined.reason() == "order_limit"


def test_memory_ends_with_a_reason_and_comes_back(joined: Program) -> None:
    lib = joined.lib
    taken = []
    while off := lib.shm_malloc(8192):
        taken.append(off)
    assert len(taken) > 1000
    assert joined.reason() == "below_watermark"
    assert all(lib.shm_free(off) == 0 for off in taken)
    assert lib.shm_free(lib.shm_malloc(8192)) == 0


# --- caches ---------------------------------------------------------------------------------------------


def test_a_cache_is_found_by_its_name_in_every_process(program: Program) -> None:
    name = fresh_name()
    assert program.create(name, flags=ORACLE) == 0
    assert program.lib.shmalloc_cache(b"points", 24, 8) == -errno.ENOTCONN
    assert program.lib.shmalloc_join(0) == 0
    cache = program.lib.shmalloc_cache(b"points", 24, 8)
    assert cache > 0
    assert program.lib.shmalloc_cache(b"points", 24, 8) == cache
    other = elsewhere(
        "program.attach(sys.argv[1]); lib.shmalloc_join(-1); print(lib.shmalloc_cache(b'points', 24, 0))\n"
        "print(lib.shmalloc_cache(b'points', 32, 0), program.error())",
        name,
    )
    lines = other.stdout.splitlines()
    assert lines[0] == str(cache), other.stderr
    assert lines[1] == f'{-errno.EINVAL} cache "points": its objects have 24 bytes, aligned to 8'


def test_objects_of_a_cache(joined: Program) -> None:
    lib = joined.lib
    cache, other = lib.shmalloc_cache(b"points", 24, 0), lib.shmalloc_cache(b"lines", 48, 64)
    first, second = lib.shm_cache_alloc(cache), lib.shm_cache_alloc_nolock(other)
    assert lib.shm_ksize(first) == 24
    assert second % 64 == 0
    assert lib.shm_cache_free(other, first) == -errno.EINVAL
    assert lib.shm_cache_free_nolock(cache, first) == 0
    assert lib.shm_cache_free(cache, first) == -errno.EINVAL
    assert lib.shm_free(second) == 0
    assert lib.shm_cache_alloc(9999) == 0
    assert lib.shmalloc_reason() == b"none"
    large = lib.shm_malloc(100_000)
    for none in (0xFFFFFFFF, 9999):
        assert lib.shm_cache_free(none, large) == lib.shm_cache_free_nolock(none, large) == -errno.EINVAL
    assert lib.shm_free(large) == 0
    assert lib.shmalloc_cache_destroy(cache) == 0
    assert lib.shmalloc_cache_destroy(cache) == -errno.EINVAL
    assert lib.shmalloc_cache_destroy(-1) == -errno.EINVAL
    assert lib.shm_cache_alloc(cache) == 0


@pytest.mark.parametrize("name", [b"", b"x" * 40])
def test_a_bad_cache_name_is_refused(joined: Program, name: bytes) -> None:
    assert joined.lib.shmalloc_cache(name, 64, 0) == -errno.EINVAL
    assert "allowed are 1 to 39 characters" in joined.error()


def test_the_table_of_caches_ends(program: Program) -> None:
    assert program.create(caches=2) == 0
    assert program.lib.shmalloc_join(0) == 0
    assert [program.lib.shmalloc_cache(name, 64, 0) > 0 for name in (b"a", b"b")] == [True, True]
    assert program.lib.shmalloc_cache(b"c", 64, 0) == -errno.ENOSPC
    assert program.error() == 'cache "c" of 64 bytes, aligned to 0: no room'


# --- together with Python -------------------------------------------------------------------------------


IN_PYTHON = """
from shmalloc import Arena, Cpu
from shmalloc.audit import audit
with Arena.attach(sys.argv[1]) as arena, Cpu(arena, 1) as cpu:
    off = int(arena.region("slots")[0])
    assert bytes(cpu.view(off)[:9]) == b"made in C"
    cpu.kfree(off)
    back = cpu.kmalloc(128)
    cpu.view(back)[:6] = b"python"
    assert audit(arena).ok
    print(back)
"""


@pytest.mark.parametrize("kernel", KERNELS)
def test_python_works_on_an_arena_made_in_c(program: Program, kernel: str) -> None:
    name = fresh_name()
    assert program.create(name, flags=ORACLE | KERNELS[kernel]) == 0
    assert program.lib.shmalloc_join(0) == 0
    program.arena.roots[0] = off = program.lib.shm_malloc(64)
    program.write(off, b"made in C")
    (info,) = [info for info in list_segments() if info.name == name]
    assert ([owner.number for owner in info.cpus], info.creator_pid) == ([0], os.getpid())
    with pytest.raises(ShmallocError, match="in use by process"):
        remove(name)
    done = elsewhere(IN_PYTHON, name)
    assert done.returncode == 0, done.stderr
    assert program.lib.shm_free(off) == -errno.EINVAL
    assert program.read(int(done.stdout), 6) == b"python"
    assert program.lib.shm_free(int(done.stdout)) == 0


IN_C = """
assert program.attach(sys.argv[1]) == 0, program.error()
assert (program.arena.nr_roots, bool(program.arena.roots)) == (0, False)
assert lib.shmalloc_join(0) < 0
assert lib.shmalloc_join(-1) == 1
assert program.read(int(sys.argv[2]), 6) == b"python"
assert lib.shm_free(int(sys.argv[2])) == 0
assert program.detach() == 0
"""


@pytest.mark.parametrize("kernel", KERNELS)
def test_c_works_on_an_arena_made_in_python(kernel: str) -> None:
    with Arena.create(size="16MiB", kernel=kernel, name=fresh_name()) as arena, Cpu(arena, 0) as cpu:
        off = cpu.kmalloc(100)
        cpu.view(off)[:6] = b"python"
        done = elsewhere(IN_C, arena.name, off)
        assert done.returncode == 0, done.stderr
        with pytest.raises(BadFree):
            cpu.kfree(off)
        assert clean(arena)


def test_an_arena_that_a_dead_process_left_is_listed_and_removed() -> None:
    name = fresh_name()
    done = elsewhere(
        "assert program.create(sys.argv[1]) == 0; lib.shmalloc_join(3); os.kill(os.getpid(), 9)", name
    )
    assert done.returncode == -9
    (info,) = [info for info in list_segments() if info.name == name]
    assert (info.state, info.users, [(cpu.number, cpu.alive) for cpu in info.cpus]) == (
        "ready",
        (),
        [(3, False)],
    )
    remove(name)
    assert not (SHM / name[1:]).exists()


# --- words ----------------------------------------------------------------------------------------------


def test_every_error_of_the_header_has_words_of_its_own(program: Program) -> None:
    header = (linking.includedir() / "shmalloc.h").read_text()
    named = {getattr(errno, name) for name in re.findall(r"-(E[A-Z]+)\b", header)}
    assert errno.EPROTO in named
    texts = {error: program.lib.shmalloc_strerror(-error).decode() for error in named}
    assert len(set(texts.values())) == len(texts)
    assert [error for error, text in texts.items() if text == os.strerror(error)] == []
    assert program.lib.shmalloc_strerror(-errno.EMFILE).decode() == os.strerror(errno.EMFILE)
    assert program.lib.shmalloc_strerror(0).decode() == "no error"


def test_the_version_is_the_packages(program: Program) -> None:
    assert program.lib.shmalloc_version().decode() == linking.version()
