"""TaskModel: a Keras model over weights that it is given at each call."""

from collections.abc import Callable
from typing import Any, NoReturn

import keras

from keras_popup.tickets.task_network import TaskNetwork


class TaskModel(keras.Model):
    """The model of one task, from `TaskMasks`. It is called, predicts and is evaluated as any Keras model.

    It always computes as at inference. Its weights belong to the `TaskMasks`, so it has none of its own, and cannot be
    trained or saved. `TaskMasks.unpack` gives a plain model with weights, `load_ticket(masked=True, base=base)` one to
    train further.
    """

    def __init__(
        self, name: str, network: TaskNetwork, read: Callable[[], list[Any]], classes: tuple[str, ...] = ()
    ) -> None:
        # Neither casts its inputs nor its layers' weights: that is what the network's layers do.
        super().__init__(name=name, trainable=False, dtype="float32", autocast=False)
        self._network, self._read, self._classes = network, read, tuple(classes)
        self.supports_masking = True
        self.input_spec = getattr(network.model, "input_spec", None)
        self.built = True

    def call(self, inputs: Any, mask: Any = None) -> Any:
        if all(each is None for each in keras.tree.flatten(mask)):
            mask = None
        return self._network.run(self._read(), inputs, mask)

    def compute_mask(self, inputs: Any, previous_mask: Any) -> None:
        """Returns None: outputs have their masks already."""

    # The loop over batches runs in Python, and calls the function that all tasks of a network share: so a task's first
    # answer needs no function of its own, and a function holds no kernels.
    @property
    def run_eagerly(self) -> bool:
        return True

    @run_eagerly.setter
    def run_eagerly(self, value: bool) -> None:
        pass

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the classes in the order of the outputs, from the ticket; () if it does not have them."""
        return tuple(self._classes)

    @property
    def inputs(self) -> Any:
        return getattr(self._network.model, "inputs", None)

    @property
    def outputs(self) -> Any:
        return getattr(self._network.model, "outputs", None)

    @property
    def input_shape(self) -> Any:
        return self._network.model.input_shape

    @property
    def output_shape(self) -> Any:
        return self._network.model.output_shape

    def compute_output_shape(self, input_shape: Any) -> Any:
        return self._network.model.compute_output_shape(input_shape)

    def summary(self, *args: Any, **kwargs: Any) -> None:
        self._network.model.summary(*args, **kwargs)

    def fit(self, *args: Any, **kwargs: Any) -> Any:
        raise NotImplementedError(
            f"Task '{self.name}' cannot be trained: its weights are those of the base. Train the masked model, "
            "load_ticket(path, masked=True, base=base), and save a new ticket."
        )

    train_on_batch = fit

    def get_config(self) -> dict[str, Any]:
        self._refuse()

    def _refuse(self, *args: Any, **kwargs: Any) -> NoReturn:
        raise NotImplementedError(
            f"Task '{self.name}' has no weights of its own to save or change. Save all tasks with TaskMasks.save, or "
            "take the plain model that TaskMasks.unpack returns."
        )

    # `save` too: Keras would empty the file before it asks for the config.
    save = save_weights = load_weights = quantize = export = _refuse
