# SPDX-License-Identifier: MIT
"""The header, and programs that are compiled with it by the documented command line."""

import os
import re
import shutil
import subprocess
import sys
import tarfile
from importlib import metadata
from pathlib import Path

import pytest
from libshmalloc import exported, fresh_name

from shmalloc import linking

CC, CXX = shutil.which("cc") or shutil.which("gcc"), shutil.which("c++") or shutil.which("g++")
needs_c = pytest.mark.skipif(CC is None, reason="no C compiler: apt-get install gcc libc6-dev")
needs_cxx = pytest.mark.skipif(CXX is None, reason="no C++ compiler: apt-get install g++")
#: The command that belongs to this interpreter comes first.
ENVIRONMENT = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
STRICT = ("-Wall", "-Wextra", "-Wconversion", "-Wshadow", "-Werror", "-pedantic")
HEADER = (linking.includedir() / "shmalloc.h").read_text()
EXAMPLES = linking.examplesdir()


def build(folder: Path, source: Path, *options: str, compiler: str | None = CC) -> Path:
    """Compile one program as the README says, in a folder of its own."""
    line = f"{compiler} {' '.join(options)} -o {source.stem} {source} $(shmalloc config --cflags --libs)"
    done = subprocess.run(
        ["sh", "-c", line],
        cwd=folder,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, ""), line
    return folder / source.stem


def hand_over(folder: Path, messages: int) -> tuple[str, str]:
    """Run the two examples beside each other."""
    name = fresh_name()
    consumer = subprocess.Popen([folder / "consumer", name], stdout=subprocess.PIPE, text=True)
    made = subprocess.run(
        [folder / "producer", name, str(messages)], capture_output=True, text=True, timeout=60, check=True
    )
    read, _ = consumer.communicate(timeout=60)
    assert consumer.returncode == 0
    assert not (Path("/dev/shm") / name[1:]).exists()
    return made.stdout, read


@needs_c
@pytest.mark.parametrize("standard", ["-std=c99", "-std=gnu17"])
def test_two_c_programs_pass_objects(tmp_path: Path, standard: str) -> None:
    for name in ("producer", "consumer"):
        build(tmp_path, EXAMPLES / f"{name}.c", standard, *STRICT)
    assert hand_over(tmp_path, 5000) == (
        "made 5000 messages\n",
        f"read 5000 messages of {sum(n * 37 % 900 for n in range(5000))} bytes\n",
    )


@needs_cxx
def test_the_same_programs_as_cxx(tmp_path: Path) -> None:
    for name in ("producer", "consumer"):
        build(tmp_path, EXAMPLES / f"{name}.c", "-x", "c++", "-Wall", "-Werror", compiler=CXX)
    assert hand_over(tmp_path, 100)[0] == "made 100 messages\n"


ALL = """\
#include <shmalloc.h>
#include <shmalloc.h>
int main(void)
{
	struct shmalloc_arena arena;
	void *p;

	if (shmalloc_create(&arena, NULL, 16u << 20, NULL) || shmalloc_join(SHMALLOC_ANY_CPU) < 0)
		return 1;
	p = shmalloc_realloc(&arena, shmalloc_calloc(&arena, 3, 5), 5000);
	if (!p || shmalloc_usable_size(&arena, p) < 5000 || shmalloc_ptr(&arena, shmalloc_off(&arena, p)) != p)
		return 2;
	if (shmalloc_free(&arena, p) || shmalloc_free(&arena, NULL))
		return 3;
	if (shmalloc_ptr(&arena, 0) || shmalloc_off(&arena, NULL))
		return 3;
	if (shmalloc_calloc(&arena, (size_t)-1 / 2, 3) || shmalloc_malloc(&arena, 64u << 20))
		return 4;
	if (!shmalloc_malloc(&arena, 0))
		return 4;
	if (shmalloc_free_nolock(&arena, shmalloc_malloc_nolock(&arena, 100)) || shmalloc_verdict(&arena))
		return 5;
	return shmalloc_detach(&arena) ? 6 : 0;
}
"""


