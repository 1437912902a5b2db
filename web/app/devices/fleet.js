// The devices behind the events: who was heard, when, how often and with which values. Pure.
//
// Law: work for an event does not grow with the fleet, and all that is kept is bounded: so
// many devices, so many names and pauses of each, and values cut to a length.

/** Devices kept. Events of further ones are counted, and no more. */
export const DEVICES_MAX = 10_000;
/** Event names kept for a device: the newest. */
export const NAMES_MAX = 20;
/** Characters of a device's id. The broker filters by ids up to this length; a longer one is none. */
export const ID_CHARS_MAX = 128;
/** Characters of a value kept. */
export const VALUE_CHARS_MAX = 200;
/** Minutes in a device's rate. */
export const MINUTES = 30;
/** Pauses of a device that say what is usual for it. */
export const PAUSES_MAX = 16;
/** With fewer pauses known nothing is said about a device's silence. */
export const PAUSES_MIN = 4;
/** Events closer to each other are one sign of life: devices publish in bursts. */
export const BURST_MS = 1_000;
/** A device is silent once it is quiet for so many times its usual longest pause… */
export const SILENT_FACTOR = 3;
/** …and for this long. */
export const SILENT_MIN_MS = 30_000;
/** A device of unknown pace counts as online for so long after its newest event. */
export const RECENT_MS = 300_000;

const MINUTE_MS = 60_000;

/** @typedef {"silent" | "offline" | "seen" | "online"} DeviceState */

/** States, the ones to look at first. */
export const STATES = /** @type {const} */ (["silent", "offline", "seen", "online"]);

/**
 * @typedef {object} Value
 * @property {string} data the newest, cut
 * @property {number} at Unix milliseconds; NaN where unknown
 * @property {number} count events of this name since the page came, those of the past that it loaded included
 */

/**
 * @typedef {object} Device
 * @property {string} id
 * @property {boolean} isOffline the newest `spark/status` says so, and nothing came after it
 * @property {number} lastAt time of the newest event, Unix milliseconds; -Infinity where unknown
 * @property {string} newest name of the newest event
 * @property {Map<string, Value>} names the one heard last comes last
 * @property {number} namesForgotten names that had to make room
 * @property {number} events counted, as in `Value`
 * @property {number} usual its usual longest pause in milliseconds; NaN while unknown
 * @property {number} version changes with every event
 * @property {number[]} pauses the newest
 * @property {number} pauseNext where the next one goes
 * @property {number} aliveAt start of the newest sign of life; NaN for none since the last break
 * @property {number} breaks what `Fleet.breaks` was then
 * @property {Uint32Array} minutes events of each minute, as a ring
 * @property {number} minute the newest minute in it, counted from 1970
 * @property {string} search id and names in small letters
 */

/**
 * What silence is measured against.
 * @typedef {object} Clock
 * @property {number} now
 * @property {number} from nobody could be heard before: start of the present connection to the cloud
 * @property {number} to nobody can be heard after: `now`, or when this page lost the thread
 */

/** @typedef {{device: string, name: string, data: string, at: number}} Heard */
/** @typedef {{text: string, state: string, sort: string}} Wish what of the fleet to list, and how */

export class Fleet {
  /** @type {Map<string, Device>} */
  devices = new Map();
  /** Events of devices for which there was no room. */
  refused = 0;
  /** Events that name no device. */
  nameless = 0;
  /** Since when events are counted, Unix milliseconds. */
  since = Infinity;
  /** Breaks in what was heard: a pause across one is not the device's. */
  breaks = 0;

  /**
   * An event of the stream.
   * @param {Heard} heard
   */
  hear(heard) {
    if (heard.at < this.since) this.since = heard.at;
    if (!isId(heard.device)) this.nameless += 1;
    const device = this.#device(heard);
    if (!device) return;
    device.events += 1;
    const value = this.#take(device, heard);
    if (value) value.count += 1;
    if (!Number.isFinite(heard.at)) return;
    countMinute(device, heard.at);
    this.#pause(device, heard.at);
  }

  /**
   * The newest event of a name and device, from before the stream: it is known, not counted.
   * @param {Heard} heard
   */
  seed(heard) {
    const device = this.#device(heard);
    if (device) this.#take(device, heard);
  }

  /** Something is missing here: a gap, or a hole. */
  interrupt() {
    this.breaks += 1;
  }

  /**
   * The devices that are wished for, in order, and how many there are of each state.
   * @param {Wish} wish
   * @param {Clock} clock
   */
  list({ text, state, sort }, clock) {
    const words = text.toLowerCase().split(/\s+/).filter((word) => word !== "");
    /** @type {Record<DeviceState, number>} */
    const counts = { silent: 0, offline: 0, seen: 0, online: 0 };
    /** @type {{device: Device, rank: number, key: number}[]} */
    const found = [];
    const keyOf = KEYS[sort] ?? KEYS.state;
    for (const device of this.devices.values()) {
      const its = judge(device, clock);
      counts[its] += 1;
      if ((state !== "" && its !== state) || !words.every((word) => device.search.includes(word))) continue;
      const rank = keyOf === KEYS.state ? STATES.indexOf(its) : 0;
      found.push({ device, rank, key: keyOf(device, its, clock.now) });
    }
    // Equal keys by id: entries that have not changed keep their places.
    found.sort((a, b) => a.rank - b.rank || a.key - b.key || (a.device.id < b.device.id ? -1 : 1));
    return { counts, shown: found.map(({ device }) => device) };
  }

