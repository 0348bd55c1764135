"""A page as a browser takes it: balanced tags, nothing from outside, ids that resolve."""

import re
from html.parser import HTMLParser

VOID = {"meta", "img", "br", "hr", "link", "input"}
HOSTILE = '<script>alert("x")</script>&\'$_{a}'


class Page(HTMLParser):
    """Checks that tags are balanced; keeps the text and what a browser would fetch."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.fetched, self.links, self.words = [], [], [], [], []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        targets = [v for k, v in attrs if k in {"src", "href", "xlink:href", "srcset"}]
        (self.links if tag == "a" else self.fetched).extend(targets)
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)
        self.fetched += [v for k, v in attrs if k in {"src", "href", "xlink:href"}]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)

    @property
    def text(self):
        return " ".join(" ".join(self.words).split())


def assert_self_contained(text):
    page = Page(text)
    assert "default-src 'none'; style-src 'unsafe-inline'; img-src data:;" in text
    assert all(target.startswith(("data:image/png;base64,", "#")) for target in page.fetched)
    assert not any(re.match(r"[a-z][a-z0-9+.-]*:|/", target, re.I) for target in page.links)
    assert not {"script", "link", "iframe", "object"} & set(page.tags)
    assert not re.search(r"url\((?!#)|@import", text)
    # a phone scrolls a table in its box, never the page
    assert text.count("<table") == text.count('<div class="wide"><table')


def assert_ids_resolve(text):
    ids = re.findall(r'\bid="([^"]+)"', text)
    assert len(ids) == len(set(ids))
    used = re.findall(r'href="#([^"]+)"', text) + re.findall(r"url\(#([^)]+)\)", text)
    assert set(used) == set(ids)
