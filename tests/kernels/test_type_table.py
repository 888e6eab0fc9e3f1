"""docs/types.md says what the registry says."""

from __future__ import annotations

from kernels import type_table


def test_page_is_fresh() -> None:
    """Else: ``python -m kernels.type_table``."""
    assert type_table.PAGE.read_text() == type_table.markdown()