@needs_c
@pytest.mark.parametrize("standard", ["-std=c99", "-std=c11", "-std=gnu17"])
def test_the_header_is_clean_c(tmp_path: Path, standard: str) -> None:
    (tmp_path / "all.c").write_text(ALL)
    assert (
        subprocess.run([build(tmp_path, tmp_path / "all.c", standard, *STRICT)], check=False).returncode == 0
    )


@needs_cxx
@pytest.mark.parametrize("standard", ["-std=c++11", "-std=c++20"])
def test_the_header_is_clean_cxx(tmp_path: Path, standard: str) -> None:
    (tmp_path / "all.cc").write_text(ALL)
    program = build(tmp_path, tmp_path / "all.cc", standard, *STRICT, compiler=CXX)
    assert subprocess.run([program], check=False).returncode == 0


@needs_c
def test_an_object_that_is_wrong_in_the_example_would_be_seen(tmp_path: Path) -> None:
    for name in ("messages.h", "producer.c", "consumer.c"):
        text = (EXAMPLES / name).read_text()
        (tmp_path / name).write_text(text.replace("'a' + (int)(number", "'b' + (int)(number"))
    for name in ("producer", "consumer"):
        build(tmp_path, tmp_path / f"{name}.c")
    name = fresh_name()
    subprocess.run([tmp_path / "producer", name, "3"], check=True, capture_output=True, timeout=60)
    read = subprocess.run(
        [tmp_path / "consumer", name], check=False, capture_output=True, text=True, timeout=60
    )
    assert (read.returncode, read.stderr) == (1, "message 1 is not as it was made\n")


#: A timer's handler allocates, writes, checks and frees, whatever it has interrupted, thousands of times.
STORM = """\
#include <shmalloc.h>
#include <signal.h>
#include <string.h>
#include <sys/time.h>
static struct shmalloc_arena arena;
static void *kept[16];
static volatile sig_atomic_t handled, wrong, refused;
static void on_alarm(int sig)
{
	void **slot = &kept[handled % 16];

	(void)sig;
	if (*slot && (*(char *)*slot != 'k' || shmalloc_free(&arena, *slot)))
		wrong++;
	*slot = handled % 3 ? shmalloc_malloc(&arena, 2000) : shmalloc_malloc_nolock(&arena, 100);
	if (*slot)
		memset(*slot, 'k', 100);
	else
		refused++;
	handled++;
}
int main(void)
{
	struct itimerval often = { { 0, 50 }, { 0, 50 } };
	struct shmalloc_options options = { 0 };
	static char *objects[200];
	unsigned long i;

	options.flags = SHMALLOC_ORACLE;
	if (shmalloc_create(&arena, NULL, 16u << 20, &options) || shmalloc_join(0))
		return 1;
	signal(SIGALRM, on_alarm);
	setitimer(ITIMER_REAL, &often, NULL);
	for (i = 0; handled < 3000; i = (i + 1) % 200) {
		if (objects[i] && (objects[i][0] != 'o' || objects[i][99] != 'o' || shmalloc_free(&arena, objects[i])))
			return 2;
		objects[i] = (char *)shmalloc_malloc(&arena, i % 2 ? 2000 : 100);
		if (!objects[i])
			return 3;
		memset(objects[i], 'o', 100);
	}
	signal(SIGALRM, SIG_IGN);
	return wrong || refused > handled / 10 || shmalloc_verdict(&arena) ? 4 : 0;
}
"""


@needs_c
def test_a_signal_handler_allocates_without_saying_so(tmp_path: Path) -> None:
    (tmp_path / "storm.c").write_text(STORM)
    program = build(tmp_path, tmp_path / "storm.c", "-std=gnu99", "-Wall", "-Wextra", "-Werror")
    assert subprocess.run([program], check=False, timeout=120).returncode == 0


