// The viewer: what files have beside what training gets. `mount(element, transport)` is all; a page calls it with
// `fetch`, a notebook with messages. Text enters the page through textContent only.

const CACHE_FRAMES = 64, CACHE_BYTES = 256 * 2 ** 20, AHEAD = 8, AT_ONCE = 4, AHEAD_AT_ONCE = 2;
const LARGE = 16e6, LARGE_SENT = 6e6; // pixels of a frame that is not sent whole, and of what is sent
const REFINED = 5e6; // pixels that are windowed when nothing moves
const DRAWS = 8, TILE = 192, SETTLED = 90;
const COLOURS = ["#e63c3c", "#3caae6", "#5ac85a", "#f0c832", "#be6ee6", "#f08c32", "#46d2c8", "#eb78b4"];
const RGB = COLOURS.map((c) => [1, 3, 5].map((k) => parseInt(c.slice(k, k + 2), 16)));
const ARRAYS = { u1: Uint8Array, i1: Int8Array, u2: Uint16Array, i2: Int16Array, u4: Uint32Array, i4: Int32Array, f4: Float32Array };

// --- Small things ---------------------------------------------------------------------------------------------------

const clamp = (x, low, high) => Math.min(Math.max(x, low), high);
const count = (n, what) => `${n.toLocaleString("en")} ${what}${n === 1 || what.endsWith("s") ? "" : "s"}`;

function said(x) {
  if (x === null || x === undefined || Number.isNaN(x)) return "–";
  if (typeof x !== "number") return String(x);
  if (Number.isInteger(x)) return String(x);
  return Math.abs(x) >= 1e5 || Math.abs(x) < 1e-3 ? x.toExponential(3) : String(+x.toPrecision(5));
}

/** An element: properties (on* are listeners, aria-* and role attributes), then children (text is text). */
function make(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name in element && !name.startsWith("aria") && name !== "role") element[name] = value;
    else element.setAttribute(name, value);
  }
  element.append(...children);
  return element;
}

// --- Transports -----------------------------------------------------------------------------------------------------

/** Asks over HTTP with the token in a header; asks for deflated bytes once the line has proven slow. */
export function fetchTransport(token) {
  let slow = false;
  return {
    async get(path, signal) {
      const address = `/api/${path}${slow ? (path.includes("?") ? "&" : "?") + "encoding=deflate" : ""}`;
      const begun = performance.now();
      const reply = await fetch(address, { headers: { Authorization: `Bearer ${token}` }, cache: "no-store", signal });
      const kind = reply.headers.get("Content-Type") || "";
      if (kind.startsWith("application/json")) {
        const info = await reply.json();
        return { status: info.error ? 422 : reply.status, info, data: null };
      }
      if (!reply.ok) return { status: reply.status, info: { error: (await reply.text()).trim() }, data: null };
      const info = JSON.parse(reply.headers.get("X-Info"));
      let data = await reply.arrayBuffer();
      const took = performance.now() - begun;
      if (!slow && data.byteLength > 2e5 && took > 250 && data.byteLength / took < 4e3) slow = true;
      if (reply.headers.get("X-Encoding")) data = await unpacked(data, +info.dtype[1]);
      return { status: 200, info, data };
    },
  };
}

async function unpacked(data, size) {
  const stream = new Blob([data]).stream().pipeThrough(new DecompressionStream("deflate"));
  const planes = new Uint8Array(await new Response(stream).arrayBuffer());
  const result = new Uint8Array(planes.length), values = planes.length / size;
  for (let k = 0; k < size; k++) for (let i = 0, j = k; i < values; i++, j += size) result[j] = planes[k * values + i];
  return result.buffer;
}

/** Asks through messages of a notebook's widget. */
export function messageTransport(model) {
  const waiting = new Map();
  let last = 0;
  model.on("msg:custom", (message, buffers) => {
    const resolve = waiting.get(message.id);
    if (!resolve) return; // nobody waits for it any more
    waiting.delete(message.id);
    const view = buffers && buffers[0];
    const data = view ? view.buffer.slice(view.byteOffset, view.byteOffset + view.byteLength) : null;
    resolve({ status: message.status, info: message.info, data });
  });
  return {
    get(path, signal) {
      const id = ++last;
      return new Promise((resolve, reject) => {
        signal?.throwIfAborted();
        signal?.addEventListener("abort", () => { if (waiting.delete(id)) reject(signal.reason); }, { once: true });
        waiting.set(id, resolve);
        model.send({ id, path });
      });
    },
  };
}

// --- What was answered ----------------------------------------------------------------------------------------------

const DROPPED = { status: 0, info: { dropped: true }, data: null };
const PASSED_BY = /\/(source|training|mask|table)\b|^samples\/\d+\?/; // the rest is little, and wanted wherever one is by then
const bytesOf = (entry) => (entry.data ? entry.data.byteLength : 200);

/** Keeps answers: the newest wish is asked for first, so many at once, the oldest are forgotten. */
class Store {
  constructor(transport) {
    Object.assign(this, { transport, kept: new Map(), bytes: 0, wished: new Map(), running: 0, answers: 0 });
  }
  peek(path) {
    const found = this.kept.get(path);
    if (found) { this.kept.delete(path); this.kept.set(path, found); }
    return found;
  }
  get(path, later = false) {
    const found = this.peek(path);
    if (found) return Promise.resolve(found);
    let wish = this.wished.get(path);
    if (!wish) {
      wish = { path, later, begun: false, passes: PASSED_BY.test(path) };
      wish.promise = new Promise((resolve) => { wish.resolve = resolve; });
      this.wished.set(path, wish);
    } else if (!later) {
      wish.later = false;
      if (!wish.begun) { this.wished.delete(path); this.wished.set(path, wish); }
    }
    this.work();
    return wish.promise;
  }
  /** Nobody wants any more frames that were to be read ahead, or were passed by; those among `paths` stay. */
  forget(paths = new Set()) {
    for (const wish of [...this.wished.values()]) {
      if (paths.has(wish.path)) { if (!wish.begun) wish.later = true; continue; }
      if (wish.passes && !(wish.begun && !wish.later)) this.drop(wish);
    }
  }
  drop(wish) {
    this.wished.delete(wish.path);
    wish.abort?.abort();
    wish.resolve(DROPPED);
  }
  /** What was asked for until now is not what will be answered from now on. */
  clear() {
    for (const wish of [...this.wished.values()]) this.drop(wish);
    this.kept.clear();
    this.bytes = 0;
  }
  work() {
    while (this.running < AT_ONCE) {
      const all = [...this.wished.values()], waiting = all.filter((wish) => !wish.begun), begun = all.filter((wish) => wish.begun);
      // What is read ahead waits for what is wanted now: both would share the decoder and the line.
      const ahead = begun.some((one) => !one.later) || begun.length >= AHEAD_AT_ONCE ? undefined : waiting.find((one) => one.passes) || waiting[0];
      const wish = waiting.filter((one) => !one.later).pop() || ahead;
      if (!wish) return;
      wish.begun = true;
      wish.abort = new AbortController();
      this.running++;
      this.ask(wish).then((entry) => {
        this.running--;
        if (this.wished.get(wish.path) === wish) this.wished.delete(wish.path);
        wish.resolve(entry);
        this.work();
      });
    }
  }
  async ask(wish) {
    let entry;
    try {
      entry = await this.transport.get(wish.path, wish.abort.signal);
    } catch (error) {
      if (wish.abort.signal.aborted) return DROPPED;
      return { status: -1, info: { error: `The viewer does not answer (${error.message}). Is the program still running?` }, data: null };
    }
    if (wish.abort.signal.aborted) return DROPPED;
    entry.id = ++this.answers;
    try {
      if (entry.data) entry.array = new ARRAYS[entry.info.dtype](entry.data);
    } catch (error) {
      return { status: -1, info: { error: `The answer of the viewer cannot be shown (${error.message}).` }, data: null };
    }
    if (entry.status === 200) this.keep(wish.path, entry);
    return entry;
  }
  keep(path, entry) {
    this.lose(path);
    this.kept.set(path, entry);
    this.bytes += bytesOf(entry);
    for (const old of this.kept.keys()) {
      if (this.bytes <= CACHE_BYTES && this.kept.size <= 4 * CACHE_FRAMES) break;
      this.lose(old);
    }
  }
  lose(path) {
    const old = this.kept.get(path);
    if (!old) return;
    this.kept.delete(path);
    this.bytes -= bytesOf(old);
  }
}

// --- From stored values to gray -------------------------------------------------------------------------------------

/** Lowest and highest number of an array, NaN left out; remembered with the answer. */
function range(entry) {
  if (entry.range) return entry.range;
  let low = Infinity, high = -Infinity;
  const a = entry.array;
  for (let i = 0; i < a.length; i++) { const x = a[i]; if (x < low) low = x; if (x > high) high = x; }
  if (!(low <= high)) low = high = 0;
  return (entry.range = [low, high]);
}

/** A function from modality values to [0, 1]: the window of the user, or what the file asks for. */
export function voi(info, window) {
  if (window) {
    const [c, w] = window;
    if (!(info.whole && w >= 1)) return (x) => clamp((x - c) / w + 0.5, 0, 1);
    if (w === 1) return (x) => (x > c - 0.5 ? 1 : 0);
    return (x) => clamp((x - (c - 0.5)) / (w - 1) + 0.5, 0, 1);
  }
  const m = info.map, low = m.low ?? -Infinity, high = m.high ?? Infinity;
  if (m.kind === "linear") return (x) => clamp(x * m.scale + m.offset, low, high);
  if (m.kind === "sigmoid") return (x) => 1 / (1 + Math.exp(-(x * m.scale + m.offset)));
  if (m.kind === "step") return (x) => (x > m.offset ? 1 : 0);
  return () => m.offset;
}

/** The modality value of a stored value. */
export function modality(info, table, x) {
  if (info.affine === false && table) return table.array[x - table.info.first];
  return x * (info.slope ?? 1) + (info.intercept ?? 0);
}

/** A function from stored values of a source frame to (red, green, blue) packed as ABGR. */
export function colouring(entry, table, window, inverts) {
  const info = entry.info, gray = (y) => { const v = Math.round(clamp(y, 0, 1) * 255) | 0; return 0xff000000 | (v << 16) | (v << 8) | v; };
  if (!info.map) {
    const [low, high] = range(entry);
    return (x) => gray(inverts ? 1 - (x - low) / (high - low || 1) : (x - low) / (high - low || 1));
  }
  const n = table ? table.info.shape[1] : 0, first = table ? table.info.first : 0;
  if (info.colour === "table" && table) {
    const a = table.array, byte = (k) => Math.round((inverts ? 1 - a[k] : a[k]) * 255);
    return (x) => { const k = x - first; return 0xff000000 | (byte(k + 3 * n) << 16) | (byte(k + 2 * n) << 8) | byte(k + n); };
  }
  const looks = !window && info.map.kind === "table" && table, map = looks ? null : voi(info, window);
  const pads = info.padding, flips = (info.inverted === true) !== inverts;
  return (x) => {
    if (pads && x >= pads[0] && x <= pads[1]) return gray(info.background);
    if (looks) { const y = table.array[n + x - first]; return gray(inverts ? 1 - y : y); }
    const y = map(modality(info, table, x));
    return gray(Number.isNaN(y) ? 0 : flips ? 1 - y : y);
  };
}

