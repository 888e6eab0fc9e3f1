"""What a field's metadata says of a column: the keys that clients read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

PREFIX: Final = "ARROW:FLIGHT:SQL:"


@dataclass(frozen=True, slots=True, kw_only=True)
class ColumnFacts:
    """Facts about a column; None where unknown or without meaning.

    Parameters
    ----------
    catalog_name, schema_name, table_name : str or None
    type_name : str or None
        As the database writes the type.
    precision : int or None
        Digits of a number, characters of a text or of a time's text form.
    scale : int or None
        Digits behind the point.
    is_auto_increment, is_case_sensitive, is_read_only, is_searchable : bool or None
    remarks : str or None
        The column's comment.
    """

    catalog_name: str | None = None
    schema_name: str | None = None
    table_name: str | None = None
    type_name: str | None = None
    precision: int | None = None
    scale: int | None = None
    is_auto_increment: bool | None = None
    is_case_sensitive: bool | None = None
    is_read_only: bool | None = None
    is_searchable: bool | None = None
    remarks: str | None = None

    def metadata(self) -> dict[str, str]:
        """Return the metadata of the field."""
        known = {name: getattr(self, name) for name in self.__dataclass_fields__}
        if self.schema_name is not None:
            known["db_schema_name"] = self.schema_name  # the documentation's name; drivers read the other one
        return {PREFIX + name.upper(): _text(value) for name, value in known.items() if value is not None}


def _text(value: str | int | bool) -> str:
    return str(int(value)) if isinstance(value, bool) else str(value)
