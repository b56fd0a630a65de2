"""A writer of tables in a folder of the test's own."""

from __future__ import annotations

import pytest

from tests.data.tables.example_table import HEADER


@pytest.fixture
def write(tmp_path):
    def writer(lines, header=HEADER, name="table.csv", encoding="utf-8"):
        path = tmp_path / name
        path.write_bytes("\n".join([header, *lines, ""]).encode(encoding))
        return path

    return writer
