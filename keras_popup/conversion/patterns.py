"""Finds the layers and kernels that the arguments `k` and `exclude` name, and the `k` of each kernel."""

import fnmatch
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import keras

from keras_popup import selectors
from keras_popup.layers import get_parts, is_graph, kernels_of, walk, walk_parts

Fractions = float | Mapping[str, float] | Callable[[Any], float]
"""`k` of the kernels of a model: one number, a dict from patterns to numbers, or a function of a layer."""

Kernel = tuple[Any, str]
"""A layer, and the name of one of its kernels."""


class Paths:
    """The paths of a model's layers.

    The path of a layer consists of the names of the layers that hold it and its own name. Inside of code, where Keras
    generates names, attributes replace them. A pattern may also match a path of attributes, or the path in Keras.

    Attributes:
        found: list of (path, layer) for all layers of the model.
    """

    def __init__(self, model: Any) -> None:
        self.found: list[tuple[str, Any]] = list(walk(model, shown=True))
        attributes = dict(_walk_attribute_paths(model))
        self._paths = {
            id(layer): tuple(dict.fromkeys(p for p in (path, attributes[id(layer)], layer.path) if p))
            for path, layer in self.found
        }

    def of(self, layer: Any) -> str:
        """Returns the path of a layer, "" for the model itself."""
        return self._paths.get(id(layer), ("",))[0]

    def of_kernel(self, layer: Any, name: str, several: bool) -> str:
        """Returns the path of a kernel: that of its layer, plus "/" and the kernel's name if the layer has several."""
        path = self.of(layer)
        return f"{path}/{name}".lstrip("/") if several else path

    def match(self, layer: Any, pattern: str) -> bool:
        """Tells whether a pattern matches the path of a layer, or of a layer that holds it."""
        return any(_matches(path, pattern) for path in self._paths.get(id(layer), ()))

    def match_kernel(self, kernel: Kernel, pattern: str) -> bool:
        """Tells whether a pattern matches the path of a kernel, of its layer, or of a layer that holds that layer."""
        layer, name = kernel
        return any(_matches(f"{path}/{name}".lstrip("/"), pattern) for path in self._paths.get(id(layer), ("",)))

    def check(self, argument: str, patterns: Iterable[str], kernels: Iterable[Kernel]) -> None:
        """Raises ValueError for a pattern that matches nothing."""
        kernels = list(kernels)
        for pattern in patterns:
            if any(self.match(layer, pattern) for _, layer in self.found) and argument == "exclude":
                continue
            if not any(self.match_kernel(kernel, pattern) for kernel in kernels):
                raise ValueError(
                    f"`{argument}` has a pattern that matches no layer. Received: {pattern!r}. "
                    f"Expected the name or path of one of these, or a pattern: {self._list_paths(argument, kernels)}."
                )

    def _list_paths(self, argument: str, kernels: list[Kernel]) -> list[str]:
        if argument == "exclude":
            return [path for path, _ in self.found]
        layers = [id(layer) for layer, _ in kernels]
        return [self.of_kernel(layer, name, layers.count(id(layer)) > 1) for layer, name in kernels]


def _walk_attribute_paths(model: Any, path: str = "", seen: set[int] | None = None) -> Iterable[tuple[int, str]]:
    """Yields (id, path) for all layers. Steps are names in Sequential and Functional models, attributes elsewhere."""
    seen = set() if seen is None else seen
    for location, part in get_parts(model).items():
        if id(part) not in seen:
            seen.add(id(part))
            step = part.name if is_graph(model) else "/".join(map(str, location))
            below = f"{path}/{step}" if path else step
            yield id(part), below
            yield from _walk_attribute_paths(part, below, seen)


def _matches(path: str, pattern: str) -> bool:
    steps = path.split("/")
    prefixes = ["/".join(steps[:end]) for end in range(1, len(steps) + 1)]
    return any(fnmatch.fnmatchcase(prefix, glob) for prefix in prefixes for glob in (pattern, f"*/{pattern}"))


