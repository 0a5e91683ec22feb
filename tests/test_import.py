"""What `import keras_popup` does, and what it refuses."""

import subprocess
import sys

import pytest


def python(code, **environment):
    command = [sys.executable, "-W", "error", "-c", code]
    return subprocess.run(command, capture_output=True, text=True, env={**environment, "PATH": ""}, timeout=120)


@pytest.mark.integration
@pytest.mark.parametrize(
    "imports",
    [
        "import keras, keras_popup",
        "import keras_popup, keras",
        "import keras_popup.selectors, keras",
        "from keras_popup import RunConfig; import keras",
        "import keras_popup.records; import keras",
    ],
)
def test_import_makes_load_model_find_the_layers(imports):
    code = f"{imports}\nassert 'keras_popup>MaskedDense' in keras.saving.get_custom_objects()\n"
    code += "assert keras.Model(*2 * [keras.Input((2,))]).name == 'functional', 'an automatic name was used up'"
    result = python(code)
    assert result.returncode == 0, result.stderr


def test_import_of_unknown_and_all_public_names():
    import keras_popup

    with pytest.raises(AttributeError, match="masks"):
        keras_popup.masks  # noqa: B018
    for name in keras_popup.__all__:
        assert getattr(keras_popup, name) is not None


@pytest.mark.integration
def test_import_counts_no_names():
    import subprocess
    import sys

    code = """
        import keras, keras_popup, keras_popup.layers, keras_popup.conversion
        inputs = keras.Input((4,))
        model = keras.Model(inputs, keras.layers.Dense(3)(inputs))
        assert model.name == "functional", model.name
        masked = keras_popup.mask_model(model, seed=1)
        assert keras.layers.Layer().name == "layer"
    """
    import textwrap

    subprocess.run([sys.executable, "-c", textwrap.dedent(code)], check=True, capture_output=True)
