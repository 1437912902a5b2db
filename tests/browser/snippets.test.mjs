// The programs of "Try it": quoting holds for any text, and they run against a broker.
//
// The runs need a broker: FANLIGHT_BIN names the program. Without it they are skipped, and
// say so.

import assert from "node:assert/strict";
import { execFileSync, spawn, spawnSync } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";

import * as quote from "../../web/app/page/quote.js";
import { snippets } from "../../web/app/try/snippets.js";
import { listOf, query, subscriptionOf, tryLink, url } from "../../web/app/try/subscription.js";
import { Random } from "./support/random.mjs";

/** Events a run ends after. */
const EVENTS = 5;
/** A run that takes longer has failed. It is not measured. */
const PATIENCE_MS = 60_000;
const BASE = "http://127.0.0.1:8080/";

const has = (program) => spawnSync(program, ["--version"]).error === undefined;
const well = (text) => text.replace(/\p{Surrogate}/gu, "\ufffd");
const random = new Random();
const hostile = Array.from({ length: 400 }, () => well(random.text(20)));
const of = (program, subscription, base = BASE) => snippets(subscription, base).find(({ id }) => id === program).text;
const sub = (text) => subscriptionOf(new URLSearchParams(text));

/** A subscription with whatever text in every place that takes one. */
function wild(transport) {
  const some = () => Array.from({ length: random.below(3) }, () => well(random.text(20))).filter(Boolean);
  return {
    transport, prefix: some(), name: some(), device: some(), start: /** @type {any} */ (random.pick(["now", "since", "earliest", "position"])),
    since: well(random.text()), position: well(random.text()), snapshot: random.below(2) === 0, control: random.below(2) === 0,
    limit: random.pick(["", "7", well(random.text())]), format: /** @type {any} */ (random.pick(["message", "particle"])),
  };
}
const TRANSPORTS = ["sse", "ndjson", "ws", "poll"];

test("the address holds a subscription, and the URL says the same to the broker", () => {
  for (let round = 0; round < 2000; round += 1) {
    const subscription = wild(TRANSPORTS[round % 4]);
    const link = tryLink(subscription);
    const back = sub(link.includes("?") ? link.slice(link.indexOf("?")) : "");
    assert.deepEqual(query(back), query(subscription), `seed ${random.seed}`);
    const made = new URL(url(BASE, subscription));
    const pairs = [...made.searchParams];
    assert.deepEqual(pairs, query(subscription), `seed ${random.seed}`);
    assert.match(made.search, /^[\x21-\x7e]*$/);
  }
  assert.equal(tryLink({ position: "6n3k2ahq-1042", run: true }), "#/try?start=position&position=6n3k2ahq-1042&run=1");
  assert.deepEqual(listOf("a, b\r\n\n c\n"), ["a, b", " c"]);
});

test("JavaScript reads its literals back", () => {
  for (const text of hostile) {
    const literal = quote.javascript(text);
    assert.equal(new Function(`return ${literal};`)(), text, `seed ${random.seed}`);
    assert.ok(!literal.includes("<"), `seed ${random.seed}`);
  }
});

test("a shell reads its words back", () => {
  const words = hostile.map((text) => text.replaceAll("\0", ""));
  const script = `printf '%s\\001' ${words.map(quote.shell).join(" ")}`;
  const out = execFileSync("sh", ["-c", script], { encoding: "utf8" });
  assert.deepEqual(out.split("\u0001").slice(0, -1), words, `seed ${random.seed}`);
});

test("Python reads its literals back", { skip: !has("python3") && "no python3" }, () => {
  const script = `import json,sys\nsys.stdout.write(json.dumps([${hostile.map(quote.python).join(",\n")}]))\n`;
  assert.deepEqual(JSON.parse(execFileSync("python3", ["-"], { input: script, encoding: "utf8" })), hostile, `seed ${random.seed}`);
});

