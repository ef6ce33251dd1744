"""`pyserve`, with the device in a test's hands: what is written to a FIFO loses it.

It stands where the core's notices come in, so that all behind them is the server's own: what a GPU
does before that is tested in C++ (test_runner_faults.cc), and on a GPU (test_cuda.py).
"""

import os

from pyserve import cli, notices


class Core:
    """The two functions of the core that the notices come through."""

    def __init__(self, fifo: str) -> None:
        # For reading and writing: a FIFO without a writer is always readable.
        self._fd = os.open(fifo, os.O_RDWR | os.O_NONBLOCK)

    def notices_fileno(self) -> int:
        return self._fd

    def take_notices(self) -> list[tuple[str, str]]:
        notices = {
            "L": ("device_lost", "the device is lost"),
            "M": ("out_of_memory", "too much"),
        }
        return [notices[kind] for kind in os.read(self._fd, 64).decode()]


if __name__ == "__main__":
    core = Core(os.environ["LOSING_FIFO"])
    notices.core = lambda: core  # type: ignore[assignment, return-value]
    cli.main()
