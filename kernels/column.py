"""A result column as PostgreSQL describes it: all that planning needs to know."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a result, or one part of a nested one.

    Parameters
    ----------
    name : str
        The name in the result; need not be unique.
    type_oid : int
        OID of the type (a domain's base type).
    typmod : int
        The type modifier, -1 for none.
    type_name : str
        The type's catalog name (``int4``).
    display_type : str
        The type as SQL writes it (``numeric(15,2)``).
    kind : str
        ``pg_type.typtype``: b(ase), c(omposite), d(omain), e(num), m(ultirange), p(seudo), r(ange).
    category : str
        ``pg_type.typcategory``; ``A`` is an array.
    send : str or None
        Name of the binary send function, None where the type has none.
    not_null : bool
        PostgreSQL guarantees that no value is NULL.
    comment : str or None
        The column's comment in the catalog.
    collation : str or None
        The column's collation as SQL writes it, where that is not its type's own.
    parts : tuple of Column
        The element of an array, the attributes of a composite, the bound of a range, the range of a multirange;
        empty where the type has none, or where they nest too deep.
    wire_oid : int
        What an array or composite calls the type of this part (a domain's own OID); 0 for `type_oid`.
    """

    name: str
    type_oid: int
    typmod: int = -1
    type_name: str = ""
    display_type: str = ""
    kind: str = "b"
    category: str = "U"
    send: str | None = "unknown_send"
    not_null: bool = False
    comment: str | None = None
    collation: str | None = None
    parts: tuple[Column, ...] = ()
    wire_oid: int = 0

    @classmethod
    def of(cls, facts: Mapping[str, Any]) -> Column:
        """Make a column of what `dataclasses.asdict` made of one, with lists or tuples of parts."""
        return cls(**{**facts, "parts": tuple(cls.of(part) for part in facts.get("parts", ()))})