  /** @param {Heard} heard */
  #device({ device: id }) {
    if (!isId(id)) return undefined;
    const known = this.devices.get(id);
    if (known) return known;
    if (this.devices.size >= DEVICES_MAX) {
      this.refused += 1;
      return undefined;
    }
    /** @type {Device} */
    const device = {
      id, isOffline: false, lastAt: -Infinity, newest: "", names: new Map(), namesForgotten: 0, events: 0,
      usual: NaN, version: 0, pauses: [], pauseNext: 0, aliveAt: NaN, breaks: this.breaks,
      minutes: new Uint32Array(MINUTES), minute: 0, search: id.toLowerCase(),
    };
    this.devices.set(id, device);
    return device;
  }

  /**
   * Keeps a value, if it is newer than the one known.
   * @param {Device} device
   * @param {Heard} heard
   */
  #take(device, { name, data, at }) {
    const known = device.names.get(name);
    if (known && (at < known.at || (Number.isNaN(at) && Number.isFinite(known.at)))) return known;
    const value = { data: cut(data), at, count: known?.count ?? 0 };
    device.names.delete(name);
    device.names.set(name, value);
    device.version += 1;
    const isNewest = at >= device.lastAt || device.newest === "";
    if (!known) {
      if (device.names.size > NAMES_MAX) forgetName(device);
      device.search = [device.id, ...device.names.keys()].join("\n").toLowerCase();
    }
    if (!isNewest) return value;
    if (Number.isFinite(at)) device.lastAt = at;
    device.newest = name;
    device.isOffline = name === "spark/status" && data.trim() === "offline";
    return value;
  }

  /**
   * @param {Device} device
   * @param {number} at
   */
  #pause(device, at) {
    const isBroken = device.breaks !== this.breaks;
    const pause = at - device.aliveAt;
    if (!isBroken && pause < BURST_MS) return;
    device.aliveAt = at;
    device.breaks = this.breaks;
    // The first sign of life, or the first one after a break: since when it was quiet is unknown.
    if (isBroken || Number.isNaN(pause)) return;
    device.pauses[device.pauseNext] = pause;
    device.pauseNext = (device.pauseNext + 1) % PAUSES_MAX;
    if (device.pauses.length < PAUSES_MIN) return;
    // The second longest: a single outage does not make a device's silence usual.
    let [first, second] = [0, 0];
    for (const one of device.pauses) {
      if (one > first) [first, second] = [one, first];
      else if (one > second) second = one;
    }
    device.usual = second;
  }
}

/** @type {Record<string, (device: Device, state: DeviceState, now: number) => number>} */
const KEYS = {
  // Those that fell quiet last come first; the others stay where they are.
  state: (device, state) => (state === "silent" || state === "offline" ? -device.lastAt : 0),
  newest: (device) => -device.lastAt,
  oldest: (device) => device.lastAt,
  rate: (device, _, now) => -rate(device, now).total,
  id: () => 0,
};

/**
 * How long a device may be quiet before it counts as silent; NaN while its pace is unknown.
 * @param {Device} device
 */
export const patience = (device) => Math.max(SILENT_MIN_MS, SILENT_FACTOR * device.usual);

/**
 * @param {Device} device
 * @param {Clock} clock
 * @returns {DeviceState}
 */
export function judge(device, { now, from, to }) {
  if (device.isOffline) return "offline";
  if (Number.isNaN(device.usual)) return now - device.lastAt <= RECENT_MS ? "online" : "seen";
  return to - Math.max(device.lastAt, from) > patience(device) ? "silent" : "online";
}

/**
 * Events of the last minutes, the oldest minute first; the last one is still running.
 * @param {Device} device
 * @param {number} now
 */
export function rate(device, now) {
  const last = Math.floor(now / MINUTE_MS);
  /** @type {number[]} */
  const counts = [];
  let total = 0;
  for (let minute = last - MINUTES + 1; minute <= last; minute += 1) {
    const isHeld = minute <= device.minute && minute > device.minute - MINUTES;
    counts.push(isHeld ? device.minutes[minute % MINUTES] : 0);
    total += counts[counts.length - 1];
  }
  return { counts, total, most: Math.max(...counts) };
}

/**
 * @param {Device} device
 * @param {number} at
 */
function countMinute(device, at) {
  const minute = Math.floor(at / MINUTE_MS);
  if (minute > device.minute) {
    // Minutes without events are in the ring too.
    const from = Math.max(device.minute + 1, minute - MINUTES + 1);
    for (let i = from; i <= minute; i += 1) device.minutes[i % MINUTES] = 0;
    device.minute = minute;
  }
  if (minute > device.minute - MINUTES) device.minutes[minute % MINUTES] += 1;
}

/** @param {string} id */
const isId = (id) => id !== "" && id.length <= ID_CHARS_MAX;

/** @param {Device} device */
function forgetName(device) {
  const [oldest] = device.names.keys();
  device.names.delete(oldest);
  device.namesForgotten += 1;
}

/**
 * A copy where it is cut: a part of a text holds on to all of it.
 * @param {string} text
 */
const cut = (text) =>
  (text.length > VALUE_CHARS_MAX ? `${Array.from(text.slice(0, VALUE_CHARS_MAX)).join("")}…` : text);