/**
 * Fills ABGR pixels of a part of an image, every `step`-th row and column of it. `value` is a function from the index of a
 * pixel; or, since calls for each pixel are slow, numbers to look up, or floats to scale.
 */
function paint(out, part, step, width, value) {
  if (value.lookup) return paintLookup(out, part, step, width, value.array, value.lookup, value.low);
  if (value.floats) return paintFloats(out, part, step, width, value.floats, value.at, value.low, value.scale);
  let j = 0;
  for (let r = part.top; r < part.bottom; r += step) {
    const row = r * width;
    for (let c = part.left; c < part.right; c += step) out[j++] = value(row + c);
  }
}
function paintLookup(out, part, step, width, array, lookup, low) {
  let j = 0;
  for (let r = part.top; r < part.bottom; r += step) {
    const end = r * width + part.right;
    for (let i = r * width + part.left; i < end; i += step) out[j++] = lookup[array[i] - low];
  }
}
function paintFloats(out, part, step, width, floats, at, low, scale) {
  let j = 0;
  for (let r = part.top; r < part.bottom; r += step) {
    const end = at + r * width + part.right;
    for (let i = at + r * width + part.left; i < end; i += step) {
      const x = (floats[i] - low) * scale + 0.5; // NaN is black
      const byte = x > 0 ? (x < 255.5 ? x | 0 : 255) : 0;
      out[j++] = 0xff000000 | (byte << 16) | (byte << 8) | byte;
    }
  }
}

/** What draws an answer of the source pane: (index of a pixel) -> ABGR. */
function sourceValue(entry, table, window, inverts) {
  const a = entry.array, shape = entry.info.shape, flip = inverts ? 0xffffff : 0;
  if (shape.length === 3) return (i) => 0xff000000 | ((a[3 * i] | (a[3 * i + 1] << 8) | (a[3 * i + 2] << 16)) ^ flip);
  if (entry.info.colour === "display") return (i) => 0xff000000 | ((a[i] * 0x10101) ^ flip);
  const key = JSON.stringify([window, inverts, !!table]);
  if (!(a instanceof Float32Array) && !(a instanceof Int32Array) && !(a instanceof Uint32Array)) {
    if (entry.tableKey !== key) {
      const [low, high] = range(entry), colour = colouring(entry, table, window, inverts);
      const lookup = new Int32Array(high - low + 1);
      for (let x = low; x <= high; x++) lookup[x - low] = colour(x);
      Object.assign(entry, { tableKey: key, lookup, low });
    }
    return { array: a, lookup: entry.lookup, low: entry.low };
  }
  const colour = colouring(entry, table, window, inverts);
  return (i) => colour(a[i]);
}

/** What draws an answer of the training pane: channel `k`, or three as colour. */
function trainingValue(entry, channel, bounds) {
  const a = entry.array, [channels, rows, columns] = entry.info.shape, n = rows * columns;
  const [low, high] = bounds, scale = 255 / (high - low || 1);
  const byte = (x) => (x > low ? (x < high ? Math.round((x - low) * scale) : 255) : 0);
  if (channel === "rgb" && channels === 3) {
    return (i) => 0xff000000 | (byte(a[i + 2 * n]) << 16) | (byte(a[i + n]) << 8) | byte(a[i]);
  }
  const at = n * Math.min(channel === "rgb" ? 0 : channel, channels - 1);
  if (a instanceof Float32Array) return { floats: a, at, low, scale };
  return (i) => 0xff000000 | (byte(a[at + i]) * 0x10101);
}

/** What black and white are of a training sample: [0, 1] and bytes as they are, others from lowest to highest. */
function trainingBounds(entry, before) {
  const [low, high] = range(entry);
  if (entry.info.dtype === "u1") return [0, 255];
  if (entry.info.dtype === "f4" && low >= 0 && high <= 1) return before && (before[0] < 0 || before[1] > 1) ? before : [0, 1];
  return before ? [Math.min(low, before[0]), Math.max(high, before[1])] : [low, high];
}

// --- A pane ---------------------------------------------------------------------------------------------------------

/** One picture with what lies over it. `view` has zoom and middle, which panes share. */
class Pane {
  constructor(name, title) {
    this.name = name;
    this.canvas = make("canvas", { role: "img", "aria-label": title });
    this.error = make("p", { className: "dtv-error", hidden: true });
    this.caption = make("p", { className: "dtv-caption" });
    this.mark = make("div", { className: "dtv-mark", hidden: true });
    this.title = make("h2", {}, title);
    this.extra = make("div", { className: "dtv-extra" });
    this.frame = make("div", { className: "dtv-frame" }, this.canvas, this.mark, this.error);
    this.element = make("section", { className: `dtv-pane dtv-${name}`, "aria-label": title },
      make("div", { className: "dtv-head" }, this.title, this.extra), this.frame, this.caption);
    this.scratch = document.createElement("canvas");
    this.finer = document.createElement("canvas");
    this.layer = document.createElement("canvas");
    this.image = null;
  }
  /** @param image {rows, columns, aspect, value, lookup, label: {array, shape}, boxes, cross} or null */
  show(image) { this.image = image; this.error.hidden = true; this.canvas.style.visibility = ""; }
  fail(text, waits = false) {
    this.image = this.drawn = null;
    this.error.classList.toggle("dtv-waits", waits);
    this.canvas.style.visibility = "hidden";
    this.mark.hidden = true;
    this.error.hidden = false;
    this.error.textContent = text;
    this.canvas.getContext("2d").clearRect(0, 0, this.canvas.width, this.canvas.height);
  }
  /** Where the image lies in the canvas, in device pixels. */
  place(view) {
    const { rows, columns, aspect } = this.image, { width, height } = this.canvas;
    const fit = Math.min(width / (columns * aspect[1]), height / (rows * aspect[0])) * view.zoom;
    const sx = fit * aspect[1], sy = fit * aspect[0];
    return { sx, sy, x: width / 2 - view.x * columns * sx, y: height / 2 - view.y * rows * sy };
  }
  resize() {
    const ratio = window.devicePixelRatio || 1, box = this.frame.getBoundingClientRect();
    const width = Math.max(1, Math.round(box.width * ratio)), height = Math.max(1, Math.round(box.height * ratio));
    if (this.canvas.width !== width || this.canvas.height !== height) Object.assign(this.canvas, { width, height });
  }
  /** @param fast whether something moves, so that fewer pixels will do */
  draw(view, layers, fast) {
    this.resize();
    const { key, labels, boxes, cross, detail } = this.image || {};
    const now = JSON.stringify([key, labels?.id, detail?.id, boxes, cross, view, layers.masks, layers.boxes, layers.opacity, [...layers.hidden], this.canvas.width, this.canvas.height]);
    if (this.image && now === this.drawn && !(this.refine && !fast)) return;
    this.drawn = now;
    const context = this.canvas.getContext("2d", { alpha: false });
    context.fillStyle = "#000";
    context.fillRect(0, 0, this.canvas.width, this.canvas.height);
    if (!this.image) return;
    const { rows, columns } = this.image, at = this.place(view);
    const part = {
      left: clamp(Math.floor(-at.x / at.sx), 0, columns), right: clamp(Math.ceil((this.canvas.width - at.x) / at.sx), 0, columns),
      top: clamp(Math.floor(-at.y / at.sy), 0, rows), bottom: clamp(Math.ceil((this.canvas.height - at.y) / at.sy), 0, rows),
    };
    if (part.right <= part.left || part.bottom <= part.top) return;
    const pixels = (part.right - part.left) * (part.bottom - part.top);
    const enough = Math.max(1, Math.floor(1 / Math.max(at.sx, at.sy)));
    const step = fast && pixels > 1e6 ? enough : Math.max(1, Math.ceil(Math.sqrt(pixels / REFINED)));
    this.refine = step > 1 && fast;
    context.imageSmoothingEnabled = at.sx < 3;
    context.imageSmoothingQuality = fast ? "low" : "high";
    this.blit(context, this.scratch, part, step, at, columns, this.image.value);
    if (this.image.detail) this.drawDetail(context, at);
    if (layers.masks && this.image.labels) this.drawLabels(context, part, step, at, columns, layers);
    if (layers.boxes && this.image.boxes) this.drawBoxes(context, at, layers);
    if (this.image.cross) this.drawCross(context, at);
  }
  blit(context, scratch, part, step, at, columns, value) {
    const width = Math.ceil((part.right - part.left) / step), height = Math.ceil((part.bottom - part.top) / step);
    if (scratch.width !== width || scratch.height !== height || !scratch.pixels) {
      Object.assign(scratch, { width, height });
      scratch.pixels = new ImageData(width, height);
      scratch.words = new Int32Array(scratch.pixels.data.buffer);
    }
    paint(scratch.words, part, step, columns, value);
    scratch.getContext("2d").putImageData(scratch.pixels, 0, 0);
    context.drawImage(scratch, at.x + part.left * at.sx, at.y + part.top * at.sy, width * step * at.sx, height * step * at.sy);
  }
  /** A part of a frame that was sent thinned, with all of its pixels. */
  drawDetail(context, at) {
    const { value, rows, columns, top, left, scale } = this.image.detail;
    const sx = at.sx * scale, sy = at.sy * scale;
    const place = { sx, sy, x: at.x + (left - 0.5) * at.sx * scale + at.sx / 2, y: at.y + (top - 0.5) * at.sy * scale + at.sy / 2 };
    this.blit(context, this.finer, { left: 0, top: 0, right: columns, bottom: rows }, 1, place, columns, value);
  }
  drawLabels(context, part, step, at, columns, layers) {
    const labels = this.image.labels.array, hidden = layers.hidden;
    const [rows, width] = this.image.labels.info.shape;
    if (rows !== this.image.rows || width !== columns) return;
    const alpha = Math.round(layers.opacity * 255) << 24;
    const words = RGB.map(([r, g, b]) => alpha | (b << 16) | (g << 8) | r);
    context.save();
    context.imageSmoothingEnabled = false;
    this.blit(context, this.layer, part, step, at, columns, (i) => {
      const label = labels[i];
      return label && !hidden.has(label - 1) ? words[(label - 1) % words.length] : 0;
    });
    context.restore();
  }
  drawBoxes(context, at, layers) {
    const ratio = window.devicePixelRatio || 1;
    context.font = `${12 * ratio}px system-ui, sans-serif`;
    context.lineWidth = 2 * ratio;
    for (const [left, top, right, bottom, number] of this.image.boxes) {
      const place = layers.legend.findIndex((one) => one.number === number);
      if (layers.hidden.has(place)) continue;
      context.strokeStyle = COLOURS[Math.max(place, 0) % COLOURS.length];
      const x = at.x + left * at.sx, y = at.y + top * at.sy;
      if (left === right && top === bottom) {
        context.beginPath();
        context.arc(x, y, 5 * ratio, 0, 2 * Math.PI);
        context.stroke();
      } else context.strokeRect(x, y, (right - left) * at.sx, (bottom - top) * at.sy);
      const text = layers.legend[place]?.name || `label ${number}`, wide = context.measureText(text).width;
      context.fillStyle = "rgba(0,0,0,.7)";
      context.fillRect(x, y - 16 * ratio, wide + 8 * ratio, 16 * ratio);
      context.fillStyle = "#fff";
      context.fillText(text, x + 4 * ratio, y - 4 * ratio);
    }
  }
  drawCross(context, at) {
    const [row, column] = this.image.cross, ratio = window.devicePixelRatio || 1;
    const x = at.x + (column + 0.5) * at.sx, y = at.y + (row + 0.5) * at.sy;
    context.lineWidth = ratio;
    for (const [colour, dash] of [["rgba(0,0,0,.6)", []], ["rgba(255,214,90,.9)", [4 * ratio, 4 * ratio]]]) {
      context.strokeStyle = colour;
      context.setLineDash(dash);
      context.beginPath();
      context.moveTo(x, 0); context.lineTo(x, this.canvas.height);
      context.moveTo(0, y); context.lineTo(this.canvas.width, y);
      context.stroke();
    }
    context.setLineDash([]);
  }
  /** The pixel below a point of the window: [row, column], or null outside. */
  pixel(view, event) {
    if (!this.image) return null;
    const box = this.canvas.getBoundingClientRect(), at = this.place(view);
    const ratio = this.canvas.width / box.width;
    const column = Math.floor(((event.clientX - box.left) * ratio - at.x) / at.sx);
    const row = Math.floor(((event.clientY - box.top) * ratio - at.y) / at.sy);
    return row >= 0 && column >= 0 && row < this.image.rows && column < this.image.columns ? [row, column] : null;
  }
  /** Shows where in this pane the pointer of another one is. */
  point(view, pixel) {
    this.mark.hidden = !pixel || !this.image;
    if (this.mark.hidden) return;
    const at = this.place(view), ratio = this.canvas.width / this.canvas.getBoundingClientRect().width;
    const x = (at.x + (pixel[1] + 0.5) * at.sx) / ratio, y = (at.y + (pixel[0] + 0.5) * at.sy) / ratio;
    this.mark.style.transform = `translate(${x}px, ${y}px)`;
  }
}

