# SPDX-License-Identifier: MIT
"""What a user would pick instead: allocators of other people, as far as this machine has them."""
