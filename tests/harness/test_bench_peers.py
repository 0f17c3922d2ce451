# SPDX-License-Identifier: MIT
"""Peers: found where they are, named where they are not, and none is taken for another.

No peer has to be installed: the libraries here are made on the spot.
"""

import importlib.util
import shutil
import subprocess
from pathlib import Path

import pytest

from harness.bench import python_rows, storm
from harness.bench.built import built
from harness.bench.peers import building, find, headers, preloads
from harness.bench.subjects import Subject
from harness.problems import ConfigError

pytestmark = pytest.mark.skipif(
    not shutil.which("gcc"), reason="peers are made with gcc here, and there is none"
)

MALLOC = "void *malloc(unsigned long b) { (void)b; return 0; }\nvoid free(void *p) { (void)p; }\n"


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Keep what is built out of the user's cache."""
    building._folder.cache_clear()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    yield tmp_path / "cache"
    building._folder.cache_clear()


@pytest.fixture
def library(tmp_path: Path):
    def made(name: str, text: str = MALLOC) -> Path:
        source = tmp_path / "library.c"
        source.write_text(text)
        path = tmp_path / "lib" / name
        path.parent.mkdir(exist_ok=True)
        words = ["gcc", "-shared", "-fPIC", "-fno-builtin", "-w", str(source), "-o", str(path)]
        subprocess.run(words, check=True)
        return path

    return made


@pytest.fixture
def nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Let there be no libraries but those of one folder."""
    folder = tmp_path / "lib"
    folder.mkdir()
    monkeypatch.setattr(preloads, "_folders", lambda: [folder])
    return folder


def _names(found: list[Subject]) -> list[str]:
    return [subject.name for subject in found]


def test_with_no_library_every_peer_but_glibc_is_missing_and_named(nowhere: Path) -> None:
    subjects, missing = preloads.find()

    assert _names(subjects) == ["glibc"]
    assert [each.peer for each in missing] == [
        *("mimalloc", "jemalloc", "gperftools", "tcmalloc", "snmalloc", "rpmalloc", "cxlalloc"),
    ]
    assert all(each.package and each.why.startswith("no lib") for each in missing)


def test_the_newest_is_taken(nowhere: Path, library) -> None:
    library("libmimalloc.so.2.9")
    newest = library("libmimalloc.so.2.10")
    library("libmimalloc-debug.so.3")
    (nowhere / "libmimalloc.so").symlink_to("libmimalloc.so.2.9")
    (nowhere / "libmimalloc.so.4").write_text("no library")

    [subject] = [each for each in preloads.find()[0] if each.name == "mimalloc"]

    assert subject.environment == {"LD_PRELOAD": str(newest)}
    assert subject.options == f"library={newest}"
    assert subject.summary == "mimalloc, libmimalloc.so.2.10"


def test_two_tcmallocs_of_one_file_name_are_told_apart(nowhere: Path, library) -> None:
    library("libtcmalloc.so")
    assert _names(preloads.find()[0]) == ["glibc", "tcmalloc"]

    library("libtcmalloc.so", MALLOC + "void tc_malloc(void) {}")
    assert _names(preloads.find()[0]) == ["glibc", "gperftools"]


def test_a_library_that_only_uses_malloc_is_none(nowhere: Path, library) -> None:
    path = library("libjemalloc.so.2", "void *malloc(unsigned long); void *f(void) { return malloc(1); }")

    subjects, missing = preloads.find()

    assert _names(subjects) == ["glibc"]
    [jemalloc] = [each for each in missing if each.peer == "jemalloc"]
    assert jemalloc.why == f"{path} does not export malloc and free"


def test_the_users_library_stands_for_the_peer_of_its_name(library, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(headers, "find", lambda: ([], []))
    path = library("mine.so")

    found = find(preloads.parse([f"jemalloc={path}", f"other={path}"]))

    mine = [subject for subject in found.subjects if subject.options == f"library={path}"]
    assert _names(mine) == ["jemalloc", "other"]
    assert _names(list(found.subjects)).count("jemalloc") == 1
    assert "jemalloc" not in [each.peer for each in found.missing]


def test_pyarrow_is_there_or_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(headers, "find", lambda: ([], []))
    there = importlib.util.find_spec("pyarrow") is not None
    names = {subject.name for subject in python_rows.subjects()}
    assert ({"python_pyarrow", "python_pyarrow_sent"} <= names) is there

    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    missing = {each.peer: each for each in find().missing}
    assert missing["python_pyarrow"].package == "PyPI: pyarrow"
    assert missing["python_pyarrow_sent"].why.startswith("no module pyarrow for ")
    assert not [subject for subject in python_rows.subjects() if "pyarrow" in subject.name]


def test_every_mistake_in_preload_is_named(tmp_path: Path, library) -> None:
    text, half = tmp_path / "text.so", library("half.so", "void free(void *p) { (void)p; }")
    text.write_text("no library at all, but long enough for a header of one, which it does not have either")
    words = ["x", "Big=/x", "glibc=/x", f"gone={tmp_path}/gone", f"text={text}", f"half={half}"]

    with pytest.raises(ConfigError) as caught:
        preloads.parse([*words, f"one={library('one.so')}", f"one={half}"])

    assert [(problem.value, problem.allowed) for problem in caught.value.problems] == [
        ("x", "allowed is NAME=PATH, the name of a-z, 0-9 and _, the path that of a shared library"),
        ("Big=/x", "allowed is NAME=PATH, the name of a-z, 0-9 and _, the path that of a shared library"),
        ("glibc=/x", "glibc is what there is without it; take another name"),
        (words[3], "cannot be read: No such file or directory"),
        (words[4], "is no shared library of x86-64: Magic number does not match"),
        (words[5], "does not export malloc"),
        (f"one={half}", f"there is a one already: {tmp_path}/lib/one.so"),
    ]


def test_a_malloc_that_was_not_preloaded_is_not_taken_for_it(tmp_path: Path) -> None:
    """The dynamic linker only warns; glibc would be measured under another's name."""
    absent = Subject(
        "absent", "peer", built("malloc.so"), "malloc",
        options=f"library={tmp_path}/absent.so", environment={"LD_PRELOAD": f"{tmp_path}/absent.so"},
    )  # fmt: skip

    result = storm.storm_once(absent, "step", calls=10)

    assert result.outcome is None
    assert "the malloc of this process is that of" in result.detail
    assert "libc.so.6" in result.detail


