# SPDX-License-Identifier: MIT
"""`shmalloc top` and `shmalloc stat`: a running arena, looked at from outside.

`observed` maps an arena for reading only, `following` says which one; `look` copies its counts, `interval` compares
two copies; `sections` makes tables of that, `slabtop` those of the caches. `view` is what the terminal shows and
what keys change, `screen` the terminal itself.
"""
