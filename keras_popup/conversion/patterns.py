"""Which kernels of a model are meant, and with which `k`: names, paths, patterns, functions."""

import fnmatch
from collections.abc import Iterable, Mapping
from typing import Any

import keras

from keras_popup import selectors
from keras_popup.layers import get_parts, is_graph, kernels_of, walk, walk_parts

Kernel = tuple[Any, str]
"""A layer, and the name of one of its kernels."""


class Paths:
    """The paths of a model's layers.

    The path of a layer is its name, behind those of the layers that hold it. Where Keras makes the name up, inside of
    code, the attribute stands in its place. A pattern may name the attributes instead, or Keras's own path.
    """

    def __init__(self, model: Any) -> None:
        self.found: list[tuple[str, Any]] = list(walk(model, shown=True))
        attributes = dict(_attribute_paths(model))
        self._paths = {
            id(layer): tuple(dict.fromkeys(p for p in (path, attributes[id(layer)], layer.path) if p))
            for path, layer in self.found
        }

    def of(self, layer: Any) -> str:
        """Returns the path of a layer; "" of the model itself."""
        return self._paths.get(id(layer), ("",))[0]

    def of_kernel(self, layer: Any, name: str, several: bool) -> str:
        """Returns the path of a kernel: the layer's, with the kernel's name behind it where the layer has several."""
        path = self.of(layer)
        return f"{path}/{name}".lstrip("/") if several else path

    def match(self, layer: Any, pattern: str) -> bool:
        """Tells whether a pattern matches a layer, by name or path, or one that holds it."""
        return any(_matches(path, pattern) for path in self._paths.get(id(layer), ()))

    def match_kernel(self, kernel: Kernel, pattern: str) -> bool:
        """Tells whether a pattern matches a kernel, or its layer, or one that holds that."""
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
                    f"Expected a name, path or pattern of these: {self._listed(argument, kernels)}."
                )

    def _listed(self, argument: str, kernels: list[Kernel]) -> list[str]:
        if argument == "exclude":
            return [path for path, _ in self.found]
        layers = [id(layer) for layer, _ in kernels]
        return [self.of_kernel(layer, name, layers.count(id(layer)) > 1) for layer, name in kernels]


def _attribute_paths(model: Any, path: str = "", seen: set[int] | None = None) -> Iterable[tuple[int, str]]:
    """Yields (id, path) of all layers: the steps are names in graphs, and elsewhere attributes."""
    seen = set() if seen is None else seen
    for place, part in get_parts(model).items():
        if id(part) not in seen:
            seen.add(id(part))
            step = part.name if is_graph(model) else "/".join(map(str, place))
            below = f"{path}/{step}" if path else step
            yield id(part), below
            yield from _attribute_paths(part, below, seen)


def _matches(path: str, pattern: str) -> bool:
    steps = path.split("/")
    whole = ["/".join(steps[:end]) for end in range(1, len(steps) + 1)]
    return any(fnmatch.fnmatchcase(part, glob) for part in whole for glob in (pattern, f"*/{pattern}"))


def find_excluded(paths: Paths, kernels: list[Kernel], exclude: Any) -> tuple[set[int], set[tuple[int, str]]]:
    """Returns the ids of the layers that `exclude` names, and of those they hold; and the kernels that it names."""
    if callable(exclude) and not isinstance(exclude, keras.layers.Layer):
        chosen, patterns = [layer for _, layer in paths.found if exclude(layer)], []
    else:
        several = list(exclude) if isinstance(exclude, (list, tuple, set, frozenset)) else [exclude]
        if not all(isinstance(item, (str, keras.layers.Layer)) for item in several):
            raise TypeError(
                "`exclude` must be a pattern, a layer, several of them in a list, or a function of a layer. "
                f"Received: {exclude!r}."
            )
        patterns = [item for item in several if isinstance(item, str)]
        paths.check("exclude", patterns, kernels)
        chosen = [layer for _, layer in paths.found if any(paths.match(layer, pattern) for pattern in patterns)]
        chosen += [item for item in several if not isinstance(item, str)]
        if strangers := [layer.name for layer in chosen if not any(layer is other for _, other in paths.found)]:
            raise ValueError(f"`exclude` has layers that are not the model's. Received: {strangers}.")
    layers = {id(part) for layer in chosen for part in (layer, *(held for _, held in walk_parts(layer)))}
    single = {
        (id(layer), name)
        for layer, name in kernels
        if id(layer) in layers or any(paths.match_kernel((layer, name), pattern) for pattern in patterns)
    }
    return layers, single


def find_unmatched_kernels(model: Any, patterns: Iterable[str]) -> list[str]:
    """Returns the paths of the maskable layers of a plain model that no pattern matches."""
    paths, several = Paths(model), list(patterns)
    kernels = [(layer, spec.name) for _, layer in paths.found for spec in kernels_of(layer)]
    return [paths.of(kernel[0]) for kernel in kernels if not any(paths.match_kernel(kernel, each) for each in several)]


def find_fractions(paths: Paths, kernels: list[Kernel], k: Any, size: Any) -> dict[tuple[int, str], float]:
    """Returns `k` by layer and kernel, checked.

    Args:
        size: function of a layer and a kernel's name that returns how many weights it has.
    """
    if isinstance(k, Mapping):
        paths.check("k", k, kernels)
    layers = [id(layer) for layer, _ in kernels]
    fractions, used = {}, set()
    for layer, name in kernels:
        where = paths.of_kernel(layer, name, layers.count(id(layer)) > 1)
        if isinstance(k, Mapping):
            matching = [pattern for pattern in k if paths.match_kernel((layer, name), pattern)]
            if not matching:
                raise ValueError(
                    f"`k` has no entry for layer '{where}'. Add one, or '*' for the rest. Received: {k!r}."
                )
            fraction = k[matching[0]]
            used.add(matching[0])
        else:
            fraction = k(layer) if callable(k) else k
        fractions[id(layer), name] = selectors.check_k(fraction)
        selectors.check_kept(fraction, size(layer, name), f" of layer '{where}'")
    if isinstance(k, Mapping) and (unused := [pattern for pattern in k if pattern not in used]):
        raise ValueError(
            f"`k` has entries that no layer is left for: {unused}. The first entry that matches a layer counts, so "
            f"'*' goes last. Received: {k!r}."
        )
    return fractions
