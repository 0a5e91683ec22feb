"""Which layers of a model are meant, and with which `k`: names, paths, patterns, functions."""

import fnmatch
from collections.abc import Iterable, Mapping
from typing import Any

import keras

from keras_popup import composites, selectors


def _matches(path: str, pattern: str) -> bool:
    """Tells whether a pattern matches a layer, by name or path, or one that holds it."""
    steps = path.split("/")
    whole = ["/".join(steps[:end]) for end in range(1, len(steps) + 1)]
    return any(fnmatch.fnmatchcase(part, glob) for part in whole for glob in (pattern, f"*/{pattern}"))


def _check_patterns(argument: str, patterns: Iterable[str], found: list[tuple[str, Any]]) -> None:
    for pattern in patterns:
        if not any(_matches(path, pattern) for path, _ in found):
            raise ValueError(
                f"`{argument}` has a pattern that matches no layer. Received: {pattern!r}. "
                f"Expected a name, path or pattern of these: {[path for path, _ in found]}."
            )


def excluded(found: list[tuple[str, Any]], exclude: Any) -> set[int]:
    """Returns the ids of the layers that `exclude` names, and of those they hold."""
    if callable(exclude) and not isinstance(exclude, keras.layers.Layer):
        chosen = [layer for _, layer in found if exclude(layer)]
    else:
        several = list(exclude) if isinstance(exclude, (list, tuple, set, frozenset)) else [exclude]
        if not all(isinstance(item, (str, keras.layers.Layer)) for item in several):
            raise TypeError(
                "`exclude` must be a pattern, a layer, several of them in a list, or a function of a layer. "
                f"Received: {exclude!r}."
            )
        patterns = [item for item in several if isinstance(item, str)]
        _check_patterns("exclude", patterns, found)
        chosen = [layer for path, layer in found if any(_matches(path, pattern) for pattern in patterns)]
        chosen += [item for item in several if not isinstance(item, str)]
        if strangers := [layer.name for layer in chosen if not any(layer is other for _, other in found)]:
            raise ValueError(f"`exclude` has layers that are not the model's. Received: {strangers}.")
    return {id(part) for layer in chosen for part in (layer, *(held for _, held in composites.walk(layer)))}


def unmatched(found: list[tuple[str, Any]], patterns: Iterable[str]) -> list[str]:
    """Returns the paths of the layers that no pattern matches."""
    several = list(patterns)
    return [path for path, _ in found if not any(_matches(path, pattern) for pattern in several)]


def fractions(maskable: list[tuple[str, Any]], k: Any) -> dict[int, float]:
    """Returns `k` by the ids of the layers, checked."""
    if isinstance(k, Mapping):
        _check_patterns("k", k, maskable)
    by_id, used = {}, set()
    for path, layer in maskable:
        if isinstance(k, Mapping):
            matching = [pattern for pattern in k if _matches(path, pattern)]
            if not matching:
                raise ValueError(f"`k` has no entry for layer '{path}'. Add one, or '*' for the rest. Received: {k!r}.")
            fraction = k[matching[0]]
            used.add(matching[0])
        else:
            fraction = k(layer) if callable(k) else k
        by_id[id(layer)] = selectors.check_k(fraction)
        if layer.built:
            selectors.check_kept(fraction, layer.kernel.shape.num_elements(), f" of layer '{path}'")
    if isinstance(k, Mapping) and (unused := [pattern for pattern in k if pattern not in used]):
        raise ValueError(
            f"`k` has entries that no layer is left for: {unused}. The first entry that matches a layer counts, so "
            f"'*' goes last. Received: {k!r}."
        )
    return by_id
