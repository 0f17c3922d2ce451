# SPDX-License-Identifier: MIT
"""What is measured: of all rows and all subjects those that were asked for by name or pattern."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from harness.bench import own, peers, python_rows, rows
from harness.bench.rows import Row
from harness.bench.subjects import Missing, Subject
from harness.problems import CannotRun, ConfigError, Problem, shown, unknown

__all__ = ["Selection", "select"]

TRACES = Path("configs", "traces")
_NO_TRACES = f"no recorded trace: there is no {TRACES} here; name its folder with --traces"


@dataclass(frozen=True)
class Selection:
    """What is measured.

    Attributes: rows.  subjects.  missing: peers that are not there.  empty: the empty loop.  remarks: what else is not
        there.
    """

    rows: tuple[Row, ...]
    subjects: tuple[Subject, ...]
    missing: tuple[Missing, ...]
    empty: Subject
    remarks: tuple[str, ...] = ()

    def subjects_of(self, row: Row) -> list[Subject]:
        """Return the subjects that a row is for: those called from Python have rows of their own."""
        if row.kind == "python":
            return [subject for subject in self.subjects if row.name in (subject.rows or ())]
        return [
            subject
            for subject in self.subjects
            if not subject.runner and (subject.rows is None or row.name in subject.rows)
        ]


def select(
    row_names: Sequence[str],
    subject_names: Sequence[str],
    preload: Mapping[str, Path],
    traces: Path | None,
) -> Selection:
    """Select rows and subjects. Args: names, or patterns; none = all.  traces: folder with recorded ones.

    Raises: ConfigError, with every name that is unknown. CannotRun, if what was asked for is not on this machine.
    """
    found = peers.find(preload)
    python = python_rows.subjects()
    ours = own.own()
    all_subjects = [*ours, *found.subjects, *python]
    python_names = dict.fromkeys(
        name for subject in all_subjects for name in (subject.rows or ()) if subject.runner
    )
    all_rows = [*rows.native_rows(), *_traces(traces), *rows.python_rows(list(python_names))]
    problems: list[Problem] = []
    chosen_rows = _chosen("--rows", row_names, [row.name for row in all_rows], problems)
    names = [subject.name for subject in all_subjects]
    absent = [missing.peer for missing in found.missing]
    chosen_subjects = _chosen("--subjects", subject_names, [*names, *absent], problems)
    if problems:
        raise ConfigError("command line", problems)
    _refuse_absent(subject_names, names, found.missing)
    return Selection(
        tuple(row for row in all_rows if row.name in chosen_rows),
        tuple(subject for subject in all_subjects if subject.name in chosen_subjects),
        tuple(missing for missing in found.missing if missing.peer in chosen_subjects),
        next(subject for subject in ours if subject.name == own.EMPTY),
        () if any(row.notes for row in all_rows) else (_NO_TRACES,),
    )


def _refuse_absent(wanted: Sequence[str], names: Sequence[str], missing: Sequence[Missing]) -> None:
    """Refuse what was asked for and matches nothing but peers that this machine does not have.

    Raises: CannotRun, with what brings them.
    """
    patterns = [pattern for pattern in wanted if not any(fnmatchcase(name, pattern) for name in names)]
    absent = [each for each in missing if any(fnmatchcase(each.peer, pattern) for pattern in patterns)]
    if absent:
        raise CannotRun("; ".join(f"{each.peer} is not here: {each.why} ({each.package})" for each in absent))


def _traces(folder: Path | None) -> Iterable[Row]:
    paths = sorted((folder or TRACES).glob("*.npz"))
    if folder is not None and not paths:
        problem = Problem(
            "--traces", shown(str(folder)), "no recorded trace in it; allowed is a folder with .npz files"
        )
        raise ConfigError("command line", [problem])
    return [rows.trace_row(path) for path in paths]


def _chosen(option: str, wanted: Sequence[str], names: Sequence[str], problems: list[Problem]) -> set[str]:
    if not wanted:
        return set(names)
    chosen: set[str] = set()
    for pattern in wanted:
        matching = {name for name in names if fnmatchcase(name, pattern)}
        if not matching:
            problems.append(Problem(option, shown(pattern), unknown("name", pattern, names)))
        chosen |= matching
    return chosen
