# SPDX-License-Identifier: MIT
"""An arena of two CPUs, once with each flavour, and its first CPU; a file may have its own."""

from collections.abc import Iterator

import pytest
from auditing import SIZE

from shmalloc import Arena, Cpu


@pytest.fixture
def arena(flavour: str) -> Iterator[Arena]:
    with Arena.create(size=SIZE, nr_cpus=2, flavour=flavour) as made:
        yield made


@pytest.fixture
def cpu(arena: Arena) -> Iterator[Cpu]:
    with Cpu(arena, 0) as made:
        yield made