// --- The viewer -----------------------------------------------------------------------------------------------------

const HELP = [
  ["Wheel, Up, Down; one finger", "previous, next frame"], ["Shift + wheel, Shift + Up, Down", "ten frames"],
  ["Home, End", "first, last frame"], ["PageUp, PageDown, Left, Right", "previous, next series or sample"],
  ["Left drag", "window: right is wider, down is higher"], ["Middle drag, Right drag; two fingers", "move, zoom"],
  ["Ctrl + wheel, + and -, =", "zoom, whole image"], ["0, 1 to 9", "window of the file, presets"],
  ["T", "source, both, training"], ["N, Shift + N", "draw random transforms again, eight draws"], ["M, O", "masks, all overlays"],
  ["I", "invert"], ["C", "play"], ["G", "histogram"], ["/", "filter"], ["Escape, Space", "reset window and zoom"], ["?", "this list"],
];

export class Viewer {
  constructor(root, transport) {
    Object.assign(this, { root, store: new Store(transport), number: null, k: 0, draw: 0, mode: "both", window: null, time: 0,
      inverts: false, channel: "rgb", filter: "", groups: [], listed: 0, group: null, playing: 0, bounds: null, asked: 0,
      view: { zoom: 1, x: 0.5, y: 0.5 }, cross: null, direction: 1, pointers: new Map(), batch: 0, probed: null });
    this.layers = { masks: true, boxes: true, opacity: 0.4, hidden: new Set(), legend: [] };
    this.build();
  }

  // What the page is made of

  build() {
    const button = (text, title, act, more = {}) => make("button", { type: "button", title, onclick: act, ...more }, text);
    const field = (label, input) => make("label", {}, make("span", {}, label), input);
    const number = (act, more = {}) => make("input", { type: "number", step: "any", onchange: act, ...more });
    const ui = (this.ui = { button, field });
    ui.name = make("h1", {}, "dicomtorch");
    ui.facts = make("p", { className: "dtv-facts" });
    ui.filter = make("input", { type: "search", placeholder: "Filter: Modality=CT Rows>=512", "aria-label": "Filter by columns of the index", spellcheck: false });
    ui.filterSaid = make("span", { className: "dtv-said", role: "status" });
    const form = make("form", { role: "search", onsubmit: (e) => { e.preventDefault(); this.setFilter(ui.filter.value); } },
      ui.filter, button("Filter", "Show what matches", () => this.setFilter(ui.filter.value)), ui.filterSaid);
    ui.tabs = make("div", { className: "dtv-tabs", hidden: true },
      (ui.toFrames = button("Frames", "Frames", () => this.showBatches(false))), (ui.toBatches = button("Batches", "Batches of the loader", () => this.showBatches(true))));
    ui.banner = make("p", { className: "dtv-banner", role: "note", hidden: true });
    ui.list = make("ul", {});
    ui.more = button("More", "List more", () => this.listMore(), { hidden: true });
    this.source = new Pane("source", "Source");
    this.training = new Pane("training", "Training");
    this.planes = [new Pane("plane1", "Along rows"), new Pane("plane2", "Along columns")];
    this.panes = [this.source, this.training, ...this.planes];
    for (const pane of this.planes) pane.element.hidden = true;
    ui.panes = make("div", { className: "dtv-panes", tabIndex: 0, role: "group", "aria-label": "Images. Arrow keys go through frames, question mark lists all keys." },
      ...this.panes.map((pane) => pane.element));
    ui.strip = make("div", { className: "dtv-strip", hidden: true, role: "group", "aria-label": "Eight draws of the transforms" });
    ui.slider = make("input", { type: "range", min: 0, value: 0, "aria-label": "Frame", oninput: () => this.go(+ui.slider.value) });
    ui.place = make("output", {});
    ui.play = button("Play", "Play (C)", () => this.play(!this.playing), { "aria-pressed": "false" });
    ui.rate = number(() => { this.rated = true; if (this.playing) this.play(true); }, { min: 1, max: 60, value: 12, "aria-label": "Frames a second" });
    ui.mode = button("Both", "Source, both, training (T)", () => this.nextMode());
    ui.redraw = button("Draw again", "Draw random transforms again (N)", () => this.redraw());
    ui.draws = button("8 draws", "Eight draws side by side (Shift + N)", () => this.toggleStrip(), { "aria-pressed": "false" });
    ui.masks = button("Masks", "Masks and boxes (M)", () => this.toggleMasks(), { "aria-pressed": "true" });
    ui.invert = button("Invert", "Invert (I)", () => this.invert(), { "aria-pressed": "false" });
    ui.preset = make("select", { "aria-label": "Window preset", onchange: () => this.preset(+ui.preset.value) });
    ui.center = number(() => this.windowFields(), { "aria-label": "Window center" });
    ui.width = number(() => this.windowFields(), { "aria-label": "Window width", min: 0 });
    ui.channel = make("select", { hidden: true, "aria-label": "Channel of the training image", onchange: () => { this.channel = ui.channel.value === "rgb" ? "rgb" : +ui.channel.value; this.paint(); } });
    ui.transformGroup = make("span", { className: "dtv-group" }, ui.redraw, ui.draws);
    const controls = (ui.controls = make("div", { className: "dtv-controls", role: "toolbar", "aria-label": "Controls" },
      make("span", { className: "dtv-group dtv-grow" }, button("◂", "Previous series or sample (PageUp)", () => this.step(-1)), button("‹", "Previous frame", () => this.go(this.k - 1)), ui.slider,
        button("›", "Next frame", () => this.go(this.k + 1)), button("▸", "Next series or sample (PageDown)", () => this.step(1)), ui.place),
      make("span", { className: "dtv-group" }, ui.play, field("fps", ui.rate)),
      make("span", { className: "dtv-group" }, ui.preset, field("C", ui.center), field("W", ui.width), ui.invert),
      make("span", { className: "dtv-group" }, button("−", "Smaller", () => this.zoom(1 / 1.25)), button("+", "Larger", () => this.zoom(1.25)), button("Fit", "Whole image (=)", () => this.fit()), button("Reset", "Window and zoom (Escape)", () => this.reset())),
      make("span", { className: "dtv-group" }, ui.mode, ui.masks, ui.channel), ui.transformGroup));
    ui.row = number(() => this.probeFields(), { min: 0, step: 1, "aria-label": "Row" });
    ui.column = number(() => this.probeFields(), { min: 0, step: 1, "aria-label": "Column" });
    ui.probe = make("dl", { className: "dtv-probe" });
    ui.histogram = make("canvas", { className: "dtv-histogram", role: "img", "aria-label": "Histogram of modality values" });
    ui.numbers = make("dl", {});
    ui.trainingNumbers = make("dl", {});
    ui.legend = make("ul", { className: "dtv-legend" });
    ui.opacity = make("input", { type: "range", min: 0, max: 1, step: 0.05, value: 0.4, oninput: () => { this.layers.opacity = +ui.opacity.value; this.paint(); } });
    ui.labels = make("details", { open: true, hidden: true }, make("summary", {}, "Labels"), field("Opacity", ui.opacity), ui.legend);
    ui.histogramPart = make("details", { open: true }, make("summary", {}, "Values"), ui.histogram, make("h3", {}, "Source"), ui.numbers, make("h3", {}, "Training"), ui.trainingNumbers);
    ui.meta = make("table", {}, make("caption", { className: "dtv-quiet" }, "Metadata that a batch has"));
    const aside = (ui.aside = make("aside", { "aria-label": "About this frame" },
      make("details", { open: true }, make("summary", {}, "Pixel"), make("div", { className: "dtv-fields" }, field("Row", ui.row), field("Column", ui.column)), ui.probe),
      ui.labels, ui.histogramPart, make("details", { open: true }, make("summary", {}, "Metadata"), ui.meta)));
    ui.batches = make("div", { className: "dtv-batches", hidden: true });
    ui.live = make("p", { className: "dtv-live", role: "status", "aria-live": "polite" });
    ui.help = make("dialog", { "aria-label": "Keys and mouse" }, make("h2", {}, "Keys and mouse"),
      make("dl", {}, ...HELP.flatMap(([keys, what]) => [make("dt", {}, keys), make("dd", {}, what)])),
      make("p", {}, "Keys work while the images have the focus."), button("Close", "Close", () => ui.help.close()));
    const list = (ui.listPart = make("nav", { "aria-label": "Series or samples" }, ui.list, ui.more));
    ui.showList = button("List", "Show or hide the list", () => this.toggle(list, ui.showList), { "aria-pressed": "true" });
    ui.showAside = button("Details", "Show or hide details", () => this.toggle(aside, ui.showAside), { "aria-pressed": "true" });
    ui.main = make("main", {}, ui.panes, ui.strip, controls, ui.batches);
    this.root.replaceChildren(
      make("header", {}, ui.name, ui.facts, ui.tabs, form, make("span", { className: "dtv-group" }, ui.showList, ui.showAside, button("?", "Keys and mouse (?)", () => ui.help.showModal()))),
      ui.banner, make("div", { className: "dtv-body" }, list, ui.main, aside),
      make("footer", {}, "Not a medical device; not for diagnosis. ", (ui.version = make("span", {}))), ui.live, ui.help);
    if (this.root.clientWidth < 760) { this.toggle(list, ui.showList); this.toggle(aside, ui.showAside); }
    this.listen();
  }
  toggle(element, button) {
    element.hidden = !element.hidden;
    button.setAttribute("aria-pressed", String(!element.hidden));
    this.paint();
  }

