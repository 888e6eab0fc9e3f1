"""A place in a slab while a batch is made in it."""

from __future__ import annotations

from dataclasses import dataclass

from kernels.typing import DeviceArray
from transport.device.ledger import Account
from transport.device.returns import Returns
from transport.device.slabs import Place


class Loan:
    """A place while its batch is made; it goes back when nobody refers to it, unless it was published."""

    __slots__ = ("__weakref__", "_returns", "account", "charged_bytes", "place")

    def __init__(self, account: Account, place: Place, returns: Returns[tuple[Account, Place]]) -> None:
        self.account = account
        self.place: Place | None = place
        self._returns = returns

    def __del__(self) -> None:
        if self.place is not None:
            self._returns.put((self.account, self.place))


@dataclass(frozen=True, slots=True)
class ExportRegion:
    """Device memory in a slab, to make one batch in."""

    array: DeviceArray
    """The bytes as a uint8 array."""
    loan: Loan

    @property
    def address(self) -> int:
        """Where the bytes begin."""
        return self.taken().address

    def taken(self) -> Place:
        """Return where the region lies.

        Raises
        ------
        ValueError
            It was published: it is the client's.
        """
        if self.loan.place is None:
            raise ValueError("the region was published")
        return self.loan.place
