"""The site: built with warnings as errors, compared with the signatures, and opened in a browser as files."""

import html
import importlib
import inspect
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from urllib.parse import unquote

import pytest
from browser import open_browser

import keras_popup

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    out = tmp_path_factory.mktemp("site") / "html"
    done = subprocess.run(
        [sys.executable, ROOT / "docs" / "site" / "build.py", out],
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "default"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return out


def signatures(page):
    """Returns the signatures on a page of the reference, by full name, without spaces."""
    entries = re.findall(r'<dt class="sig [^"]*" id="([^"]+)">(.*?)</dt>', page.read_text(), re.DOTALL)
    return {name: re.sub(r"\s+", "", html.unescape(re.sub(r"<[^>]+>", "", text))) for name, text in entries}


def test_site_has_every_public_name_with_its_arguments(site):
    shown = {}
    for page in (site / "reference").glob("*.html"):
        shown |= signatures(page)
    modules = [name for name in keras_popup.__all__ if inspect.ismodule(getattr(keras_popup, name))]
    for module in ["keras_popup", *(f"keras_popup.{name}" for name in modules)]:
        values = vars(importlib.import_module(module))
        for name in importlib.import_module(module).__all__:
            value = values.get(name, getattr(importlib.import_module(module), name))
            if inspect.ismodule(value):
                continue
            entry = shown.get(f"{module}.{name}") or shown[f"keras_popup.{name}"]
            if name in keras_popup.layers.__all__ and inspect.isclass(value):
                for parameter in inspect.signature(value).parameters.values():
                    default = "" if parameter.default is parameter.empty else f"={parameter.default!r}"
                    assert f"{parameter.name}{default}".replace(" ", "") in entry, (name, entry)


def test_links_of_the_site_lead_somewhere(site):
    ids, links = {}, []
    for page in site.rglob("*.html"):
        text = re.sub(r"<(script|!--).*?(</script>|-->)", "", page.read_text(), flags=re.DOTALL)
        ids[page] = set(re.findall(r'\bid="([^"]+)"', text))
        links += [(page, html.unescape(link)) for link in re.findall(r'\b(?:href|src)="([^"]*)"', text)]
    missing = []
    for page, link in links:
        if not re.match(r"[a-z]+:", link):
            path, _, anchor = unquote(link).partition("#")
            target = (page.parent / path.partition("?")[0]).resolve() if path else page
            if not target.exists() or (anchor and target in ids and anchor not in ids[target]):
                missing.append((page.name, link))
    assert len(links) > 1000
    assert not missing


def check_page(driver, url):
    """Opens a page, and checks that it is whole, asks for nothing but files, and does not scroll sideways."""
    driver.get(url)
    deadline = time.monotonic() + 30
    loaded = "return document.readyState == 'complete' && [...document.images].every(i => i.complete)"
    while not driver.execute_script(loaded) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not driver.execute_script("return [...document.images].filter(i => !i.naturalWidth).map(i => i.src)"), url
    assert driver.execute_script("return document.documentElement.scrollWidth <= window.innerWidth"), url


@pytest.mark.filterwarnings("ignore::ResourceWarning")  # of selenium's
def test_site_on_a_narrow_screen_from_files(site):
    driver = open_browser()
    try:
        metrics = {"width": 390, "height": 800, "deviceScaleFactor": 1, "mobile": True}
        driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        for page in sorted(site.rglob("*.html")):
            if page.relative_to(site).parts[0] != "reader":  # which has tests of its own
                check_page(driver, page.as_uri())
        assert [log for log in driver.get_log("browser") if log["level"] == "SEVERE"] == []
        # From files, a browser gives the search its index, but not the pages that it would quote.
        driver.get(f"{(site / 'search.html').as_uri()}?q=save_ticket")
        deadline = time.monotonic() + 30
        results = ()
        while not results and time.monotonic() < deadline:
            time.sleep(0.1)
            results = driver.find_elements("css selector", "#search-results li a")
        assert "save_ticket" in results[0].text
        events = [json.loads(entry["message"])["message"] for entry in driver.get_log("performance")]
        urls = [e["params"]["request"]["url"] for e in events if e["method"] == "Network.requestWillBeSent"]
        assert urls
        assert not [url for url in urls if not url.startswith(("file:", "data:"))]
    finally:
        driver.quit()


@pytest.mark.filterwarnings("ignore::ResourceWarning")  # of selenium's
def test_site_is_light_or_dark(site):
    driver = open_browser("window-size=1280,800")
    try:
        driver.get((site / "index.html").as_uri())
        seen = {}
        for _ in range(3):
            for button in driver.find_elements("css selector", ".theme-toggle"):
                if button.is_displayed():
                    button.click()
                    break
            theme = driver.execute_script("return document.body.dataset.theme")
            seen[theme] = driver.execute_script(
                "return [getComputedStyle(document.body).backgroundColor, getComputedStyle(document.body).colorScheme]"
            )
        assert {"light", "dark"} <= set(seen)
        assert seen["light"][0] != seen["dark"][0]
        assert (seen["light"][1], seen["dark"][1]) == ("light", "dark")
    finally:
        driver.quit()
