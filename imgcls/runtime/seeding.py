"""Chance as a function: every random number of a run follows from (run seed, epoch, place), never from hidden state.

So a run that is stopped and resumed draws what the uninterrupted run draws, with any number of loader workers.
"""

import os
from hashlib import blake2b
from struct import pack


def run_seed() -> int:
    """Return the seed of this run, as ``lightning.seed_everything`` recorded it; 0 if it was never called."""
    return int(os.environ.get("PL_GLOBAL_SEED", "0"))


def mix(*parts: int) -> int:
    """Mix whole numbers into one seed of 63 bits; any change of any part gives an unrelated seed."""
    digest = blake2b(pack(f"{len(parts)}q", *parts), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1
