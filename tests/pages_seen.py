"""What a reader of an HTML page sees."""

import html.parser
import time


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


def show_at(browser, width, height):
    """Set the size of the page in pixels, as on a phone if it is narrow."""
    screen = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", screen)
    for _ in range(200):
        if browser.execute_script("return innerWidth") == width:
            break
        time.sleep(0.05)