# --- what is declared is there, and documented --------------------------------------------------------------


def declared() -> set[str]:
    """Functions of the header that the library has to have."""
    code = re.sub(r"/\*.*?\*/", " ", HEADER, flags=re.DOTALL)
    code = re.sub(r"static inline[^{;]*\{.*?\n\}", " ", code, flags=re.DOTALL)
    return set(re.findall(r"\b(shm(?:alloc)?_\w+)\(", code))


def test_declared_functions_are_exported_and_the_other_way_round() -> None:
    assert "shm_malloc" in declared()
    assert "shmalloc_create" in declared()
    assert declared() <= exported()
    assert {name for name in exported() if name.startswith("shmalloc_")} <= declared()


def test_every_function_of_the_header_has_a_comment_or_follows_one() -> None:
    undocumented = []
    for paragraph in HEADER.split("\n\n"):
        if "static inline" in paragraph or "#define SHMALLOC_H" in paragraph:
            continue
        code = re.sub(r"/\*.*?\*/", " ", paragraph, flags=re.DOTALL)
        if re.search(r"\bshm\w*\(", code) and "/*" not in paragraph:
            undocumented.append(paragraph)
    assert undocumented == []


@needs_c
def test_the_header_stands_alone(tmp_path: Path) -> None:
    """It includes nothing of this project: a copy of the one file will do."""
    assert set(re.findall(r"#include <(\S+)>", HEADER)) == {"stddef.h", "stdint.h"}
    assert '#include "' not in HEADER


# --- the command ----------------------------------------------------------------------------------------------


def config(*options: str) -> subprocess.CompletedProcess[str]:
    line = ["sh", "-c", 'shmalloc config "$@"', "sh", *options]
    return subprocess.run(line, env=ENVIRONMENT, capture_output=True, text=True, timeout=60, check=False)


def test_config_says_where_things_are() -> None:
    include, lib = linking.includedir(), linking.libdir()
    flags = f"-I{include} -L{lib} -lshmalloc -Wl,-rpath,{lib}\n"
    assert config("--libs", "--cflags").stdout == flags
    assert config("--version").stdout == f"{linking.version()}\n"
    assert config("--includedir", "--libdir").stdout == f"{include} {lib}\n"
    assert (Path(config("--examples").stdout.strip()) / "producer.c").is_file()


def test_config_without_an_option_says_which_there_are() -> None:
    done = config()
    assert (done.returncode, done.stdout) == (2, "")
    assert "nothing asked for: give --version, --cflags, --libs" in done.stderr


# --- what a package brings ------------------------------------------------------------------------------------


def test_an_install_brings_header_library_and_examples() -> None:
    files = {str(path) for path in metadata.files("shmalloc") or ()}
    if "shmalloc/__init__.py" not in files:
        pytest.skip("an editable install: its files lie in the sources")
    assert files >= {
        "shmalloc/include/shmalloc.h",
        "shmalloc/lib/libshmalloc.so",
        *(f"shmalloc/examples/{name}" for name in ("producer.c", "consumer.c", "messages.h")),
    }
    assert [name for name in files if name.startswith("shmalloc/capi/")] == []


def test_a_source_distribution_has_all_that_the_library_is_made_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = pytest.importorskip("scikit_build_core.build", reason="scikit-build-core is not installed here")
    root = Path(__file__).resolve().parents[2]
    monkeypatch.chdir(root)
    with tarfile.open(tmp_path / backend.build_sdist(str(tmp_path))) as archive:
        packed = {name.partition("/")[2] for name in archive.getnames()}
    parts = [
        *root.glob("shmalloc/capi/*"),
        *root.glob("shmalloc/include/*"),
        *root.glob("shmalloc/examples/*"),
    ]
    assert len(parts) >= 9
    assert {str(path.relative_to(root)) for path in parts} <= packed
