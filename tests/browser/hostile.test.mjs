// Devices say what they like: names, data and ids made to become markup, script, styles, or the
// page's own objects. Nothing runs, no policy is violated, and what is shown is what was sent.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";

import { Broker } from "./support/broker.mjs";
import { chromium, openPage } from "./support/browser.mjs";
import { Random } from "./support/random.mjs";
import { Upstream } from "./support/upstream.mjs";
import { eventually } from "./support/wait.mjs";

const EVENTS = 500;
const NAME_BYTES_MAX = 256;

/** @type {Upstream} */
let upstream;
/** @type {Broker} */
let broker;
/** @type {import("./support/browser.mjs").Browser} */
let browser;

before(async () => {
  upstream = await Upstream.listen();
  broker = await Broker.serve(upstream);
  browser = await chromium();
});
after(async () => {
  await browser?.close();
  upstream?.close();
  await broker?.stop();
});

const VECTORS = [
  "<script>hit()</script>", "</script><script>hit()</script>", "<img src=x onerror=hit()>", "<svg onload=hit()>",
  "<svg><script>hit()</script></svg>", "<iframe srcdoc='<script>parent.hit()</script>'>", "<a href=javascript:hit()>x</a>",
  "\"><img src=x onerror=hit()>", "' onmouseover='hit()", "\" autofocus onfocus=\"hit()", "` onerror=hit() x=`", "javascript:hit()",
  "data:text/html,<script>hit()</script>", "data:text/html;base64,PHNjcmlwdD5wYXJlbnQuaGl0KCk8L3NjcmlwdD4=",
  "data:image/svg+xml,<svg xmlns='http://www.w3.org/2000/svg' onload='hit()'/>", "data:image/svg+xml;base64,PHN2ZyBvbmxvYWQ9ImhpdCgpIi8+",
  "data:image/png;base64,AAAA\" onerror=\"hit()", "data:image/png;base64,iVBORw0KGgo=", "<style>*{display:none}</style>", "<link rel=stylesheet href=//x>",
  "<base href=//evil.example>", "<meta http-equiv=refresh content='0;url=//evil.example'>", "<form action=//evil.example><button>x",
  "<math><mtext></p><img src=x onerror=hit()>", "<template><script>hit()</script></template>", "<!--><script>hit()</script>", "<![CDATA[<script>hit()]]>",
  "{{constructor.constructor('hit()')()}}", "${hit()}", "#{hit()}", "<%= hit() %>", "');hit();('", "\\'-hit()//", "\u2028hit()\u2029", "%3Cscript%3Ehit()%3C/script%3E",
  "&lt;script&gt;hit()&lt;/script&gt;", "&#x3c;script&#x3e;", "__proto__", "constructor", "prototype", "toString", "hasOwnProperty", "__defineGetter__", "then", "valueOf",
  "undefined", "null", "NaN", "-1", "1e999", "0x41", "\u202Egnp.exe", "\u200B\u200D\uFEFF", "e\u0301".repeat(40), "\u{1F469}\u200D\u{1F680}", "\uD83D", "\uFFFD",
  "A".repeat(240), " leading and trailing ", "a|b&c#d?e=f", "a/b/../../c", "*", "name:*", "-is:event", "\"", "\\", "'", "`", "|", ";", "$(hit)", "\t", "\u0000", "\n\n<b>",
];

const random = new Random();

const vector = () => random.pick(VECTORS);

/** A name that the broker passes on: no control characters, no line ends, at most 256 bytes. */
function hostileName() {
  let name = "";
  while (name.trim() === "") {
    name = (vector() + (random.below(3) ? "" : vector())).replace(/[\u0000-\u001f\u007f-\u009f]/g, "").toWellFormed();
    while (Buffer.byteLength(name) > NAME_BYTES_MAX) name = name.slice(0, -8).toWellFormed();
  }
  return name;
}

function hostileData() {
  switch (random.below(4)) {
    case 0: return vector();
    case 1: return JSON.stringify({ [vector()]: vector(), nested: { [vector()]: [vector(), 1] } });
    case 2: return vector() + vector() + vector();
    default: return `{"__proto__":{"hit":1},"t":${random.below(100)},"${random.below(9)}":"<img src=x onerror=hit()>"}`;
  }
}

