"""The page about a search, also in a browser."""

import dataclasses
import json
import shutil

import pytest
from browser import open_browser
from example_records import EXECUTION, TRIAL
from record_folders import make_older
from searches import lines

from keras_popup import cli, records
from keras_popup.search import Range, SearchConfig, report
from keras_popup.training import RunConfig


def make_search(folder, count):
    """Makes the folder of a search with trials that were never run."""
    run = RunConfig(model="fc", epochs=30)
    search = records.SearchFolder(folder)
    config = SearchConfig(run=run, space={"k": Range(0.1, 0.9), "width": (0.5, 1.0)})
    search.start(config.arguments(), {"keras_popup": "0"}, overwrite=False)
    for number in range(1, count + 1):
        k, width, accuracy = 0.1 + 0.8 * number / count, 0.5 * (number % 2 + 1), 0.5 + 0.4 * (number * 37 % 101) / 101
        execution = dataclasses.replace(
            EXECUTION,
            k=k,
            width=width,
            history=[{"epoch": epoch, "val_accuracy": accuracy * epoch / 30} for epoch in range(1, 31)],
            validation={"loss": 1.0, "accuracy": accuracy},
            ticket_bytes=int(1000 + 1000 * k),
        )
        trial = dataclasses.replace(
            TRIAL,
            trial=number,
            score=accuracy,
            hyperparameters={"k": k, "width": width},
            folder=f"trials/{number:04d}",
            executions=(execution,),
        )
        search.append(trial)
    return search


def test_write_report_of_a_thousand_trials_is_small(tmp_path):
    page = report.write_report(make_search(tmp_path, 1000).path)
    assert page.stat().st_size < 1_000_000
    text = page.read_text()
    assert text.count("<tr data-t=") == 1000
    assert "The 60 best of 1000 trials" in text


@pytest.mark.parametrize("count", [1, 2, 3, 8])
def test_write_report_of_few_trials(count, tmp_path):
    page = report.write_report(make_search(tmp_path, count).path).read_text()
    assert page.count("<tr data-t=") == count
    assert ("over-k" in page) == (count >= 3)
    assert "This search has not ended." in page
    assert "keras-popup search --model fc --dataset digits --epochs 30 --k 0.1:0.9" in page


def test_write_report_refuses_what_is_no_search(tmp_path):
    with pytest.raises(ValueError, match="must be the folder of a search"):
        report.write_report(tmp_path)
    search = records.SearchFolder(tmp_path / "new")
    search.start(SearchConfig(run=RunConfig(model="fc"), space={"k": (0.3, 0.5)}).arguments(), {}, overwrite=False)
    with pytest.raises(ValueError, match="No trial has ended yet"):
        report.write_report(search.path)


@pytest.mark.integration
@pytest.mark.filterwarnings("ignore::ResourceWarning")  # of selenium's
def test_write_report_shows_all_of_it_in_a_browser(failing, budgeted):
    driver = open_browser("window-size=1400,1000")
    try:
        for folder in (failing[0], budgeted[0]):
            trials = [record for record in lines(folder) if record["score"] is not None]
            page = report.write_report(folder)
            assert page.stat().st_size < 1_000_000
            for width, mobile in ((1400, False), (390, True)):
                size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": mobile}
                driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
                driver.get(page.as_uri())
                assert driver.execute_script("return document.documentElement.scrollWidth") <= width
            rows = driver.find_elements("css selector", "#trials tbody tr")
            assert len(rows) == len(lines(folder))
            assert len(driver.find_elements("css selector", "#curves path[data-t]")) == len(trials)
            assert driver.find_elements("css selector", ".masks img")
            assert [log for log in driver.get_log("browser") if log["level"] == "SEVERE"] == []
            events = [json.loads(entry["message"])["message"] for entry in driver.get_log("performance")]
            urls = [e["params"]["request"]["url"] for e in events if e["method"] == "Network.requestWillBeSent"]
            assert urls
            assert not [url for url in urls if not url.startswith(("file:", "data:"))]
        assert "DivergenceError" in (failing[0] / "report.html").read_text()
    finally:
        driver.quit()


@pytest.mark.integration
@pytest.mark.filterwarnings("ignore::ResourceWarning")  # of selenium's
def test_table_is_sorted_and_filtered_and_points_at_trials(tmp_path):
    page = report.write_report(make_search(tmp_path, 12).path)
    driver = open_browser("window-size=1400,1000")
    try:
        driver.get(page.as_uri())

        def shown(column):
            script = (
                "return [...document.querySelectorAll('#trials tbody tr')].filter(r => !r.hidden)"
                f".map(r => r.cells[{column}].textContent)"
            )
            return driver.execute_script(script)

        heads = driver.find_elements("css selector", "#trials th button")
        names = [head.text for head in heads]
        heads[names.index("trial")].click()
        order = [int(text) for text in shown(0)]
        assert order in (list(range(1, 13)), list(range(12, 0, -1)))
        heads[names.index("trial")].click()
        assert [int(text) for text in shown(0)] == order[::-1]
        field = driver.find_element("css selector", ".filter input")
        for text, expected in (("k<0.5 width=1", 3), ("accuracy>=50%", 12), ("nonsense", 0), ("", 12)):
            field.clear()
            field.send_keys(text, " ")
            assert len(shown(0)) == expected, text
        driver.execute_script(
            "document.querySelector('#over-k circle[data-t=\"5\"]')"
            ".dispatchEvent(new PointerEvent('pointerover', {bubbles: true, clientX: 5, clientY: 500}))"
        )
        assert driver.find_element("id", "hint").text.startswith("trial 5, ")
        assert len(driver.find_elements("css selector", 'tr.on[data-t="5"]')) == 1
    finally:
        driver.quit()


@pytest.mark.integration
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


@pytest.mark.integration
def test_write_report_links_to_what_is_there(failing):
    page = report.write_report(failing[0]).read_text()
    addresses = [part.partition('"')[0] for part in page.split('<a href="')[1:]]
    assert addresses
    for address in addresses:
        assert (failing[0] / address).exists(), address


@pytest.mark.integration
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
