/**
 * The browser client of Fanlight: one subscription, over whatever gets through to the broker.
 *
 * Law: within an epoch the ids a page sees increase, and what is missing between them the filter
 * does not pass or a gap has declared. The position is the only memory. All that comes, by stream,
 * poll or other tab, goes through `#take`, which drops repeats by it; so ways in may overlap.
 */

/**
 * @typedef {"sse" | "websocket" | "poll"} Transport
 * @typedef {{ id: string, name: string, data?: any, raw?: string, ttl?: number,
 *   published_at?: string, coreid?: string }} FanlightEvent
 * @typedef {{ id: string, reason: string, requested: string | null, from: number, to: number,
 *   count: number | null, oldest: number, next: number }} Gap
 * @typedef {{ id: string, reason: string, since: string, until: string, count: null }} Hole
 * @typedef {{ id?: string, state: string, since?: string, detail?: string }} Upstream
 * @typedef {{ state: "connecting" | "open" | "waiting" | "offline" | "closed",
 *   shared: "leader" | "follower" | "alone", transport?: Transport, retryAt?: number,
 *   reason?: string }} State
 * @typedef {{ close(): void, readonly state: State, readonly position: string }} Connection
 * @typedef {object} Options see docs/client.md
 * @property {string | string[]} [prefix]
 * @property {string | string[]} [name]
 * @property {string | string[]} [device]
 * @property {string} [since]
 * @property {string} [lastEventId]
 * @property {boolean} [snapshot]
 * @property {boolean} [share]
 * @property {Transport[]} [transports]
 * @property {AbortSignal} [signal]
 * @property {(told: FanlightEvent) => void} [onEvent]
 * @property {(told: Gap) => void} [onGap]
 * @property {(told: Hole) => void} [onHole]
 * @property {(told: Upstream) => void} [onUpstream]
 * @property {(told: State) => void} [onState]
 *
 * @typedef {any} Item what the broker says, or a batch of it from the leader
 * @typedef {(reason: string, retryMs?: number) => void} Fail
 * @typedef {{ opened: number, stop: AbortController, fail: Fail }} Attempt
 */

const HELLO_MS = 5_000; // What is silent for so long is held back on its way.
const STEADY_MS = 10_000; // What lasts so long was no failure.
const STRIKES_MAX = 2; // Failures of a transport that has worked.
const WAIT_MIN_MS = 1_000;
const WAIT_MAX_MS = 30_000;
const CLIMB_MIN_MS = 60_000;
const CLIMB_MAX_MS = 1_800_000;
const SILENCE_MS = 45_000;
const GRACE_MS = 3_000;
const POLL_SECONDS = 25;
const POLL_PAUSE_MS = 200;
const BATCH_MAX = 256;
const INBOX_MAX = 64;

/**
 * Subscribes to the broker at `url`.
 * @param {string | URL} url
 * @param {Options} [options]
 * @returns {Connection}
 */
export const connect = (url, options = {}) => new Subscription(url, options);

class Subscription {
  /** @type {State["shared"]} */
  #shared = "alone";
  /** @type {State} */
  state = { state: "connecting", shared: "alone" };
  #fresh = false; // After a gap that breaks with the past.
  #gone = new AbortController();
  #life = new AbortController(); // Until the page is put aside.
  /** @type {Line | undefined} */
  #line;
  /** @type {BroadcastChannel | undefined} */
  #channel;
  /** @type {Item[]} */
  #inbox = [];
  /** @type {Item[]} */
  #outbox = [];
  #from = "";
  #soon = new MessageChannel(); // Unlike timers not held back in a hidden tab.
  #upstream = "";
  #heard = 0;
  #draining = false;
  #probing = false;
  /** @type {any} */
  #watch;