test(`${EVENTS} hostile events are text everywhere (seed ${random.seed})`, async () => {
  const { page, watch } = await openPage(browser);
  let dialogs = 0;
  page.on("dialog", (dialog) => {
    dialogs += 1;
    void dialog.dismiss();
  });
  /** @type {string[]} */
  const foreign = [];
  page.on("request", (request) => {
    if (!request.url().startsWith(broker.url) && !request.url().startsWith("data:image/")) foreign.push(request.url());
  });
  await page.addInitScript(() => {
    const hits = { count: 0 };
    Object.assign(window, { hits, hit: () => { hits.count += 1; } });
  });
  await page.goto(broker.url);
  await page.locator("#stream-chip", { hasText: "receiving" }).waitFor();

  /** @type {{name: string, data: string, device: string}[]} */
  const sent = [];
  for (let i = 0; i < EVENTS; i += 1) {
    const event = { name: hostileName(), data: hostileData(), device: random.below(5) ? vector().toWellFormed() : `device-${i}` };
    sent.push(event);
    upstream.push(event.name, event.data, event.device);
  }
  await eventually("the page has them all", async () => {
    const text = await page.locator(".shown-count").textContent();
    return Number((text ?? "").replace(/\D/g, "")) >= EVENTS;
  });

  // Every row is opened, newest first, and compared with what was sent.
  await page.locator(".list").focus();
  await page.keyboard.press("j");
  await page.keyboard.press("Enter");
  await page.getByRole("button", { name: "Raw" }).click();
  await page.locator(".list").focus();
  const seen = await page.evaluate((count) => {
    const texts = [];
    for (let i = 0; i < count; i += 1) {
      texts.push({
        name: document.querySelector(".drawer h2")?.textContent,
        data: document.querySelector(".drawer pre")?.textContent,
        device: document.querySelector(".drawer-facts dd .mono")?.textContent,
      });
      for (const form of ["image", "bytes", "pretty", "raw"]) {
        /** @type {HTMLElement | null} */ (document.querySelector(`.drawer button[data-form=${form}]`))?.click();
      }
      document.querySelector(".list")?.dispatchEvent(new KeyboardEvent("keydown", { key: "j", bubbles: true }));
    }
    return texts;
  }, EVENTS);
  for (const [i, event] of sent.entries()) {
    assert.deepEqual(seen[EVENTS - 1 - i], { name: event.name, data: event.data, device: `${event.device} ` }, `seed ${random.seed}, event ${i}`);
  }

  for (const view of ["devices", "plots", "upstream", "subscribers", "try", "events"]) {
    await page.locator(`#nav-${view}`).click();
    await page.locator(`#nav-${view}[aria-current]`).waitFor();
    await page.evaluate(() => new Promise((resolve) => requestAnimationFrame(() => requestAnimationFrame(resolve))));
  }
  // What a link carries is hostile too.
  const hashes = VECTORS.map((text) => encodeURIComponent(text.toWellFormed())).flatMap((word) => [
    `#/events?q=${word}&id=${word}`, `#/${word}?${word}`, `#/plots?s=${word}`, `#/try?prefix=${word}&start=position&position=${word}`, `#/devices?q=${word}`,
  ]);
  await page.evaluate(async (hashes) => {
    for (const hash of hashes) {
      location.hash = hash;
      await new Promise((resolve) => setTimeout(resolve));
    }
  }, hashes);
  await page.evaluate(() => new Promise((resolve) => requestAnimationFrame(() => requestAnimationFrame(resolve))));

  assert.equal(await page.evaluate(() => Reflect.get(window, "hits").count), 0, `seed ${random.seed}: script ran`);
  assert.equal(await page.evaluate(() => "hit" in {}), false, `seed ${random.seed}: a prototype was changed`);
  assert.equal(dialogs, 0);
  assert.deepEqual(foreign, [], `seed ${random.seed}: something else was asked`);
  watch.clean(/Failed to load resource.*400/);
});

test("the page's policy holds against markup and script", async () => {
  const { page, watch } = await openPage(browser);
  await page.goto(broker.url);
  const outcome = await page.evaluate(() => {
    try {
      document.body.innerHTML = "<b>markup</b>";
      return "markup was taken";
    } catch (error) {
      return String(error);
    }
  });
  assert.match(outcome, /TrustedHTML/);
  await page.evaluate(() => {
    const script = document.createElement("script");
    script.append("window.ran = true");
    document.head.append(script);
  }).catch(() => {});
  assert.equal(await page.evaluate(() => "ran" in window), false);
  assert.ok(watch.complaints.length > 0, "violations are reported");
});
