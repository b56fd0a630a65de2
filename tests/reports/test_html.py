"""Elements: everything is escaped, and what is no tag is refused."""

from __future__ import annotations

import pytest

from fedjax_poisson.reports.html import element, table


def test_element_refuses_what_it_cannot_write():
    with pytest.raises(ValueError, match="is not a tag name"):
        element("p onclick=1")
    with pytest.raises(ValueError, match="takes no content"):
        element("img", "text")
    assert element("p", "a", title='"<').markup == '<p title="&quot;&lt;">a</p>'
    with pytest.raises(ValueError, match="column 2 of a table has no title"):
        table(["what", ""], [["a", "b"]])