test("whatever is in a subscription, the programs are programs", { skip: !has("python3") && "no python3" }, () => {
  const pythons = [];
  const shells = [];
  for (let round = 0; round < 160; round += 1) {
    const subscription = wild(TRANSPORTS[round % 4]);
    const made = snippets(subscription, BASE);
    const text = (id) => made.find((one) => one.id === id).text;
    // Modules, but for what a function cannot hold: imports and waiting.
    const script = (code) => new Function(`return async () => {${code.replace(/^import .*/, "")}}`);
    assert.doesNotThrow(() => script(text("node")), `seed ${random.seed}`);
    assert.doesNotThrow(() => script(text("browser")), `seed ${random.seed}`);
    for (const node of JSON.parse(text("nodered"))) {
      if (node.func) assert.doesNotThrow(() => new Function("msg", "flow", "node", node.func), `seed ${random.seed}`);
    }
    pythons.push(text("python"));
    shells.push(text("curl"), text("jq"));
  }
  execFileSync("python3", ["-c", "import ast,json,sys\nfor one in json.load(sys.stdin): ast.parse(one)"], { input: JSON.stringify(pythons) });
  execFileSync("sh", ["-n"], { input: shells.join("\n") });
});

test("Node-RED's polls begin where they should and go on where they were", () => {
  const nodes = JSON.parse(of("nodered", sub("prefix=a%26b&start=since&since=5m&transport=poll")));
  const run = (id, msg, kept) => new Function("msg", "flow", "node", nodes.find((node) => node.id === id).func)(
    msg, { get: (key) => kept[key], set: (key, value) => { kept[key] = value; } }, { error() {} });
  const kept = {};
  assert.equal(run("fanlight-ask", {}, kept).url, `${BASE}poll?timeout=25&prefix=a%26b&since=5m`);
  const answer = { events: [{ name: "a", data: "1" }], next: "6n3k2ahq-7", gap: { reason: "evicted" } };
  const [found, again] = run("fanlight-take", { statusCode: 200, payload: answer }, kept);
  assert.deepEqual(found.map(({ topic }) => topic), ["fanlight.gap", "a"]);
  assert.ok(again);
  assert.equal(run("fanlight-ask", {}, kept).url, `${BASE}poll?timeout=25&prefix=a%26b&after=6n3k2ahq-7`);
  assert.deepEqual(run("fanlight-take", { statusCode: 400, payload: { error: "x" } }, kept).slice(0, 2), [null, null]);
  const known = new Set(nodes.map(({ id }) => id));
  assert.ok(nodes.flatMap(({ wires }) => (wires ?? []).flat()).every((id) => known.has(id)));
});

