"""When an open loop sends: arrivals that do not wait for answers."""

import random


def poisson_schedule(rate: float, seconds: float, *, seed: int, limit: int) -> list[int]:
    """Return the instants to send at, in nanoseconds from the start, in order.

    A Poisson process: independent exponential gaps of 1/`rate` seconds on average.  Ends after
    `seconds` or `limit` arrivals; the same seed gives the same schedule.
    """
    if rate <= 0 or seconds <= 0:
        raise ValueError(f"rate {rate} and seconds {seconds} must be above 0")
    draw = random.Random(seed)
    end_ns = seconds * 1e9
    mean_ns = 1e9 / rate
    instants: list[int] = []
    now_ns = draw.expovariate(1.0) * mean_ns
    while now_ns < end_ns and len(instants) < limit:
        instants.append(int(now_ns))
        now_ns += draw.expovariate(1.0) * mean_ns
    return instants
