// Strokes of a pen to the pixels of a small image, as the data sets of digits were prepared. No dependencies.
"use strict";

const kerasPopupDrawing = (() => {
  const FINE = 4; // points per pixel and axis; a pixel is the share of its 16 points that ink covers
  const DIGITS_INK = 0.305; // the mean share of ink in scikit-learn's digits, nearly the same for all ten

  // Inks the points of a grid that are at most `radius` away from a stroke, a list of [x, y] in units of the grid.
  function ink(strokes, height, width, radius) {
    const grid = new Uint8Array(height * width);
    for (const stroke of strokes)
      stroke.forEach(([x, y], i) => {
        const [u, v] = stroke[Math.max(i - 1, 0)], [dx, dy] = [u - x, v - y], squared = dx * dx + dy * dy;
        const last = [Math.max(y, v) + radius, Math.max(x, u) + radius];
        const [top, left] = [Math.min(y, v), Math.min(x, u)].map((least) => Math.max(Math.floor(least - radius), 0));
        for (let row = top; row < Math.min(last[0], height); row++)
          for (let column = left; column < Math.min(last[1], width); column++) {
            const [px, py] = [column + 0.5 - x, row + 0.5 - y];
            const along = squared ? Math.min(Math.max((px * dx + py * dy) / squared, 0), 1) : 0;
            if ((px - along * dx) ** 2 + (py - along * dy) ** 2 <= radius * radius) grid[row * width + column] = 1;
          }
      });
    return grid;
  }

  const shrink = (grid, height, width) => { // the means of squares of FINE x FINE points
    const pixels = new Float64Array(height * width);
    grid.forEach((inked, i) => {
      const row = Math.floor(i / (width * FINE) / FINE), column = Math.floor((i % (width * FINE)) / FINE);
      pixels[row * width + column] += inked / FINE ** 2;
    });
    return pixels;
  };

  // Places strokes into a grid: `fit` gives the scales of both axes from their extents, `middle` the centre.
  function place(strokes, [height, width], fit) {
    const points = strokes.flat(), range = (axis) => points.map((point) => point[axis]);
    const [left, right, top, bottom] = [0, 1].flatMap((axis) => [Math.min(...range(axis)), Math.max(...range(axis))]);
    const [sx, sy] = fit(Math.max(right - left, 1e-6), Math.max(bottom - top, 1e-6));
    return strokes.map((stroke) => stroke.map(([x, y]) =>
      [(x - (left + right) / 2) * sx + width / 2, (y - (top + bottom) / 2) * sy + height / 2]));
  }

  // As scikit-learn's digits: as high as the image, at most 3/4 as wide, and a pen as wide as their share of ink needs.
  function drawDigits(strokes, height, width) {
    const size = [height * FINE, width * FINE];
    let [thin, thick, grid] = [0, size[0] / 4, null];
    for (let step = 0; step < 12; step++) {
      const radius = (thin + thick) / 2;
      const placed = place(strokes, size, (wide, high) => {
        const scale = (size[0] - 2 * radius) / high;
        return [Math.min(scale, (0.77 * size[1] - 2 * radius) / wide), scale];
      });
      grid = ink(placed, ...size, radius);
      if (grid.reduce((all, each) => all + each, 0) < DIGITS_INK * grid.length) thin = radius;
      else thick = radius;
    }
    return shrink(grid, height, width);
  }

  // As MNIST's digits: the longer side takes 20 of 28 pixels, and the middle of the ink is the middle of the image.
  function drawCentred(strokes, height, width) {
    const size = [height * FINE, width * FINE], radius = (1.3 / 28) * size[0];
    const scale = (wide, high) => ((20 / 28) * Math.min(...size) - 2 * radius) / Math.max(wide, high);
    const placed = place(strokes, size, (wide, high) => [scale(wide, high), scale(wide, high)]);
    const grid = ink(placed, ...size, radius), middle = [0, 0];
    grid.forEach((inked, i) => {
      middle[0] += inked * (i % size[1] + 0.5);
      middle[1] += inked * (Math.floor(i / size[1]) + 0.5);
    });
    const all = grid.reduce((sum, each) => sum + each, 0) || 1;
    const shift = [size[1], size[0]].map((side, n) => side / 2 - middle[n] / all);
    const moved = placed.map((stroke) => stroke.map(([x, y]) => [x + shift[0], y + shift[1]]));
    return shrink(ink(moved, ...size, radius), height, width);
  }

  // Returns the ink of each pixel, 0 to 1, of an image of `shape` (height, width), or null for strokes without a point.
  function drawStrokes(strokes, [height, width]) {
    if (!strokes.some((stroke) => stroke.length)) return null;
    return (height <= 16 ? drawDigits : drawCentred)(strokes, height, width);
  }

  return { drawStrokes };
})();

if (typeof module !== "undefined") module.exports = kerasPopupDrawing;
