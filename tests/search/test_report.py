"""The page about a search, also in a browser."""

import json
import shutil
import time

import pytest
from browser import open_browser
from record_folders import make_older
from searches import lines

from keras_popup import cli, records
from keras_popup.search import report

pytestmark = pytest.mark.integration


@pytest.mark.filterwarnings("ignore::ResourceWarning")  # of selenium's
def test_write_report_draws_all_of_it_in_a_browser(failing, budgeted):
    driver = open_browser("window-size=1200,4000")
    try:
        for folder, plots in ((failing[0], 7), (budgeted[0], 7)):
            trials = [record for record in lines(folder) if record["score"] is not None]
            report.write_report(folder)
            driver.get((folder / "report.html").as_uri())
            # Drawn, all of it: a busy machine may return from get() before the page is there.
            drawn = (
                "return [...document.querySelectorAll('.js-plotly-plot')].filter(p => p.querySelector('svg')).length"
            )
            deadline = time.monotonic() + 60
            while driver.execute_script(drawn) < plots and time.monotonic() < deadline:
                time.sleep(0.1)
            assert driver.execute_script(drawn) == plots, (driver.title, driver.get_log("browser"))
            points = driver.find_elements("css selector", "#accuracy-over-k .scatterlayer .points path")
            assert len(points) == len(trials)
            assert len(driver.find_elements("css selector", "#learning-curves .scatterlayer .trace")) == len(trials)
            assert [log for log in driver.get_log("browser") if log["level"] == "SEVERE"] == []
            events = [json.loads(entry["message"])["message"] for entry in driver.get_log("performance")]
            urls = [e["params"]["request"]["url"] for e in events if e["method"] == "Network.requestWillBeSent"]
            assert urls
            assert not [url for url in urls if not url.startswith(("file:", "data:"))]
        assert "DivergenceError" in (failing[0] / "report.html").read_text()
    finally:
        driver.quit()


def test_write_report_changes_nothing_of_the_search(failing, tmp_path):
    folder = tmp_path / "read"
    shutil.copytree(failing[0], folder)
    with open(folder / "trials.jsonl", "a") as file:
        file.write('{"trial": 4, "half')
    before = (folder / "trials.jsonl").read_bytes()
    report.write_report(folder)
    assert (folder / "trials.jsonl").read_bytes() == before
    assert len(records.SearchFolder(folder).records(records.TrialRecord, repair=True)) == 3
    assert (folder / "trials.jsonl").read_bytes() == (failing[0] / "trials.jsonl").read_bytes()


def test_write_report_lets_no_text_run(failing, tmp_path, capsys):
    folder = tmp_path / "evil"
    shutil.copytree(failing[0], folder)
    make_older(folder)  # whose texts can be changed
    config = json.loads((folder / "search.json").read_text())
    config["config"]["dataset"] = "<script>alert(1)</script>"
    (folder / "search.json").write_text(json.dumps(config))
    text = (folder / "trials.jsonl").read_text().replace("DivergenceError", "</td><script>alert(2)</script>")
    (folder / "trials.jsonl").write_text(text)
    assert cli.main(["report", str(folder)]) == 2  # a search has written it already
    assert "exists. Choose another file, or pass --overwrite" in capsys.readouterr().err
    assert cli.main(["report", str(folder), "--overwrite"]) == 0
    assert "<script>alert" not in (folder / "report.html").read_text()
