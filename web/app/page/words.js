// What the broker's own words mean to people: states, reasons, ways out. Pure.

/**
 * @typedef {object} Meaning
 * @property {string} tone good, warn or bad
 * @property {string} says what is the case
 * @property {string} todo what to do about it, or that nothing is to be done
 */

/** @type {Record<string, Meaning>} */
const STATES = {
  live: {
    tone: "good",
    says: "Connected to the cloud: every event it sends goes to everyone who asked for it.",
    todo: "Nothing to do.",
  },
  connecting: {
    tone: "warn",
    says: "A connection to the cloud is being opened.",
    todo: "Wait: it takes a few seconds. If it stays like this, the network in between lets nothing through.",
  },
  stalled: {
    tone: "warn",
    says: "The cloud fell silent in an open connection. The broker closed it and opens another.",
    todo: "Nothing to do, if it is rare. If it comes again and again, look at the network, proxies and " +
      "firewalls in between, or raise upstream.stale_after.",
  },
  "backing-off": {
    tone: "warn",
    says: "The connection to the cloud broke or could not be opened. The broker waits a little before it tries again.",
    todo: "Nothing to do, if it is short. If it lasts, check this machine's network and name resolution, and upstream.url.",
  },
  "rate-limited": {
    tone: "warn",
    says: "The cloud, or the broker's own budget of opens, says to wait: too many connections were opened.",
    todo: "Wait: the broker tries again by itself. Programs behind the same public address share the cloud's limit: " +
      "end those that open streams of their own.",
  },
  unauthorized: {
    tone: "bad",
    says: "The cloud refuses the access token.",
    todo: "Put a valid token into the token file: it is read within seconds, no restart is needed. " +
      "A token from the environment or a flag needs a restart.",
  },
  misconfigured: {
    tone: "bad",
    says: "The cloud refuses the request. Only a change of settings mends that.",
    todo: "Mend the setting that is named here, then restart the broker. " +
      "“fanlight check” looks at the settings without starting.",
  },
};

/**
 * What an upstream state means. One that is not known here is said as it is.
 * @param {string} state
 * @returns {Meaning}
 */
export const stateMeaning = (state) =>
  (Object.hasOwn(STATES, state) ? STATES[state]
    : { tone: "warn", says: `The broker says: ${state}.`, todo: "See the broker's trace." });

/** @type {Record<string, string>} */
const SOURCES = {
  demo: "simulated devices",
  particle: "the Particle cloud",
  sse: "an event stream (SSE)",
};

/** @type {Record<string, string>} */
const HOLES = {
  ended: "the cloud ended the stream",
  reset: "the connection broke",
  stalled: "the cloud fell silent",
  startup: "the first attempts failed",
};

/** @type {Record<string, string>} */
const OPENS = {
  live: "a live stream",
  "rate-limited": "told to wait (too many opens or streams)",
  unauthorized: "the token was refused",
  misconfigured: "the request was refused: a setting is wrong",
  "server-error": "the server had trouble",
  "not-a-stream": "an answer that is no event stream",
  dns: "the name could not be resolved",
  connect: "no connection",
  tls: "no secure connection (TLS)",
  timeout: "no answer in time",
  redirected: "sent on to another address",
};

/** @type {Record<string, string>} */
const GAPS = {
  evicted: "They came back too late: what they missed had left the ring. A larger ring reaches further back.",
  overtaken: "They read too slowly, and the ring went past them. Look at the slowest ones, and at their network.",
  restart: "They came back with a place from before the broker's start. Normal after a restart.",
  future: "They came with a place that does not exist yet. A faulty client, or one that was at another broker.",
  malformed: "They came with a place that cannot be read. A faulty client.",
  oversize: "An event was too large to keep. upstream.line_bytes_max sets the limit.",
  refused: "An event had a name that cannot be passed on.",
};

/** @type {Record<string, string>} */
const CLOSES = {
  gone: "The client went away: a closed page, a lost network. Normal.",
  answered: "A poll got its answer. Normal: each poll ends like this.",
  limit: "It got the number of events it had asked for. Normal.",
  shutdown: "The broker is shutting down.",
  full: "There was no room: the broker has as many connections as it may. Raise limits.connections_max.",
  slow: "The client took no bytes for too long (limits.write_stall): a stuck client, or a network that lets nothing through.",
  expired: "The connection reached its greatest age (stream.age_max), or its credential its end; clients come back by themselves.",
  revoked: "Its key was revoked, removed or given other grants.",
  protocol: "A WebSocket client broke the protocol, or answered no ping.",
  "too-big": "A WebSocket client sent a message over the limit.",
};

/** @type {Record<string, string>} */
const TRANSPORTS = {
  sse: "SSE",
  ndjson: "NDJSON",
  websocket: "WebSocket",
  poll: "Long poll",
  particle: "Particle routes",
};

/** @param {Record<string, string>} words */
const word = (words) => (/** @type {string} */ key) => (Object.hasOwn(words, key) ? words[key] : key);

export const sourceWord = word(SOURCES);
export const holeWord = word(HOLES);
export const openWord = word(OPENS);
export const gapWord = word(GAPS);
export const closeWord = word(CLOSES);
export const transportWord = word(TRANSPORTS);
