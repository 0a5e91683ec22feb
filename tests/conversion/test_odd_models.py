"""Round trips of odd models: nothing of them may be lost without a word."""

import odd_models
import pytest
import roundtrips

import keras_popup

odd_models.register()

CHECKS = {
    "keeps": lambda case, model, x, folder: roundtrips.keeps(model, x, case.odd, case.masked),
    "strips": lambda case, model, x, folder: roundtrips.strips(model, x, case.odd),
    "saves": lambda case, model, x, folder: roundtrips.saves(model, x, case.odd, folder),
    "tickets": lambda case, model, x, folder: roundtrips.tickets(model, x, case.odd, folder),
    "strips_in_place": lambda case, model, x, folder: roundtrips.strips_in_place(model, x, case.odd),
    "trains": lambda case, model, x, folder: roundtrips.trains(model, x, case.odd),
    "stays_frozen": lambda case, model, x, folder: roundtrips.stays_frozen(model, x, case.odd),
    "clones": lambda case, model, x, folder: roundtrips.clones(model, x, case.odd, folder),
    "saves_weights": lambda case, model, x, folder: roundtrips.saves_weights(model, x, case.odd, folder),
    "converts_again": lambda case, model, x, folder: roundtrips.converts_again(model, x, case.odd),
    "in_place_keep": lambda case, model, x, folder: roundtrips.converts_in_place(model, x, case.odd, "keep"),
    "in_place_random": lambda case, model, x, folder: roundtrips.converts_in_place(model, x, case.odd, "random"),
}
QUICK = ("keeps", "strips", "saves", "tickets")

COPIED = [case for case in odd_models.TABLE if not case.refused]
REFUSED = [case for case in odd_models.TABLE if case.refused]


def _marks(case, check):
    return () if case.quick and check in QUICK else pytest.mark.rare


@pytest.mark.parametrize(
    ("case", "check"),
    [
        pytest.param(case, check, id=f"{case.name}-{check}", marks=_marks(case, check))
        for case in COPIED
        for check in CHECKS
    ],
)
def test_odd_model_round_trip(case, check, tmp_path, record_property):
    model, x = _built(case)

    try:
        if check in case.odd.refuses:
            with pytest.raises(ValueError, match=case.odd.refuses[check]):
                CHECKS[check](case, model, x, tmp_path)
        else:
            record_property("left out", CHECKS[check](case, model, x, tmp_path))
    except roundtrips.Skipped as reason:
        pytest.skip(str(reason))


@pytest.mark.integration
@pytest.mark.parametrize("case", [pytest.param(case, id=case.name) for case in REFUSED])
def test_odd_model_that_cannot_be_copied_is_masked_in_place(case):
    roundtrips.converts_in_place_only(case.build, case.odd, case.refused, case.masked)


@pytest.mark.integration
@pytest.mark.rare
@pytest.mark.parametrize("masked", [True, False], ids=["masked", "stripped"])
def test_odd_models_load_in_a_new_process(masked, tmp_path):
    """All models at once: what takes long is to start a process. Plain ones first, for what Keras alone cannot load."""
    alone, files = tmp_path / "alone", tmp_path / "files"
    alone.mkdir(), files.mkdir()
    failed = {}
    for case in COPIED:
        model, x = _built(case)
        try:
            twin = roundtrips.randomise(roundtrips.masked_copy(model, "keep", case.odd), 23)
            roundtrips.write(files, case.name, twin if masked else keras_popup.strip_masks(twin), x, case.odd)
        except Exception as error:  # the others are to be seen all the same
            failed[case.name] = f"{type(error).__name__}: {error}"
        roundtrips.write(alone, case.name, model, x, case.odd)
    cannot = roundtrips.in_a_new_process(alone, ("odd_models",), masked=False)
    failed |= roundtrips.in_a_new_process(files, ("odd_models",), masked)
    assert set(failed) == {case.name for case in COPIED}
    assert not {name: what for name, what in failed.items() if what and not cannot[name]}


def _built(case):
    try:
        return case.build()
    except Exception as error:
        if "channels_first" in case.name:
            pytest.skip(f"not on this machine: {str(error)[:80]}")
        raise
