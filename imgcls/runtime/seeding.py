"""Counter-based seeding: each sample's seed is a hash of (run seed, epoch, index), so no RNG state has to be saved.

A resumed run therefore draws the same numbers as an uninterrupted one, with any number of loader workers.
"""

import os
from hashlib import blake2b
from struct import pack


def run_seed() -> int:
    """Return the seed that ``lightning.seed_everything`` recorded for this run; 0 if it was never called."""
    return int(os.environ.get("PL_GLOBAL_SEED", "0"))


def derive_seed(*parts: int) -> int:
    """Hash integers into a seed of 63 bits; a change of any part gives an unrelated seed."""
    digest = blake2b(pack(f"{len(parts)}q", *parts), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1
