"""Random-looking numbers that are the same on every machine and with every NumPy: made by hashing keys."""

import numpy as np
import numpy.typing as npt

Keys = npt.NDArray[np.uint64]
Ints = npt.NDArray[np.int64]


def draw(column: str, keys: Keys, choices: int) -> Ints:
    """Draw from 0 … choices - 1 for every key: splitmix64's finaliser, salted with the column's name.

    Only the first eight characters of the name count.
    """
    salt = np.uint64(int.from_bytes(column.encode()[:8].ljust(8), "little"))
    mixed = (keys + salt) * np.uint64(0x9E3779B97F4A7C15)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return ((mixed ^ (mixed >> np.uint64(31))) % np.uint64(choices)).astype(np.int64)