  listen() {
    const { panes } = this.ui;
    panes.addEventListener("keydown", (e) => this.key(e));
    for (const pane of this.panes) {
      const canvas = pane.frame;
      canvas.addEventListener("wheel", (e) => this.wheel(e, pane), { passive: false });
      canvas.addEventListener("pointerdown", (e) => this.down(e, pane));
      canvas.addEventListener("pointermove", (e) => this.move(e, pane));
      canvas.addEventListener("pointerleave", () => this.point(pane, null));
      for (const kind of ["pointerup", "pointercancel"]) canvas.addEventListener(kind, (e) => this.up(e));
      canvas.addEventListener("contextmenu", (e) => e.preventDefault());
    }
    this.observer = new ResizeObserver(() => this.paint());
    for (const pane of this.panes) this.observer.observe(pane.frame);
    this.hidden = () => document.hidden && this.play(false);
    document.addEventListener("visibilitychange", this.hidden);
    this.ui.histogram.addEventListener("pointerdown", (e) => this.handle(e));
  }
  destroy() {
    this.play(false);
    this.observer.disconnect();
    document.removeEventListener("visibilitychange", this.hidden);
    this.root.replaceChildren();
  }

  async start() {
    const entry = await this.store.get("summary");
    if (entry.status !== 200) return this.root.replaceChildren(make("p", { className: "dtv-start", role: "alert" }, entry.info.error));
    const s = (this.summary = entry.info), ui = this.ui;
    this.has_planes = s.kind !== "frame";
    ui.name.textContent = s.title || "dicomtorch";
    const parts = [count(s.samples, s.kind)];
    if (s.kind === "frame") parts.push(count(s.groups, "series"));
    parts.push(`values ${s.values}`);
    if (s.size) parts.push(`size ${s.size.join(" × ")}`);
    if (s.transforms) parts.push("with transforms");
    ui.facts.textContent = parts.join(" · ");
    ui.version.textContent = `dicomtorch ${s.version}`;
    ui.transformGroup.hidden = !s.transforms;
    ui.tabs.hidden = !s.loader;
    this.layers.legend = s.legend;
    ui.labels.hidden = ui.masks.hidden = !s.legend.length;
    this.buildLegend();
    if (s.burned) {
      ui.banner.hidden = false;
      ui.banner.textContent = `${count(s.burned, "frame")} may show names or faces in the pixels: look before you pass pictures on.`;
    }
    await this.list();
    if (s.loader) this.showBatches(true);
    ui.panes.focus({ preventScroll: true });
  }

  // The list

  async setFilter(text) {
    this.filter = text.trim();
    await this.list();
  }
  query(more = {}) {
    const parts = { ...(this.filter ? { filter: this.filter } : {}), ...more };
    const text = new URLSearchParams(parts).toString();
    return text ? `?${text}` : "";
  }
  async list() {
    const { ui } = this, entry = await this.store.get(`series${this.query()}`);
    if (entry.status !== 200) { ui.filterSaid.textContent = entry.info.error; ui.filterSaid.classList.add("dtv-bad"); return; }
    ui.filterSaid.classList.remove("dtv-bad");
    const what = this.has_planes ? count(entry.info.count, this.summary.kind) : `${count(entry.info.frames, "frame")} in ${count(entry.info.count, "series")}`;
    ui.filterSaid.textContent = this.filter ? what : "";
    this.groups = [];
    ui.list.replaceChildren();
    this.append(entry.info);
    if (this.groups.length) await this.open(this.groups[0].number);
    else this.nothing();
  }
  nothing() {
    this.group = null;
    for (const pane of this.panes) pane.fail("The filter leaves nothing.");
  }
  async listMore() {
    const entry = await this.store.get(`series${this.query({ offset: this.groups.length })}`);
    if (entry.status === 200) this.append(entry.info);
  }
  append(info) {
    const { ui } = this;
    for (const group of info.groups) {
      this.groups.push(group);
      const canvas = make("canvas", { width: 48, height: 48, "aria-hidden": "true" });
      const name = this.has_planes ? `${this.summary.kind[0].toUpperCase()}${this.summary.kind.slice(1)} ${group.number}` : `Series ${group.number + 1}`;
      const what = [group.modality, count(group.count, "frame"), group.rows ? `${group.rows} × ${group.columns}` : "", group.syntax];
      const button = make("button", { type: "button", title: what.filter(Boolean).join(", "), onclick: () => { this.open(group.number); ui.panes.focus({ preventScroll: true }); } },
        canvas, make("span", {}, make("strong", {}, `${name} `), make("span", {}, [group.modality, group.count].filter(Boolean).join(" · ")), make("small", {}, group.rows ? `${group.rows} × ${group.columns}` : "")));
      group.button = button;
      ui.list.append(make("li", {}, button));
      if (group.cover !== undefined) this.whenSeen(button, () => this.thumbnail(canvas, group.cover));
    }
    ui.more.hidden = this.groups.length >= info.count;
  }
  whenSeen(element, act) {
    const watch = new IntersectionObserver((seen) => { if (seen.some((one) => one.isIntersecting)) { watch.disconnect(); act(); } });
    watch.observe(element);
  }
  async thumbnail(canvas, position) {
    const entry = await this.store.get(`frames/${position}/thumb`, true);
    if (entry.info.dropped) return this.whenSeen(canvas, () => this.thumbnail(canvas, position));
    if (!entry.array) return;
    const [rows, columns, channels] = entry.info.shape, a = entry.array;
    const value = channels ? (i) => 0xff000000 | a[3 * i] | (a[3 * i + 1] << 8) | (a[3 * i + 2] << 16) : (i) => 0xff000000 | (a[i] * 0x10101);
    tile(canvas, rows, columns, value);
  }

  // Where we are

  async open(number, k = null) {
    const mine = ++this.asked;
    this.play(false);
    this.store.forget();
    const entry = await this.store.get(`series/${number}${this.query()}`);
    if (mine !== this.asked) return;
    if (entry.status !== 200) return this.group && this.load(); // what was shown stays, and was forgotten above
    this.number = number;
    this.group = entry.info;
    this.listedGroup = this.groups.find((one) => one.number === number);
    for (const one of this.groups) one.button.setAttribute("aria-current", String(one.number === number));
    this.listedGroup?.button.scrollIntoView({ block: "nearest" });
    Object.assign(this, { draw: 0, bounds: null, window: null, cross: null, time: 0, sample: null, shape: null });
    if (this.has_planes) await this.describe(mine);
    if (mine !== this.asked) return;
    const n = this.length;
    this.ui.slider.max = Math.max(n - 1, 0);
    this.ui.strip.hidden = true;
    this.go(k ?? (this.has_planes ? n >> 1 : 0), true);
  }
  /** Of clips and volumes: what the sample is, since that says how many planes there are. */
  async describe(mine) {
    const path = `samples/${this.group.sample}?draw=${this.draw}`;
    let entry = await this.store.get(path);
    while (entry.info.dropped && mine === this.asked) entry = await this.store.get(path);
    if (mine !== this.asked) return;
    this.sample = entry.status === 200 ? entry.info : null;
    this.sampleError = entry.info.error;
    this.shape = this.sample?.shape;
    if (this.sample) this.group.frames = this.sample.frames.length ? this.sample.frames : [];
    const shape = this.shape || [];
    this.depth = this.summary.kind === "clip" ? shape[0] : shape[shape.length - 3];
    this.volumes = shape.length === 5 ? shape[0] : 1;
    const planes = this.isVolume;
    for (const pane of this.planes) pane.element.hidden = !planes;
    this.ui.panes.classList.toggle("dtv-four", planes);
    if (planes) this.cross = [this.depth >> 1, shape[shape.length - 2] >> 1, shape[shape.length - 1] >> 1];
  }
  get isVolume() { return !!this.shape && (this.summary.kind === "volume" || this.summary.kind === "crop") && this.depth > 1; }
  get length() { return this.has_planes ? (this.sample ? this.depth * this.volumes : this.group.frames.length) : this.group.frames.length; }
  get position() { return this.group.frames[this.k]; }
  get sampleNumber() { return this.has_planes ? this.group.sample : this.group.samples[this.k]; }

  go(k, always = false) {
    if (!this.group) return;
    k = clamp(Math.round(k), 0, this.length - 1);
    if (k === this.k && !always) return;
    this.direction = k < this.k ? -1 : 1;
    this.k = k;
    if (this.cross) { this.cross[0] = k % this.depth; this.time = Math.floor(k / this.depth); }
    this.begun = performance.now();
    this.ui.slider.value = k;
    this.ui.place.textContent = `${k + 1} / ${this.length}`;
    this.ui.slider.setAttribute("aria-valuetext", `frame ${k + 1} of ${this.length}`);
    this.moved();
    this.load();
  }
  /** The next or previous series or sample. */
  async step(by) {
    let at = this.groups.findIndex((one) => one.number === this.number) + by;
    if (at >= this.groups.length && !this.ui.more.hidden) await this.listMore();
    at = clamp(at, 0, this.groups.length - 1);
    if (this.groups.length && this.groups[at].number !== this.number) await this.open(this.groups[at].number);
  }

  // What is asked for

