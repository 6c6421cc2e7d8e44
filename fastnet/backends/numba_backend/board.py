"""Where things lie on a board, at which workers meet: see ``kernels/sharing.py``.

A board is memory that is there as long as any helper: at its address what is here, and from WORKERS on WORKER_SIZE
bytes for each worker. All are int64; those that different threads write to at the same time lie in different cache
lines, of which some processors fetch two at once.
"""

from __future__ import annotations

# Of a board: the number of the round, which helpers wait for to change; what the round is about; how many of its items
# are done; whether someone leads; and, which never changes, the address of what helpers do.
ROUND, FUNCTION, RECORD, N_WORKERS, N_ITEMS = 0, 128, 136, 144, 152
N_DONE, LED, HELP, WORKERS = 256, 384, 392, 512
NOBODY_LEADS, SOMEONE_LEADS, DISMISSED = range(3)

# Of a worker: a round, and the next item of the worker's share in it, in one number. Of helpers besides: the state,
# and what never changes: the number of the worker, the board, and the lock that it sleeps at.
SLOT, STATE, NUMBER, BOARD, LOCK, WORKER_SIZE = 0, 128, 136, 144, 152, 256
