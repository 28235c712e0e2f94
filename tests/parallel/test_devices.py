"""What is particular to CPUs: programs that keep their memory from one run to the next."""

import multiprocessing
import resource
import statistics
import sys

import jax
import jax.numpy as jnp
import pytest

from maskjax.parallel.devices import in_this_thread, keep_memory
from maskjax.parallel.mesh import make_mesh

PAGES = 16_384  # of 4 KiB, in the temporary memory of the program below: 64 MiB


def _count_faults(kept: bool) -> list[int]:
    """Returns the page faults of a program in its third run and in later ones."""
    if kept:
        keep_memory()
    with jax.set_mesh(make_mesh({})):
        x = jnp.ones((4096, 4096))
        # Products of matrices do not take values as they are computed.
        program = jax.jit(lambda x: (x + 1.0) @ x[:, :4]).lower(x).compile()
        assert program.memory_analysis().temp_size_in_bytes >= PAGES * 4096
        run, faults = in_this_thread(program), []
        for _ in range(11):
            before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
            run(x).block_until_ready()
            faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
    return faults[2:]


@pytest.mark.skipif(sys.platform != "linux", reason="glibc keeps memory, under Linux")
def test_memory_of_a_program_is_kept_for_the_next_run():
    context = multiprocessing.get_context("spawn")
    with context.Pool(2, maxtasksperchild=1) as pool:
        kept, given_back = pool.map(_count_faults, (True, False), chunksize=1)
    assert min(given_back) > 0.9 * PAGES
    # Now and then something small takes a place in what was freed, and the heap grows once more.
    assert statistics.median(kept) < 0.1 * PAGES
