"""How early a dying lamp is announced, and how often a healthy one is.

A lamp of 1 % scatter from night to night with a limit 20 % below its level. Every night the trend
of what is known by then is asked for, as an instrument scientist would.
"""

from __future__ import annotations

import argparse

import numpy as np

from kspecpipe.quality.trend import analyse

LIMITS = {"fail": (0.8, 1.2)}


def announced(values: np.ndarray, nights: np.ndarray, first: int) -> int | None:
    """Return the first night on which a crossing of the limit is announced."""
    for last in range(first, nights.size + 1):
        known = slice(max(0, last - 90), last)
        if analyse(nights[known], values[known], LIMITS).crossings:
            return int(nights[last - 1])
    return None


def lead_times(count: int, rng: np.random.Generator) -> list[float]:
    """Return the days between announcement and crossing; the lamp falls by 0.5 % a day."""
    found = []
    for _ in range(count):
        start = rng.integers(20, 60)
        nights = np.sort(rng.choice(start + 41, int(0.8 * (start + 41)), replace=False)).astype(
            float
        )
        level = 1.0 - 0.005 * np.clip(nights - start, 0, None)
        night = announced(level + rng.normal(0, 0.01, nights.size), nights, 8)
        found.append(-np.inf if night is None else start + 40.0 - night)
    return found


def false_alarms(count: int, rng: np.random.Generator, memory: float = 0.0) -> float:
    """Return the share of healthy years with any announcement; ``memory``: of an AR(1) lamp."""
    alarms = 0
    for _ in range(count):
        nights = np.sort(rng.choice(365, 290, replace=False)).astype(float)
        noise = rng.normal(0, 0.01 * np.sqrt(1 - memory**2), 365)
        for i in range(1, 365):
            noise[i] += memory * noise[i - 1]
        alarms += announced(1.0 + noise[nights.astype(int)], nights, 8) is not None
    return alarms / count


def main() -> None:
    """Print what was found."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--years", type=int, default=200)
    parser.add_argument("--lamps", type=int, default=200)
    options = parser.parse_args()
    rng = np.random.default_rng(1)
    leads = np.array(lead_times(options.lamps, rng))
    print(f"{options.lamps} dying lamps: {np.mean(leads >= 10):.1%} announced >= 10 days before;")
    median, earliest, latest = np.median(leads), leads.max(), leads.min()
    print(f"  median {median:.0f}, earliest {earliest:.0f}, latest {latest:.0f} days")
    for memory in (0.0, 0.5):
        rate = false_alarms(options.years, rng, memory)
        print(f"{options.years} healthy years, memory {memory:g}: {rate:.1%} with an announcement")


if __name__ == "__main__":
    main()
