// One picture of a few lines over time, drawn by uPlot.
//
// Law: it shows what it is given and decides nothing. Colours come from the style sheet.

import { h } from "../page/dom.js";

/** Lines of one chart. The style sheet has as many colours. */
export const LINES_MAX = 6;
/** Dashes tell lines apart where colours do not. In CSS pixels. */
export const DASHES = [[], [9, 4], [2.5, 3], [12, 3, 2.5, 3], [5, 5], [16, 4]];
/** Charts of one key share their cursor. */
const SYNC_KEY = "fanlight";
const HEIGHT_PX = 210;
/** Narrower than this is not shown anyway. */
const WIDTH_MIN_PX = 120;

/** @typedef {import("./breaks.js").Break} Break */

/**
 * What is used of uPlot.
 * @typedef {object} Drawing
 * @property {CanvasRenderingContext2D} ctx
 * @property {{left: number, top: number, width: number, height: number}} bbox in pixels of the canvas
 * @property {{left: number, width: number}} select in CSS pixels
 * @property {{left?: number}} cursor
 * @property {{x: {min: number, max: number}}} scales
 * @property {HTMLElement} over
 * @property {(value: number, scale: string, canvasPixels?: boolean) => number} valToPos
 * @property {(position: number, scale: string) => number} posToVal
 * @property {(data: unknown, resetScales?: boolean) => void} setData
 * @property {(scale: string, limits: {min: number, max: number}) => void} setScale
 * @property {(size: {width: number, height: number}) => void} setSize
 * @property {(select: {left: number, top: number, width: number, height: number}, fireHook?: boolean) => void} setSelect
 * @property {(at: {left: number, top: number}, fireHook?: boolean) => void} setCursor
 * @property {(changes: () => void) => void} batch
 * @property {() => void} destroy
 */

/** @typedef {{new (options: unknown, data: unknown, into: HTMLElement): Drawing, pxRatio: number}} UPlot */

/**
 * @typedef {object} Told
 * @property {(time: number) => void} cursor where it is, Unix milliseconds; NaN if it is nowhere
 * @property {(from: number, to: number) => void} zoom to a part that was dragged over
 * @property {() => void} reset
 */

/**
 * @typedef {object} Picture
 * @property {unknown} data times and columns, as uPlot takes them
 * @property {number} from Unix milliseconds
 * @property {number} to
 * @property {[number, number]} bounds of the vertical axis
 * @property {Break[]} breaks to shade
 */

export class Chart {
  /** @type {Drawing | null} */
  #drawing = null;
  /** @type {Picture} */
  #picture = { data: [[], ...Array.from({ length: LINES_MAX }, () => [])], from: 0, to: 1, bounds: [0, 1], breaks: [] };
  #told;
  #width = 0;
  #observer = new ResizeObserver(() => this.#resize());

  /** @param {Told} told */
  constructor(told) {
    this.#told = told;
    this.element = h("div", { class: "chart", role: "img", tabindex: "0" });
    this.#observer.observe(this.element);
  }

