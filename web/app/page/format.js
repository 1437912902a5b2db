// Times, durations, numbers and bytes as people read them. Pure.

const clock = new Intl.DateTimeFormat(undefined, {
  hour: "2-digit", minute: "2-digit", second: "2-digit", fractionalSecondDigits: 3, hourCycle: "h23",
});
const toTheSecond = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23" });
const dayAndClock = new Intl.DateTimeFormat(undefined, {
  year: "numeric", month: "short", day: "numeric",
  hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23",
});
const whole = new Intl.NumberFormat(undefined, { maximumFractionDigits: 0 });

/** @param {number} ms Unix milliseconds; NaN for none */
export const time = (ms) => (Number.isFinite(ms) ? clock.format(ms) : "–");

/** @param {number} ms Unix milliseconds; NaN for none */
export const second = (ms) => (Number.isFinite(ms) ? toTheSecond.format(ms) : "–");

/** @param {number} ms Unix milliseconds; NaN for none */
export const dateTime = (ms) => (Number.isFinite(ms) ? dayAndClock.format(ms) : "–");

/** @param {number} number */
export const count = (number) => (Number.isFinite(number) ? whole.format(number) : "–");

/**
 * A length of time in its two largest units, as `850 ms`, `2.3 s`, `4 min 10 s`, `3 d 4 h`.
 * @param {number} ms
 */
export function duration(ms) {
  if (!Number.isFinite(ms)) return "–";
  const sign = ms < 0 ? "−" : "";
  const length = Math.abs(ms);
  if (length < 999.5) return `${sign}${Math.round(length)} ms`;
  if (length < 9_950) return `${sign}${(length / 1000).toFixed(1)} s`;
  const seconds = Math.round(length / 1000);
  /** @type {[number, string][]} */
  const units = [[86_400, "d"], [3_600, "h"], [60, "min"], [1, "s"]];
  const first = units.findIndex(([size]) => seconds >= size);
  const [size, unit] = units[first];
  const rest = units[first + 1];
  const more = rest ? Math.floor((seconds % size) / rest[0]) : 0;
  return `${sign}${Math.floor(seconds / size)} ${unit}${rest && more ? ` ${more} ${rest[1]}` : ""}`;
}

/** @param {number} ms length of time; a negative one lies in the future, as a clock that is wrong has it */
export const ago = (ms) => {
  if (!Number.isFinite(ms)) return "–";
  return Math.abs(ms) < 1500 ? "now" : ms < 0 ? `in ${duration(-ms)}` : `${duration(ms)} ago`;
};

/** @param {number} size in bytes */
export function bytes(size) {
  if (!Number.isFinite(size)) return "–";
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let value = size;
  let unit = 0;
  while (value >= 1024 && unit < units.length - 1) {
    value /= 1024;
    unit += 1;
  }
  return `${unit === 0 || value >= 100 ? Math.round(value) : value.toFixed(1)} ${units[unit]}`;
}

/** @param {number} part of a whole, from 0 to 1 */
export function percent(part) {
  const value = 100 * part;
  return value > 0 && value < 0.01 ? "less than 0.01 %" : `${Number(value.toFixed(value < 1 ? 2 : 1))} %`;
}

/** @param {number} value a rate per second */
export function rate(value) {
  if (!Number.isFinite(value)) return "–";
  if (value >= 100) return `${count(value)}/s`;
  if (value >= 1 || value === 0) return `${Number(value.toFixed(1))}/s`;
  if (value * 60 >= 1) return `${Number((value * 60).toFixed(1))}/min`;
  return `${Number((value * 3600).toPrecision(2))}/h`;
}

/**
 * A text for one line: cut, with control characters made visible.
 * @param {string} text
 * @param {number} charsMax
 */
export function line(text, charsMax) {
  const cut = text.length > charsMax ? `${text.slice(0, charsMax)}…` : text;
  return cut.replace(/[\u0000-\u001f\u007f]/g, (control) =>
    control === "\n" ? "⏎" : String.fromCodePoint(control === "\u007f" ? 0x2421 : 0x2400 + control.charCodeAt(0)));
}
