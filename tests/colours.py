# SPDX-License-Identifier: MIT
"""How far apart colours are, to normal sight and to those who lack one kind of cones.

Deficient sight is simulated in linear RGB by the matrices of Machado, Oliveira and Fernandes (2009) for full
severity; distances are Euclidean in Oklab, times 100: 1 is about what can just be told apart side by side.
"""

import itertools
from collections.abc import Sequence

import numpy as np

SIGHTS = {
    "normal": np.eye(3),
    "protanopia": np.array(
        [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]
    ),
    "deuteranopia": np.array(
        [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]
    ),
    "tritanopia": np.array(
        [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]]
    ),
}
_LMS = np.array(
    [
        [0.4122214708, 0.5363325363, 0.0514459929],
        [0.2119034982, 0.6806995451, 0.1073969566],
        [0.0883024619, 0.2817188376, 0.6299787005],
    ]
)
_LAB = np.array(
    [
        [0.2104542553, 0.7936177850, -0.0040720468],
        [1.9779984951, -2.4285922050, 0.4505937099],
        [0.0259040371, 0.7827717662, -0.8086757660],
    ]
)
Array = np.ndarray


def linear(colour: str) -> Array:
    """From #rrggbb to linear RGB, 0..1."""
    values = np.array([int(colour[at : at + 2], 16) for at in (1, 3, 5)]) / 255
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)


def distance(one: str, other: str, sight: str = "normal") -> float:
    """How far apart two colours are to a sight."""
    seen = [_LAB @ np.cbrt(_LMS @ np.clip(SIGHTS[sight] @ linear(each), 0, 1)) for each in (one, other)]
    return float(100 * np.linalg.norm(seen[0] - seen[1]))


def contrast(one: str, other: str) -> float:
    """Contrast of two colours as WCAG 2 has it, 1 to 21."""
    low, high = sorted(float(linear(each) @ [0.2126, 0.7152, 0.0722]) for each in (one, other))
    return (high + 0.05) / (low + 0.05)


def closest(colours: Sequence[str], sight: str) -> tuple[float, str, str]:
    """The two colours that are hardest to tell apart, and how far they are."""
    return min((distance(a, b, sight), a, b) for a, b in itertools.combinations(colours, 2))
