"""What a reader of an HTML page sees."""

import html.parser


class Seen(html.parser.HTMLParser):
    """The elements of a page, their attributes, and its text outside script and style."""

    def __init__(self, page):
        super().__init__()
        self.elements, self.attributes, self.texts = [], [], []
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        self.elements.append(tag)
        self.attributes += attributes

    def handle_data(self, data):
        if self.elements and self.elements[-1] not in ("script", "style"):
            self.texts.append(data)
