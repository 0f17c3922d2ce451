# SPDX-License-Identifier: MIT
"""What a run's folder holds beside its tables."""

from pathlib import Path

import numpy as np
import pytest

from harness import runs, vocabulary
from harness.interruption import Interruption
from harness.matrix import load
from harness.progress import Silent

WORDS = vocabulary.load()


def run(tmp_path: Path) -> tuple[dict, runs.Left]:
    config = tmp_path / "quick.toml"
    config.write_text('name = "quick"\nops = 101\ncpus = 1\n[arena]\nsize = "8MiB"\n')
    with Interruption() as interruption:
        return runs.run_experiment(load(config, [], WORDS), WORDS, interruption, Silent())


def test_arrays_of_engines_are_left_as_npz(tmp_path: Path) -> None:
    made, left = run(tmp_path)
    left.arrays["map-000"] = {"pages": np.arange(23, dtype=np.uint32), "names": np.array(["a", "bc"])}
    runs.write(tmp_path / "out", made, left, None)
    with np.load(tmp_path / "out/arrays/map-000.npz", allow_pickle=False) as arrays:
        assert arrays["pages"].dtype == np.uint32
        assert arrays["pages"].sum() == 23 * 22 // 2
        assert arrays["names"].tolist() == ["a", "bc"]
    assert [path.name for path in (tmp_path / "out/arrays").iterdir()] == ["map-000.npz"]


def test_arrays_that_only_pickle_could_read_are_refused(tmp_path: Path) -> None:
    made, left = run(tmp_path)
    left.arrays["map-000"] = {"pages": np.array([{}], object)}
    with pytest.raises(TypeError, match="map-000: pages holds Python objects"):
        runs.write(tmp_path / "out", made, left, None)
