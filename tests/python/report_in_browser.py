#!/usr/bin/env python3
"""Opens a page that spinectl wrote (evaluate's report.html, data check's --html) in headless Chromium, and looks at it as a reader would.

    apt-get install chromium          # or name one that is there: --browser PROGRAM
    python3 tests/python/report_in_browser.py runs/first/evaluation/report.html [--screenshot report.png]

Needs nothing but Python and Chromium; `make setup` installs no browser, so `make test` does not run this. On a wide and on a narrow
screen, in light and in dark: nothing is fetched, no script runs, the page does not scroll sideways, every chart is drawn and within the
page, no text of a chart leaves its chart, and all text stands out from the paper (a contrast of 4.5, WCAG 2 AA). Exit code 1 with what
is wrong.
"""

import argparse
import html
import json
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

# 0 is dark, by Chromium's own numbers.
SCHEMES = {"light": 1, "dark": 0}
SCREENS = {"wide": (1400, 1000), "narrow": (500, 900)}

# Added to a copy of the page, where it writes down what it finds.
LOOK = """
<script>
const wrong = [];
const say = (text) => { if (wrong.length < 40) wrong.push(text); };
const inside = (a, b, slack) => a.left >= b.left - slack && a.right <= b.right + slack && a.top >= b.top - slack && a.bottom <= b.bottom + slack;
const channels = (color) => color.match(/[\\d.]+/g).slice(0, 3).map(Number);
const luminance = (color) => channels(color).map((v) => v / 255).map((v) => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
  .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
const contrast = (a, b) => { const [x, y] = [luminance(a), luminance(b)].sort((p, q) => q - p); return (x + 0.05) / (y + 0.05); };
const paper = getComputedStyle(document.body).backgroundColor;
const root = document.documentElement;
if (root.scrollWidth > root.clientWidth) say(`scrolls sideways: ${root.scrollWidth} of ${root.clientWidth} px`);
for (const entry of performance.getEntriesByType("resource")) say(`fetches ${entry.name}`);
if (document.scripts.length > 1) say("has a script");
const charts = [...document.querySelectorAll("svg")];
for (const svg of charts) {
  const name = svg.querySelector("title")?.textContent ?? "a chart without a title";
  const frame = svg.getBoundingClientRect();
  if (frame.width < 100 || frame.height < 60) say(`${name}: ${frame.width} x ${frame.height} px`);
  if (frame.right > root.clientWidth + 1) say(`${name}: leaves the page`);
  for (const path of svg.querySelectorAll("path")) if (!(path.getTotalLength() > 0)) say(`${name}: a line of no length`);
  for (const part of svg.querySelectorAll("path, text, circle"))
    if (!inside(part.getBoundingClientRect(), frame, 2)) say(`${name}: ${part.tagName} "${part.textContent}" leaves the chart`);
  for (const text of svg.querySelectorAll("text")) {
    const found = contrast(getComputedStyle(text).fill, paper);
    if (found < 4.5) say(`${name}: text "${text.textContent}" has a contrast of ${found.toFixed(1)}`);
  }
}
for (const part of document.querySelectorAll("h1, h2, h3, p, td, th, caption, figcaption, li")) {
  const found = contrast(getComputedStyle(part).color, paper);
  if (found < 4.5) say(`<${part.localName}> has a contrast of ${found.toFixed(1)}`);
}
const seen = { wrong, charts: charts.length, paper, headings: [...document.querySelectorAll("h2")].map((h) => h.textContent) };
const place = document.createElement("pre");
place.id = "seen";
place.textContent = JSON.stringify(seen);
document.body.append(place);
</script>
"""


def chromium(browser, page, scheme, size, profile, more):
    command = [
        browser, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
        "--disable-component-update", "--disable-sync", "--hide-scrollbars", f"--user-data-dir={profile}",
        f"--window-size={size[0]},{size[1]}", f"--blink-settings=preferredColorScheme={SCHEMES[scheme]}", *more, page.as_uri(),
    ]  # fmt: skip
    ended = subprocess.run(command, capture_output=True, text=True, timeout=120)
    if ended.returncode != 0:
        sys.exit(f"{browser} ended with {ended.returncode}:\n{ended.stderr[-2000:]}")
    return ended.stdout


def look(browser, page, scheme, size, profile):
    text = chromium(browser, page, scheme, size, profile, ["--dump-dom"])
    found = re.search(r'<pre id="seen">(.*?)</pre>', text, re.DOTALL)
    if not found:
        sys.exit("the page was not looked at: its copy's script did not run to its end")
    return json.loads(html.unescape(found[1]))


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("page", type=pathlib.Path)
    parser.add_argument("--screenshot", type=pathlib.Path, help="write a picture of the page, wide and light")
    parser.add_argument("--height", type=int, default=1000, help="of the picture, px")
    parser.add_argument("--browser", default=shutil.which("chromium") or shutil.which("google-chrome"))
    arguments = parser.parse_args()
    if not arguments.browser:
        sys.exit("there is no Chromium on PATH: apt-get install chromium, or name one by --browser")
    text = arguments.page.read_text(encoding="utf-8")
    if "</body>" not in text:
        sys.exit(f"{arguments.page} is no whole page")

    wrong = 0
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        copy = folder / "page.html"
        copy.write_text(text.replace("</body>", LOOK + "</body>"), encoding="utf-8")
        papers = set()
        for scheme in SCHEMES:
            for screen, size in SCREENS.items():
                seen = look(arguments.browser, copy, scheme, size, folder / "profile")
                papers.add((scheme, seen["paper"]))
                print(f"{scheme}, {screen}: {seen['charts']} charts; {', '.join(seen['headings'])}")
                for line in seen["wrong"]:
                    print(f"  wrong: {line}")
                wrong += len(seen["wrong"])
                if not seen["headings"]:
                    print("  wrong: nothing is told")
                    wrong += 1
        if len({paper for _, paper in papers}) < 2:
            print("wrong: dark looks like light")
            wrong += 1
        if arguments.screenshot:
            size = (SCREENS["wide"][0], arguments.height)
            more = [f"--screenshot={arguments.screenshot.resolve()}"]
            chromium(arguments.browser, arguments.page.resolve(), "light", size, folder / "profile", more)
            print(f"wrote {arguments.screenshot}")
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