  sourcePath(k) {
    const position = this.group.frames[k];
    if (position === undefined || position < 0) return null;
    const pixels = (this.listedGroup?.rows || 0) * (this.listedGroup?.columns || 0);
    return `frames/${position}/source${pixels > LARGE ? `?step=${Math.ceil(Math.sqrt(pixels / LARGE_SENT))}` : ""}`;
  }
  trainingPath(k, axis = 0, plane = null) {
    if (!this.has_planes) {
      const sample = this.group.samples[k];
      return sample < 0 ? null : `samples/${sample}/training?draw=${this.draw}`;
    }
    if (!this.sample) return null;
    return `samples/${this.group.sample}/training?draw=${this.draw}&axis=${axis}&plane=${plane ?? k % this.depth}&time=${Math.floor(k / this.depth)}`;
  }
  maskPath(k, axis = 0, plane = null) { return this.trainingPath(k, axis, plane)?.replace("/training", "/mask"); }
  get showsSource() { return this.mode !== "training"; }
  get showsTraining() { return this.mode !== "source"; }

  paths(k) {
    const wanted = [];
    const masks = this.summary.masks && this.layers.masks;
    if (this.showsTraining) {
      wanted.push(this.trainingPath(k));
      if (masks) wanted.push(this.maskPath(k));
    }
    if (this.showsSource && this.sourcePath(k)) {
      if (masks && this.group.frames[k] >= 0) wanted.push(`frames/${this.group.frames[k]}/mask`);
      wanted.push(this.sourcePath(k));
    }
    return wanted.filter(Boolean);
  }
  async load() {
    const k = this.k, mine = (this.loading = (this.loading || 0) + 1);
    const ahead = [...Array(AHEAD).keys()].map((n) => k + (n + 1) * this.direction).filter((n) => n >= 0 && n < this.length).flatMap((n) => this.paths(n));
    this.store.forget(new Set([...this.paths(k), ...ahead]));
    this.paintNow();
    if (this.isVolume) this.loadPlanes();
    const asked = this.paths(k).map((path) => this.store.get(path));
    for (const path of ahead) this.store.get(path, true);
    const entries = await Promise.all(asked);
    if (mine !== this.loading) return;
    this.failures = new Map(this.paths(k).map((path, i) => [path, entries[i]]).filter(([, one]) => one.status !== 200 && !one.info.dropped));
    const source = this.showsSource && this.store.peek(this.sourcePath(k));
    if (source && source.info.table !== null && source.info.table !== undefined) await this.store.get(this.tablePath(source, k));
    if (mine !== this.loading) return;
    this.paint();
    clearTimeout(this.settling);
    this.settling = setTimeout(() => this.settle(mine), SETTLED);
  }
  tablePath(source, k) { return (this.tables ||= new Map()).get(source.info.table) || (this.tables.set(source.info.table, `frames/${this.group.frames[k]}/table`), this.tables.get(source.info.table)); }
  async loadPlanes() {
    const mine = (this.planesLoading = (this.planesLoading || 0) + 1), wanted = [];
    for (const axis of [1, 2]) {
      wanted.push(this.trainingPath(this.k, axis, this.cross[axis]));
      if (this.sample.mask && this.layers.masks) wanted.push(this.maskPath(this.k, axis, this.cross[axis]));
    }
    await Promise.all(wanted.map((path) => this.store.get(path)));
    if (mine === this.planesLoading) this.paint();
  }
  /** When nothing has moved for a while: metadata, histogram, what is said aloud. */
  async settle(mine) {
    if (mine !== this.loading) return;
    this.announce();
    this.histogram();
    this.showProbe();
    this.refineSource(mine);
    const number = this.sampleNumber;
    if (number === undefined || number < 0) return this.showMeta(null);
    const entry = await this.store.get(`samples/${number}?draw=${this.draw}`);
    if (mine !== this.loading || entry.info.dropped) return;
    this.described = entry.status === 200 ? entry.info : null;
    this.showMeta(this.described);
    const time = this.described?.meta.FrameTime; // nominal, in milliseconds
    if (time > 0 && !this.rated && !this.playing) this.ui.rate.value = clamp(Math.round(1000 / time), 1, 60);
    if (this.described?.boxes) this.paint();
  }

  // What is drawn

  paint(fast = false) {
    this.fast = fast || performance.now() < (this.moving || 0);
    if (this.pending) return;
    this.pending = requestAnimationFrame(() => { this.pending = 0; this.render(); });
  }
  /** In this frame of the screen still, unless one was drawn just now. */
  paintNow() {
    if (this.pending || performance.now() - (this.rendered || 0) < 8) return this.paint();
    this.fast = performance.now() < (this.moving || 0);
    this.render();
  }
  moved() {
    this.moving = performance.now() + 120;
    clearTimeout(this.resting);
    this.resting = setTimeout(() => { this.moving = 0; if (this.panes.some((pane) => pane.refine)) this.paint(); this.refineSource(this.loading); }, 140);
  }
  entryOf(path) { return path && (this.store.peek(path) || this.failures?.get(path)); }
  render() {
    if (!this.group) { for (const pane of this.panes) pane.resize(); return; }
    this.ui.panes.dataset.mode = this.mode;
    const k = this.k;
    let whole = true;
    if (this.showsSource) whole = this.renderSource(k) && whole;
    if (this.showsTraining) {
      whole = this.renderTraining(this.training, this.trainingPath(k), this.maskPath(k), 0) && whole;
      if (this.isVolume) this.planes.forEach((pane, i) => this.renderTraining(pane, this.trainingPath(k, i + 1, this.cross[i + 1]), this.maskPath(k, i + 1, this.cross[i + 1]), i + 1));
    }
    for (const pane of this.panes) if (!pane.element.hidden && (pane !== this.source || this.showsSource)) pane.draw(this.view, this.layers, this.fast);
    this.rendered = performance.now();
    if (whole) this.root.dispatchEvent(new CustomEvent("dtv-painted", { detail: { k, number: this.number, took: performance.now() - this.begun } }));
    else this.late();
  }
  /** What takes long says so instead of showing the frame before. */
  late() {
    clearTimeout(this.waiting);
    this.waiting = setTimeout(() => {
      const pane = this.source, path = this.sourcePath(this.k);
      if (this.group && this.showsSource && path && !this.entryOf(path)) pane.fail("Loading …", true);
      const other = this.trainingPath(this.k);
      if (this.group && this.showsTraining && other && !this.entryOf(other)) this.training.fail("Loading …", true);
    }, 300);
  }
  renderSource(k) {
    const path = this.sourcePath(k), pane = this.source;
    if (!path) {
      pane.fail(this.has_planes && this.sample && !this.sample.frames.length ? "The voxels of this sample lie on a grid of their own: no single frame is behind this plane." : this.sampleError || "There is no frame behind this plane.");
      return true;
    }
    const entry = this.entryOf(path);
    if (!entry || entry.info.dropped) return false;
    if (!entry.array) { this.shown = null; pane.fail(entry.info.error || "There is no answer."); pane.caption.textContent = `frame ${this.position}`; return true; }
    const info = entry.info, needs = info.table !== null && info.table !== undefined;
    const table = needs ? this.store.peek(this.tablePath(entry, k)) : null;
    if (needs && !table) return false;
    this.shown = { entry, table };
    const [rows, columns] = info.shape;
    const labels = this.summary.masks ? this.store.peek(`frames/${this.position}/mask`) : null;
    pane.show({ rows, columns, key: [entry.id, table?.id, this.window, this.inverts], aspect: aspectOf(info.spacing), value: sourceValue(entry, table, this.window, this.inverts), labels, boxes: this.sourceBoxes(info), detail: this.detailOf(entry, table) });
    const voiText = info.colour ? "colour" : this.window ? `window ${said(this.window[0])} / ${said(this.window[1])}` : info.center != null ? `window ${said(info.center)} / ${said(info.width)} (${info.voi})` : info.voi ? `VOI ${info.voi}` : "lowest to highest";
    const reduced = info.step > 1 ? `every ${info.step}th pixel` : "";
    pane.caption.textContent = [`frame ${this.position}`, info.modality, `${info.rows} × ${info.columns}`, voiText, reduced, info.note, info.burned && "may show who it is", info.path].filter(Boolean).join(" · ");
    return true;
  }
  /** Where a large frame was sent thinned and is enlarged: asks for what is seen of it. */
  async refineSource(mine) {
    const { entry } = this.shown || {}, pane = this.source, step = entry?.info.step;
    if (!(step > 1) || !pane.image || !this.showsSource) return;
    const at = pane.place(this.view), { width, height } = pane.canvas, { rows, columns } = entry.info;
    if (Math.max(at.sx, at.sy) < 1.2) return;
    const left = clamp(Math.floor((-at.x / at.sx) * step), 0, columns - 1), right = clamp(Math.ceil(((width - at.x) / at.sx) * step), left + 1, columns);
    const top = clamp(Math.floor((-at.y / at.sy) * step), 0, rows - 1), bottom = clamp(Math.ceil(((height - at.y) / at.sy) * step), top + 1, rows);
    if ((right - left) * (bottom - top) > LARGE_SENT) return;
    const found = await this.store.get(`frames/${this.position}/source?top=${top}&left=${left}&bottom=${bottom}&right=${right}`);
    if (mine !== this.loading || !found.array) return;
    this.detail = { of: entry, found, top, left, scale: 1 / step };
    this.paint();
  }
  detailOf(entry, table) {
    const { of, found, top, left, scale } = this.detail || {};
    if (of !== entry) return null;
    const [rows, columns] = found.info.shape;
    return { id: found.id, value: sourceValue(found, table, this.window, this.inverts), rows, columns, top, left, scale };
  }
  sourceBoxes(info) {
    const boxes = this.described && this.described.boxes, r = this.described?.resized;
    if (!boxes || this.summary.transforms || this.described.meta.index !== this.sampleNumber) return null;
    const s = info.step || 1;
    if (!r) return boxes.map(([a, b, c, d, n]) => [a / s, b / s, c / s, d / s, n]);
    const x = info.columns / r[4] / s, y = info.rows / r[3] / s;
    return boxes.map(([a, b, c, d, n]) => [(a - r[2]) * x, (b - r[1]) * y, (c - r[2]) * x, (d - r[1]) * y, n]);
  }
  renderTraining(pane, path, maskPath, axis) {
    if (!path) { pane.fail(this.sampleError || "Training does not get this frame: nothing that is installed decodes it."); pane.caption.textContent = ""; return true; }
    const entry = this.entryOf(path);
    if (!entry || entry.info.dropped) return false;
    if (!entry.array) {
      if (axis === 0) this.trained = null;
      pane.fail(entry.info.error || "There is no answer.");
      pane.caption.textContent = "";
      return true;
    }
    const [channels, rows, columns] = entry.info.shape;
    if (axis === 0) this.channels(channels);
    this.bounds = trainingBounds(entry, this.bounds);
    const spacing = this.sample?.spacing;
    const aspect = spacing ? aspectOf([[spacing[1], spacing[2]], [spacing[0], spacing[2]], [spacing[0], spacing[1]]][axis]) : aspectOf(this.shown?.entry.info.spacing);
    const labels = this.summary.masks ? this.store.peek(maskPath) : null, cross = this.isVolume ? [[1, 2], [0, 2], [0, 1]][axis].map((d) => this.cross[d]) : null;
    pane.show({ rows, columns, key: [entry.id, this.channel, this.bounds], aspect, value: trainingValue(entry, this.channel, this.bounds), labels, cross, boxes: axis ? null : this.described?.boxes });
    const what = axis ? `plane ${this.cross[axis] + 1} of ${this.shape[this.shape.length - 3 + axis]}` : this.summary.transforms ? `draw ${this.draw + 1}` : "";
    const replaced = !axis && this.described?.replaced ? `in place of ${this.described.meta.requested_index}, which cannot be read: ${this.described.meta.index}` : "";
    pane.caption.textContent = [`${channels} × ${rows} × ${columns}`, entry.info.dtype, what, `${said(this.bounds[0])} black, ${said(this.bounds[1])} white`, replaced].filter(Boolean).join(" · ");
    if (axis === 0) this.trained = entry;
    return true;
  }
  channels(n) {
    const { ui, summary } = this;
    if (ui.channel.channels === n) return;
    ui.channel.channels = n;
    const colour = n === 3 && !summary.channels.length;
    this.channel = colour ? "rgb" : n >> 1;
    const options = [...Array(n).keys()].map((c) => make("option", { value: c, selected: this.channel === c }, summary.channels.length === n ? `window ${summary.channels[c]}` : `channel ${c}`));
    ui.channel.replaceChildren(...(n === 3 ? [make("option", { value: "rgb", selected: colour }, "colour")] : []), ...options);
    ui.channel.hidden = n === 1;
  }

