// A reader of tickets without dependencies: bytes to the weights of a network. docs/ticket-format.md describes them.
// A page loads this file as a plain script; Node.js takes it by `require`. network.js runs what it has read.
// Numbers are taken to be little-endian in memory, as on every machine that runs a browser today.
"use strict";

const kerasPopupTicket = (() => {
  const MAGIC = { ticket: [0x89, 0x4b, 0x50, 0x54, 13, 10, 26, 10], pack: [0x89, 0x4b, 0x50, 0x50, 13, 10, 26, 10] };
  const HEADER = 28, DIGEST = 32, BLOCK = 2 ** 20, ONE = 2 ** 24, WORD = 2 ** 32;

  class TicketError extends Error {}
  TicketError.prototype.name = "TicketError";
  const fail = (text) => { throw new TicketError(text); };
  const product = (shape) => shape.reduce((all, size) => all * size, 1);
  const isCount = (value) => Number.isSafeInteger(value) && value >= 0;

  // ---- bytes

  const primes = [];
  for (let n = 2; primes.length < 64; n++) if (primes.every((prime) => n % prime)) primes.push(n);
  const fraction = (value) => Math.floor((value - Math.floor(value)) * WORD) | 0;
  const SHA_START = primes.slice(0, 8).map((prime) => fraction(Math.sqrt(prime)));
  const SHA_STEPS = primes.map((prime) => fraction(Math.cbrt(prime)));

  function sha256(bytes) { // crypto.subtle is absent on pages that come by plain http
    const padded = new DataView(new ArrayBuffer((bytes.length + 72) & ~63)), w = new Int32Array(64);
    new Uint8Array(padded.buffer).set(bytes);
    padded.setUint8(bytes.length, 0x80);
    padded.setBigUint64(padded.byteLength - 8, BigInt(bytes.length) * 8n);
    const turn = (x, n) => (x >>> n) | (x << (32 - n)), state = Int32Array.from(SHA_START);
    for (let at = 0; at < padded.byteLength; at += 64) {
      for (let i = 0; i < 64; i++) {
        const x = w[i - 15], y = w[i - 2];
        w[i] = i < 16 ? padded.getInt32(at + 4 * i) : w[i - 16] + w[i - 7] + (turn(x, 7) ^ turn(x, 18) ^ (x >>> 3)) +
          (turn(y, 17) ^ turn(y, 19) ^ (y >>> 10));
      }
      let [a, b, c, d, e, f, g, h] = state;
      for (let i = 0; i < 64; i++) {
        const one = (h + (turn(e, 6) ^ turn(e, 11) ^ turn(e, 25)) + ((e & f) ^ (~e & g)) + SHA_STEPS[i] + w[i]) | 0;
        const two = ((turn(a, 2) ^ turn(a, 13) ^ turn(a, 22)) + ((a & b) ^ (a & c) ^ (b & c))) | 0;
        [a, b, c, d, e, f, g, h] = [(one + two) | 0, a, b, c, (d + one) | 0, e, f, g];
      }
      [a, b, c, d, e, f, g, h].forEach((value, i) => { state[i] += value; });
    }
    return Array.from(state, (value) => (value >>> 0).toString(16).padStart(8, "0")).join("");
  }
  const checksum = (bytes) => sha256(bytes).slice(0, 16);
  const raw = (array) => new Uint8Array(array.buffer, array.byteOffset, array.byteLength);

  function crc32(bytes) {
    let crc = -1;
    for (const byte of bytes) {
      crc ^= byte;
      for (let bit = 0; bit < 8; bit++) crc = (crc >>> 1) ^ (crc & 1 && 0xedb88320);
    }
    return ~crc >>> 0;
  }

  async function inflate(bytes, size, what) { // to exactly `size` bytes; it takes no memory for more
    const result = new Uint8Array(size);
    let filled = 0;
    try {
      const reader = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate-raw")).getReader();
      for (let part = await reader.read(); !part.done; part = await reader.read()) {
        if (filled + part.value.length > size) fail(`${what} does not decompress to ${size} bytes, but to more`);
        result.set(part.value, filled);
        filled += part.value.length;
      }
    } catch (error) {
      if (error instanceof TicketError) throw error;
      fail(`${what} cannot be decompressed: ${error.message}`);
    }
    return filled === size ? result : fail(`${what} does not decompress to ${size} bytes, but to ${filled}`);
  }

  // JSON as Python writes it: NaN and infinities, and seeds up to 2**64, which become texts here.
  const parse = (text) => JSON.parse(text.replace(/"(?:[^"\\]|\\.)*"|NaN|-?Infinity|-?\d[\d.eE+-]*/g, (token) =>
    /^-?\d{16,}$/.test(token) ? `"${token}"` : /^(NaN|-?Infinity)$/.test(token) ? "null" : token));

  async function open(bytes, kind, maxBytes) { // the frame of a ticket or a pack: its manifest, and where that ends
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
    if (!MAGIC[kind].every((byte, i) => bytes[i] === byte)) fail(`not a ${kind}: it begins with other bytes`);
    if (bytes.length < HEADER + DIGEST) fail(`it is cut off: it has only ${bytes.length} bytes`);
    const version = view.getUint32(8, true), size = Number(view.getBigUint64(12, true));
    const packed = view.getUint32(20, true), length = view.getUint32(24, true);
    if (version !== 1) fail(`it has version ${version} of the format, and this reader knows version 1`);
    if (size > maxBytes) fail(`it has ${size} bytes, more than the ${maxBytes} allowed`);
    if (size !== bytes.length) fail(`it is damaged: it has ${bytes.length} bytes, and should have ${size}`);
    const digest = Array.from(bytes.subarray(-DIGEST), (byte) => byte.toString(16).padStart(2, "0")).join("");
    if (sha256(bytes.subarray(0, -DIGEST)) !== digest) fail("it is damaged: its checksum does not match");
    if (length > Math.max(2 ** 20, maxBytes / 1024)) fail(`its manifest would have ${length} bytes`);
    const text = await inflate(bytes.subarray(HEADER, HEADER + packed), length, "its manifest");
    let manifest = null;
    try {
      manifest = parse(new TextDecoder("utf-8", { fatal: true }).decode(text));
    } catch (error) {
      fail(`its manifest is not JSON: ${error.message}`);
    }
    for (const key of kind === "pack" ? ["tasks"] : ["masks", "tensors", "assets"])
      if (!Array.isArray(manifest?.[key])) fail(`its manifest has no list of ${key}`);
    return { manifest, end: HEADER + packed };
  }

  // ---- numbers from a seed: the Philox4x64-10 stream of 64-bit words, each as two of 32 bits

  function multiplyHigh(a, b) { // the upper 32 bits of a product of 32-bit numbers
    const low = b & 65535, high = b >>> 16, al = a & 65535, ah = a >>> 16;
    const u = ah * low + ((al * low) / 65536 >>> 0), v = al * high + (u % 65536);
    return ah * high + Math.floor(u / 65536) + Math.floor(v / 65536);
  }
  function multiply(a1, a0, b1, b0) { // of 64-bit numbers: [high1, high0, low1, low0]
    const one = multiplyHigh(a0, b0) + (Math.imul(a0, b1) >>> 0) + (Math.imul(a1, b0) >>> 0);
    const two = multiplyHigh(a0, b1) + multiplyHigh(a1, b0) + (Math.imul(a1, b1) >>> 0) + Math.floor(one / WORD);
    return [(multiplyHigh(a1, b1) + Math.floor(two / WORD)) >>> 0, two >>> 0, one >>> 0, Math.imul(a0, b0) >>> 0];
  }
  const STEPS = [0x9e3779b97f4a7c15n, 0xbb67ae8584caa73bn];

  function philox(seed) {
    const keys = Array.from({ length: 10 }, (_, round) => [seed + STEPS[0] * BigInt(round), STEPS[1] * BigInt(round)]
      .flatMap((key) => [Number(BigInt.asUintN(32, key >> 32n)), Number(BigInt.asUintN(32, key))]));
    const stream = { high: 0, low: 0 };
    let counter = 0, words = [];
    stream.next = () => {
      if (!words.length) {
        counter += 1;
        let [a1, a0, b1, b0, c1, c0, d1, d0] = [Math.floor(counter / WORD), counter >>> 0, 0, 0, 0, 0, 0, 0];
        for (const [k1, k0, l1, l0] of keys) {
          const p = multiply(0xd2e7470e, 0xe14c6c93, a1, a0), q = multiply(0xca5a8263, 0x95121157, c1, c0);
          [a1, a0, b1, b0] = [(q[0] ^ b1 ^ k1) >>> 0, (q[1] ^ b0 ^ k0) >>> 0, q[2], q[3]];
          [c1, c0, d1, d0] = [(p[0] ^ d1 ^ l1) >>> 0, (p[1] ^ d0 ^ l0) >>> 0, p[2], p[3]];
        }
        words = [d0, d1, c0, c1, b0, b1, a0, a1];
      }
      stream.high = words.pop();
      stream.low = words.pop();
      return stream;
    };
    return stream;
  }

  function log(x) { // the natural logarithm from exactly rounded operations only, so that the last bit is the same
    const view = new DataView(new ArrayBuffer(8));
    view.setFloat64(0, x);
    let exponent = ((view.getUint16(0) >> 4) & 2047) - 1022;
    let mantissa = x / 2 ** exponent;
    if (mantissa < Math.sqrt(0.5)) [mantissa, exponent] = [2 * mantissa, exponent - 1];
    const z = (mantissa - 1) / (mantissa + 1);
    let series = 0;
    for (let odd = 23; odd > 0; odd -= 2) series = series * (z * z) + 1 / odd;
    return exponent * 0.6931471805599453 + 2 * z * series;
  }
  const symmetric = ({ high, low }) => (high * 2 ** 21 + (low >>> 11)) * 2 ** -52 - 1;
  const signs = (stream) => (i) => {
    if (i % 64 === 0) stream.next();
    return ((i % 64 < 32 ? stream.low : stream.high) >>> (i % 32)) & 1 ? -1 : 1;
  };
  const uniform = (stream) => () => Math.sqrt(3) * symmetric(stream.next());
  const normal = (stream) => {
    let second = null;
    return () => {
      if (second !== null) { const value = second; second = null; return value; }
      for (;;) {
        const x = symmetric(stream.next()), y = symmetric(stream.next()), square = x * x + y * y;
        if (square > 0 && square < 1) {
          const factor = Math.sqrt((-2 * log(square)) / square);
          second = y * factor;
          return x * factor;
        }
      }
    };
  };
  const kaiming = (inputs) => Math.sqrt(2 / inputs), xavier = (inputs, outputs) => Math.sqrt(2 / (inputs + outputs));
  const DRAWN = {
    SignedConstant: [signs, kaiming], UnsignedConstant: [() => () => 1, kaiming], KaimingNormal: [normal, kaiming],
    KaimingUniform: [uniform, kaiming], XavierNormal: [normal, xavier], XavierSignedConstant: [signs, xavier],
    ScoreUniform: [uniform, (inputs) => Math.sqrt(1 / (3 * inputs))],
  };

  function draw(initializer, size, fans) {
    const name = String(initializer?.registered_name).replace("keras_popup>", "");
    if (!Object.hasOwn(DRAWN, name)) fail(`its numbers come from ${name}, an initializer that this reader lacks`);
    const { seed, scaled, k } = initializer.config, [distribution, deviation] = DRAWN[name];
    const sigma = deviation(...fans) / (scaled ? Math.sqrt(k) : 1), next = distribution(philox(BigInt(seed)));
    const values = new Float32Array(size);
    for (let i = 0; i < size; i++) values[i] = sigma * next(i);
    return values;
  }

  // ---- masks

  function magnitudeBins(values, bins) {
    let largest = 0;
    for (const value of values) largest = Math.max(largest, Math.abs(value));
    const scale = Math.fround(bins / largest), result = new Uint8Array(values.length);
    if (largest > 1e-30)
      for (let i = 0; i < values.length; i++) {
        result[i] = Math.min(Math.fround(Math.abs(values[i]) * scale), bins - 1);
      }
    return result;
  }

  async function readTables(tables, shape, starts, weights) { // (code of each weight)
    const axes = weights ? [...shape, 32] : shape, size = product(shape);
    const length = 1 + axes.reduce((all, each) => all + each, 0);
    let content; // its first byte tells its length, so the two lengths are tried
    for (const bins of [1, 64]) {
      content = await inflate(tables, length + 15 * bins, "its tables").catch((error) => error);
      if (content[0] === (bins === 64 ? 1 : 0)) break;
    }
    if (content instanceof Error) throw content;
    if (content[0] === 1 && !starts) fail("its tables need initial scores, which its record does not have");
    const bins = content[0] ? 64 : 1, groups = new Int16Array(size), labels = new Int8Array(content.buffer);
    let at = 1, inner = size;
    for (const axis of shape) {
      inner /= axis;
      for (let i = 0; i < size; i++) groups[i] += labels[at + (Math.floor(i / inner) % axis)];
      at += axis;
    }
    if (weights) for (let i = 0; i < size; i++) groups[i] += labels[at + weights[i]];
    if (labels.subarray(1, length).some((label) => Math.abs(label) > 7)) fail("its tables have labels beyond 7");
    return Int8Array.from(groups, (group, i) =>
      labels[length + (Math.min(Math.max(group, -7), 7) + 7) * bins + (content[0] ? starts[i] : 0)]);
  }

  async function decodeMask(tables, stream, shape, kept, starts, weights) {
    const size = product(shape), mask = new Uint8Array(size);
    const codes = tables.length ? await readTables(tables, shape, starts, weights) : null;
    if (stream.length % 4) fail(`its stream has ${stream.length} bytes, not a multiple of 4`);
    const words = [...new Uint32Array(stream.slice().buffer)];
    if (words.at(-1) === 0) fail("its stream ends with a word that is 0");
    let low = words.pop() ?? 0, high = 0;
    if (words.length) [high, low] = [low, words.pop()];

    function next(border) { // the state is high * 2**32 + low; all products stay below 2**53
      const part = low % ONE, rest = high * 256 + Math.floor(low / ONE), bit = part >= border ? 1 : 0;
      const width = bit ? ONE - border : border, add = bit ? part - border : part;
      const upper = Math.floor(rest / 2 ** 20) * width, lower = (rest % 2 ** 20) * width + add;
      const sum = (upper % 4096) * 2 ** 20 + lower;
      [high, low] = [Math.floor(upper / 4096) + Math.floor(sum / WORD), sum % WORD];
      if (high === 0 && words.length) [high, low] = [low, words.pop()];
      return bit;
    }

    for (let first = 0; first < size; first += BLOCK) {
      const last = Math.min(first + BLOCK, size), counts = new Uint32Array(257), order = new Uint32Array(last - first);
      const code = (i) => (codes ? codes[i] + 128 : 0);
      for (let i = first; i < last; i++) counts[code(i) + 1] += 1;
      for (let i = 1; i < 257; i++) counts[i] += counts[i - 1];
      const ends = counts.slice();
      for (let i = first; i < last; i++) order[ends[code(i)]++] = i;
      for (let each = 0; each < 256; each++) {
        const units = codes ? Math.round(ONE / (1 + Math.exp((128 - each) / 12)))
          : Math.max(Math.floor((kept * ONE) / size), 1);
        const border = Math.floor(((ONE - units) * (ONE - 2)) / ONE) + 1;
        const fixed = codes ? { 0: 0, 255: 1 }[each] : { 0: 0, [size]: 1 }[kept];
        for (let i = counts[each]; i < counts[each + 1]; i++) mask[order[i]] = fixed ?? next(border);
      }
    }
    if (high || low || words.length) fail("its stream has more data than its mask needs");
    const count = mask.reduce((all, bit) => all + bit, 0);
    return count === kept ? mask : fail(`its mask keeps ${count} weights, not ${kept}`);
  }

  // ---- records

  const BYTES = { float16: 2, bfloat16: 2, float32: 4, float64: 8, bool: 1, int8: 1, int16: 2, int32: 4, int64: 8,
    uint8: 1, uint16: 2, uint32: 4, uint64: 8, complex64: 8 };
  function half(bits) { // the number that 16 bits stand for
    const exponent = (bits >> 10) & 31, fraction = bits & 1023, sign = bits & 0x8000 ? -1 : 1;
    if (exponent === 31) return fraction ? NaN : sign * Infinity;
    return sign * (exponent ? 2 ** (exponent - 25) * (1024 + fraction) : 2 ** -24 * fraction);
  }
  const NUMBERS = {
    float32: (buffer) => new Float32Array(buffer), float64: (buffer) => Float32Array.from(new Float64Array(buffer)),
    float16: (buffer) => Float32Array.from(new Uint16Array(buffer), half),
    bfloat16: (buffer) => new Float32Array(Uint32Array.from(new Uint16Array(buffer), (bits) => bits << 16).buffer),
    int32: (buffer) => Float32Array.from(new Int32Array(buffer)),
    int64: (buffer) => Float32Array.from(new BigInt64Array(buffer), Number),
  };

  async function unpack(bytes, size, dtype, what) { // the first bytes of all values come first, then the second bytes
    const width = BYTES[dtype], values = new Uint8Array(size * width);
    (await inflate(bytes, values.length, what)).forEach((byte, i) => {
      values[(i % size) * width + Math.floor(i / size)] = byte;
    });
    return values;
  }
  const numbers = (bytes, dtype, what) =>
    Object.hasOwn(NUMBERS, dtype) ? NUMBERS[dtype](bytes.slice().buffer) : fail(`${what} is of ${dtype}`);

  function factorOf({ arguments: { selector }, kept, shape }) {
    // A selector of masks in planes belongs here when they are decoded.
    const name = selector?.registered_name;
    if (name === "keras_popup>TopK") return 1;
    if (name !== "keras_popup>Bernoulli") fail(`its selector is ${name}, which this reader lacks`);
    return selector.config.rescale && kept ? Math.fround(product(shape) / kept) : 1;
  }

  const KNOWN = new Set(["k", "seed", "selector", "scores_initializer", "scores_regularizer", "train_bias",
    "train_others", "train_scores", "train_kernel", "kernel", "values_dtype", "base"]); // arguments of a mask

  async function readKernel(record, [tables, stream, values], base) {
    const { shape, dtype, kept, fans, arguments: given } = record, size = product(shape);
    const masked = new Float32Array(size), packed = new Uint8Array(Math.ceil(size / 8));
    for (const name of Object.keys(given))
      if (!KNOWN.has(name)) fail(`it has '${name}', which this reader lacks`); // it may change what the bytes mean
    const factor = record.from_seed || given.base ? factorOf(record) : 1;
    let kernel = null, starts = null, bins = null;
    if ((record.from_seed || given.base) && dtype !== "float32") fail(`its kernel is of ${dtype}, not float32`);
    if (record.from_seed) kernel = draw(record.initializer, size, fans);
    else if (given.base) kernel = findInBase(base, shape, dtype, record.kernel_check);
    if (kernel) bins = magnitudeBins(kernel, 16).map((bin, i) => bin + (kernel[i] < 0 ? 16 : 0));
    if (record.starts) {
      const ranked = given.base && given.scores_initializer?.registered_name === "keras_popup>Magnitude";
      starts = magnitudeBins(ranked ? kernel : draw(given.scores_initializer, size, fans), 64);
    }
    const mask = await decodeMask(tables, stream, shape, kept, starts, bins);
    mask.forEach((bit, i) => { packed[i >> 3] |= bit << (7 - (i & 7)); });
    if (checksum(packed) !== record.mask_check) fail("its mask is not the one that was saved");
    if (kernel) {
      if (checksum(raw(kernel)) !== record.kernel_check) fail("its kernel is not the one that was saved");
      mask.forEach((bit, i) => { if (bit) masked[i] = kernel[i] * factor; });
    } else {
      const stored = given.values_dtype ?? dtype, bytes = await unpack(values, kept, stored, "its weights");
      if (checksum(bytes) !== record.kernel_check) fail("its kernel is not the one that was saved");
      const each = numbers(bytes, stored, "its kernel").values();
      mask.forEach((bit, i) => { if (bit) masked[i] = each.next().value; });
    }
    return masked;
  }

  function findInBase(base, shape, dtype, check) {
    if (!base) fail("it holds only what differs from a base: give the base too");
    for (const weight of base.weights.values())
      if (String(weight.shape) === String(shape) && weight.dtype === dtype && checksum(raw(weight.values)) === check)
        return weight.values;
    return fail("the base is not the one that it was saved with");
  }

  const keyOf = (layer, name) => JSON.stringify([layer, name]);

  // Returns {manifest, bytes, weights, masks}. `weights` has {shape, dtype, values} by keyOf(path of a layer, key).
  async function readTicket(bytes, { base = null, maxBytes = 2 ** 30 } = {}) {
    const { manifest, end } = await open(bytes, "ticket", maxBytes);
    const weights = new Map(), masks = [];
    let at = end, total = 0;
    const take = (sections) => sections.map(([length, check]) => {
      if (!isCount(length) || at + length > bytes.length - DIGEST) fail("its sections do not end in the file");
      const section = bytes.subarray(at, (at += length));
      return crc32(section) === check ? section : fail("it does not match its checksum");
    });
    const put = (layer, name, weight) => {
      if (weights.has(keyOf(layer, name))) fail("it is listed twice");
      weights.set(keyOf(layer, name), weight);
    };
    for (const entry of [...manifest.masks, ...manifest.tensors, ...manifest.assets]) {
      const { layer, shape, dtype } = entry, isMask = "kept" in entry;
      try {
        const sections = take(entry.sections);
        if (!shape) fail("it is a file of a layer, which this reader lacks");
        if (!shape.every(isCount) || !Object.hasOwn(BYTES, dtype)) fail(`it has shape ${shape} and dtype ${dtype}`);
        total += product(shape) * Math.max(BYTES[dtype], 4);
        if (total > maxBytes) fail(`it and what comes before takes ${total} bytes, more than the ${maxBytes} allowed`);
        const values = isMask ? await readKernel(entry, sections, base)
          : numbers(await unpack(sections[0], product(shape), dtype, "its data"), dtype, "it");
        put(layer, isMask ? entry.key : entry.name, { shape, dtype, values });
        const coded = sections.reduce((all, section) => all + section.length, 0);
        if (isMask) masks.push({ layer, shape, kept: entry.kept, size: product(shape), bytes: coded });
      } catch (error) {
        fail(`${isMask ? "the mask" : `'${entry.name}'`} of layer '${layer}': ${error.message}`);
      }
    }
    for (const [layer, name, shape, dtype, check] of manifest.base?.tensors ?? [])
      put(layer, name, { shape, dtype, values: findInBase(base, shape, dtype, check) });
    if (at + DIGEST !== bytes.length) fail(`its sections end at byte ${at}, but it has ${bytes.length} bytes`);
    return { manifest, bytes: bytes.length, weights, masks };
  }

  // Returns {base: bytes or null, tasks: [{name, content: bytes}]}.
  async function readPack(bytes, { maxBytes = 2 ** 30 } = {}) {
    const { manifest, end } = await open(bytes, "pack", maxBytes);
    let at = end;
    const take = (length) => bytes.subarray(at, (at += length));
    const base = manifest.base.bytes ? take(manifest.base.bytes) : null;
    const tasks = manifest.tasks.map(({ name, bytes: length }) => ({ name, content: take(length) }));
    return at + DIGEST === bytes.length ? { base, tasks } : fail(`its tickets end at byte ${at}`);
  }

  return { TicketError, fail, product, keyOf, readTicket, readPack };
})();

if (typeof module !== "undefined") module.exports = kerasPopupTicket;
