# SPDX-License-Identifier: MIT
"""Flags of allocations as traces name them, of any kernel, as the raw bits of 6.18."""

from collections import Counter

from shmalloc import gfp

__all__ = ["GfpText"]

#: names that 6.18 has and the core does not: they mean nothing to it, and their bits are kept
_UNUSED = {
    "GFP_TRANSHUGE_LIGHT": 0x1C20CA,
    "GFP_TRANSHUGE": 0x1C24CA,
    "__GFP_ZEROTAGS": 0x800000,
    "__GFP_SKIP_ZERO": 0,
    "__GFP_SKIP_KASAN": 0,
    "__GFP_SKIP_KASAN_POISON": 0,
    "__GFP_SKIP_KASAN_UNPOISON": 0,
    "__GFP_NOLOCKDEP": 0,
}
#: names of earlier kernels: what stands for them today, nothing if nothing does
_FORMER = {
    "__GFP_WAIT": 0xC00,
    "__GFP_REPEAT": 0x4000,
    "__GFP_ATOMIC": 0,
    "__GFP_COLD": 0,
    "__GFP_NOTRACK": 0,
    "__GFP_OTHER_NODE": 0,
    "GFP_TEMPORARY": 0xCC0 | 0x10,
}


class GfpText:
    """Reads flags; what it has read once it remembers.

    Attributes: unknown: names that no kernel known here has, and how often each was seen; their bits are not
        set.
    """

    def __init__(self) -> None:
        self.unknown: Counter[str] = Counter()
        self._names = {name: int(flag) for name, flag in gfp.Gfp.__members__.items()} | _UNUSED | _FORMER
        self._bits: dict[bytes, tuple[int, tuple[str, ...]]] = {}

    def bits(self, text: bytes) -> int:
        """Return the bits of `GFP_KERNEL|__GFP_ZERO`, `0xcc0`, `none` or a mixture of them."""
        known = self._bits.get(text)
        if known is None:
            known = self._bits[text] = self._read(text.decode("ascii", "backslashreplace"))
        for name in known[1]:
            self.unknown[name] += 1
        return known[0]

    def _read(self, text: str) -> tuple[int, tuple[str, ...]]:
        bits, unknown = 0, []
        for part in text.split("|"):
            found = self._one(part)
            if found is None:
                unknown.append(part)
            else:
                bits |= found
        return bits, tuple(unknown)

    def _one(self, part: str) -> int | None:
        for name in (part, f"__{part}"):  # before 4.5 the kernel left the underscores out
            if name in self._names:
                return self._names[name]
        if part == "none":
            return 0
        try:
            number = int(part, 0)
        except ValueError:
            return None
        return number if 0 <= number <= 0xFFFFFFFF else None
