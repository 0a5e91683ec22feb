"""Groups of masked kernels that one k is for: a selector such as `GlobalTopK` chooses among all their weights.

A kernel does not know the network that it is in. So its selector has the key of a group, its place there and the number
of places, and a kernel that is made with such a selector joins the group of this key that has no kernel at this place
yet. Layers that are made again, from configs or files, thus form a group of their own.
"""

import contextlib
import threading
import weakref
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import tensorflow as tf

from keras_popup import _keras


class _Kept(NamedTuple):
    values: tuple[tf.Tensor, ...]  # held, so that the addresses mean something
    addresses: tuple[Any, ...]
    thresholds: list[tf.Tensor]


class KernelGroup:
    """The masked kernels of a network that choose together.

    The group and its kernels hold each other: a part of a network keeps its masks when the rest of it is gone.

    Args:
        selector: the selector of one of its kernels, which has `check_group` and `find_thresholds`.
        k: float in (0, 1], the fraction of all their weights that is kept.
    """

    def __init__(self, selector: Any, k: float) -> None:
        self._selector = selector
        self._k = k  # that of kernels to come
        self._kernels: dict[int, Any] = {}
        self._kept: _Kept | None = None
        self._is_checked = False

    @property
    def kernels(self) -> list[Any]:
        """The kernels that are there, in the order of their places."""
        return [self._kernels[place] for place in sorted(self._kernels)]

    @property
    def is_complete(self) -> bool:
        """Whether there is a kernel at each place."""
        return bool(len(self._kernels) == self._selector.members)

    @property
    def size(self) -> int:
        """The number of weights that k is for."""
        self._check()
        return sum(kernel.size for kernel in self._kernels.values())

    def takes(self, kernel: Any) -> bool:
        """Tells whether a kernel can join: k is the same, and its place is free or taken by one never built."""
        first, second = ({**each.get_config(), "place": 0} for each in (self._selector, kernel.selector))
        other = self._kernels.get(kernel.selector.place)
        if first != second or kernel.k != self._k:
            return False
        return other is None or other.scores is None

    def add(self, kernel: Any) -> None:
        """Adds a kernel."""
        self._kernels[kernel.selector.place] = kernel

    def set_k(self, k: float) -> None:
        """Sets the fraction of all kernels.

        Raises:
            ValueError: if it keeps too few weights.
        """
        if self._is_built():
            self._selector.check_group([kernel.size for kernel in self.kernels], k)
        for kernel in self._kernels.values():
            kernel.assign_k(k)
        self._k = k

    def list_variables(self) -> list[Any]:
        """Returns the variables that the masks follow from: all scores, and k."""
        return [kernel.scores for kernel in self.kernels] + [self.kernels[0].k_variable]

    def find_threshold(self, kernel: Any) -> tf.Tensor:
        """Returns the threshold of a kernel, an int64 scalar: that of the running call, or a new one.

        Raises:
            ValueError: if the group lacks a kernel.
        """
        place = kernel.selector.place
        if _keras.is_stateless() and not self._is_built():
            return tf.constant(0, tf.int64)  # Keras only asks for shapes, while it builds a model
        context, graph = _keras.call_context(), None
        if not tf.executing_eagerly():
            graph = tf.compat.v1.get_default_graph()
        # All layers of one call of a network have the same scores. The record of the call goes when it ends.
        known = {} if context is None else vars(context).setdefault("_popup_thresholds", {})
        key = id(self), id(graph)
        if key not in known:
            # With the graph, as another one could have its id when it is gone.
            known[key] = graph, self._find_thresholds(graph is None and context is None)
        thresholds: list[tf.Tensor] = known[key][1]
        return thresholds[place]

    def forget(self) -> None:
        """Gives the memory back that `find_threshold` has held outside of calls."""
        self._kept = None

    def _find_thresholds(self, remember: bool) -> list[tf.Tensor]:
        self._check()
        if not (remember and self._is_readable()):
            return self._find_anew()
        values, addresses = zip(*map(_keras.read_memory, self.list_variables()), strict=True)
        if self._kept is None or self._kept.addresses != addresses:
            self._kept = _Kept(values, addresses, self._find_anew())
        return self._kept.thresholds

    def _is_readable(self) -> bool:
        """Tells whether the addresses of the variables can be seen, and mean something."""
        variables = [variable.value for variable in self.list_variables()]
        return not (
            tf.distribute.has_strategy()
            or _keras.is_stateless()
            or any(isinstance(variable, tf.distribute.DistributedValues) for variable in variables)
            or not all("CPU" in str(variable.device) for variable in variables)
        )

    def _find_anew(self) -> list[tf.Tensor]:
        kernels = self.kernels
        hints = [tf.convert_to_tensor(kernel.hint) for kernel in kernels]
        thresholds, found = self._selector.find_thresholds(
            [kernel.scores.value for kernel in kernels],
            kernels[0].read_k(),
            [kernel.fans() for kernel in kernels],
            tf.concat([hints[0][:1], [hint[1] for hint in hints]], 0),
        )
        for number, kernel in enumerate(kernels):
            kernel.hint.assign(tf.stack([found[0], found[number + 1]]))
        result: list[tf.Tensor] = thresholds
        return result

    def _is_built(self) -> bool:
        return self.is_complete and all(kernel.scores is not None for kernel in self._kernels.values())

    def _check(self) -> None:
        """Raises ValueError if a kernel is not there, or not built."""
        if self._is_checked:
            return
        if not self._is_built():
            built = [kernel.layer.name for kernel in self.kernels if kernel.scores is not None]
            waiting = [kernel.layer.name for kernel in self.kernels if kernel.scores is None]
            raise ValueError(
                f"Layers with the selector {type(self._selector).__name__} choose together with all others of their "
                f"network, with one k: {self._selector.members} kernels. Received: the layers {built}"
                + (f"; not built: {waiting}" if waiting else "")
                + ". Build the whole network before a part of it is used. For a part of it alone, mask that part with "
                "mask_model, or use strip_masks on the whole network and take the part from the result."
            )
        if not tf.executing_eagerly():
            return  # where k cannot be read
        self._selector.check_group([kernel.size for kernel in self.kernels], self.kernels[0].k)
        self._is_checked = True


class _Open(threading.local):
    """The groups that lack kernels, of this thread, by key. They stay as long as one of their kernels."""

    def __init__(self) -> None:
        self.groups: weakref.WeakValueDictionary[int, KernelGroup] = weakref.WeakValueDictionary()


_open = _Open()


@contextlib.contextmanager
def begin_anew() -> Iterator[None]:
    """Has kernels that are made inside join no group that lacked kernels before, such as that of one copied layer."""
    before, _open.groups = _open.groups, weakref.WeakValueDictionary()
    try:
        yield
    finally:
        _open.groups = before


def join(kernel: Any) -> KernelGroup | None:
    """Returns the group of a new masked kernel, which has joined it; None if its selector is for each kernel alone."""
    key = getattr(kernel.selector, "group", None)
    if key is None:
        return None
    group = _open.groups.get(key)
    if group is None or not group.takes(kernel):
        group = _open.groups[key] = KernelGroup(kernel.selector, kernel.k)
    group.add(kernel)
    if group.is_complete:
        del _open.groups[key]
    return group


def pick_one_of_each(kernels: Iterable[Any]) -> list[Any]:
    """Returns the kernels whose k can be set one by one: one kernel of each group, and those without a group."""
    return list({id(kernel if kernel.group is None else kernel.group): kernel for kernel in kernels}.values())
