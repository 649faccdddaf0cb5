"""Opens the status page in headless Chromium, on a telephone and on a wide screen, light and dark.

    browser.py CHROMIUM DIRECTORY URL

Speaks the DevTools protocol over pipes. Follows each link of the page by a click. Prints a line
`page: ...` for each page, and `error: ...` for each message in the console, each request that fails
or leaves the host of URL, and each page that is wider than the screen. Puts screenshots into DIRECTORY.
"""

import base64
import json
import os
import subprocess
import sys
import threading
import urllib.parse

# Name, width, height, pixels for each pixel of CSS, telephone, colour scheme.
SCREENS = [
    ("telephone", 360, 740, 2, True, "light"),
    ("telephone-dark", 360, 740, 2, True, "dark"),
    ("wide", 1280, 900, 1, False, "light"),
]
TIMEOUT = 60


class Browser:
    def __init__(self, program, directory):
        to_browser, ours = os.pipe()
        theirs, from_browser = os.pipe()
        # The protocol uses the descriptors 3 and 4.
        high = [os.dup(fd) for fd in (to_browser, from_browser)]

        def connect():
            spare = [os.dup2(fd, 100 + at) for at, fd in enumerate(high)]
            os.dup2(spare[0], 3)
            os.dup2(spare[1], 4)

        arguments = [
            program, "--headless=new", "--remote-debugging-pipe", "--disable-gpu", "--hide-scrollbars",
            "--disable-background-networking", "--disable-component-update", "--disable-sync", "--no-first-run",
            "--disable-dev-shm-usage",
            # Only the page of this test is opened, and root or a container has no sandbox.
            "--no-sandbox", "--user-data-dir=" + os.path.join(directory, "profile"),
        ]
        self.process = subprocess.Popen(
            arguments + ["about:blank"], close_fds=False, preexec_fn=connect,
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )
        for fd in [to_browser, from_browser] + high:
            os.close(fd)
        self.output, self.input = os.fdopen(theirs, "rb"), os.fdopen(ours, "wb")
        self.number, self.buffer, self.session = 0, b"", None
        self.events = []
        self.timer = threading.Timer(TIMEOUT, self.process.kill)
        self.timer.daemon = True
        self.timer.start()

    def read(self):
        while b"\0" not in self.buffer:
            piece = self.output.read1(1 << 16)
            if not piece:
                raise SystemExit("error: the browser has ended")
            self.buffer += piece
        text, self.buffer = self.buffer.split(b"\0", 1)
        return json.loads(text)

    def ask(self, method, **parameters):
        self.number += 1
        request = {"id": self.number, "method": method, "params": parameters}
        if self.session:
            request["sessionId"] = self.session
        self.input.write(json.dumps(request).encode() + b"\0")
        self.input.flush()
        number = self.number
        while True:
            message = self.read()
            if message.get("id") == number:
                if "error" in message:
                    raise SystemExit("error: %s: %s" % (method, message["error"]))
                return message["result"]
            self.events.append(message)

    def open_page(self):
        target = self.ask("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.ask("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.ask(domain + ".enable")

    def evaluate(self, expression):
        return self.ask("Runtime.evaluate", expression=expression, returnByValue=True)["result"].get("value")

    def wait_for_load(self):
        """Returns the events up to the end of loading."""
        while not any(event.get("method") == "Page.loadEventFired" for event in self.events):
            self.events.append(self.read())
        # Messages about this page may still be on their way.
        self.evaluate("new Promise(done => setTimeout(done, 100))")
        events, self.events = self.events, []
        return events


def report(events, origin):
    for event in events:
        method, parameters = event.get("method"), event.get("params", {})
        if method == "Log.entryAdded":
            print("error: console:", parameters["entry"]["level"], parameters["entry"]["text"])
        elif method == "Runtime.consoleAPICalled":
            print("error: console:", parameters["type"])
        elif method == "Runtime.exceptionThrown":
            print("error: exception:", parameters["exceptionDetails"]["text"])
        elif method == "Network.loadingFailed":
            print("error: not loaded:", parameters["errorText"], parameters.get("blockedReason", ""))
        elif method == "Network.requestWillBeSent" and not parameters["request"]["url"].startswith(origin):
            print("error: elsewhere:", parameters["request"]["url"])
        elif method == "Network.responseReceived" and parameters["response"]["status"] != 200:
            print("error: status:", parameters["response"]["status"], parameters["response"]["url"])


def main(program, directory, url):
    browser, origin = Browser(program, directory), urllib.parse.urljoin(url, "/")
    browser.open_page()
    for name, width, height, scale, is_telephone, scheme in SCREENS:
        browser.ask("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=scale, mobile=is_telephone)
        browser.ask("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        browser.events = []
        browser.ask("Page.navigate", url=url)
        report(browser.wait_for_load(), origin)
        wide = browser.evaluate("document.documentElement.scrollWidth")
        if wide > width:
            print("error: %s: the page has a width of %d" % (name, wide))
        small = browser.evaluate("""[...document.querySelectorAll("main *")].filter(e => e.childElementCount == 0
            && e.textContent && parseFloat(getComputedStyle(e).fontSize) < 12 && !e.closest("svg")).length""")
        if small:
            print("error: %s: %d texts are too small to read" % (name, small))
        links = browser.evaluate("[...document.links].map(link => link.href)")
        print("page:", name, browser.evaluate("document.title"), "with", len(links), "links")
        shot = browser.ask("Page.captureScreenshot", captureBeyondViewport=True)
        with open(os.path.join(directory, name + ".png"), "wb") as file:
            file.write(base64.b64decode(shot["data"]))
        for at, link in enumerate(links if name == "wide" else []):
            browser.ask("Page.navigate", url=url)
            browser.wait_for_load()
            browser.evaluate("document.links[%d].click()" % at)
            report(browser.wait_for_load(), origin)
            text = browser.evaluate("document.documentElement.innerText")
            print("page:", browser.evaluate("location.href"), "with", len(text), "characters")
            if browser.evaluate("location.href") != link:
                print("error: the link to %s leads elsewhere" % link)
    browser.timer.cancel()
    browser.session = None
    browser.ask("Browser.close")
    browser.process.wait(TIMEOUT)


main(*sys.argv[1:])
