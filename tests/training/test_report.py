"""The page about a run, also in a browser."""

import pytest
from browser import open_browser
from record_folders import CONFIG, history_of, make_run, small_model

from keras_popup import records, training
from keras_popup.training.mask_records import describe_masks


@pytest.fixture
def finished(tmp_path):
    model = small_model()
    run = make_run(tmp_path / "a run", model, 3)
    run.write_masks(describe_masks(model))
    return make_run(tmp_path / "a run", model, 3, finished=True)


def test_write_report_shows_a_finished_run(finished):
    page = training.write_report(finished.path)
    text = page.read_text()
    assert page == finished.report
    assert page.stat().st_size < 100_000
    assert "± 11.18%, the standard error of 20 images" in text
    assert text.count("data:image/png") == 2
    assert "keras-popup train --model fc --dataset digits --epochs 9" in text
    assert "How the masks changed was not recorded" in text
    assert "8 bytes" in text  # of its ticket


def test_write_report_shows_a_run_that_goes_on(tmp_path):
    run = make_run(tmp_path / "run", small_model(), 2)
    text = training.write_report(run.path).read_text()
    assert "This run is not finished: 2 epochs of 9." in text
    assert "keras-popup watch" in text


def test_write_report_shows_how_masks_changed(tmp_path):
    run = make_run(tmp_path / "run", small_model(), 2)
    statistics = {"dense1/changed": 0.25, "dense1/kept": 0.5, "dense1/dead_outputs": 0.0}
    run.write_history([{**row, **statistics} for row in history_of(2)])
    text = training.write_report(run.path).read_text()
    assert 'id="changed"' in text
    assert 'id="kept"' not in text  # it stays the same
    assert 'id="dead-outputs"' not in text


def test_write_report_lets_no_text_run(tmp_path):
    run = make_run(tmp_path / "run", small_model(), 1, config={**CONFIG, "dataset": "<script>alert(1)</script>"})
    assert "<script>alert" not in training.write_report(run.path).read_text()


def test_write_report_refuses_what_is_no_run(tmp_path):
    with pytest.raises(ValueError, match="must be the folder of a run"):
        training.write_report(tmp_path)
    run = records.RunFolder(tmp_path / "new")
    run.start(CONFIG, {}, overwrite=False)
    with pytest.raises(ValueError, match="No epoch is finished yet"):
        training.write_report(run.path)


@pytest.mark.integration
@pytest.mark.filterwarnings("ignore::ResourceWarning")  # of selenium's
def test_write_report_fits_a_phone_and_a_screen(finished):
    page = training.write_report(finished.path)
    driver = open_browser("window-size=1400,1000")
    try:
        for width, mobile in ((1400, False), (390, True)):
            size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": mobile}
            driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
            driver.get(page.as_uri())
            assert driver.execute_script("return document.documentElement.scrollWidth") <= width
        assert len(driver.find_elements("css selector", "figure svg")) >= 4
        assert [log for log in driver.get_log("browser") if log["level"] == "SEVERE"] == []
    finally:
        driver.quit()


@pytest.mark.integration
def test_train_with_pictures_leaves_them_and_a_page(tmp_path):
    config = training.RunConfig(model="fc", width=0.2, epochs=1, learning_rate=0.5)
    summary = training.train(config, tmp_path / "run", pictures=True)
    assert list(summary["times"]) == ["data", "network", "first step", "training", "test"]
    for name in ("masks.png", "scores.png", "flow.png"):
        assert (tmp_path / "run" / name).read_bytes().startswith(b"\x89PNG")
    assert "data:image/png" in (tmp_path / "run" / "report.html").read_text()


def test_train_with_pictures_needs_their_packages(tmp_path, monkeypatch):
    monkeypatch.setattr("keras_popup.training.run.find_missing", lambda: "jinja2")
    with pytest.raises(
        ImportError, match=r"Pictures need jinja2. Install the extra: pip install 'keras-popup\[plots\]'"
    ):
        training.train(training.RunConfig(model="fc"), tmp_path / "run", pictures=True)
    assert not (tmp_path / "run").exists()
