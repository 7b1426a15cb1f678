"""HTML and SVG from Python values; whatever is text is escaped, so no text can become markup."""

import html


class Markup(str):
    """Text that is markup already."""

    __slots__ = ()


def element(_name: str, *children: str, **attributes: str | float | int | bool | None) -> Markup:
    """`<name attribute="...">children</name>`; children that are plain text are escaped.

    Args:
        attributes: `class_` stands for class and `stroke_width` for stroke-width; None and False
            leave an attribute out, True writes its name alone.

    >>> element("p", "1 < 2, ", element("b", "really"), class_="note")
    '<p class="note">1 &lt; 2, <b>really</b></p>'
    """
    written = "".join(
        _attribute(name.rstrip("_").replace("_", "-"), value)
        for name, value in attributes.items()
        if value is not None and value is not False
    )
    return Markup(f"<{_name}{written}>{join(*children)}</{_name}>")


def join(*children: str) -> Markup:
    """Children one after the other; those that are plain text are escaped."""
    texts = (child if isinstance(child, Markup) else html.escape(child) for child in children)
    return Markup("".join(texts))


def _attribute(name: str, value: str | float | int) -> str:
    if value is True:
        return f" {name}"
    text = f"{value:.6g}" if isinstance(value, float) else str(value)
    return f' {name}="{html.escape(text)}"'