  // Window

  get current() {
    if (this.window) return this.window;
    const info = this.shown?.entry.info;
    if (!info || !info.map) return null;
    if (info.center != null && info.width != null) return [info.center, info.width];
    const [a, b] = this.modalityRange();
    return [(a + b + 1) / 2, b - a + 1];
  }
  modalityRange() {
    const { entry, table } = this.shown, [low, high] = range(entry);
    const ends = [low, high].map((x) => modality(entry.info, table, x));
    return ends[0] < ends[1] ? ends : ends.reverse();
  }
  setWindow(window, speaks = true) {
    const whole = this.shown?.entry.info.whole;
    this.window = window && [window[0], Math.max(window[1], whole ? 1 : 1e-9)];
    this.fillWindow();
    this.moved();
    this.paintNow();
    this.drawHistogram();
    if (speaks) this.announce();
  }
  fillWindow() {
    const current = this.current;
    this.ui.center.disabled = this.ui.width.disabled = !current || !!this.shown?.entry.info.colour;
    this.ui.center.value = current ? +current[0].toPrecision(6) : "";
    this.ui.width.value = current ? +current[1].toPrecision(6) : "";
  }
  windowFields() {
    const [c, w] = [this.ui.center.valueAsNumber, this.ui.width.valueAsNumber];
    if (Number.isFinite(c) && w > 0) this.setWindow([c, w]);
  }
  /** Presets of this kind of frame: Hounsfield units have names, others the windows of the file and its range. */
  presets() {
    const info = this.shown?.entry.info;
    const found = [["file", null]];
    if (!info || !info.map || info.colour) return found;
    if (info.units === "HU") return found.concat(this.summary.presets.map(([name, c, w]) => [name, [c, w]]));
    info.windows.forEach((window, k) => found.push([`window ${k + 1} of the file`, window]));
    const [a, b] = this.modalityRange();
    found.push(["lowest to highest", [(a + b + 1) / 2, b - a + 1]]);
    if (this.quantiles) found.push(["1 % to 99 %", [(this.quantiles[0] + this.quantiles[1]) / 2, this.quantiles[1] - this.quantiles[0] || 1]]);
    return found.slice(0, 10);
  }
  preset(k) {
    const found = this.presets()[k];
    if (found) this.setWindow(found[1]);
    this.ui.preset.value = k;
  }
  fillPresets() {
    const names = this.presets().map(([name]) => name), key = names.join();
    if (this.ui.preset.key === key) return;
    this.ui.preset.key = key;
    this.ui.preset.replaceChildren(...names.map((name, k) => make("option", { value: k }, `${k} ${name}`)));
  }
  invert() {
    this.inverts = !this.inverts;
    this.ui.invert.setAttribute("aria-pressed", String(this.inverts));
    this.paint();
  }
  fit() { this.view = { zoom: 1, x: 0.5, y: 0.5 }; this.paint(); }
  reset() { this.fit(); this.inverts = true; this.invert(); this.ui.preset.value = 0; this.setWindow(null); }
  zoom(factor, pane = null, event = null) {
    const before = event && pane.image && pane.place(this.view), view = this.view, zoom = clamp(view.zoom * factor, 0.1, 80);
    if (before) {
      const box = pane.canvas.getBoundingClientRect(), ratio = pane.canvas.width / box.width;
      const px = (event.clientX - box.left) * ratio, py = (event.clientY - box.top) * ratio, f = zoom / view.zoom;
      const width = pane.image.columns * before.sx, height = pane.image.rows * before.sy;
      view.x += (1 - 1 / f) * ((px - before.x) / width - view.x);
      view.y += (1 - 1 / f) * ((py - before.y) / height - view.y);
    }
    view.zoom = zoom;
    this.moved();
    this.paint(true);
  }
  pan(pane, dx, dy) {
    if (!pane.image) return;
    const at = pane.place(this.view), ratio = pane.canvas.width / pane.canvas.getBoundingClientRect().width;
    this.view.x = clamp(this.view.x - (dx * ratio) / (pane.image.columns * at.sx), -0.2, 1.2);
    this.view.y = clamp(this.view.y - (dy * ratio) / (pane.image.rows * at.sy), -0.2, 1.2);
    this.moved();
    this.paint(true);
  }

  // Mouse, fingers, keys

  wheel(event, pane) {
    event.preventDefault();
    const by = Math.sign(event.deltaY || event.deltaX);
    if (event.ctrlKey) return this.zoom(by < 0 ? 1.15 : 1 / 1.15, pane, event);
    const steps = by * (event.shiftKey ? 10 : 1), plane = this.planes.indexOf(pane) + 1;
    if (plane) return this.setCross(plane, this.cross[plane] + steps);
    this.go(this.k + steps);
  }
  setCross(axis, value) {
    const size = this.shape[this.shape.length - 3 + axis];
    this.cross[axis] = clamp(Math.round(value), 0, size - 1);
    this.paint();
    this.loadPlanes();
  }
  down(event, pane) {
    this.ui.panes.focus({ preventScroll: true });
    if (event.button === 1) event.preventDefault();
    try { pane.frame.setPointerCapture(event.pointerId); } catch { /* a pointer that is gone */ }
    const touch = event.pointerType === "touch";
    this.pointers.set(event.pointerId, { x: event.clientX, y: event.clientY, touch, pane });
    const fingers = [...this.pointers.values()].filter((one) => one.touch).length;
    const kind = touch ? (fingers > 1 ? "pinch" : "scroll") : event.button === 1 ? "pan" : event.button === 2 ? "zoom" : pane.image?.cross ? "cross" : "window";
    this.drag = { kind, pane, k: this.k, x: event.clientX, y: event.clientY, window: this.current, spread: this.spread() };
    if (kind === "cross") this.moveCross(event, pane);
  }
  spread() {
    const [a, b] = [...this.pointers.values()].filter((one) => one.touch);
    return b ? { distance: Math.hypot(a.x - b.x, a.y - b.y), x: (a.x + b.x) / 2, y: (a.y + b.y) / 2 } : null;
  }
  move(event, pane) {
    const pointer = this.pointers.get(event.pointerId), drag = this.drag;
    if (!pointer || !drag) return this.point(pane, pane.pixel(this.view, event));
    const dx = event.clientX - pointer.x, dy = event.clientY - pointer.y;
    pointer.x = event.clientX;
    pointer.y = event.clientY;
    if (drag.kind === "window" && drag.window) {
      const [a, b] = this.modalityRange(), unit = (4 * Math.max(b - a, 1e-6)) / 1024;
      const width = Math.max(drag.window[1] + (event.clientX - drag.x) * unit, unit / 100);
      this.setWindow([drag.window[0] + (event.clientY - drag.y) * unit, width], false);
    } else if (drag.kind === "pan") this.pan(pane, dx, dy);
    else if (drag.kind === "zoom") this.zoom(Math.exp(-dy / 150));
    else if (drag.kind === "cross") this.moveCross(event, pane);
    else if (drag.kind === "scroll") this.go(drag.k + Math.round((event.clientY - drag.y) / 16));
    else if (drag.kind === "pinch") {
      const now = this.spread();
      if (now && drag.spread) {
        this.zoom(now.distance / (drag.spread.distance || 1), pane, { clientX: now.x, clientY: now.y });
        this.pan(pane, now.x - drag.spread.x, now.y - drag.spread.y);
      }
      drag.spread = now;
    }
  }
  up(event) {
    this.pointers.delete(event.pointerId);
    if (this.drag?.kind === "window") this.announce();
    if (!this.pointers.size) this.drag = null;
    else if (this.drag) this.drag.spread = this.spread();
  }
  moveCross(event, pane) {
    const pixel = pane.pixel(this.view, event), axis = pane === this.training ? 0 : this.planes.indexOf(pane) + 1;
    if (!pixel || pane === this.source) return;
    const [a, b] = [[1, 2], [0, 2], [0, 1]][axis];
    this.cross[b] = pixel[1];
    this.cross[a] = pixel[0];
    if (a === 0) this.go(this.time * this.depth + pixel[0]);
    this.paint();
    this.loadPlanes();
    this.point(pane, pixel);
  }
  key(event) {
    if (event.target !== this.ui.panes || event.ctrlKey || event.metaKey || event.altKey) return;
    const by = event.shiftKey ? 10 : 1, key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
    const act = {
      ArrowUp: () => this.go(this.k - by), ArrowDown: () => this.go(this.k + by), Home: () => this.go(0), End: () => this.go(this.length - 1),
      PageUp: () => this.step(-1), ArrowLeft: () => this.step(-1), PageDown: () => this.step(1), ArrowRight: () => this.step(1),
      Escape: () => this.reset(), " ": () => this.reset(), "=": () => this.fit(), "+": () => this.zoom(1.25), "-": () => this.zoom(0.8),
      t: () => this.nextMode(), n: () => (event.shiftKey ? this.toggleStrip() : this.redraw()), m: () => this.toggleMasks(), o: () => this.toggleOverlays(), i: () => this.invert(),
      c: () => this.play(!this.playing), g: () => { const part = this.ui.histogramPart; part.open = !part.open; }, "/": () => this.ui.filter.focus(), "?": () => this.ui.help.showModal(),
    }[key] || (/^\d$/.test(key) && (() => this.preset(+key)));
    if (!act) return;
    event.preventDefault();
    act();
  }
  nextMode() {
    this.mode = { both: "training", training: "source", source: "both" }[this.mode];
    this.ui.mode.textContent = { both: "Both", training: "Training", source: "Source" }[this.mode];
    this.ui.panes.dataset.mode = this.mode;
    this.load();
    this.announce();
  }
  toggleMasks() {
    this.layers.masks = this.layers.boxes = !this.layers.masks;
    this.ui.masks.setAttribute("aria-pressed", String(this.layers.masks));
    this.load();
  }
  toggleOverlays() {
    const off = (this.overlaysOff = !this.overlaysOff);
    this.layers.masks = this.layers.boxes = !off;
    this.root.classList.toggle("dtv-bare", off);
    this.load();
  }
  play(on) {
    clearInterval(this.playing);
    this.playing = 0;
    this.ui.play.textContent = on ? "Stop" : "Play";
    this.ui.play.setAttribute("aria-pressed", String(on));
    if (!on || !this.group) return;
    const wanted = clamp(this.ui.rate.valueAsNumber || 12, 1, 60);
    const calm = matchMedia("(prefers-reduced-motion: reduce)").matches;
    this.playing = setInterval(() => {
      // The next frame is shown when it is there, so that a slow line slows the loop and skips nothing.
      const next = (this.k + 1) % this.length;
      if (this.paths(this.k).every((path) => this.entryOf(path))) this.go(next);
    }, 1000 / (calm ? Math.min(wanted, 2) : wanted));
  }

