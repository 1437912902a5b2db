// Waiting for conditions, never for time: the bound is there to end a test that has failed.

const WAIT_MAX_MS = 30_000;
const LOOK_AGAIN_MS = 20;

/**
 * The first truthy value of `condition`, asked again and again.
 * @template T
 * @param {string} what the condition in words, for who reads the failure
 * @param {() => T | Promise<T>} condition one that throws counts as not met
 * @param {number} [withinMs] the wait ends in a failure after so long
 * @returns {Promise<NonNullable<T>>}
 */
export async function eventually(what, condition, withinMs = WAIT_MAX_MS) {
  const end = performance.now() + withinMs;
  for (;;) {
    /** @type {unknown} */
    let seen;
    try {
      seen = await condition();
      if (seen) return /** @type {NonNullable<T>} */ (seen);
    } catch (error) {
      seen = error;
    }
    if (performance.now() > end) throw new Error(`waited ${withinMs} ms in vain: ${what} (last seen: ${seen})`);
    await new Promise((resolve) => setTimeout(resolve, LOOK_AGAIN_MS));
  }
}
