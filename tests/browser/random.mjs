// Randomness of the tests: from FANLIGHT_SEED, or a new seed that failures print.

export function random(seed = Number(process.env.FANLIGHT_SEED) || (Date.now() % 2 ** 31)) {
  let state = seed >>> 0;
  /** 0 to `below`, without it; the generator is mulberry32. */
  const integer = (below) => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = Math.imul(state ^ (state >>> 15), state | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) % below;
  };
  const signs = [..."ab \"'`\\$!&|;<>(){}[]*?#~%=+,./\n\r\t\0\u0007\u007f\u0085\u2028\u2029\ufeffü温🌡", "${x}", "$(id)", "`id`", "'''", '"""', "</script>", "<!--", "\\u0041", "%00", "\\|", "\ud800", "\udc00"];
  const text = (length = 12) => Array.from({ length: integer(length) }, () => signs[integer(signs.length)]).join("");
  return { seed, integer, text };
}
