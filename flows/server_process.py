"""The embedded server's process: Prefect's server under uvicorn, with garbage collected in a thread of its own.

On SQLite, a collection in the thread of the event loop can stop the server for a minute. It frees a forgotten cursor,
for which SQLite waits until the cursor's connection has finished its statement; the statement waits up to 60 s for the
database's write lock; and the transaction that has the lock waits for the event loop (docs/lab-notes.md).
In another thread a collection may wait without stopping anything.
"""

from __future__ import annotations

import gc
import threading
import time

COLLECT_EVERY = 5.0
"""Seconds between collections; a choice: a busy server has made some ten thousand objects by then."""


def collect_in_a_thread(every: float = COLLECT_EVERY) -> threading.Thread:
    """Collect garbage no longer wherever it arises, but every so many seconds in a thread, which is returned.

    What is there at the first collection, mostly code, is left out of later ones, which take that much less time.
    """

    def collect() -> None:
        time.sleep(every)
        gc.collect()
        gc.freeze()
        while True:
            time.sleep(every)
            gc.collect()

    gc.disable()
    collector = threading.Thread(target=collect, name="garbage", daemon=True)
    collector.start()
    return collector


def main() -> None:
    """Run uvicorn with the arguments of this process."""
    import uvicorn

    collect_in_a_thread()
    uvicorn.main()


if __name__ == "__main__":
    main()
