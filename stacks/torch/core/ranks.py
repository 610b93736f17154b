"""The processes of a model that is spread over several devices: rank 0 serves, starts the others and tells them of each step; all of them end together.

A rank's standard input is the one way in which it is told. A message is a step, in 8-byte integers: how many follow; how many caches are no more, and which; then of each part its cache, the
length that this holds, how many logits are wanted, how many tokens, and these. A cache's number is its address in rank 0: no two that are alive share one.
"""

import collections
import contextlib
import itertools
import os
import subprocess
import sys
import tempfile
import threading
import traceback
import weakref
from array import array
from typing import Any, Deque, Dict, Iterator, List, NoReturn, Optional, Sequence, Tuple

import torch

from core.backend import Backend
from core.parallel import Group, check

START = """import sys
sys.path = [sys.argv[1], *filter(None, sys.path)]
from core.lifetime import end_with_parent
end_with_parent()
from core.ranks import follow
follow(sys.argv[2], *map(int, sys.argv[3:]))
"""


@contextlib.contextmanager
def together(rank: int) -> Iterator[None]:
    """What fails in here ends this rank, and with it all: the others would wait for its part of a sum."""
    try:
        yield
    except BaseException as error:  # noqa: BLE001
        if not isinstance(error, ValueError):
            traceback.print_exc()
        end(f"rank {rank}: {error}")


def end(why: str) -> NoReturn:
    print(why, file=sys.stderr, flush=True)
    # Not by way of Python's end: what waits for a rank that is no more would hold that up.
    os._exit(1)


class Ranks:
    """Rank 0's backend, and the other ranks' processes. Must be made by the thread that ends last: with it the kernel kills them. Raises ValueError, see check()."""

    def __init__(self, folder: str, size: int, threads: Optional[int]) -> None:
        check(folder, size)
        # A file without a name, so that nothing of it stays.
        self.meeting = tempfile.TemporaryFile()
        self.folder, self.group = folder, Group(0, size, self.meeting.fileno())
        self.threads = max(1, (threads or torch.get_num_threads()) // size)
        self.backend: Any = None
        #: Numbers of caches that nobody holds any more, and of which the others have not been told.
        self.gone: Deque[int] = collections.deque()
        self.others = [self._start(rank) for rank in range(1, size)]

    def _start(self, rank: int) -> Any:
        packed = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
        words = [packed, self.folder, rank, self.group.size, self.group.meeting, self.threads]
        child = subprocess.Popen([sys.executable, "-c", START, *map(str, words)], stdin=subprocess.PIPE, pass_fds=[self.group.meeting])

        def watch() -> None:
            code = child.wait()
            end(f"rank {rank} " + (f"was killed by signal {-code}" if code < 0 else f"ended with status {code}"))

        threading.Thread(target=watch, daemon=True).start()
        return child.stdin

    def load(self) -> "Ranks":
        """Answers when all ranks can serve."""
        with together(0):
            self.backend = Backend(self.folder, self.threads, self.group)
            self.group.wait(self.backend.device)
        return self

    def new_cache(self) -> Any:
        cache = self.backend.new_cache()
        weakref.finalize(cache, self.gone.append, id(cache))
        return cache

    def forward(self, parts: Sequence[Tuple[List[int], Any, int]]) -> torch.Tensor:
        with together(0):
            gone = [self.gone.popleft() for _ in range(len(self.gone))]
            words = array("q", [0, len(gone), *gone])
            for tokens, cache, wanted in parts:
                words.extend((id(cache), cache.length, wanted, len(tokens), *tokens))
            words[0] = len(words) - 1
            for other in self.others:
                other.write(words)
                other.flush()
            return self.backend.forward(parts)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.backend, name)


def follow(folder: str, rank: int, size: int, meeting: int, threads: int) -> None:
    """What another rank than 0 does, until that one ends."""
    with together(rank):
        group = Group(rank, size, meeting)
        backend = Backend(folder, threads, group)
        group.wait(backend.device)
        caches: Dict[int, Any] = {}
        while True:
            words = array("q")
            try:
                words.fromfile(sys.stdin.buffer, 1)
                words.fromfile(sys.stdin.buffer, words.pop())
            except EOFError:
                os._exit(0)
            step(backend, caches, words)


def step(backend: Backend, caches: Dict[int, Any], words: "array[int]") -> None:
    """Holds no cache when it is over, so that one that rank 0 has let go has its place free before the next is made."""
    said = iter(words)
    for number in list(itertools.islice(said, next(said))):
        caches.pop(number, None)
    parts = []
    for number in said:
        length, wanted, count = itertools.islice(said, 3)
        if number not in caches:
            caches[number] = backend.new_cache()
        caches[number].length = length
        parts.append((list(itertools.islice(said, count)), caches[number], wanted))
    backend.forward(parts)
