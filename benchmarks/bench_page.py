"""Time of encrypting one frame in the browser, as a ratio to decoding the same PNG there.

    python benchmarks/bench_page.py --height 1024 --width 2048 --block-size 16

The page's own modules, in a headless Chromium, on one thread; best of several runs; every ratio is
of times from the same run. `query` is all that the page does with the pixels of a photograph:
encryption, and the PNG file that is sent.
"""

import argparse
import base64
import os
import shutil
from io import BytesIO
from typing import Any

import numpy as np
from PIL import Image
from playwright.sync_api import sync_playwright

from fl_ppseg.service.page_files import TYPES, page_files

ORIGIN = "https://page.test"
"""Answered from the package's files; nothing leaves this process and its browser."""
CIPHERS = ("shuffle", "shuffle-spatial", "negative-positive", "etc", "ffx", "restricted-shuffle",
           "shuffle-spatial+negative-positive")  # fmt: skip
MEASURE = """
async ([file, cipher, scope, size, repeats]) => {
  const { newKey } = await import("/page/keys.js");
  const { encrypt } = await import("/page/ciphers.js");
  const { makeQuery } = await import("/page/query.js");
  const { withoutAlpha } = await import("/page/fitting.js");
  const bytes = Uint8Array.from(atob(file), (letter) => letter.charCodeAt(0));
  const best = async (action) => {
    let least = Infinity;
    for (let i = 0; i < repeats; i++) {
      const start = performance.now();
      await action();
      least = Math.min(least, performance.now() - start);
    }
    return least;
  };
  const decoded = () => createImageBitmap(new Blob([bytes], { type: "image/png" }));
  const bitmap = await decoded();
  const { width, height } = bitmap;
  const context = new OffscreenCanvas(width, height).getContext("2d");
  context.drawImage(bitmap, 0, 0);
  const pixels = context.getImageData(0, 0, width, height);
  const picture = withoutAlpha(pixels);
  const spec = { cipher, scope, block_size: size, fit: "resize", image_size: [height, width] };
  return [
    await best(async () => (await decoded()).close()),
    await best(async () => encrypt(picture, await newKey(), spec)),
    await best(async () => makeQuery(pixels, await newKey(), spec)),
  ];
}
"""


def photograph(height: int, width: int) -> bytes:
    """A PNG as large as one of a photograph: a smooth picture with a little noise."""
    y, x = np.mgrid[:height, :width] / max(height, width)
    bands = np.stack([np.sin(7 * x + 3 * y), np.cos(5 * y), np.sin(9 * x * y + 1)], -1)
    noise = np.random.default_rng(0).normal(0, 3, bands.shape)
    content = BytesIO()
    pixels = np.clip(127.5 + 110 * bands + noise, 0, 255).astype(np.uint8)
    Image.fromarray(pixels).save(content, "PNG")
    return content.getvalue()


def answer(route: Any) -> None:
    """Serve the page's files, and an empty page to load them from."""
    name = route.request.url.removeprefix(f"{ORIGIN}/page/")
    files = page_files()
    if name in files:
        route.fulfill(body=files[name].content, content_type=files[name].media_type)
    else:
        route.fulfill(body=b"", content_type=TYPES[".html"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--height", type=int, default=1024)
    parser.add_argument("--width", type=int, default=2048)
    parser.add_argument("--block-size", type=int, default=16)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--chromium", default=shutil.which("chromium"), help="its program")
    options = parser.parse_args()
    file = photograph(options.height, options.width)
    print(f"{options.height}x{options.width}, blocks of {options.block_size}, a key a block")
    print(f"PNG of {len(file) / 1e6:.1f} MB; {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
    print(f"{'':36}{'decode':>9}{'encrypt':>9}{'x decode':>10}{'query':>9}{'x decode':>10}")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=options.chromium, args=["--no-sandbox", "--disable-gpu"]
        )
        page = browser.new_page()
        page.route("**", answer)
        page.goto(f"{ORIGIN}/")
        encoded = base64.b64encode(file).decode()
        for cipher in CIPHERS:
            decode, encrypt, query = page.evaluate(
                MEASURE, [encoded, cipher, "per-block", options.block_size, options.repeats]
            )
            print(f"{cipher:36}{decode:6.0f} ms{encrypt:6.0f} ms{encrypt / decode:10.1f}"
                  f"{query:6.0f} ms{query / decode:10.1f}")  # fmt: skip
        browser.close()


if __name__ == "__main__":
    main()
