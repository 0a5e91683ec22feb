// Runs the network of a ticket that ticket.js has read: one example at a time, in float32, with sums in double
// precision. A page loads ticket.js before it; Node.js takes it by `require`. docs/ticket-format.md lists the layers.
"use strict";

const kerasPopupNetwork = (() => {
  const { fail, product, keyOf } = typeof require === "undefined" ? kerasPopupTicket : require("./ticket.js");
  const MOST_VALUES = 2 ** 28; // of one output of a layer

  // ---- layers: each takes and gives {shape, values} of one example, in float32

  const makeTensor = (shape) => product(shape) <= MOST_VALUES ? { shape, values: new Float32Array(product(shape)) }
    : fail(`an output of shape ${shape} is too large`);
  const mapValues = (f) => (x) => ({ shape: x.shape, values: x.values.map(f) });
  const asPair = (value) => (Array.isArray(value) ? value : [value, value]);
  const asList = (value) => (typeof value === "number" ? [value] : (value?.config?.value ?? value)).flat(9);
  const sigmoid = (v) => 1 / (1 + Math.exp(-v));
  const softmax = (x) => {
    const size = x.shape.at(-1), values = new Float32Array(x.values.length);
    for (let row = 0; row < values.length; row += size) {
      const part = x.values.subarray(row, row + size), largest = Math.max(...part);
      const powers = Array.from(part, (v) => Math.exp(v - largest)), sum = powers.reduce((all, v) => all + v, 0);
      values.set(powers.map((v) => v / sum), row);
    }
    return { shape: x.shape, values };
  };
  const relu = ({ max_value: most = null, negative_slope: slope = 0, threshold: least = 0 } = {}) =>
    mapValues((v) => Math.min(v >= least ? v : slope * (v - least), most ?? Infinity));
  const elu = (alpha = 1) => mapValues((v) => (v > 0 ? v : alpha * Math.expm1(v)));
  const ACTIVATIONS = {
    linear: (x) => x, relu: relu(), relu6: relu({ max_value: 6 }), leaky_relu: relu({ negative_slope: 0.2 }), softmax,
    elu: elu(), sigmoid: mapValues(sigmoid), tanh: mapValues(Math.tanh), exponential: mapValues(Math.exp),
    silu: mapValues((v) => v * sigmoid(v)),
    softplus: mapValues((v) => Math.max(v, 0) + Math.log1p(Math.exp(-Math.abs(v)))),
    hard_sigmoid: mapValues((v) => Math.min(Math.max(v / 6 + 0.5, 0), 1)),
  };
  ACTIVATIONS.swish = ACTIVATIONS.silu;
  function getActivation(given) {
    const name = given === null ? "linear" : given?.class_name === "function" ? given.config : given;
    if (Object.hasOwn(ACTIVATIONS, name)) return ACTIVATIONS[name];
    if (given?.module === "keras.layers" && Object.hasOwn(LAYERS, given.class_name)) {
      const layer = LAYERS[given.class_name](given.config, () => fail("its activation has weights"));
      return (x) => layer([x]);
    }
    return fail(`the activation ${given?.class_name ?? name} is none of ${Object.keys(ACTIVATIONS).join(", ")}`);
  }

  function window(config, size, [height, width], dilation = [1, 1]) { // where a window of a layer goes
    const strides = asPair(config.strides ?? size), same = config.padding === "same";
    if (config.data_format === "channels_first") fail("its data_format is channels_first");
    const sides = [height, width].map((length, axis) => {
      const reach = (size[axis] - 1) * dilation[axis] + 1, step = strides[axis];
      const count = same ? Math.ceil(length / step) : Math.floor((length - reach) / step) + 1;
      return { count, first: same ? -Math.floor(Math.max((count - 1) * step + reach - length, 0) / 2) : 0 };
    });
    if (sides.some(({ count }) => count < 1)) fail(`its window ${size} is larger than the input ${[height, width]}`);
    const visit = (row, column, see) => { // calls see(place in the window, place in the input) inside the input
      for (let y = 0; y < size[0]; y++) {
        const top = row * strides[0] + sides[0].first + y * dilation[0];
        if (top < 0 || top >= height) continue;
        for (let x = 0; x < size[1]; x++) {
          const left = column * strides[1] + sides[1].first + x * dilation[1];
          if (left >= 0 && left < width) see(y * size[1] + x, top * width + left);
        }
      }
    };
    return { rows: sides[0].count, columns: sides[1].count, visit };
  }

  const convolution = (depthwise) => (config, take) => {
    const kernel = take("0"), bias = config.use_bias ? take("1").values : null;
    const activate = getActivation(config.activation);
    return ([x]) => { // a depthwise kernel (height, width, inputs, multiplier) is a grouped one of one input per group
      const [height, width, inputs] = x.shape, groups = depthwise ? inputs : config.groups ?? 1;
      const outputs = depthwise ? inputs * kernel.shape[3] : kernel.shape[3], depth = inputs / groups;
      if (kernel.shape[2] !== (depthwise ? inputs : depth)) fail(`its kernel ${kernel.shape} does not fit ${x.shape}`);
      const { rows, columns, visit } = window(config, kernel.shape, [height, width], asPair(config.dilation_rate ?? 1));
      const result = makeTensor([rows, columns, outputs]), sums = new Float64Array(outputs), each = outputs / groups;
      for (let row = 0, at = 0; row < rows; row++)
        for (let column = 0; column < columns; column++, at += outputs) {
          sums.fill(0);
          visit(row, column, (place, pixel) => {
            for (let input = 0; input < inputs; input++) {
              const value = x.values[pixel * inputs + input], group = Math.floor(input / depth) * each;
              const from = (place * depth + (input % depth)) * outputs + group;
              if (value) for (let j = 0; j < each; j++) sums[group + j] += value * kernel.values[from + j];
            }
          });
          result.values.set(bias ? sums.map((sum, j) => sum + bias[j]) : sums, at);
        }
      return activate(result);
    };
  };

  const pooling = (start, join, finish) => (config) => ([x]) => {
    const [height, width, channels] = x.shape;
    const { rows, columns, visit } = window(config, asPair(config.pool_size), [height, width]);
    const result = makeTensor([rows, columns, channels]);
    for (let row = 0, at = 0; row < rows; row++)
      for (let column = 0; column < columns; column++)
        for (let channel = 0; channel < channels; channel++, at++) {
          let value = start, count = 0;
          visit(row, column, (_, pixel) => { value = join(value, x.values[pixel * channels + channel]); count++; });
          result.values[at] = finish(value, count);
        }
    return result;
  };
  const POOL = {
    max: [-Infinity, Math.max, (value) => value], average: [0, (a, b) => a + b, (sum, count) => sum / count],
  };
  const globalPooling = (kind) => (config) => ([x]) => {
    const whole = { pool_size: x.shape.slice(0, 2), strides: [1, 1], data_format: config.data_format };
    const result = pooling(...POOL[kind])(whole)([x]);
    return config.keepdims ? result : { shape: result.shape.slice(2), values: result.values };
  };

  const perChannel = (config, f) => ([x]) => { // f(value, index of the last axis)
    const size = x.shape.at(-1), axes = asList(config.axis ?? -1);
    if (axes.length !== 1 || ![-1, x.shape.length].includes(axes[0])) fail(`its axis ${axes} is not the last one`);
    return { shape: x.shape, values: x.values.map((v, i) => f(v, i % size)) };
  };
  const at = (list, i) => list[list.length === 1 ? 0 : i];
  const elementwise = (f) => () => (inputs) => {
    if (inputs.some(({ shape }) => String(shape) !== String(inputs[0].shape))) fail("its inputs have different shapes");
    return inputs.reduce((a, b) => ({ shape: a.shape, values: a.values.map((v, i) => f(v, b.values[i])) }));
  };
  const unchanged = () => ([x]) => x;
  const ofOne = (f) => (config) => { const g = f(config); return ([x]) => g(x); };

  const LAYERS = {
    InputLayer: unchanged, Dropout: unchanged, SpatialDropout2D: unchanged, GaussianNoise: unchanged,
    GaussianDropout: unchanged, ActivityRegularization: unchanged,
    Dense(config, take) {
      const kernel = take("0"), bias = config.use_bias ? take("1").values : null;
      const activate = getActivation(config.activation);
      return ([x]) => {
        const [inputs, units] = kernel.shape, result = makeTensor([...x.shape.slice(0, -1), units]);
        if (x.shape.at(-1) !== inputs) fail(`its kernel ${kernel.shape} does not fit ${x.shape}`);
        for (let row = 0; row < x.values.length / inputs; row++) {
          const sums = Float64Array.from({ length: units }, (_, j) => bias?.[j] ?? 0);
          for (let i = 0; i < inputs; i++) {
            const value = x.values[row * inputs + i];
            if (value) for (let j = 0; j < units; j++) sums[j] += value * kernel.values[i * units + j];
          }
          result.values.set(sums, row * units);
        }
        return activate(result);
      };
    },
    Conv2D: convolution(false), DepthwiseConv2D: convolution(true),
    MaxPooling2D: pooling(...POOL.max), AveragePooling2D: pooling(...POOL.average),
    GlobalMaxPooling2D: globalPooling("max"), GlobalAveragePooling2D: globalPooling("average"),
    BatchNormalization(config, take) {
      let key = 0;
      const next = () => take(String(key++)).values;
      const gamma = config.scale ? next() : [1], beta = config.center ? next() : [0];
      const mean = next(), scale = next().map((v, i) => at(gamma, i) / Math.sqrt(v + config.epsilon));
      return perChannel(config, (v, i) => (v - mean[i]) * scale[i] + at(beta, i));
    },
    Normalization(config, take) {
      const given = config.mean !== null && config.mean !== undefined;
      const [mean, variance] = given ? [asList(config.mean), asList(config.variance)]
        : [take("0").values, take("1").values];
      if (!given) take("2"); // the number of examples
      if (config.invert) fail("it has invert=True");
      return perChannel(config, (v, i) => (v - at(mean, i)) / Math.max(Math.sqrt(at(variance, i)), 1e-7));
    },
    Rescaling({ scale, offset }) {
      const [a, b] = [asList(scale), asList(offset)];
      return perChannel({}, (v, i) => v * at(a, i) + at(b, i));
    },
    Activation: ofOne((config) => getActivation(config.activation)), ReLU: ofOne(relu), LeakyReLU: ofOne(relu),
    ELU: ofOne(({ alpha }) => elu(alpha)),
    Softmax: ofOne(({ axis }) => (axis === -1 ? softmax : fail(`its axis ${axis} is not -1`))),
    Flatten: ({ data_format: format }) => ([x]) => format === "channels_first"
      ? fail("its data_format is channels_first") : { shape: [x.values.length], values: x.values },
    Reshape: ({ target_shape: shape }) => ([x]) => {
      const free = x.values.length / product(shape.filter((size) => size !== -1));
      return { shape: shape.map((size) => (size === -1 ? free : size)), values: x.values };
    },
    Add: elementwise((a, b) => a + b), Multiply: elementwise((a, b) => a * b), Maximum: elementwise(Math.max),
    Subtract: elementwise((a, b) => a - b),
    Concatenate: ({ axis }) => (inputs) => {
      if (![-1, inputs[0].shape.length].includes(axis)) fail(`its axis ${axis} is not the last one`);
      const parts = inputs.map((x) => x.shape.at(-1)), size = parts.reduce((all, part) => all + part, 0);
      const result = makeTensor([...inputs[0].shape.slice(0, -1), size]);
      for (let row = 0; row < result.values.length / size; row++)
        inputs.reduce((to, x, n) => {
          result.values.set(x.values.subarray(row * parts[n], (row + 1) * parts[n]), to);
          return to + parts[n];
        }, row * size);
      return result;
    },
    ZeroPadding2D: ({ padding, data_format: format }) => ([x]) => {
      const [[top, bottom], [left, right]] = asPair(padding).map(asPair), [height, width, channels] = x.shape;
      if (format === "channels_first") fail("its data_format is channels_first");
      const result = makeTensor([top + height + bottom, left + width + right, channels]), row = width * channels;
      for (let y = 0; y < height; y++)
        result.values.set(x.values.subarray(y * row, (y + 1) * row), ((top + y) * result.shape[1] + left) * channels);
      return result;
    },
  };

  // ---- networks

  const tensorsOf = (value) => (Array.isArray(value) ? value.flatMap(tensorsOf)
    : value?.class_name === "__keras_tensor__" ? [value.config.keras_history]
      : fail(`it is called with ${JSON.stringify(value)}`));

  // Returns a function from a list of inputs to an output.
  function buildLayer({ module, class_name: name, config }, prefix, take) {
    if (name === "Sequential" || name === "Functional") return buildGraph(name, config, prefix, take);
    if (module !== "keras.layers" || !Object.hasOwn(LAYERS, name))
      fail(`layer '${config?.name}' is a ${module}.${name}. This reader knows ${Object.keys(LAYERS).join(", ")}`);
    const named = (f) => (...given) => {
      try { return f(...given); } catch (error) { return fail(`layer '${config.name}', a ${name}: ${error.message}`); }
    };
    return named(named(LAYERS[name])(config, (key) => take(`${prefix}${config.name}`, key)));
  }

  function buildGraph(name, config, prefix, take) {
    const layers = config.layers.map((layer) => ({ ...layer, run: buildLayer(layer,
      ["Sequential", "Functional"].includes(layer.class_name) ? `${prefix}${layer.config.name}/` : prefix, take) }));
    if (name === "Sequential") return (inputs) => layers.reduce((x, { run }) => run([x]), inputs[0]);
    const byName = new Map(layers.map((layer) => [layer.name ?? layer.config.name, layer]));
    const single = (places) => (Array.isArray(places[0]) && places.length === 1 ? places[0] : places);
    const [input, output] = [single(config.input_layers), single(config.output_layers)];
    if (typeof input[0] !== "string" || typeof output[0] !== "string") fail("it has several inputs or outputs");
    return ([x]) => {
      const known = new Map();
      const compute = ([layer, node]) => {
        const key = keyOf(layer, node);
        if (layer === input[0]) return x;
        if (!known.has(key)) {
          const { inbound_nodes: nodes, run } = byName.get(layer);
          known.set(key, run(tensorsOf(nodes[node].args).map(compute)));
        }
        return known.get(key);
      };
      return compute(output);
    };
  }

  // Returns {inputShape, run}. `run` takes the values of one example in C order, and gives those of the output.
  function buildModel({ manifest, weights }) {
    const unused = new Set(weights.keys());
    const run = buildLayer(manifest.model, "", (layer, name) => {
      unused.delete(keyOf(layer, name));
      return weights.get(keyOf(layer, name)) ?? fail(`weight '${name}' of layer '${layer}' is missing`);
    });
    if (unused.size) fail(`no layer takes the weights ${[...unused].join(", ")}`);
    const { layers, build_input_shape: built } = manifest.model.config;
    const first = layers.find((layer) => layer.class_name === "InputLayer");
    const inputShape = (first?.config.batch_shape ?? built).slice(1);
    return {
      inputShape,
      run(values) {
        if (values.length !== product(inputShape))
          fail(`the input has ${values.length} values, not ${inputShape.join("x")}`);
        return run([{ shape: inputShape, values: Float32Array.from(values) }]).values;
      },
    };
  }

  return { buildModel, softmax: (values) => softmax({ shape: [values.length], values }).values };
})();

if (typeof module !== "undefined") module.exports = kerasPopupNetwork;
