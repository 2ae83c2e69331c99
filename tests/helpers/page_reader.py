"""Read a page back as a tree, with only the standard library."""

from dataclasses import dataclass, field
from html.parser import HTMLParser

_VOID = {"meta", "link", "br", "img", "hr", "input", "path", "use", "circle"}


@dataclass
class Element:
    """An element with its attributes, children and own text."""

    tag: str
    attributes: dict[str, str | None]
    children: list["Element"] = field(default_factory=list)
    own_text: str = ""

    def all(self, *tags: str) -> list["Element"]:
        """Every descendant with one of `tags` (all, if none is named), in order."""
        found = []
        for child in self.children:
            found += [child] if not tags or child.tag in tags else []
            found += child.all(*tags)
        return found

    @property
    def text(self) -> str:
        return " ".join(
            part for part in (self.own_text.strip(), *(child.text for child in self.children)) if part
        )


class _Reader(HTMLParser):
    def __init__(self):
        super().__init__(convert_charrefs=True)
        self.stack = [Element("", {})]
        self.unbalanced: list[str] = []

    def handle_starttag(self, tag, attributes):
        element = Element(tag, dict(attributes))
        self.stack[-1].children.append(element)
        if tag not in _VOID or (not self.get_starttag_text().endswith("/>") and tag not in ("meta", "link")):
            self.stack.append(element)

    def handle_startendtag(self, tag, attributes):
        self.stack[-1].children.append(Element(tag, dict(attributes)))

    def handle_endtag(self, tag):
        if len(self.stack) > 1 and self.stack[-1].tag == tag:
            self.stack.pop()
        else:
            self.unbalanced.append(tag)

    def handle_data(self, data):
        self.stack[-1].own_text += data


def read(page: str) -> Element:
    """The page as a tree. Raises ValueError where a tag is closed that is not open, or is left open."""
    reader = _Reader()
    reader.feed(page)
    reader.close()
    if reader.unbalanced or len(reader.stack) != 1:
        raise ValueError(
            f"unbalanced tags: {reader.unbalanced} {[element.tag for element in reader.stack[1:]]}"
        )
    return reader.stack[0]