def find_excluded(paths: Paths, kernels: list[Kernel], exclude: Any) -> tuple[set[int], set[tuple[int, str]]]:
    """Finds what `exclude` names.

    Returns:
        (layers, single). `layers` has the ids of the excluded layers and of all layers that they hold. `single` has
        (id of the layer, name of the kernel) for all excluded kernels.
    """
    if callable(exclude) and not isinstance(exclude, keras.layers.Layer):
        chosen, patterns = [layer for _, layer in paths.found if exclude(layer)], []
    else:
        items = list(exclude) if isinstance(exclude, (list, tuple, set, frozenset)) else [exclude]
        if not all(isinstance(item, (str, keras.layers.Layer)) for item in items):
            raise TypeError(
                "`exclude` must be a pattern, a layer, a list of patterns and layers, or a function that takes a layer "
                f"and returns a bool. Received: {exclude!r}."
            )
        patterns = [item for item in items if isinstance(item, str)]
        paths.check("exclude", patterns, kernels)
        chosen = [layer for _, layer in paths.found if any(paths.match(layer, pattern) for pattern in patterns)]
        chosen += [item for item in items if not isinstance(item, str)]
        if strangers := [layer.name for layer in chosen if not any(layer is other for _, other in paths.found)]:
            raise ValueError(f"`exclude` must have layers of the model only. Received other layers: {strangers}.")
    layers = {id(part) for layer in chosen for part in (layer, *(inner for _, inner in walk_parts(layer)))}
    single = {
        (id(layer), name)
        for layer, name in kernels
        if id(layer) in layers or any(paths.match_kernel((layer, name), pattern) for pattern in patterns)
    }
    return layers, single


def find_unmatched_kernels(model: Any, patterns: Iterable[str]) -> list[str]:
    """Returns the paths of the maskable layers of a plain model that no pattern matches."""
    paths, patterns = Paths(model), list(patterns)
    kernels = [(layer, spec.name) for _, layer in paths.found for spec in kernels_of(layer)]
    return [
        paths.of(kernel[0])
        for kernel in kernels
        if not any(paths.match_kernel(kernel, pattern) for pattern in patterns)
    ]


def check_one_k(k: Any, fractions: list[float], selector: selectors.Selector) -> None:
    """Raises ValueError if a selector that has one k for the whole network is given several."""
    if len(set(fractions)) > 1:
        raise ValueError(
            f"The selector {type(selector).__name__} has one k for the whole network. Received: {k!r}. Use a number, "
            "or the selector 'top_k' for a k of each layer."
        )


def find_fractions(
    paths: Paths, kernels: list[Kernel], k: Fractions, size: Callable[[Any, str], int]
) -> dict[tuple[int, str], float]:
    """Finds the `k` of each kernel.

    Args:
        paths: the paths of the model's layers.
        kernels: the kernels to find `k` for.
        k: as in `mask_model`.
        size: function that takes a layer and a kernel's name, and returns the number of weights that its k is for.

    Returns:
        A dict of checked floats by (id of the layer, name of the kernel).

    Raises:
        ValueError: if `k` is outside (0, 1], keeps no weight of a kernel, or has a pattern without effect.
    """
    if isinstance(k, Mapping):
        paths.check("k", k, kernels)
    layers = [id(layer) for layer, _ in kernels]
    fractions: dict[tuple[int, str], float] = {}
    used: set[str] = set()
    for layer, name in kernels:
        where = paths.of_kernel(layer, name, layers.count(id(layer)) > 1)
        if isinstance(k, Mapping):
            matching = [pattern for pattern in k if paths.match_kernel((layer, name), pattern)]
            if not matching:
                raise ValueError(
                    f"`k` has no entry for layer '{where}'. Add one, or add '*' for all other layers. Received: {k!r}."
                )
            fraction = k[matching[0]]
            used.add(matching[0])
        else:
            fraction = k(layer) if callable(k) else k
        fractions[id(layer), name] = selectors.check_k(fraction)
        selectors.check_kept(fraction, size(layer, name), f" of layer '{where}'")
    if isinstance(k, Mapping) and (unused := [pattern for pattern in k if pattern not in used]):
        raise ValueError(
            f"`k` has entries without effect: {unused}. Earlier entries match all their layers, and the first match "
            f"counts. Put special patterns first and '*' last. Received: {k!r}."
        )
    return fractions
