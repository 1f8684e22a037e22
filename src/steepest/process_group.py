"""Several processes that descend together: who they are, and how they add up and tell each other.

JAX's own distributed runtime connects them (gloo between processors, NCCL between GPUs). Each has one device
and a rank from 0; all call the functions below in the same order, because each call waits for all of them.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import jax
import numpy as np
import numpy.typing as npt
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from steepest.data.blocks import Window
from steepest.descent.epoch import try_window
from steepest.descent.ranks import RANKS, alone
from steepest.descent.state import State
from steepest.descent.step import Batches, Constants, Program

Array = npt.NDArray[Any]

PIECE = 2**22
"""Numbers that are added up at a time: 16 MiB."""


@dataclass(frozen=True)
class ProcessGroup:
    """Processes that descend together.

    Parameters
    ----------
    mesh
        Their devices, one of each, on the axis `steepest.descent.ranks.RANKS`.
    local_steps
        See `steepest.descent.step.Program`.
    seen
        Is called whenever the others have answered.
    """

    mesh: Mesh
    local_steps: int = 1
    seen: Callable[[], None] = field(default=lambda: None, compare=False)

    @property
    def rank(self) -> int:
        """Return this process's number, from 0."""
        return jax.process_index()

    @property
    def size(self) -> int:
        """Return how many processes there are."""
        return self.mesh.size

    def exchange(self, part: bytes) -> list[bytes]:
        """Return what each process gave, by rank."""
        sizes = np.zeros(self.size, np.uint32)
        sizes[self.rank] = -(-len(part) // 4)
        lengths = np.zeros(self.size, np.uint32)
        lengths[self.rank] = len(part)
        sizes, lengths = np.split(self._added(np.concatenate([sizes, lengths])), 2)
        begins = np.concatenate([[0], np.cumsum(sizes, dtype=np.int64)])
        words = np.zeros(begins[-1], np.uint32)
        words[begins[self.rank] :].view(np.uint8)[: len(part)] = np.frombuffer(part, np.uint8)
        joined = self._added(words)
        return [
            joined[begin:].view(np.uint8)[:length].tobytes()
            for begin, length in zip(begins[:-1].tolist(), lengths.tolist(), strict=True)
        ]

    def joined(self, part: Array) -> Array:
        """Return the sum over all processes of arrays of which, at each place, all but one are zero.

        They are of one shape and type, and are passed on bit by bit.
        """
        size = part.nbytes
        words = np.zeros(-(-size // 4), np.uint32)
        words.view(np.uint8)[:size] = np.ascontiguousarray(part).reshape(-1).view(np.uint8)
        return self._added(words).view(np.uint8)[:size].view(part.dtype).reshape(part.shape)

    def _added(self, words: npt.NDArray[np.uint32]) -> npt.NDArray[np.uint32]:
        """Return the sum over all processes; lengths are powers of two, so that few are compiled."""
        out = np.empty_like(words)
        for first in range(0, len(words), PIECE):
            piece = words[first : first + PIECE]
            padded = np.zeros(max(256, 1 << (len(piece) - 1).bit_length()), np.uint32)
            padded[: len(piece)] = piece
            spread = self.place_rows(padded[None], axis=0)
            out[first : first + PIECE] = np.asarray(_sum(self.mesh, spread))[: len(piece)]
            self.seen()
        return out

    def place_rows(self, rows: Array, axis: int = 1) -> jax.Array:
        """Return an array of all processes' rows, of which this one has as many as the others.

        Parameters
        ----------
        rows
            ``[steps, rows, ...]``; all processes' together are ``[steps, ranks * rows, ...]``.
        axis
            The axis of the rows.
        """
        spec = PartitionSpec(*(None,) * axis, RANKS)
        shape = tuple(size * (self.size if index == axis else 1) for index, size in enumerate(rows.shape))
        placed: jax.Array = jax.make_array_from_process_local_data(
            NamedSharding(self.mesh, spec), rows, shape
        )
        return placed

    def place(self, tree: Any) -> Any:
        """Return arrays, which are the same in all processes, on all devices."""
        return jax.tree.map(self._placed, tree)

    def _placed(self, array: Any) -> jax.Array:
        if jax.numpy.issubdtype(array.dtype, jax.dtypes.prng_key):
            numbers = self._placed(jax.random.key_data(array))
            key: jax.Array = jax.random.wrap_key_data(numbers, impl=jax.random.key_impl(array))
            return key
        everywhere = NamedSharding(self.mesh, PartitionSpec())
        placed: jax.Array = jax.make_array_from_process_local_data(everywhere, np.asarray(array))
        return placed


@functools.partial(jax.jit, static_argnums=0)
def _sum(mesh: Mesh, words: jax.Array) -> jax.Array:
    def add(part: jax.Array) -> jax.Array:
        added: jax.Array = jax.lax.psum(part[0], RANKS)
        return added

    summed: jax.Array = jax.shard_map(
        add, mesh=mesh, in_specs=PartitionSpec(RANKS), out_specs=PartitionSpec(), check_vma=False
    )(words)
    return summed


def seconds_of_step(program: Program, constants: Constants, state: State, window: Window) -> float:
    """Return how long a step takes on this process's part of a window alone, without the others.

    Parameters
    ----------
    program, constants, window
        Of the group's descent.
    state
        Of this process alone.
    """
    data, weights = alone((window.arrays, window.weights))
    batches = Batches(data, weights, np.zeros(len(weights), np.float32))
    program, constants = program.for_one(), alone(constants)
    seconds = 0.0
    for _ in range(2):  # the first time it is compiled
        began = time.perf_counter()
        jax.block_until_ready(try_window(program, constants, state, batches))
        seconds = time.perf_counter() - began
    return seconds / len(weights)


def join(coordinator: str, rank: int, size: int) -> ProcessGroup:
    """Join a group of processes, once and before anything else is asked of JAX.

    Parameters
    ----------
    coordinator
        ``host:port``, at which the process of rank 0 listens for the others.
    rank, size
        This process's number, from 0, and how many there are.
    """
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    jax.distributed.initialize(coordinator, size, rank)
    return ProcessGroup(Mesh(np.array(jax.devices()), (RANKS,)))


def leave() -> None:
    """Leave the group, once all others do."""
    jax.distributed.shutdown()
