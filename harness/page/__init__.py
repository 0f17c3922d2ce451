# SPDX-License-Identifier: MIT
"""Pages that open from disk: one HTML file, nothing loaded, light, dark and printed.

A page is a header and sections; a section brings its own style, script and data.  What can be read is HTML, and
is there without scripts; scripts only add to it.
"""

from __future__ import annotations

from harness.page.document import Section, document
from harness.page.loaded import Loaded, complete, load, named_cells
from harness.page.markup import Child, Markup, breakable, copyable, details, element, join, matrix, table

__all__ = [
    "Child",
    "Loaded",
    "Markup",
    "Section",
    "breakable",
    "complete",
    "copyable",
    "details",
    "document",
    "element",
    "join",
    "load",
    "matrix",
    "named_cells",
    "table",
]