  /** @param {string | URL} url @param {Options} options */
  constructor(url, options) {
    const kinds = /** @type {Transport[]} */ (Object.keys(TRANSPORTS));
    this.options = options;
    // SSE has six connections, too few for tabs that cannot share.
    this.transports = options.transports ?? (navigator.locks ? kinds : ["websocket", "sse", "poll"]);
    if (!this.transports[0] || this.transports.some((kind) => !kinds.includes(kind))) {
      throw new TypeError(`transports must be some of ${kinds}`);
    }
    this.base = new URL(url, globalThis.document?.baseURI ?? location.href);
    if (!this.base.pathname.endsWith("/")) this.base.pathname += "/";
    this.filter = /** @type {const} */ (["device", "name", "prefix"]).flatMap((key) =>
      [options[key] ?? []].flat().sort().map((value) => [key, value]));
    this.position = options.lastEventId ?? "";
    this.#soon.port1.onmessage = () => this.#post();
    const { signal } = this.#gone;
    for (const type of ["online", "pagehide", "pageshow", "freeze", "resume", "visibilitychange"]) {
      addEventListener(type, this.#lives, { capture: true, signal });
    }
    options.signal?.addEventListener("abort", () => this.close(), { signal });
    if (options.signal?.aborted) this.close();
    else this.#join();
  }

  close() {
    this.#leave();
    this.#gone.abort();
    this.#soon.port1.close();
    this.tell({ state: "closed" });
  }

  /** @param {Event} event */
  #lives = ({ type }) => {
    if (/hide|freeze/.test(type)) return this.#leave();
    if (type === "visibilitychange" && document.hidden) return;
    if (this.#life.signal.aborted) return this.#join();
    if (type === "online") this.#line?.hurry();
    this.#probe();
  };

  // Who holds the lock leads: that tab alone has a line, and tells the others what comes.

  /** @param {LockOptions} [how] @returns {Promise<void>} */
  async #join(how = { ifAvailable: true }) {
    const { signal } = (this.#life = new AbortController());
    await null; // `connect` returns before the first callback.
    if (signal.aborted) return;
    const { locks } = navigator;
    if (this.options.share === false || !locks || !globalThis.BroadcastChannel) return this.#lead("alone");
    const key = `fanlight/1 ${this.base} ${JSON.stringify(this.filter)}`;
    /** @param {Lock | null} lock */
    const hold = (lock) => lock && !signal.aborted && new Promise((release) => {
      signal.onabort = release;
      this.#lead("leader");
    });
    try {
      this.#channel = new BroadcastChannel(key);
      this.#channel.onmessage = ({ data }) => this.#told(data);
      if ((await locks.request(key, how, hold)) !== null) return;
      this.#follow();
      await locks.request(key, { signal }, hold);
    } catch (/** @type {any} */ error) {
      if (signal.aborted) return;
      this.#leave();
      if (error.name === "AbortError") return this.#join(); // Stolen.
      this.#life = new AbortController();
      this.#lead("alone");
    }
  }

  #leave() {
    this.#post();
    this.#life.abort();
    this.#line?.stop();
    this.#channel?.close();
    this.#line = this.#channel = undefined;
    this.#inbox = [];
    clearInterval(this.#watch);
  }

  /** @param {State["shared"]} shared */
  #lead(shared) {
    this.#shared = shared;
    this.#from = this.position;
    this.#guard(SILENCE_MS);
    this.#line = new Line(this);
    this.#line.open();
  }

