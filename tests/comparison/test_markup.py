"""Text never becomes markup."""

import doctest

from jaxrank.comparison import markup
from jaxrank.comparison.markup import element, join


def test_text_is_escaped_and_markup_is_not_escaped_twice():
    inner = element("b", "<script>", title='"><img>')
    assert inner == '<b title="&quot;&gt;&lt;img&gt;">&lt;script&gt;</b>'
    assert element("p", inner, " & more") == f"<p>{inner} &amp; more</p>"
    assert join("a < b", inner) == f"a &lt; b{inner}"


def test_attributes_are_written_as_html_has_them():
    assert element("a", stroke_width=1.5, class_="x", open=True) == (
        '<a stroke-width="1.5" class="x" open></a>'
    )
    assert element("a", open=False, title=None) == "<a></a>"
    assert doctest.testmod(markup).failed == 0
