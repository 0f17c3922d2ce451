# SPDX-License-Identifier: MIT
"""Broken variants whose point is two CPUs, or a real signal: caught in processes of their own."""

from __future__ import annotations

import pytest
from peer import Peer
from rig import Rig
from storm import storm
from windows import NOLOCK, SPINNING, node_partial

from shmalloc import ShmallocError


@pytest.mark.parametrize("broken", ["shared_slot", "none"])
def test_two_processes_take_from_one_partial_slab(broken: str) -> None:
    """Caught at the second allocation, in the process that makes it, by the oracle that both share."""
    with Rig.create(bind=1, broken=broken) as rig, Peer(rig.arena, 1) as peer:
        node_partial(rig)
        mine, others = rig.alloc(), peer.do("alloc")
        if broken == "none":
            assert others != mine
            assert peer.do("free", others) is None
            rig.settle()
            return
        assert others == mine
        (caught,) = rig.violations()
        assert (caught.verdict, caught.checker, caught.cpu) == ("corruption", "oracle", 1)
        assert caught.object == mine
        assert rig.arena.header.stop == 2


@pytest.mark.parametrize("broken", ["spin_in_nmi", "none"])
def test_a_spinning_nmi_of_a_real_signal(broken: str) -> None:
    """A storm without any probe: with the variant it ends with a deadlock proved, and is not hung."""
    with Rig.create(broken=broken) as rig:
        if broken == "none":
            storm(rig, NOLOCK)
            rig.settle()
            return
        with pytest.raises(ShmallocError, match=r"[Dd]eadlock"):
            storm(rig, SPINNING, rounds=997)
        proved = rig.violations()[-1]
        assert (proved.verdict, proved.checker, proved.context) == ("deadlock", "deadlock", "nmi")
        assert {frame.level for frame in proved.stack} == {0, 1}
