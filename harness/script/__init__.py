# SPDX-License-Identifier: MIT
"""The engine `script`: a deterministic scenario, step by step, on the CPUs of one process.

The child process that runs a script imports neither numpy nor pydantic, and so nothing in here does, but
`run` and `check`, which are the parent's.

**A new step** is a class in a file of `topics/`; nothing else knows of it:

    @step("pages_alloc")
    class PagesAlloc(Step):
        '''Allocate blocks of pages.'''

        order: int = key(0, low=0, high=10)
        as_: str = key("pages", defines="objects")

        def run(self, scene: Scene) -> int:
            return scene.allocate(self, lambda design, cpu: design.pages_alloc(self.order))

The fields are the step's keys (`as_` is the key `as`), with what is allowed in `key()`. `cpu`, `count` and
`repeat` are keys of every step. `run` returns a number: successes, or a value. A step that may also be done
inside an interrupt has a method `nest(program)` as well, which adds ops to the program.

**A new quantity** for the step `read` is a function in a file of `topics/`, whose keyword arguments are its keys:

    @quantity("cache.nr_slabs")
    def nr_slabs(scene: Scene, *, cache: str, node: int = 0) -> int:
        '''Slabs of a cache on a node.'''

"""
