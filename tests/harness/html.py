"""A small reader of HTML: the elements of a page, and the text in them, as a person sees it."""

from __future__ import annotations

from html.parser import HTMLParser

_EMPTY = frozenset({"meta", "link", "input", "br", "img", "hr", "base", "embed", "wbr"})

Attributes = dict[str, str]


class Page(HTMLParser):
    """A page that was read. Elements are their attributes; text is joined as it is shown."""

    def __init__(self, source: str) -> None:
        super().__init__(convert_charrefs=True)
        self.source = source
        self.found: list[tuple[str, Attributes]] = []
        self.pieces: list[tuple[tuple[int, ...], str]] = []
        """Each text, with the numbers of the elements that it is in."""
        self._open: list[tuple[str, int]] = []
        self.feed(source)
        self.close()
        assert not self._open, f"these elements never end: {self._open}"

    @property
    def elements(self) -> list[Attributes]:
        """The attributes of every element."""
        return [attributes for _, attributes in self.found]

    @property
    def tags(self) -> list[str]:
        """The name of every element."""
        return [tag for tag, _ in self.found]

    def all(self, tag: str) -> list[Attributes]:
        """The attributes of each element *tag*."""
        return [attributes for found, attributes in self.found if found == tag]

    def field(self, element_id: str) -> Attributes:
        """The attributes of the one element with this id."""
        (field,) = [element for element in self.elements if element.get("id") == element_id]
        return field

    def text(self, tag: str) -> str:
        """The text in the first element *tag*; white space is joined, but in `pre`."""
        return self._text(self._first(tag), keep=tag in {"pre", "textarea"})

    def texts(self, outer: str, inner: str) -> list[str]:
        """The texts of the elements *inner* within the first *outer*."""
        around = self._first(outer)
        inside = {n for path, _ in self.pieces if around in path for n in path}
        return [
            self._text(number)
            for number, (tag, _) in enumerate(self.found)
            if tag == inner and number in inside
        ]

    def rows(self, caption: str = "") -> list[list[str]]:
        """The cells of each row in the body of the table with *caption*, or of the first one."""
        for number in self._numbers("table"):
            heads = [n for n in self._numbers("caption") if self._within(n, number)]
            if not caption or any(self._text(n) == caption for n in heads):
                return self._rows(number)
        return []

    def _rows(self, table: int) -> list[list[str]]:
        rows = []
        for row in self._numbers("tr"):
            if not self._within(row, table):
                continue
            cells = [
                n
                for n, (tag, _) in enumerate(self.found)
                if tag in {"td", "th"} and self._within(n, row)
            ]
            if any(self.found[n][0] == "td" for n in cells):
                rows.append([self._text(n) for n in cells])
        return rows

    def _numbers(self, tag: str) -> list[int]:
        return [number for number, (found, _) in enumerate(self.found) if found == tag]

    def _first(self, tag: str) -> int:
        return self._numbers(tag)[0]

    def _within(self, inner: int, outer: int) -> bool:
        return any(outer in path and inner in path for path, _ in self.pieces)

    def _text(self, number: int, *, keep: bool = False) -> str:
        text = "".join(piece for path, piece in self.pieces if number in path)
        return text if keep else " ".join(text.split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        names = [name for name, _ in attrs]
        assert len(names) == len(set(names)), f"an attribute stands twice: {tag} {names}"
        self.found.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in _EMPTY:
            self._open.append((tag, len(self.found) - 1))
            self.pieces.append((self._path(), ""))
        if tag == "br":
            self.pieces.append((self._path(), " "))

    def handle_endtag(self, tag: str) -> None:
        if tag in _EMPTY:
            return
        opened, _ = self._open.pop()
        assert opened == tag, f"<{opened}> ends with </{tag}>"

    def handle_data(self, data: str) -> None:
        self.pieces.append((self._path(), data))

    def _path(self) -> tuple[int, ...]:
        return tuple(number for _, number in self._open)


def read(source: str) -> Page:
    """The page *source*. Fails if its elements do not nest."""
    return Page(source)