  // Draws of random transforms

  async redraw() {
    if (!this.summary.transforms) return;
    this.draw++;
    this.bounds = null;
    if (this.has_planes) { const mine = ++this.asked, cross = this.cross; await this.describe(mine); if (cross && this.cross) this.cross = cross; }
    this.load();
    this.announce();
  }
  toggleStrip() {
    const { strip, draws } = this.ui;
    if (!this.summary.transforms) return;
    strip.hidden = !strip.hidden;
    draws.setAttribute("aria-pressed", String(!strip.hidden));
    if (!strip.hidden) this.fillStrip();
    this.paint();
  }
  fillStrip() {
    const first = this.draw, sample = this.sampleNumber, plane = this.has_planes ? `&plane=${this.k % this.depth}&time=${this.time}` : "";
    this.ui.strip.replaceChildren(...[...Array(DRAWS).keys()].map((k) => {
      const draw = first + k, canvas = make("canvas", { width: 8, height: 8, "aria-hidden": "true" });
      this.fillTile(canvas, `samples/${sample}/training?draw=${draw}&edge=${TILE}${plane}`);
      return make("button", { type: "button", title: `Show draw ${draw + 1}`, onclick: () => { this.draw = draw; this.load(); } }, canvas, make("span", {}, `draw ${draw + 1}`));
    }));
  }
  async fillTile(canvas, path) {
    const entry = await this.store.get(path);
    if (entry.info.dropped) return setTimeout(() => canvas.isConnected && this.fillTile(canvas, path), 300);
    if (!entry.array) return canvas.replaceWith(make("p", { className: "dtv-tile-error" }, entry.info.error || ""));
    const [channels, rows, columns] = entry.info.shape;
    tile(canvas, rows, columns, trainingValue(entry, channels === 3 && !this.summary.channels.length ? "rgb" : channels >> 1, trainingBounds(entry, null)), TILE);
  }

  // Labels

  buildLegend() {
    const { ui, layers } = this;
    ui.legend.replaceChildren(...layers.legend.map(({ number, name }, place) => {
      const text = name || `label ${number}`, swatch = make("span", { className: "dtv-swatch", "aria-hidden": "true" }, String(number));
      swatch.style.background = COLOURS[place % COLOURS.length];
      const shown = make("input", { type: "checkbox", checked: true, onchange: () => { layers.hidden[shown.checked ? "delete" : "add"](place); this.paint(); } });
      const jump = (back) => ui.button(back ? "‹" : "›", `${back ? "Previous" : "Next"} frame that has ${text}`, () => this.jump(place, back), { "aria-label": `${back ? "Previous" : "Next"} frame that has ${text}` });
      return make("li", {}, make("label", {}, shown, swatch, make("span", {}, text)), ...(this.summary.masks ? [jump(true), jump(false)] : []));
    }));
  }
  async jump(place, back) {
    const more = { label: place, series: this.number, from: this.k, ...(back ? { back: 1 } : {}) };
    const { info } = await this.store.get(`next${this.query(more)}`);
    if (Number.isInteger(info.item)) this.go(info.item);
    else if (!info.dropped) this.speak(info.error || (info.tried === undefined ? "No other frame here has this label." : `None of ${info.tried} frames has it.`));
  }

  // Pixel, histogram, metadata

  point(pane, pixel) {
    this.probed = pixel && { pane, pixel };
    for (const other of this.panes) other.point(this.view, other === pane || !pixel ? null : this.elsewhere(pane, other, pixel));
    if (pixel) this.showProbe();
  }
  /** The pixel of another pane that shows the same place, as far as that can be known. */
  elsewhere(from, to, pixel) {
    if (![from, to].every((pane) => (pane === this.source || pane === this.training) && pane.image)) return null;
    const a = from.image, b = to.image, r = this.described?.resized;
    if (r && this.shown) {
      const { rows, columns } = this.source.image;
      if (from === this.source) return [r[1] + ((pixel[0] + 0.5) * r[3]) / rows - 0.5, r[2] + ((pixel[1] + 0.5) * r[4]) / columns - 0.5].map(Math.round);
      const back = [((pixel[0] + 0.5 - r[1]) * rows) / r[3] - 0.5, ((pixel[1] + 0.5 - r[2]) * columns) / r[4] - 0.5].map(Math.round);
      return back[0] >= 0 && back[1] >= 0 && back[0] < rows && back[1] < columns ? back : null;
    }
    const step = this.shown?.entry.info.step || 1;
    const full = (image, pane) => (pane === this.source ? [this.shown?.entry.info.rows, this.shown?.entry.info.columns] : [image.rows, image.columns]);
    const [fa, fb] = [full(a, from), full(b, to)];
    if (fa[0] !== fb[0] || fa[1] !== fb[1]) return null;
    return from === this.source ? [pixel[0] * step, pixel[1] * step] : [Math.floor(pixel[0] / step), Math.floor(pixel[1] / step)];
  }
  probeFields() {
    const pixel = [this.ui.row.valueAsNumber, this.ui.column.valueAsNumber], pane = this.showsSource && this.source.image ? this.source : this.training;
    if (!pane.image || !pixel.every(Number.isInteger) || pixel[0] >= pane.image.rows || pixel[1] >= pane.image.columns) return;
    this.probed = { pane, pixel };
    pane.point(this.view, pixel);
    this.showProbe();
  }
  showProbe() {
    if (!this.probed || !this.probed.pane.image) return;
    const { pane, pixel } = this.probed, { ui } = this;
    const at = (wanted) => (pane === wanted ? pixel : this.elsewhere(pane, wanted, pixel));
    const lines = [], sourceAt = at(this.source), trainingAt = at(this.training);
    if (document.activeElement !== ui.row && document.activeElement !== ui.column) [ui.row.value, ui.column.value] = pixel;
    if (this.showsSource && this.shown && sourceAt && this.source.image) {
      const { entry, table } = this.shown, { columns } = this.source.image, i = sourceAt[0] * columns + sourceAt[1], n = entry.info.shape[2] || 1;
      const values = [...entry.array.subarray(i * n, i * n + n)];
      lines.push([entry.info.colour === "display" ? "Display, 0 to 255" : "Stored", values.map(said).join(", ")]);
      if (n === 1 && entry.info.map && !entry.info.colour) lines.push(["Modality", `${said(modality(entry.info, table, values[0]))} ${entry.info.units}`]);
      const label = this.source.image.labels?.array[i];
      if (label) lines.push(["Label", this.labelName(label - 1)]);
    }
    const image = pane === this.planes[0] || pane === this.planes[1] ? pane.image : this.training.image;
    const entry = pane === this.planes[0] ? this.planeEntry(1) : pane === this.planes[1] ? this.planeEntry(2) : this.trained;
    const where = image === this.training.image ? trainingAt : pixel;
    if (this.showsTraining && image && entry && where && where[0] >= 0 && where[0] < image.rows && where[1] >= 0 && where[1] < image.columns) {
      const [channels, rows, columns] = entry.info.shape, i = where[0] * columns + where[1];
      const values = [...Array(Math.min(channels, 8)).keys()].map((c) => said(entry.array[c * rows * columns + i]));
      const unsure = this.summary.transforms && pane === this.source ? " (if the transforms keep places)" : "";
      lines.push(["Training", values.join(", ") + (channels > 8 ? ", …" : "") + unsure]);
      const label = image.labels?.array[i];
      if (label && !lines.some(([name]) => name === "Label")) lines.push(["Label", this.labelName(label - 1)]);
    }
    ui.probe.replaceChildren(...lines.flatMap(([name, value]) => [make("dt", {}, name), make("dd", {}, value)]));
  }
  planeEntry(axis) { return this.store.peek(this.trainingPath(this.k, axis, this.cross[axis])); }
  labelName(place) { const one = this.layers.legend[place]; return one ? one.name || `label ${one.number}` : String(place + 1); }

