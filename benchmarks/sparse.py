"""Measures where LiteRT skips zeros: MobileNet's sparse file against its dense one, with one thread.

Each row times `litert_sparse` against `litert`, in turn, on one image. "native" is the package ai-edge-litert,
"browser" is LiteRT.js in Chromium, which is WebAssembly. The browser needs selenium, ChromeDriver, and LiteRT.js:

npm install --prefix /tmp/litertjs @litertjs/core@2.5.3
python benchmarks/sparse.py --litertjs /tmp/litertjs --json benchmarks/results/sparse.json
"""

import argparse
import functools
import http.server
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import keras
import numpy as np
from deploy import runner
from pairs import Table, compare, parser, repeated

import keras_popup

SHAPE = (224, 224, 3)
KERNELS = {
    "pointwise": lambda k: {"*_pointwise": k, "*": 0.5},
    "all": lambda k: k,
}
"""`k` of the kernels, from the `k` of the 1x1 convolutions."""

PAGE = """<!DOCTYPE html><html><body>
<script type="importmap">{"imports": {
  "@litertjs/core": "/node_modules/@litertjs/core/dist/index.js",
  "@litertjs/wasm-utils": "/node_modules/@litertjs/wasm-utils/dist/index.js"}}</script>
<script type="module">
import {loadLiteRt, loadAndCompile, Tensor} from '@litertjs/core';
const models = {};
let input;
window.start = async (shape) => {
  await loadLiteRt('/node_modules/@litertjs/core/wasm/');
  const pixels = new Float32Array(await (await fetch('/images.bin')).arrayBuffer());
  input = new Tensor(pixels, shape);
};
window.compileModel = async (path) => {
  models[path] = await loadAndCompile(path, {accelerator: 'wasm', cpuOptions: {numThreads: 1}});
};
window.runModel = async (path, count) => {
  let outputs;
  const start = performance.now();
  for (let number = 0; number < count; number++) {
    const [result] = await models[path].run(input);
    outputs = result.toTypedArray().slice();
    result.delete();
  }
  return [(performance.now() - start) / count, Array.from(outputs)];
};
window.isThere = true;
</script></body></html>"""


class Handler(http.server.SimpleHTTPRequestHandler):
    """Serves a folder in silence. Browsers refuse modules and WebAssembly that have another type."""

    extensions_map = {**http.server.SimpleHTTPRequestHandler.extensions_map, ".js": "text/javascript"}  # noqa: RUF012

    def log_message(self, *_: Any) -> None:
        pass


@contextmanager
def browser(folder: Path, litertjs: Path, images: np.ndarray) -> Iterator[Callable[[str], Any]]:
    """Yields a function that awaits an expression in a page with LiteRT.js. The page's files are in `folder`."""
    from selenium import webdriver

    (folder / "page.html").write_text(PAGE)
    (folder / "images.bin").write_bytes(images.tobytes())
    (folder / "node_modules").symlink_to((litertjs / "node_modules").resolve())
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=folder))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    options = webdriver.ChromeOptions()
    for argument in ("headless", "no-sandbox", "disable-gpu", "disable-dev-shm-usage"):
        options.add_argument(f"--{argument}")
    driver = webdriver.Chrome(options, webdriver.ChromeService(shutil.which("chromedriver")))

    def evaluate(expression: str) -> Any:
        answer, error = driver.execute_async_script(
            f"const done = arguments[0]; (async () => {expression})().then(x => done([x ?? null, null]), "
            "error => done([null, String(error)]))"
        )
        if error:
            raise RuntimeError(f"{expression}: {error}")
        return answer

    try:
        driver.set_script_timeout(300)
        driver.get(f"http://127.0.0.1:{server.server_port}/page.html")
        while not driver.execute_script("return window.isThere === true"):
            time.sleep(0.1)
        evaluate(f"start({list(images.shape)})")
        yield evaluate
    finally:
        driver.quit()
        server.shutdown()
        server.server_close()


def build(kernels: str, k: float, images: np.ndarray) -> keras.Model:
    """Returns a stripped MobileNet for one image, with masks of untrained scores.

    Its normalizations have seen images: otherwise the activations would shrink from layer to layer.
    """
    masked = keras_popup.mask_model(keras_popup.models.MobileNet(SHAPE), k=KERNELS[kernels](k), seed=1)
    for _ in range(20):
        masked(images, training=True)
    inputs = keras.Input(SHAPE, batch_size=len(images))  # LiteRT.js takes fixed shapes only
    return keras.Model(inputs, keras_popup.strip_masks(masked)(inputs))


def check_outputs(found: Any, expected: np.ndarray) -> None:
    """Raises RuntimeError if the outputs in the browser are not those of the native runtime."""
    difference = float(np.abs(np.asarray(found, "float32") - expected.ravel()).max() / np.abs(expected).max())
    if not difference <= 1e-4:
        raise RuntimeError(f"The outputs in the browser differ by {difference:.3g} of the largest one.")


def measure(arguments: argparse.Namespace, table: Table, folder: Path) -> None:
    images = np.random.default_rng(0).random((1, *SHAPE)).astype(np.float32)
    with browser(folder, arguments.litertjs, images) as evaluate:
        for kernels in arguments.kernels.split(","):
            for k in map(float, arguments.k.split(",")):
                plain = build(kernels, k, images)
                paths = [folder / f"{kernels}{k}_{name}.tflite" for name in ("litert_sparse", "litert")]
                sizes = [
                    keras_popup.export(plain, path, name, inputs=images).bytes
                    for path, name in zip(paths, ("litert_sparse", "litert"), strict=True)
                ]
                calls = [runner("litert", str(path), images, threads=1) for path in paths]
                timings = [repeated(call, 3) for call in calls]
                table.add(compare(*timings, arguments.runs), "native", kernels, k, *sizes)

                for path, call in zip(paths, calls, strict=True):
                    evaluate(f"compileModel('/{path.name}')")
                    check_outputs(evaluate(f"runModel('/{path.name}', 5)")[1], call())
                timings = [lambda path=path: evaluate(f"runModel('/{path.name}', 3)")[0] for path in paths]
                table.add(compare(*timings, arguments.runs), "browser", kernels, k, *sizes)


def main() -> None:
    arguments = parser(__doc__, runs=9)
    arguments.add_argument("--k", default="0.1,0.2,0.3,0.4", help="of the 1x1 convolutions (default: %(default)s)")
    arguments.add_argument(
        "--kernels", default="pointwise", help='"all" masks all kernels with k, "pointwise" the others with 0.5'
    )
    arguments.add_argument("--litertjs", type=Path, required=True, help="the folder of `npm install --prefix`")
    arguments = arguments.parse_args()
    table = Table(("runtime", "kernels", "k", "bytes", "dense bytes"), arguments)
    with tempfile.TemporaryDirectory() as folder:
        measure(arguments, table, Path(folder))
    table.write()


if __name__ == "__main__":
    main()
