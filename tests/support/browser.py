"""Chromium, driven by ChromeDriver."""

import os
import shutil

import pytest


def open_browser(*arguments):
    """Returns a driver of headless Chromium. Skips the test where there is none, unless it must be there."""
    if not shutil.which("chromedriver"):
        assert not os.environ.get("KERAS_POPUP_NEEDS_BROWSER"), "chromedriver is missing"
        pytest.skip("needs Chromium and ChromeDriver")
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    for argument in ("headless", "no-sandbox", "disable-gpu", "disable-dev-shm-usage", *arguments):
        options.add_argument(f"--{argument}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    return webdriver.Chrome(options, webdriver.ChromeService(shutil.which("chromedriver")))