  /** Columns that can be told apart. */
  get columns() {
    return Math.max(WIDTH_MIN_PX, this.#width);
  }

  /** @param {Picture} picture */
  draw(picture) {
    this.#picture = picture;
    const drawing = this.#drawing;
    if (!drawing) return this.#make();
    drawing.batch(() => {
      drawing.setData(picture.data, false);
      drawing.setScale("x", { min: picture.from, max: picture.to });
    });
  }

  /** Where the cursor is, Unix milliseconds; NaN if it is nowhere. */
  get cursor() {
    const left = this.#drawing?.cursor.left ?? -1;
    return this.#drawing && left >= 0 ? this.#drawing.posToVal(left, "x") : NaN;
  }

  /**
   * Puts the cursor somewhere.
   * @param {number} time
   */
  point(time) {
    const drawing = this.#drawing;
    if (!drawing) return;
    const left = Number.isFinite(time) ? drawing.valToPos(time, "x") : -10;
    drawing.setCursor({ left, top: left < 0 ? -10 : 0 }, false);
  }

  /** Reads the colours anew. */
  recolour() {
    if (this.#drawing) this.#make();
  }

  close() {
    this.#observer.disconnect();
    this.#drawing?.destroy();
    this.#drawing = null;
  }

  #resize() {
    const width = Math.floor(this.element.clientWidth);
    if (width < WIDTH_MIN_PX || width === this.#width) return;
    this.#width = width;
    if (this.#drawing) this.#drawing.setSize({ width, height: HEIGHT_PX });
    else this.#make();
  }

  #make() {
    if (this.#width === 0) return;
    this.#drawing?.destroy();
    const style = getComputedStyle(this.element);
    const sans = style.getPropertyValue("--sans");
    // A canvas knows no variables: an element says what colour they come to.
    const colour = (/** @type {string} */ name) => {
      this.element.style.color = `var(--${name})`;
      return style.color;
    };
    const axis = {
      stroke: colour("muted"), font: `12px ${sans}`,
      grid: { stroke: colour("line"), width: 1 }, ticks: { stroke: colour("line"), width: 1, size: 5 },
    };
    const shade = { fill: colour("warn"), text: colour("warn"), ground: colour("warn-ground") };
    /** @type {UPlot} */
    const uPlot = /** @type {any} */ (globalThis).uPlot;
    this.#drawing = new uPlot({
      width: this.#width,
      height: HEIGHT_PX,
      ms: 1,
      padding: [12, 26, 0, 0],
      legend: { show: false },
      scales: {
        // Each picture says both ranges.
        x: { time: true, auto: false, range: () => [this.#picture.from, this.#picture.to] },
        y: { range: () => this.#picture.bounds },
      },
      axes: [
        { ...axis, space: 72, size: 32, splits: moments, values: times },
        { ...axis, values: figures, size: room },
      ],
      series: [{}, ...DASHES.map((dash, i) => ({
        stroke: colour(`plot-${i + 1}`), width: 1.75, dash, points: { size: 5, fill: colour(`plot-${i + 1}`) },
      }))],
      cursor: {
        y: false,
        drag: { x: true, y: false, setScale: false, dist: 6 },
        points: { size: 8 },
        sync: { key: SYNC_KEY, scales: ["x", null], filters: { pub: follows } },
        bind: { dblclick: () => () => { this.#told.reset(); return null; } },
      },
      hooks: {
        drawAxes: [(/** @type {Drawing} */ drawing) => shadeBreaks(drawing, uPlot.pxRatio, this.#picture.breaks, shade)],
        setCursor: [() => this.#told.cursor(this.cursor)],
        setSelect: [(/** @type {Drawing} */ drawing) => this.#selected(drawing)],
      },
    }, this.#picture.data, this.element);
    this.element.style.color = "";
    this.#drawing.setScale("x", { min: this.#picture.from, max: this.#picture.to });
  }

  /** @param {Drawing} drawing */
  #selected(drawing) {
    const { left, width } = drawing.select;
    if (width < 4) return;
    const from = drawing.posToVal(left, "x");
    const to = drawing.posToVal(left + width, "x");
    drawing.setSelect({ left: 0, top: 0, width: 0, height: 0 }, false);
    this.#told.zoom(from, to);
  }
}

/** Only the cursor is shared: what is dragged over in one chart comes back by the window. */
const follows = (/** @type {string} */ type) => type === "mousemove" || type === "mouseleave";

const day = new Intl.DateTimeFormat(undefined, { month: "short", day: "numeric" });
const minute = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit", hourCycle: "h23" });
const second = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23" });
const fraction = new Intl.DateTimeFormat(undefined, { minute: "2-digit", second: "2-digit", fractionalSecondDigits: 3, hourCycle: "h23" });

/**
 * Round times of the reader's zone; uPlot's own are off by the fraction of a second at the edge.
 * @type {(drawing: Drawing, axis: number, from: number, to: number, step: number) => number[]}
 */
const moments = (_drawing, _axis, from, to, step) => {
  const zone = new Date(from).getTimezoneOffset() * 60_000;
  const found = [];
  for (let time = Math.ceil((from - zone) / step) * step + zone; time <= to; time += step) found.push(time);
  return found;
};

/** @type {(drawing: Drawing, splits: number[], axis: number, space: number, step: number) => string[]} */
const times = (_drawing, splits, _axis, _space, step) => {
  const format = step >= 86_400_000 ? day : step >= 60_000 ? minute : step >= 1000 ? second : fraction;
  return splits.map((time) => format.format(time));
};

/** @type {(drawing: Drawing, splits: number[], axis: number, space: number, step: number) => string[]} */
const figures = (_drawing, splits, _axis, _space, step) => {
  const largest = Math.max(...splits.map(Math.abs));
  const plain = largest < 1e9 && step >= 1e-6;
  let digits = 0;
  while (plain && digits < 8 && Math.abs(step * 10 ** digits - Math.round(step * 10 ** digits)) > 1e-6) digits += 1;
  return splits.map((value) => (plain ? value.toFixed(digits) : String(Number(value.toPrecision(6)))).replace("-", "−"));
};

/** @type {(drawing: Drawing, values: string[] | null) => number} */
const room = (_drawing, values) => 22 + 7 * Math.max(5, ...(values ?? []).map((value) => value.length));

/**
 * Shades what is missing, with oblique lines and a word, under the lines.
 * @param {Drawing} drawing
 * @param {number} ratio pixels of the canvas to a CSS pixel
 * @param {Break[]} breaks
 * @param {{fill: string, text: string, ground: string}} colours
 */
function shadeBreaks({ ctx, bbox, valToPos }, ratio, breaks, colours) {
  ctx.save();
  ctx.beginPath();
  ctx.rect(bbox.left, bbox.top, bbox.width, bbox.height);
  ctx.clip();
  let free = -Infinity;
  for (const { kind, from, to } of breaks) {
    const edge = (/** @type {number} */ time) =>
      Math.min(Math.max(valToPos(time, "x", true), bbox.left), bbox.left + bbox.width);
    const left = from === -Infinity ? bbox.left : edge(from);
    // A moment is shown as well.
    const width = Math.max((to === Infinity ? bbox.left + bbox.width : edge(to)) - left, 3 * ratio);
    ctx.fillStyle = colours.ground;
    ctx.fillRect(left, bbox.top, width, bbox.height);
    ctx.save();
    ctx.beginPath();
    ctx.rect(left, bbox.top, width, bbox.height);
    ctx.clip();
    ctx.beginPath();
    for (let x = left - bbox.height; x < left + width; x += 9 * ratio) {
      ctx.moveTo(x, bbox.top + bbox.height);
      ctx.lineTo(x + bbox.height, bbox.top);
    }
    ctx.globalAlpha = 0.35;
    ctx.lineWidth = ratio;
    ctx.strokeStyle = colours.fill;
    ctx.stroke();
    ctx.restore();
    ctx.font = `600 ${11 * ratio}px system-ui, sans-serif`;
    const label = ctx.measureText(kind).width;
    const x = Math.min(Math.max(left + width / 2 - label / 2, bbox.left), bbox.left + bbox.width - label);
    if (x < free) continue;
    ctx.fillStyle = colours.ground;
    ctx.fillRect(x - 3 * ratio, bbox.top, label + 6 * ratio, 15 * ratio);
    ctx.fillStyle = colours.text;
    ctx.textBaseline = "alphabetic";
    ctx.textAlign = "left";
    ctx.fillText(kind, x, bbox.top + 11 * ratio);
    free = x + label + 8 * ratio;
  }
  ctx.restore();
}