  #follow() {
    this.#shared = "follower";
    // Longer than a leader is silent, also in a hidden tab.
    this.#guard((3 + Math.random()) * SILENCE_MS);
    this.#channel?.postMessage({ joins: true });
    // Joins on to nothing: a poll fetches the past.
    this.#told({ from: "", items: [], state: { state: "connecting" } });
  }

  #post() {
    const from = this.#from;
    const items = [...this.#outbox.splice(0), { fanlight: "hello", upstream: this.#upstream }];
    this.#from = this.position; // First: a batch that cannot be sent is a jump.
    if (this.#line) call((batch) => this.#channel?.postMessage(batch), { from, items, state: this.state });
  }

  /** @param {Item} batch */
  #told(batch) {
    if (this.#line) return batch.joins && this.#post();
    if (!Array.isArray(batch.items)) return;
    this.#heard += 1;
    // The next one is a jump then.
    if (this.#inbox.push(batch) > INBOX_MAX) this.#inbox.shift();
    if (!this.#draining) this.#drain();
  }

  /** Takes batches that join on to the position; polls for what is missing before one. */
  async #drain() {
    this.#draining = true;
    for (let failures = 0, batch; (batch = this.#inbox[0]) && !this.#line; ) {
      const { from, items, state } = batch;
      try {
        for (let before; !this.#reaches(from) && before !== this.position; ) {
          before = this.position;
          await this.#fill();
          if (epoch(from) !== epoch(this.position)) break;
        }
        failures = 0;
      } catch {
        await pause(backoff(failures++));
      }
      if (failures || this.#inbox[0] !== batch) continue;
      this.#inbox.shift();
      if (this.#reaches(from)) for (const item of items) this.#take(item);
      this.tell(state);
    }
    this.#draining = false;
  }

  /** @param {string} id */
  #reaches(id) {
    return epoch(id) === epoch(this.position) && seq(id) <= seq(this.position);
  }

  // Pages see no keep-alives. A stream that does not bring what a poll finds is deaf.

  /** @param {number} ms */
  #guard(ms) {
    let heard = -1;
    clearInterval(this.#watch);
    this.#watch = setInterval(() => {
      if (heard === this.#heard) this.#probe();
      heard = this.#heard;
    }, ms);
  }

  async #probe() {
    if (this.#probing || this.state.state !== "open") return;
    this.#probing = true;
    const { signal } = this.#life;
    const heard = this.#heard;
    try {
      if (await this.#fill()) {
        await pause(GRACE_MS);
        if (heard === this.#heard && !signal.aborted) this.#deaf("deaf");
      }
      this.#post();
    } catch (/** @type {any} */ error) {
      if (this.#line && !signal.aborted) this.#deaf(error.message);
    }
    this.#probing = false;
  }

  /** @param {string} reason */
  #deaf(reason) {
    if (this.#line) return this.#line.fail(reason);
    this.#leave();
    this.#join({ steal: true });
  }

  /** Takes what a poll finds; true if there was any. */
  async #fill() {
    const items = await this.poll(0, this.#life.signal);
    for (const item of items) this.#take(item);
    return items.length > 1;
  }

  /**
   * What is after the position; nothing if the epoch changed meanwhile.
   * @param {number} seconds
   * @param {AbortSignal} signal
   * @returns {Promise<Item[]>}
   */
  async poll(seconds, signal) {
    const asked = this.position;
    const url = this.url("poll", ["timeout", seconds]);
    const late = AbortSignal.timeout(seconds * 1000 + 2 * HELLO_MS);
    const response = await fetch(url, { cache: "no-store", signal: AbortSignal.any([signal, late]) });
    const { events, next, gap, error_description } = await response.json().catch(() => ({}));
    if (!response.ok) throw new Error(`${response.status} ${error_description ?? response.statusText}`);
    if (epoch(asked) !== epoch(this.position)) return [];
    return [gap ?? [], ...events, { fanlight: "checkpoint", id: next }].flat();
  }

  /** @param {string} path @param {any[]} more */
  url(path, ...more) {
    const { since, snapshot } = this.options;
    const url = new URL(path, this.base);
    if (this.position) more.push(["last_event_id", this.position]);
    else if (since) more.push(["since", since]);
    if (snapshot) more.push(["snapshot", snapshot]);
    url.search = `${new URLSearchParams([...this.filter, ...more])}`;
    return url;
  }

  /** @param {Item} item */
  hear(item) {
    this.#heard += 1;
    this.#take(item);
  }

  /** @param {Item} item */
  #take(item) {
    const { fanlight, id } = item;
    const { onEvent, onGap, onHole, onUpstream } = this.options;
    if (this.#gone.signal.aborted) return;
    if (fanlight === "hello") {
      this.position ||= id ?? "";
      const { upstream: state } = item;
      if (state && state !== this.#upstream) call(onUpstream, { state: (this.#upstream = state) });
      return;
    }
    if (fanlight === "gap" ? !this.#breaks(item) : !this.#isNew(id)) return;
    if (this.#isNew(id)) this.position = id;
    if (fanlight !== "gap") this.#fresh = false;
    if (fanlight === "upstream") this.#upstream = item.state;
    if (this.#line && this.#channel) {
      const count = this.#outbox.push(item);
      if (count === 1) this.#soon.port2.postMessage(0);
      if (count === BATCH_MAX) this.#post();
    }
    if (!fanlight) call(onEvent, item);
    else if (fanlight === "gap") call(onGap, item);
    else if (fanlight === "hole") call(onHole, item);
    else if (fanlight === "upstream") call(onUpstream, item);
  }

  /** @param {string} id */
  #isNew(id) {
    if (this.#fresh || !this.position) return true;
    if (epoch(id) === epoch(this.position)) return !this.#reaches(id);
    this.#line?.fail("another epoch");
  }

  /** True if a gap is new. @param {Gap} gap */
  #breaks({ id, reason, requested, to }) {
    if (!["restart", "future", "malformed"].includes(reason)) return this.#isNew(`${epoch(id)}-${to - 1}`);
    const breaks = this.position.startsWith(epoch(requested ?? ""));
    this.#fresh ||= breaks;
    return breaks;
  }

  /** @param {Omit<State, "shared">} change */
  tell(change) {
    const state = { ...change, shared: this.#shared };
    const same = JSON.stringify(state) === JSON.stringify(this.state);
    if (same || this.state.state === "closed") return;
    this.state = state;
    this.#soon.port2.postMessage(0);
    call(this.options.onState, state);
  }
}

/** The line to the broker: which transport, when again, and back up to better ones. */
class Line {
  #rank = 0;
  #strikes = 0;
  #failures = 0;
  #proven = false; // This transport has worked.
  #told = false; // The broker has said how long to wait.
  #climbMs = CLIMB_MIN_MS;
  /** @type {any} */
  #waiting;
  /** @type {any} */
  #climbing;
  /** @type {Attempt | undefined} */
  #climber;
  /** @type {Attempt | undefined} */
  #attempt;

  /** @param {Subscription} owner */
  constructor(owner) {
    this.owner = owner;
  }

  open() {
    clearTimeout(this.#waiting);
    this.#attempt = this.#try(this.#rank);
    this.owner.tell({ state: "connecting", transport: this.owner.transports[this.#rank] });
  }

  /** @param {string} reason */
  fail(reason) {
    if (!this.#attempt) return;
    this.#attempt.opened &&= Date.now(); // No success, however long.
    this.#attempt.fail(reason);
  }

  /** The network is another one. */
  hurry() {
    this.#climbMs = CLIMB_MIN_MS;
    if (!this.#attempt?.stop.signal.aborted) this.#climb(0);
    else if (!this.#told) this.open();
  }

  stop() {
    clearTimeout(this.#waiting);
    clearTimeout(this.#climbing);
    this.#attempt?.stop.abort();
    this.#climber?.stop.abort();
  }

  /** @param {number} rank */
  #try(rank) {
    const stop = new AbortController();
    const { signal } = stop;
    /** @type {Fail} */
    const fail = (reason, retryMs) => {
      if (signal.aborted) return;
      stop.abort();
      if (attempt !== this.#climber) return this.#failed(reason, retryMs);
      this.#climber = undefined;
      this.#climb(rank + 1);
    };
    const attempt = { opened: 0, stop, fail };
    /** @param {Item} item */
    const hear = (item) => {
      if (signal.aborted) return;
      if (item.fanlight === "bye") return fail(item.reason, item.retry_ms);
      if (!attempt.opened) this.#opened(attempt, rank);
      this.owner.hear(item);
    };
    const late = () => attempt.opened || fail("no answer");
    setTimeout(late, Math.min(HELLO_MS * 2 ** this.#failures, WAIT_MAX_MS));
    // Later, so that one the browser lacks fails like any other.
    const open = async () => signal.aborted || TRANSPORTS[this.owner.transports[rank]](this.owner, hear, fail, signal);
    Promise.resolve().then(open).catch((error) => fail(error.message));
    return attempt;
  }

  /** @param {Attempt} attempt @param {number} rank */
  #opened(attempt, rank) {
    if (attempt === this.#climber) {
      this.#attempt?.stop.abort();
      clearTimeout(this.#waiting);
      this.#attempt = attempt;
      this.#strikes = 0;
    } else this.#climber?.stop.abort();
    this.#climber = undefined;
    attempt.opened = Date.now();
    this.#rank = rank;
    this.#proven = true;
    if (!this.#climbing) this.#climb(rank);
    this.owner.tell({ state: "open", transport: this.owner.transports[rank] });
  }

  /** @param {string} reason @param {number} [retryMs] */
  #failed(reason, retryMs) {
    const opened = this.#attempt?.opened || Infinity;
    if (Date.now() - opened > STEADY_MS) this.#failures = this.#strikes = 0;
    this.#told = retryMs !== undefined;
    if (!this.#told && this.#strikes++ >= (this.#proven ? STRIKES_MAX : 0)) {
      this.#strikes = 0;
      this.#proven = false;
      this.#rank = (this.#rank + 1) % this.owner.transports.length;
      if (this.#rank) return this.open();
    }
    const ms = retryMs ?? backoff(this.#failures++);
    const state = navigator.onLine ? "waiting" : "offline";
    this.#waiting = setTimeout(() => this.open(), ms);
    this.owner.tell({ state, retryAt: Date.now() + ms, reason });
  }

  /** Tries better transports from `rank` on, beside the present one. @param {number} rank */
  #climb(rank) {
    clearTimeout(this.#climbing);
    this.#climbing = undefined;
    if (this.#climber || !this.#rank) return;
    if (rank < this.#rank) this.#climber = this.#try(rank);
    else {
      this.#climbing = setTimeout(() => this.#climb(0), this.#climbMs);
      this.#climbMs = Math.min(this.#climbMs * 2, CLIMB_MAX_MS);
    }
  }
}

/** Ways in, until the signal. */
/** @type {Record<Transport, (owner: Subscription, hear: (item: Item) => void, fail: Fail, signal: AbortSignal) => unknown>} */
const TRANSPORTS = {
  sse(owner, hear, fail, signal) {
    const source = new EventSource(owner.url("events"));
    /** @param {object} [kind] @returns {(event: MessageEvent) => void} */
    const read = (kind) => ({ data, lastEventId: id }) => hear({ ...kind, id, ...JSON.parse(data) });
    source.onmessage = read();
    for (const fanlight of ["hello", "gap", "hole", "upstream", "checkpoint", "bye"]) {
      source.addEventListener(`fanlight.${fanlight}`, read({ fanlight }));
    }
    // By itself it would resume after what it brought, not the position, and end at a 502.
    source.onerror = () => fail("the stream broke");
    signal.onabort = () => source.close();
  },

  websocket(owner, hear, fail, signal) {
    const url = owner.url("ws");
    url.protocol = url.protocol.replace("http", "ws");
    const socket = new WebSocket(url, "fanlight.v1");
    socket.onmessage = ({ data }) => hear(JSON.parse(data));
    socket.onclose = ({ code, reason }) => fail(`closed: ${code} ${reason}`);
    signal.onabort = () => socket.close();
  },

  async poll(owner, hear, _, signal) {
    for (let seconds = 0; ; seconds = POLL_SECONDS) {
      const items = await owner.poll(seconds, signal);
      if (!seconds) hear({ fanlight: "hello" });
      items.forEach(hear);
      if (items.length !== 1) await pause(POLL_PAUSE_MS);
    }
  },
};

/** @param {string} id */
const epoch = (id) => id.split("-")[0];

/** @param {string} id */
const seq = (id) => Number(id.split("-")[1]);

/** Full jitter: pages do not return together. @param {number} failures */
const backoff = (failures) =>
  Math.round(Math.random() * Math.min(WAIT_MIN_MS * 2 ** failures, WAIT_MAX_MS));

/** @param {number} ms */
const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

/** @param {((item: Item) => void) | undefined} callback @param {Item} item */
const call = (callback, item) => {
  try {
    callback?.(item);
  } catch (error) {
    reportError(error);
  }
};