SOURCE = '#include "subject.h"\nint shmalloc_bench_subjects = SUBJECT_ABI;\n'


def test_what_is_built_is_built_once(tmp_path: Path, cache: Path) -> None:
    source = tmp_path / "plugin.c"
    source.write_text(SOURCE)

    first = building.build(source)
    before = first.stat().st_mtime_ns

    assert first.parent == cache / "shmalloc" / "peers"
    assert building.build(source) == first
    assert first.stat().st_mtime_ns == before
    assert building.build(source, ["-DX"]) != first
    source.write_text(SOURCE + "int more;\n")
    assert building.build(source) != first
    assert len(list(first.parent.iterdir())) == 3  # nothing half made


def test_another_version_of_a_header_is_built_anew(tmp_path: Path) -> None:
    source, header = tmp_path / "plugin.c", tmp_path / "peer.h"
    source.write_text(SOURCE)
    header.write_text("#define PEER 1\n")
    version = "#include <peer.h>\nPEER"
    first = building.build(source, [f"-I{tmp_path}"], version=version)
    assert building.build(source, [f"-I{tmp_path}"], version=version) == first

    header.write_text("#define PEER 2\n")
    assert building.build(source, [f"-I{tmp_path}"], version=version) != first
    with pytest.raises(building.NoHeader, match=r"peer\.h"):
        building.build(source, version=version)


def test_what_a_killed_process_has_half_made_goes(tmp_path: Path) -> None:
    ended = subprocess.Popen(["true"])
    ended.wait()
    left = building._folder() / f"x.so.{ended.pid}"
    being_made = building._folder() / "y.so.1"
    source = tmp_path / "plugin.c"
    source.write_text(SOURCE)
    left.touch()
    being_made.touch()

    building.build(source)

    assert not left.exists()
    assert being_made.exists()


@pytest.mark.parametrize(
    ("text", "error", "why"),
    [
        ("#include <no/such.h>\nint x = y;\n", building.NoHeader, "no/such.h"),
        ("int x = y;\nint z = w;\n", building.CannotBuild, "plugin.c:1:9: error: 'y' undeclared here"),
    ],
)
def test_the_compilers_first_error_is_the_reason(tmp_path: Path, text: str, error: type, why: str) -> None:
    source = tmp_path / "plugin.c"
    source.write_text(text)

    with pytest.raises(error) as caught:
        building.build(source)

    assert why in str(caught.value)
    assert list(building._folder().iterdir()) == []


def test_a_library_to_link_with_that_is_not_there_is_named(tmp_path: Path) -> None:
    source = tmp_path / "plugin.c"
    source.write_text(SOURCE)

    with pytest.raises(building.CannotBuild, match="cannot find -lno_such"):
        building.build(source, libraries=["-lno_such"])


def test_a_folder_that_others_may_write_to_holds_no_plugins(cache: Path) -> None:
    folder = cache / "shmalloc" / "peers"
    folder.mkdir(parents=True)
    folder.chmod(0o777)

    assert building._folder() != folder
    assert not list(folder.iterdir())


def test_peers_without_compiler_or_header_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "bin").mkdir()
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    subjects, missing = headers.find()
    assert (subjects, [(each.peer, each.why) for each in missing]) == (
        [],
        [("boost", "no g++ or c++"), ("dpdk", "no gcc or cc")],
    )
    assert [each.package for each in missing] == [
        "Debian: g++; Debian: libboost-dev",
        "Debian: gcc; Debian: libdpdk-dev",
    ]

    def no_header(source: Path) -> Path:
        raise building.NoHeader("some/header.h")

    def no_build(source: Path) -> Path:
        raise building.CannotBuild("x.c:1: error: what")

    boost, dpdk = headers._PEERS
    monkeypatch.setattr(headers, "_PEERS", (_with(boost, no_header), _with(dpdk, no_build)))
    assert [each.why for each in headers.find()[1]] == [
        "no header some/header.h",
        "does not build: x.c:1: error: what",
    ]


def _with(peer, build):
    from dataclasses import replace

    return replace(peer, build=build)
