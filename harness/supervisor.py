# SPDX-License-Identifier: MIT
"""The parent's side of a run: starts the CPUs, meets them at each phase, watches, ends and reaps them.

It trusts no child: every wait has an end, and the first death, stall or verdict is the end of all.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from harness import child
from harness.interruption import Interruption
from harness.processes import Process, reap
from harness.verdicts import Incident, death_text, death_verdict
from harness.vocabulary import STALL
from harness.watch import Watch, doing

if TYPE_CHECKING:
    from shmalloc.arena import Arena

GRACE_S = 2.0  # from asking all to end until they are killed
_FASTEST_S, _SLOWEST_S = 0.001, 0.02  # between two looks
_LATE = 0.1  # of a phase's time: how late its end is seen at most
_WATCH_S = 0.5  # between two looks for stalls
_ASLEEP_S = 1.0  # more than this between two looks: the parent itself was stopped
_START_S = 30.0  # deadline of phases that do no ops, in processor time; interpreters start in one

Tick = Callable[[float], None]


class Ended(Exception):
    """The run is over before its time.

    Attributes: incident: what the parent saw; None if the core has recorded why.
    """

    def __init__(self, incident: Incident | None) -> None:
        self.incident = incident
        super().__init__(incident.text if incident else "a verdict in the arena")


class Crew:
    """The processes of one run.

    Args: arena: theirs, active in this process.  deadline_s: processor time without progress.
        interruption: to be looked at.
    """

    def __init__(self, arena: Arena, deadline_s: float, interruption: Interruption) -> None:
        self._arena = arena
        self._deadline_s = deadline_s
        self._interruption = interruption
        self._cpus: list[Process] = []
        self._others: list[Process] = []
        self._kswapds: dict[int, Process] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
        for process in self._all():
            process.close()

    def _all(self) -> list[Process]:
        return [*self._cpus, *self._others, *self._kswapds.values()]

    @property
    def pids(self) -> list[int]:
        """All processes."""
        return [process.pid for process in self._all()]

    @property
    def cpu_pids(self) -> list[int]:
        """The CPUs, in their order."""
        return [process.pid for process in self._cpus]

    def start_cpu(
        self,
        cpu: int,
        spec: Mapping[str, Any],
        fds: Sequence[int],
        core: int | None,
        *,
        module: str = "harness.cpu_process",
        role: str = "",
    ) -> None:
        """Start one CPU. Args: core: to pin it to, or None.  module: that it runs.  role: for messages."""
        spec = {**spec, "core": core}
        self._cpus.append(Process.start(role or f"CPU {cpu}", cpu, module, self._arena.name, spec, fds))

    def start_injector(self, kind: str, spec: Mapping[str, Any]) -> None:
        """Start a process that sends interrupts."""
        role = f"the {kind.upper()} injector"
        self._others.append(Process.start(role, None, "harness.injector", self._arena.name, spec))

    def start_kswapds(self, flavour: str) -> None:
        """Start a kswapd for each node that has memory, and wait until it sleeps."""
        lib, nodes = self._arena.core.lib, self._arena.region("nodes")
        for node in nodes["id"][nodes["nr_thisnode"] > 0].tolist():
            spec = {"flavour": flavour, "node": node}
            self._kswapds[node] = Process.start(
                f"kswapd of node {node}", None, "harness.kswapd", self._arena.name, spec
            )
        state = nodes["kswapd_state"]
        self._await(lambda: any(state[node] == lib.KSWAPD_NONE for node in self._kswapds), "start")

    def end_kswapds(self) -> None:
        """Have every kswapd finish its pass and end.

        Raises: Ended, if one does not.
        """
        for node in self._kswapds:
            self._arena.core.lib.shm_kswapd_stop(node)
        self._await(lambda: any(process.poll() is None for process in self._kswapds.values()), "end")
        for process in self._kswapds.values():
            process.close()
        self._kswapds.clear()

    def _await(self, pending: Callable[[], bool], what: str) -> None:
        """Wait for the kswapds, which take no time to start and end."""
        deadline = time.monotonic() + _START_S
        while pending():
            self._interruption.check()
            self._check_deaths(may_exit=what == "end")
            if time.monotonic() > deadline:
                raise Ended(Incident(STALL, f"kswapd did not {what} in {_START_S:.0f} s"))
            time.sleep(_FASTEST_S)
        self._check_deaths(may_exit=what == "end")

    def end_injectors(self) -> None:
        """End the injectors: they are killed, which is how they end."""
        for process in self._others:
            process.kill()
            process.close()
        self._others.clear()

    def open_phase(self, phase: int) -> None:
        """Let all go on to the next phase."""
        self._arena.core.lib.shm_phase_open(phase)

    def wait_phase(self, phase: int, tick: Tick | None = None, *, ops: bool = False) -> None:
        """Wait until every CPU has finished a phase.

        Args: tick: called with the seconds since its last call.  ops: the phase does ops, so that their
            number says whether it gets anywhere.
        Raises: Ended.  Interrupted.
        """
        finished = self._arena.region("cpus")["phase_done"]
        numbers = [process.cpu for process in self._cpus if process.cpu is not None]
        self._wait(lambda: [cpu for cpu in numbers if finished[cpu] < phase], tick, ops=ops)

    def wait_exits(self) -> list[dict[str, Any]]:
        """Wait until every CPU has ended well.

        Returns: their reports, in order of the CPUs.
        Raises: Ended.  Interrupted.
        """
        self._wait(
            lambda: [p.cpu for p in self._cpus if p.cpu is not None and p.poll() is None], None, may_exit=True
        )
        return [process.report() for process in self._cpus]

    def report_of_first(self) -> dict[str, Any]:
        """Return what the first CPU printed before it ended, empty if nothing; for after `stop`."""
        return self._cpus[0].report() if self._cpus else {}

    def _wait(
        self,
        unfinished: Callable[[], list[int]],
        tick: Tick | None,
        *,
        ops: bool = False,
        may_exit: bool = False,
    ) -> None:
        deadline_s = self._deadline_s if ops else max(self._deadline_s, _START_S)
        watch = Watch(self._arena, {p.cpu: p.pid for p in self._cpus if p.cpu is not None}, deadline_s)
        pause_s, unwatched_s, before = _FASTEST_S, 0.0, time.monotonic()
        began = before
        while waiting := unfinished():
            self._interruption.check()
            self._check_deaths(may_exit=may_exit)
            time.sleep(pause_s)
            now = time.monotonic()
            elapsed_s, before = min(now - before, _ASLEEP_S), now
            if tick is not None:
                tick(elapsed_s)
            unwatched_s += elapsed_s
            if unwatched_s >= _WATCH_S:
                incident = watch.check(unwatched_s, waiting)
                unwatched_s = 0.0
                if incident is not None:
                    raise Ended(incident)
            pause_s = min(max(_FASTEST_S, (now - began) * _LATE), _SLOWEST_S)
        self._check_deaths(may_exit=may_exit)

    def _check_deaths(self, *, may_exit: bool) -> None:
        """Raise Ended if there is a verdict, or a process has ended that should not have."""
        if self._arena.header.stop > 1:
            raise Ended(None)
        for process in self._all():
            code = process.poll()
            if code is None or (code == child.FINISHED and may_exit):
                continue
            if self._arena.header.stop > 1:
                raise Ended(None)
            raise Ended(self._death(process, code))

    def _death(self, process: Process, code: int) -> Incident:
        ended = "was told to stop, from outside" if code == child.STOPPED else death_text(code)
        text = f"{process.role} (pid {process.pid}) {ended}"
        if errors := process.errors():
            text += f": {errors.splitlines()[-1]}"
        if process.cpu is None:
            return Incident(death_verdict(code), text)
        state = doing(self._arena, process.cpu)
        return Incident(
            death_verdict(code), f"{text}; it was {state.text}", process.cpu, state.context, state.op_index
        )

    def stop(self) -> None:
        """End the run: ask all to stop, give them a moment, kill the rest. Nothing lives afterwards."""
        alive = [process for process in self._all() if process.poll() is None]
        if not alive:
            return
        self._arena.core.lib.shm_stop(1)
        for process in self._others:
            process.kill()
        reap(alive, GRACE_S)


__all__ = ["GRACE_S", "Crew", "Ended"]