  histogram() {
    const { ui } = this;
    this.bins = null;
    this.quantiles = null;
    const lines = [];
    if (this.showsSource && this.shown) {
      const { entry, table } = this.shown, info = entry.info, gray = info.map && !info.colour;
      const found = counted(entry, gray ? (x) => modality(info, table, x) : (x) => x, info.padding);
      this.bins = found;
      this.quantiles = found && [quantile(found, 0.01), quantile(found, 0.99)];
      lines.push(...numbersOf(found, info.units));
      const current = gray && this.current;
      if (current && found) {
        const below = share(found, current[0] - current[1] / 2), above = 1 - share(found, current[0] + current[1] / 2);
        lines.push(["Black, white", `${(100 * below).toFixed(1)} %, ${(100 * above).toFixed(1)} %`]);
      }
    }
    ui.numbers.replaceChildren(...lines.flatMap(([name, value]) => [make("dt", {}, name), make("dd", {}, value)]));
    const training = this.showsTraining && this.trained && counted(this.trained, (x) => x, null);
    ui.trainingNumbers.replaceChildren(...numbersOf(training, "").flatMap(([name, value]) => [make("dt", {}, name), make("dd", {}, value)]));
    this.fillPresets();
    this.fillWindow();
    this.drawHistogram();
  }
  drawHistogram() {
    const { histogram } = this.ui, ratio = window.devicePixelRatio || 1, box = histogram.getBoundingClientRect();
    if (!box.width) return;
    Object.assign(histogram, { width: Math.round(box.width * ratio), height: Math.round(box.height * ratio) });
    const context = histogram.getContext("2d"), found = this.bins, style = getComputedStyle(this.root);
    if (!found) return;
    const top = Math.log1p(Math.max(...found.bins)), w = histogram.width / found.bins.length;
    context.fillStyle = style.getPropertyValue("--dtv-bar");
    found.bins.forEach((n, k) => { const h = (Math.log1p(n) / top) * histogram.height; context.fillRect(k * w, histogram.height - h, Math.max(w, 1), h); });
    const current = this.shown?.entry.info.map && !this.shown.entry.info.colour && this.current;
    if (!current) return;
    context.fillStyle = style.getPropertyValue("--dtv-accent");
    for (const x of [current[0] - current[1] / 2, current[0] + current[1] / 2]) {
      const at = clamp(((x - found.low) / (found.high - found.low || 1)) * histogram.width, 1, histogram.width - 3);
      context.fillRect(at - 1, 0, 2 * ratio, histogram.height);
      context.fillRect(at - 4 * ratio, 0, 9 * ratio, 6 * ratio);
    }
  }
  /** Drags the nearer end of the window. */
  handle(event) {
    const canvas = this.ui.histogram, found = this.bins, current = this.current;
    if (!found || !current || this.shown?.entry.info.colour) return;
    const value = (e) => { const box = canvas.getBoundingClientRect(); return found.low + clamp((e.clientX - box.left) / box.width, 0, 1) * (found.high - found.low); };
    const ends = [current[0] - current[1] / 2, current[0] + current[1] / 2];
    const end = Math.abs(value(event) - ends[0]) < Math.abs(value(event) - ends[1]) ? 0 : 1;
    const drag = (e) => {
      ends[end] = end ? Math.max(value(e), ends[0]) : Math.min(value(e), ends[1]);
      this.setWindow([(ends[0] + ends[1]) / 2, ends[1] - ends[0]], false);
    };
    canvas.setPointerCapture(event.pointerId);
    canvas.addEventListener("pointermove", drag);
    canvas.addEventListener("pointerup", () => { canvas.removeEventListener("pointermove", drag); this.announce(); }, { once: true });
    drag(event);
  }
  showMeta(described) {
    const { ui } = this, caption = ui.meta.caption, rows = [];
    const row = (name, value, strong) => make("tr", strong ? { className: "dtv-strong" } : {}, make("th", { scope: "row" }, name), make("td", {}, value));
    if (described) {
      const labels = new Set(described.labels);
      const entries = Object.entries(described.meta).sort(([a], [b]) => labels.has(b) - labels.has(a));
      for (const [name, value] of entries) rows.push(row(name, shownValue(value), labels.has(name)));
    }
    ui.meta.replaceChildren(caption, make("tbody", {}, ...rows));
  }
  announce() {
    const current = this.current, parts = [`frame ${this.k + 1} of ${this.length}`];
    if (this.window && current) parts.push(`window ${said(current[0])} / ${said(current[1])}`);
    if (this.mode !== "both") parts.push(`${this.mode} only`);
    if (this.summary.transforms) parts.push(`draw ${this.draw + 1}`);
    if (!this.source.error.hidden && this.showsSource) parts.push(this.source.error.textContent);
    this.speak(parts.join(", "));
  }
  speak(text) { clearTimeout(this.speaking); this.speaking = setTimeout(() => { this.ui.live.textContent = text; }, 250); }

  // Batches

  async showBatches(on) {
    const { ui } = this;
    ui.batches.hidden = !on;
    for (const part of [ui.panes, ui.controls]) part.hidden = on;
    ui.aside.classList.toggle("dtv-off", on); // it is about one frame
    ui.toBatches.setAttribute("aria-pressed", String(on));
    ui.toFrames.setAttribute("aria-pressed", String(!on));
    if (on) { this.play(false); ui.strip.hidden = true; await this.openBatches(false); } else { if (this.group) this.load(); else this.paint(); ui.panes.focus({ preventScroll: true }); }
  }
  async openBatches(again) {
    const { ui } = this;
    if (again) { this.store.clear(); this.batch = 0; }
    const entry = await this.store.get(`batches?limit=1${again ? "&new=1" : ""}`);
    if (entry.info.dropped) return;
    if (entry.status !== 200) return ui.batches.replaceChildren(make("p", { className: "dtv-error", role: "alert" }, entry.info.error));
    const { info } = entry;
    ui.tiles = make("ol", { className: "dtv-tiles" });
    ui.batchSaid = make("p", { className: "dtv-quiet", role: "status" });
    ui.batchSlider = make("input", { type: "range", min: 0, max: Math.max(info.count - 1, 0), value: this.batch, "aria-label": "Batch", oninput: () => this.openBatch(+ui.batchSlider.value) });
    const step = (by) => this.openBatch(clamp(this.batch + by, 0, info.count - 1));
    ui.batches.replaceChildren(
      make("div", { className: "dtv-controls" }, make("span", { className: "dtv-group dtv-grow" }, ui.button("‹", "Previous batch", () => step(-1)), ui.batchSlider, ui.button("›", "Next batch", () => step(1))),
        ui.button("Order anew", "Ask the sampler again: its next epoch as it is now", () => this.openBatches(true))),
      ui.batchSaid, make("p", { className: "dtv-quiet" }, info.repeats ? `Epoch ${info.epoch}: ${count(info.count, "batch").replace("batchs", "batches")}, in the order in which training gets them.`
        : "This sampler draws from the global random generator, so that training gets another order; give it generator= to see the same."), ui.tiles);
    await this.openBatch(this.batch);
  }
  async openBatch(number) {
    const { ui } = this, mine = (this.batchAsked = (this.batchAsked || 0) + 1);
    this.batch = number;
    ui.batchSlider.value = number;
    const entry = await this.store.get(`batches/${number}`);
    if (mine !== this.batchAsked || entry.info.dropped) return;
    if (entry.status !== 200) { ui.batchSaid.textContent = entry.info.error; ui.tiles.replaceChildren(); return; }
    const { info } = entry;
    ui.batchSaid.textContent = `Batch ${number + 1} · ${info.shape.join(" × ")} · ${info.dtype}`;
    ui.tiles.replaceChildren(...info.samples.map((sample, item) => {
      const canvas = make("canvas", { width: 8, height: 8, "aria-hidden": "true" });
      this.fillTile(canvas, `batches/${number}/training?item=${item}&edge=${TILE}`);
      const labels = Object.entries(info.labels).map(([name, values]) => `${name} ${shownValue(values[item])}`);
      return make("li", {}, make("button", { type: "button", title: "Show this sample", onclick: () => this.toSample(sample) }, canvas, make("span", {}, [`${sample}`, ...labels].join(" · "))));
    }));
  }
  /** The frame or sample of that number, in the other part of the page. */
  async toSample(sample) {
    const number = Array.isArray(sample) ? sample[0] : sample;
    await this.showBatches(false);
    if (this.has_planes) return this.open(number);
    const { info } = await this.store.get(`places/${number}`);
    if (info.item !== undefined) await this.open(info.number, info.item);
  }
}

function aspectOf(spacing) {
  if (!spacing || !(spacing[0] > 0) || !(spacing[1] > 0)) return [1, 1];
  const least = Math.min(spacing[0], spacing[1]);
  return [spacing[0] / least, spacing[1] / least];
}

function shownValue(value) {
  if (Array.isArray(value)) return value.length > 12 ? `${value.slice(0, 12).map(shownValue).join(", ")}, … (${value.length})` : value.map(shownValue).join(", ");
  return value === "" ? "–" : said(value);
}

/** A small picture: nearest pixels, whole image. */
function tile(canvas, rows, columns, value, edge = 0) {
  const pixels = new ImageData(columns, rows);
  paint(new Int32Array(pixels.data.buffer), { top: 0, left: 0, bottom: rows, right: columns }, 1, columns, value);
  Object.assign(canvas, { width: columns, height: rows });
  canvas.getContext("2d").putImageData(pixels, 0, 0);
  if (edge) canvas.style.aspectRatio = `${columns} / ${rows}`;
}

/** 256 bins of values, with lowest, highest, mean, and how many are not finite. */
function counted(entry, convert, padding) {
  if (entry.counted) return entry.counted;
  const a = entry.array, stride = Math.max(1, Math.floor(a.length / 2e6));
  let low = Infinity, high = -Infinity, sum = 0, n = 0, bad = 0;
  for (let i = 0; i < a.length; i += stride) {
    if (padding && a[i] >= padding[0] && a[i] <= padding[1]) continue;
    const x = convert(a[i]);
    if (!Number.isFinite(x)) { bad++; continue; }
    if (x < low) low = x;
    if (x > high) high = x;
    sum += x;
    n++;
  }
  if (!n) return null;
  const bins = new Array(256).fill(0), scale = 256 / (high - low || 1);
  for (let i = 0; i < a.length; i += stride) {
    if (padding && a[i] >= padding[0] && a[i] <= padding[1]) continue;
    const x = convert(a[i]);
    if (Number.isFinite(x)) bins[Math.min(255, ((x - low) * scale) | 0)]++;
  }
  return (entry.counted = { bins, low, high, mean: sum / n, n, bad, thinned: stride > 1 });
}
function numbersOf(found, units) {
  if (!found) return [];
  const unit = units ? ` ${units}` : "";
  return [["Lowest", said(found.low) + unit], ["Highest", said(found.high) + unit], ["Mean", said(found.mean) + unit], ...(found.bad ? [["Not finite", String(found.bad)]] : [])];
}
function quantile(found, q) {
  let seen = 0;
  for (let k = 0; k < 256; k++) { seen += found.bins[k]; if (seen >= q * found.n) return found.low + ((k + (q > 0.5 ? 1 : 0)) * (found.high - found.low)) / 256; }
  return found.high;
}
function share(found, x) {
  const edge = ((x - found.low) / (found.high - found.low || 1)) * 256;
  let n = 0;
  for (let k = 0; k < 256 && k + 0.5 < edge; k++) n += found.bins[k];
  return n / found.n;
}

/** Shows the viewer in an element; `destroy()` of what is returned ends it. */
export function mount(element, transport) {
  const viewer = new Viewer(element, transport);
  viewer.started = viewer.start();
  element.viewer = viewer;
  return viewer;
}

/** What anywidget calls. */
export default {
  render({ model, el }) {
    const root = make("div", { className: "dtv dtv-notebook" });
    el.append(root);
    const viewer = mount(root, messageTransport(model));
    return () => viewer.destroy();
  },
};

const page = document.getElementById("dicomtorch-viewer");
if (page) {
  const token = new URLSearchParams(location.hash.slice(1)).get("token") || "";
  history.replaceState(null, "", location.pathname); // the address bar is seen, copied and kept
  mount(page, fetchTransport(token));
}