describe("against a broker", { skip: !process.env.FANLIGHT_BIN && "FANLIGHT_BIN is not set" }, () => {
  let broker;
  let base = "";
  let folder = "";

  before(async () => {
    folder = mkdtempSync(join(tmpdir(), "fanlight-snippets-"));
    broker = spawn(process.env.FANLIGHT_BIN, ["demo", "--listen", "127.0.0.1:0", "--devices", "20", "--rate", "50"], { stdio: ["ignore", "pipe", "ignore"] });
    base = await new Promise((found, failed) => {
      let said = "";
      broker.on("exit", () => failed(new Error(`the broker ended: ${said}`)));
      broker.stdout.setEncoding("utf8").on("data", (chunk) => {
        said = (said + chunk).slice(0, 10_000);
        const line = /In a browser\s+(\S+)\n/.exec(said);
        if (line) found(line[1]);
      });
    });
    // The oldest events are there once this one has come.
    await fetch(`${base}events?since=earliest&limit=1`).then((answer) => answer.text());
  });
  after(() => {
    broker?.kill();
    if (folder) rmSync(folder, { recursive: true });
  });

  /** Runs a program and gives what it wrote. */
  const runs = (program, args) => {
    const { status, stdout, stderr, error } = spawnSync(program, args, { encoding: "utf8", timeout: PATIENCE_MS, cwd: folder });
    assert.ifError(error);
    return { status, stdout, stderr };
  };
  const saved = (name, text) => {
    const path = join(folder, name);
    writeFileSync(path, text);
    return path;
  };
  const objects = (stdout) => stdout.trim().split("\n").map((line) => JSON.parse(line));
  const events = (all) => all.filter((one) => one.fanlight === undefined);

  for (const [transport, format] of [["sse", "message"], ["sse", "particle"], ["ndjson", "message"], ["poll", "message"]]) {
    const asked = `transport=${transport}&format=${format}&start=earliest&limit=${EVENTS}`;

    for (const [id, program, file] of [["node", process.execPath, "events.mjs"], ["python", "python3", "events.py"]]) {
      test(`${id}, ${transport}, ${format}`, { skip: !has(program) && `no ${program}` }, () => {
        const { status, stdout, stderr } = runs(program, [saved(file, of(id, sub(asked), base))]);
        assert.equal(status, 0, stderr);
        const all = objects(stdout);
        assert.equal(events(all).length, EVENTS);
        assert.ok(events(all).every(({ name }) => typeof name === "string" && name !== ""));
        // It goes on right after the one before.
        const [first, second] = events(all).map((event) => event.id);
        const rest = runs(program, [saved(file, of(id, sub(`${asked}&start=position`.replace("start=earliest&", `position=${first}&`)), base))]);
        assert.equal(events(objects(rest.stdout))[0].id, second, rest.stderr);
      });

      test(`${id}, ${transport}, ${format}: what the broker refuses is said`, { skip: !has(program) && `no ${program}` }, () => {
        const { status, stderr } = runs(program, [saved(file, of(id, sub(`${asked}&start=since&since=soon`.replace("start=earliest&", "")), base))]);
        assert.equal(status, 1);
        assert.match(stderr, /`since` is `soon`/);
      });
    }
  }

  test("curl, SSE and NDJSON", { skip: !has("curl") && "no curl" }, () => {
    const { stdout, stderr } = runs("sh", ["-c", of("curl", sub(`start=earliest&limit=${EVENTS}&control=off`), base)]);
    assert.equal(stdout.match(/^data: /gm)?.length, EVENTS, stderr);
    const lines = runs("sh", ["-c", of("curl", sub(`transport=ndjson&start=earliest&limit=${EVENTS}`), base)]);
    assert.equal(events(objects(lines.stdout)).length, EVENTS, lines.stderr);
  });

  test("the shell with jq", { skip: !(has("curl") && has("jq")) && "no curl or no jq" }, () => {
    const { stdout, stderr } = runs("sh", ["-c", of("jq", sub(`start=earliest&limit=${EVENTS}`), base)]);
    assert.equal(stdout.split("\n").filter((line) => line.split("\t").length === 4).length, EVENTS, stderr);
    assert.match(stdout, /"fanlight":"hello"/);
  });

  test("curl, long poll: to the end of the answers", { skip: !(has("curl") && has("jq")) && "no curl or no jq" }, () => {
    // The loop has no end of its own: `head` gives it one.
    const loop = of("curl", sub(`transport=poll&start=earliest&limit=2`), base);
    const { stdout, stderr } = runs("sh", ["-c", `{\n${loop}} | head -n 6`]);
    const ids = objects(stdout).map(({ id }) => id);
    assert.equal(new Set(ids).size, 6, stderr);
    const refused = runs("sh", ["-c", of("curl", sub("transport=poll&start=since&since=soon"), base)]);
    assert.match(refused.stderr, /`since` is `soon`/);
  });

  test("names of any kind come through to the broker as they are", async () => {
    for (const text of hostile.filter((text) => text && Buffer.byteLength(text) <= 128).slice(0, 40)) {
      const subscription = { ...sub("transport=ndjson&start=earliest"), prefix: [text] };
      // What the shell makes of the line; a stream of no events would keep curl itself waiting.
      const { stdout: address } = runs("sh", ["-c", `curl() { for last; do :; done; printf %s "$last"; }\n${of("curl", subscription, base)}`]);
      const answer = await fetch(address, { headers: { accept: "application/x-ndjson" } });
      let said = "";
      for await (const chunk of answer.body.pipeThrough(new TextDecoderStream())) {
        said += chunk;
        if (said.includes("\n")) break;
      }
      assert.deepEqual(JSON.parse(said.split("\n")[0]).filter.prefix, [text], `seed ${random.seed}`);
    }
  });
});
