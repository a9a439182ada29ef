// The page of `looms ui`: shows a conversation, sends what the user says, shows the answer as its events come.
//
// Whatever a model says becomes text nodes and elements of a fixed list, never markup: nothing here parses HTML (the
// page's policy forbids it besides), no image or frame is made, and a link leads to http, https or mailto or is no link.
"use strict";

// --- small things ---------------------------------------------------------------------------------------------------

const $ = (id) => document.getElementById(id);

/** Give an element with properties and children; a child that is a string is text. */
function el(tag, properties = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name in made && name !== "role") made[name] = value;
    else made.setAttribute(name, value);
  }
  made.append(...children.filter((child) => child !== null && child !== undefined));
  return made;
}

const memory = {
  get(name) { try { return localStorage.getItem(name) ?? ""; } catch { return ""; } },
  set(name, value) { try { localStorage.setItem(name, value); } catch { /* private windows keep nothing */ } },
};

function randomId() { // crypto.randomUUID exists on https and loopback alone
  return Array.from(crypto.getRandomValues(new Uint8Array(12)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}

// --- markdown -------------------------------------------------------------------------------------------------------

const MAX_DEPTH = 8; // lists in lists, quotes in quotes, emphasis in emphasis
const MAX_INLINE = 10000; // a longer paragraph is shown as it came

const FENCE = /^ {0,3}(`{3,}|~{3,})\s*([^`\s]*)[^`]*$/;
const HEADING = /^ {0,3}(#{1,6})(?:[ \t]+(.*?))?(?:[ \t]+#+)?[ \t]*$/;
const RULE = /^ {0,3}(?:(?:\*[ \t]*){3,}|(?:-[ \t]*){3,}|(?:_[ \t]*){3,})$/;
const ITEM = /^( {0,12})([-*+]|\d{1,9}[.)])(?:[ \t]+(.*))?$/;
const QUOTE = /^ {0,3}> ?(.*)$/;
const DELIMITER = /^ {0,3}\|?[ \t]*:?-+:?[ \t]*(?:\|[ \t]*:?-+:?[ \t]*)*\|?[ \t]*$/;

/** Give the top-level blocks of some lines: their kind, first line and number of lines. */
function blocksOf(lines) {
  const blocks = [];
  let at = 0;
  while (at < lines.length) {
    if (!lines[at].trim()) { at += 1; continue; }
    const [kind, count] = blockAt(lines, at);
    blocks.push({ kind, at, lines: lines.slice(at, at + count) });
    at += count;
  }
  return blocks;
}

function blockAt(lines, at) {
  const line = lines[at];
  const fence = FENCE.exec(line);
  if (fence) {
    const closing = new RegExp(`^ {0,3}\\${fence[1][0]}{${fence[1].length},}[ \\t]*$`);
    const end = lines.findIndex((other, index) => index > at && closing.test(other));
    return ["code", end < 0 ? lines.length - at : end - at + 1];
  }
  if (HEADING.test(line)) return ["heading", 1];
  if (RULE.test(line)) return ["rule", 1];
  if (QUOTE.test(line)) return ["quote", run(lines, at, (other) => QUOTE.test(other))];
  if (ITEM.test(line)) return ["list", listLength(lines, at)];
  if (line.includes("|") && at + 1 < lines.length && lines[at + 1].includes("-") && DELIMITER.test(lines[at + 1])) {
    return ["table", 2 + run(lines, at + 2, (other) => other.includes("|"))];
  }
  return ["paragraph", 1 + run(lines, at + 1, (other) => other.trim() && !startsBlock(other))];
}

const startsBlock = (line) => FENCE.test(line) || HEADING.test(line) || QUOTE.test(line) || RULE.test(line) || ITEM.test(line);

function run(lines, at, goesOn) {
  let count = 0;
  while (at + count < lines.length && goesOn(lines[at + count])) count += 1;
  return count;
}

function listLength(lines, at) {
  let count = 1;
  while (at + count < lines.length) {
    const line = lines[at + count];
    const next = lines[at + count + 1];
    const belongs = ITEM.test(line) || /^ {2,}|^\t/.test(line);
    const blankInside = !line.trim() && next !== undefined && (ITEM.test(next) || /^ {2,}\S/.test(next));
    if (!belongs && !blankInside && (!line.trim() || startsBlock(line))) break;
    count += 1;
  }
  return count;
}

const DRAW = {
  code(block) {
    const [, mark, language] = FENCE.exec(block.lines[0]);
    const last = block.lines.length > 1 && block.lines.at(-1).trim().startsWith(mark) ? -1 : undefined;
    return codeBlock(block.lines.slice(1, last).join("\n"), language);
  },
  heading(block, depth) {
    const [, marks, text] = HEADING.exec(block.lines[0]);
    return el(`h${Math.min(marks.length + 2, 6)}`, {}, ...inline(text ?? "", depth)); // the page itself has h1 and h2
  },
  rule: () => el("hr"),
  quote(block, depth) {
    return el("blockquote", {}, ...draw(block.lines.map((line) => QUOTE.exec(line)[1]), depth + 1));
  },
  list: drawList,
  table(block, depth) {
    const cells = (line) => line.trim().replace(/^\||\|$/g, "").split(/(?<!\\)\|/).map((cell) => cell.trim().replaceAll("\\|", "|"));
    const row = (tag, line) => el("tr", {}, ...cells(line).map((cell) => el(tag, {}, ...inline(cell, depth))));
    const body = block.lines.slice(2).map((line) => row("td", line));
    const table = el("table", {}, el("thead", {}, row("th", block.lines[0])), el("tbody", {}, ...body));
    return el("div", { className: "table", tabIndex: 0 }, table);
  },
  paragraph: (block, depth) => el("p", {}, ...inline(block.lines.map((line) => line.trimStart()).join("\n"), depth)),
};

function draw(lines, depth) {
  if (depth > MAX_DEPTH) return [el("p", {}, lines.join("\n"))];
  return blocksOf(lines).map((block) => DRAW[block.kind](block, depth));
}

function drawList(block, depth) {
  const [, indent, mark] = ITEM.exec(block.lines[0]);
  const items = [];
  for (const line of block.lines) {
    const found = ITEM.exec(line);
    if (found && found[1].length <= indent.length + 1) items.push({ width: indent.length + found[2].length + 1, lines: [found[3] ?? ""] });
    else items.at(-1).lines.push(line.replace(new RegExp(`^(?: {1,${items.at(-1).width}}|\\t)`), ""));
  }
  const list = el(/\d/.test(mark) ? "ol" : "ul", {}, ...items.map((item) => drawItem(item.lines, depth)));
  if (/\d/.test(mark)) list.start = parseInt(mark, 10);
  return list;
}

function drawItem(lines, depth) {
  const task = /^\[([ xX])\] (.*)$/.exec(lines[0]);
  if (task) lines = [task[2], ...lines.slice(1)];
  const drawn = draw(lines, depth + 1);
  const inside = drawn[0]?.tagName === "P" ? [...drawn[0].childNodes, ...drawn.slice(1)] : drawn;
  return el("li", {}, task ? (task[1] === " " ? "☐ " : "☑ ") : null, ...inside);
}

function codeBlock(text, language) {
  const head = el("header", {}, el("span", {}, language));
  if (navigator.clipboard) {
    const copy = el("button", { type: "button", "aria-label": "Copy this code" }, "Copy");
    copy.addEventListener("click", async () => { await navigator.clipboard.writeText(text); copy.textContent = "Copied"; });
    head.append(copy);
  }
  return el("div", { className: "code" }, head, el("pre", { tabIndex: 0 }, el("code", {}, text)));
}

// --- markdown inside a line -----------------------------------------------------------------------------------------

const ADDRESS = /^(?:https?:\/\/|mailto:)[^\s<>"'`]+/i;
const PUNCTUATION = /[!-/:-@[-`{-~]/;

/** Give the nodes of a piece of text: code, emphasis, links; everything else is text. */
function inline(text, depth = 0) {
  if (depth > MAX_DEPTH || text.length > MAX_INLINE) return [text];
  const nodes = [];
  let plain = "";
  const put = (node) => { if (plain) nodes.push(plain); plain = ""; nodes.push(node); };
  let at = 0;
  while (at < text.length) {
    const found = spanAt(text, at, depth);
    if (found) { put(found.node); at += found.length; continue; }
    if (text[at] === "\\" && at + 1 < text.length && PUNCTUATION.test(text[at + 1])) { plain += text[at + 1]; at += 2; continue; }
    plain += text[at];
    at += 1;
  }
  if (plain) nodes.push(plain);
  return nodes;
}

function spanAt(text, at, depth) {
  switch (text[at]) {
    case "`": return codeAt(text, at);
    case "*": case "_": case "~": return emphasisAt(text, at, depth);
    case "!": return text[at + 1] === "[" ? linkAt(text, at + 1, depth, 1) : null; // an image would be fetched from its host
    case "[": return linkAt(text, at, depth, 0);
    case "<": return angleAt(text, at);
    case "\n": return { node: el("br"), length: 1 };
    case "h": case "H": return addressAt(text, at);
    default: return null;
  }
}

function codeAt(text, at) {
  const marks = /^`+/.exec(text.slice(at, at + 40))[0];
  let end = text.indexOf(marks, at + marks.length);
  while (end >= 0 && (text[end + marks.length] === "`" || text[end - 1] === "`")) end = text.indexOf(marks, end + marks.length + 1);
  if (end < 0) return { node: marks, length: marks.length };
  const code = text.slice(at + marks.length, end).replaceAll("\n", " ");
  return { node: el("code", {}, /^ .* $/.test(code) && code.trim() ? code.slice(1, -1) : code), length: end + marks.length - at };
}

const EMPHASIS = [["***", "strong"], ["**", "strong"], ["__", "strong"], ["~~", "del"], ["*", "em"], ["_", "em"]];

function emphasisAt(text, at, depth) {
  for (const [mark, tag] of EMPHASIS) {
    if (!text.startsWith(mark, at)) continue;
    const begin = at + mark.length;
    if (!text[begin] || /\s/.test(text[begin]) || (mark[0] === "_" && /\w/.test(text[at - 1] ?? ""))) continue;
    const end = closing(text, mark, begin);
    if (end < 0) continue;
    const inside = inline(text.slice(begin, end), depth + 1);
    const node = el(tag, {}, ...(mark === "***" ? [el("em", {}, ...inside)] : inside));
    return { node, length: end + mark.length - at };
  }
  const marks = /^[*_~]+/.exec(text.slice(at, at + 4000))[0];
  return { node: marks, length: marks.length };
}

function closing(text, mark, from) {
  let end = text.indexOf(mark, from);
  while (end >= 0) {
    const after = text[end + mark.length] ?? "";
    const fits = !/\s/.test(text[end - 1]) && end > from && text[end - 1] !== "\\" && !(mark[0] === "_" && /\w/.test(after));
    if (fits && (mark.length > 1 || (after !== mark && text[end - 1] !== mark))) return end;
    end = text.indexOf(mark, end + 1);
  }
  return -1;
}

function linkAt(text, at, depth, before) {
  const found = /^\[((?:[^[\]\\]|\\.){0,1000})\]\(\s*<?([^\s()<>]*(?:\([^\s()<>]*\)[^\s()<>]*)*)>?(?:\s+(?:"[^"]*"|'[^']*'))?\s*\)/.exec(text.slice(at, at + 4000));
  if (!found) return null;
  const label = inline(found[1], depth + 1);
  return { node: link(found[2], label, before ? "image: " : ""), length: found[0].length + before };
}

function angleAt(text, at) {
  const found = /^<((?:https?:\/\/|mailto:)[^\s<>]+)>/i.exec(text.slice(at, at + 2000));
  return found ? { node: link(found[1], [found[1]]), length: found[0].length } : null;
}

function addressAt(text, at) {
  if (/\w/.test(text[at - 1] ?? "")) return null;
  const found = ADDRESS.exec(text.slice(at, at + 2000));
  if (!found) return null;
  const address = found[0].replace(/[.,;:!?)\]*_]+$/, "");
  return { node: link(address, [address]), length: address.length };
}

/** Give a link where its address is one that may be followed; else its words. */
function link(address, label, kind = "") {
  let url = null;
  try { url = new URL(address); } catch { /* no absolute address */ }
  const words = label.length ? label : [address];
  if (!url || !["http:", "https:", "mailto:"].includes(url.protocol)) return el("span", {}, ...words);
  return el("a", { href: url.href, target: "_blank", rel: "noopener noreferrer nofollow", title: url.href }, kind || null, ...words);
}

/** Draws text as it grows: blocks that are over are drawn once, the last one again for each piece. */
class Prose {
  constructor() {
    this.element = el("div", { className: "prose" });
    this.tail = "";
    this.drawn = [];
  }

  add(text) { this.tail += text; }

  draw() {
    const lines = this.tail.split("\n");
    const blocks = blocksOf(lines);
    for (const node of this.drawn) node.remove();
    const last = blocks.pop();
    for (const block of blocks) this.element.append(DRAW[block.kind](block, 0));
    if (last) this.tail = lines.slice(last.at).join("\n");
    this.drawn = last ? [DRAW[last.kind](last, 0)] : [];
    this.element.append(...this.drawn);
  }
}

// --- an answer ------------------------------------------------------------------------------------------------------

const money = (amount) => (amount === 0 ? "$0" : amount < 0.01 ? `$${amount.toPrecision(2)}` : `$${amount.toFixed(4)}`);
const seconds = (value) => `${value < 10 ? value.toFixed(2) : value.toFixed(1)} s`;

/** One answer on the page: its blocks by index, its figures, what went wrong. */
class AnswerView {
  constructor(spec) {
    this.body = el("div");
    this.figures = el("p", { className: "figures" });
    this.element = el("article", { className: "answer", "aria-label": `Answer of ${spec}` }, el("h2", { className: "who" }, spec), this.body, this.figures);
    this.begin();
  }

  begin() {
    this.blocks = new Map(); // of this turn: each turn of a run counts its blocks anew
    this.calls = new Map();
    this.dirty = new Set();
    this.turn = el("div");
    this.usage = null;
    this.body.replaceChildren(this.turn);
  }

  /** Go on behind what is shown: a model is asked again, with the results of its calls. */
  nextTurn() {
    this.draw();
    this.blocks.clear();
    this.turn = el("div");
    this.body.append(this.turn);
  }

  /** What this turn has said is void. */
  reset() {
    this.blocks.clear();
    this.dirty.clear();
    this.turn.replaceChildren();
  }

  wait() {
    this.element.setAttribute("aria-busy", "true");
    this.waiting = el("div", { className: "waiting", role: "img", "aria-label": "The model is thinking" }, el("i"), el("i"), el("i"));
    this.body.append(this.waiting);
  }

  block(index, make) {
    let block = this.blocks.get(index);
    if (!block) {
      block = make();
      this.blocks.set(index, block);
      this.turn.append(block.element);
    }
    this.waiting?.remove();
    return block;
  }

  text(index, text, className = "") {
    const block = this.block(index, () => { const prose = new Prose(); if (className) prose.element.classList.add(className); return prose; });
    block.add(text);
    this.dirty.add(block);
  }

  reasoning(index, text) {
    const block = this.block(index, () => folded("Reasoning", "", new Prose()));
    block.add(text);
    this.dirty.add(block);
  }

  tool(index, name, text, label = "Tool call") {
    const block = this.block(index, () => folded(label, name, new Plain()));
    block.add(text);
    this.dirty.add(block);
    return block;
  }

  /** A call: its arguments as they come, then its result; meanwhile, where it waits for the user, what he can say. */
  call(index, id, name) {
    const block = this.tool(index, name, "");
    block.id = id;
    this.calls.set(id, block);
  }

  callEnd(event, decide) {
    const block = this.blocks.get(event.index);
    if (!block) return;
    if (event.executable !== false && page.asks.has(event.name)) { block.ask(event.name, decide); this.scrollIn(block); }
  }

  scrollIn(block) { if (isAtEnd()) { this.draw(); block.element.scrollIntoView({ block: "nearest" }); toEnd(); } }

  result(id, text, isError) {
    const block = this.calls.get(id);
    block?.result(text, isError);
    if (block) this.dirty.add(block);
  }

  note(text) { this.body.append(el("p", { className: "note" }, text)); }

  draw() {
    for (const block of this.dirty) block.draw();
    this.dirty.clear();
  }

  /** Show what is known at the end. */
  settle(answer) {
    this.draw();
    this.waiting?.remove();
    for (const call of this.calls.values()) call.settle();
    this.element.removeAttribute("aria-busy");
    const parts = [];
    if (answer.first_text_s !== null) parts.push(`${seconds(answer.first_text_s)} to first token`);
    if (answer.usage) parts.push(`${answer.usage.input_tokens} in, ${answer.usage.output_tokens} out`);
    const speed = answer.usage && !answer.blocks.some((block) => block.kind === "tool_result") && answer.total_s - answer.first_text_s;
    if (speed > 0.05 && answer.usage.output_tokens >= 5) parts.push(`${(answer.usage.output_tokens / speed).toFixed(0)} tokens/s`);
    parts.push(costOf(answer.cost));
    if (answer.stop && answer.stop.reason !== "end_turn") parts.push(`stopped: ${answer.stop.reason.replaceAll("_", " ")}`);
    this.figures.replaceChildren(...parts.map((part) => el("span", {}, part)));
    if (answer.state === "stopped") this.figures.append(el("span", { className: "cut" }, "stopped, not whole"));
    if (answer.state === "failed") this.body.append(problemView(answer.problem, "The answer is not whole", () => ask(this.question)));
  }

  running(startedAt, firstAt, cost) {
    const parts = [startedAt === null ? "on its way" : firstAt ? `${seconds((firstAt - startedAt) / 1000)} to first token` : `waiting ${seconds((performance.now() - startedAt) / 1000)}`];
    if (this.usage) parts.push(`${this.usage.output_tokens} tokens out`);
    if (cost) parts.push(costOf(cost));
    this.figures.replaceChildren(...parts.map((part) => el("span", {}, part)));
  }
}

/** Give the cost of two turns; unknown where that of one is. */
function added(one, other) {
  const known = one.amount_usd !== null && other.amount_usd !== null;
  return { exact: one.exact && other.exact, amount_usd: known ? Number(one.amount_usd) + Number(other.amount_usd) : null };
}

function costOf(cost) {
  if (!cost || cost.amount_usd === null) return "cost unknown";
  return `${cost.exact ? "" : "about "}${money(Number(cost.amount_usd))}`;
}

/** Text as it comes. */
class Plain {
  constructor() { this.element = el("pre"); this.pieces = ""; }
  add(text) { this.pieces += text; }
  draw() { this.element.textContent = this.pieces; }
}

function folded(label, name, inside) {
  const summary = el("summary", {}, label, name ? el("b", {}, ` ${name}`) : null);
  const state = el("span", { className: "state" });
  summary.append(" ", state);
  const body = el("div", { className: "inside" }, inside.element);
  const element = el("details", {}, summary, body);
  let asking = null;
  const answered = () => { asking?.remove(); asking = null; };
  return {
    element,
    add: (text) => inside.add(text),
    draw: () => inside.draw(),
    state(words, kind = "") { state.textContent = words; state.className = `state ${kind}`; },
    settle() { if (asking || state.textContent === "running") { answered(); this.state("not run to its end", "bad"); } },
    result(text, isError) {
      answered();
      this.state(isError ? "failed" : "done", isError ? "bad" : "good");
      body.append(el("p", { className: "label" }, isError ? "Error" : "Result"), el("pre", {}, text));
    },
    ask(tool, decide) {
      this.state("waits for you", "asks");
      element.open = true;
      const choice = (words, allow, always) => {
        const button = el("button", { type: "button" }, words);
        button.addEventListener("click", () => { answered(); this.state(allow ? "running" : "refused"); decide(allow, always ? tool : ""); $("text").focus(); });
        return button;
      };
      asking = el("div", { className: "asking", role: "group", "aria-label": `May ${tool} run?` }, choice("Allow", true), choice("Always", true, true), choice("Refuse", false));
      asking.firstChild.className = "primary";
      body.append(asking);
      say(`The model wants to call ${tool}: allow it?`);
    },
  };
}

function problemView(problem, title, again) {
  const view = el("div", { className: "problem", role: "alert" }, el("b", {}, `${title}: ${problem.error}`), problem.message);
  if (problem.retry_after_s) view.append(` (try again in ${problem.retry_after_s} s)`);
  if (again) {
    const button = el("button", { type: "button" }, "Try again");
    button.addEventListener("click", () => { button.disabled = true; again(); });
    view.append(el("br"), button);
  }
  return view;
}

// --- events ---------------------------------------------------------------------------------------------------------

const ON_EVENT = {
  text_delta: (view, event) => view.text(event.index, event.text),
  reasoning_delta: (view, event) => view.reasoning(event.index, event.text),
  refusal_delta: (view, event) => view.text(event.index, event.text, "refusal"),
  tool_call_start: (view, event) => view.call(event.index, event.id, event.name),
  tool_call_delta: (view, event) => view.tool(event.index, "", event.arguments),
  tool_call_end: (view, event, following) => view.callEnd(event, (allow, always) => following.decide(event.id, allow, always)),
  tool_result_event: (view, event) => view.result(event.result.tool_call_id, textOf(event.result.content), event.result.is_error),
  turn_start: (view, event, following) => { if (event.turn > 1) { view.nextTurn(); following.nextTurn(); } },
  server_tool_call: (view, event) => view.tool(event.index, event.name, event.arguments, "The provider's tool"),
  server_tool_result: (view, event) => view.tool(event.index, event.name, JSON.stringify(event.content, null, 2), "Result of"),
  usage: (view, event) => { view.usage = event; },
  notice: (view, event) => {
    if (event.kind === "reset") view.reset();
    if (event.kind !== "heartbeat" && event.kind !== "route") view.note(`${event.kind}: ${event.detail}`);
  },
};
const textOf = (content) => content.map((part) => part.text ?? `(${part.type})`).join("");
const CONTENT = new Set(["text_delta", "reasoning_delta", "refusal_delta", "tool_call_start"]);

/** Follow an answer that is on its way: the browser itself comes back with the last id where the connection breaks. */
class Following {
  constructor(turn, view) {
    this.view = view;
    this.key = turn.answer.key;
    this.last = 0;
    this.startedAt = page.asked === this.key ? page.askedAt : null; // after a reload nobody knows when it began
    this.isWhole = false;
    this.firstAt = 0;
    this.cost = null;
    this.spent = null; // in the turns before this one
    this.frame = 0;
    view.wait();
    this.source = new EventSource(`/api/answers/${encodeURIComponent(this.key)}/events`);
    this.source.onmessage = (message) => this.take(message);
    this.source.onerror = () => this.broken();
    this.source.onopen = () => say("");
    this.timer = setInterval(() => this.tick(), 200);
  }

  take(message) {
    const number = Number(message.lastEventId);
    if (number <= this.last) return;
    this.last = number;
    const event = JSON.parse(message.data);
    if (event.type === "end" || event.type === "error") { this.isWhole = true; this.close(); refresh(); return; }
    if (!this.firstAt && CONTENT.has(event.type)) this.firstAt = performance.now();
    if (event.type === "cost") this.cost = this.spent ? added(event, this.spent) : event;
    ON_EVENT[event.type]?.(this.view, event, this);
    this.frame ||= requestAnimationFrame(() => { this.frame = 0; const stick = isAtEnd(); this.view.draw(); if (stick) toEnd(); });
  }

  nextTurn() { this.spent = this.cost; }

  async decide(id, allow, always) {
    if (always) page.asks.delete(always);
    const body = JSON.stringify({ id, allow, always_for: always });
    try { await call(`/api/answers/${encodeURIComponent(this.key)}/decisions`, { method: "POST", body }); } catch (problem) { showProblem(problem); }
  }

  broken() {
    if (this.source.readyState === EventSource.CLOSED) { this.close(); refresh(); } else say("Connection lost, trying again…");
  }

  tick() {
    this.view.running(this.startedAt, this.firstAt, this.cost);
    showTotal(this.cost);
  }

  close() {
    this.isClosed = true;
    this.source.close();
    clearInterval(this.timer);
    cancelAnimationFrame(this.frame);
    this.view.draw();
  }
}

// --- the page -------------------------------------------------------------------------------------------------------

const page = { id: "", following: null, views: new Map(), turns: [], asked: "", askedAt: 0, busy: false, asks: new Set() };
const tabs = "BroadcastChannel" in window ? new BroadcastChannel("looms") : null;

function say(text) { $("status").textContent = text; }
const isAtEnd = () => { const log = $("log"); return log.scrollHeight - log.scrollTop - log.clientHeight < 80; };
function toEnd() { const log = $("log"); log.scrollTop = log.scrollHeight; }

async function call(path, options = {}) {
  let response;
  try {
    response = await fetch(path, { ...options, headers: options.body ? { "content-type": "application/json" } : {} });
  } catch {
    throw { error: "Unreachable", message: "looms ui does not answer: is it still running?" };
  }
  if (response.status === 401) { location.assign("/login"); throw { error: "Token", message: "the token is missing" }; }
  const text = await response.text();
  if (response.ok) return text ? JSON.parse(text) : null;
  try { throw JSON.parse(text); } catch (problem) { throw problem.error ? problem : { error: `HTTP ${response.status}`, message: text.trim() }; }
}

const IS_ID = /^[0-9a-zA-Z-]{1,64}$/;
const conversation = () => `/api/conversations/${page.id}`;

/** Show the conversation as the server has it; what is drawn already stays. */
async function refresh() {
  let found;
  try { found = await call(conversation()); } catch (problem) { showProblem(problem); return; }
  if (found.id !== page.id) return;
  $("log").querySelectorAll(":scope > .problem").forEach((old) => old.remove());
  $("welcome").hidden = found.turns.length > 0;
  for (const turn of found.turns) showTurn(turn);
  const running = found.turns.find((turn) => turn.answer.state === "running");
  setBusy(running);
  page.turns = found.turns;
  showTotal(null);
  if (running && page.following?.isClosed) setTimeout(refresh, 2000); // its events are gone: its end will show it
}

function showTurn(turn) {
  const { key, state, spec } = turn.answer;
  let known = page.views.get(key);
  if (!known) {
    const view = new AnswerView(spec);
    view.question = turn.text;
    known = { view, settled: false };
    page.views.set(key, known);
    $("log").append(el("div", { className: "said" }, el("div", {}, el("span", { className: "hidden" }, "You: "), turn.text)), view.element);
    if (state === "running") page.following = new Following(turn, view);
    else showBlocks(view, turn.answer.blocks);
    toEnd();
  }
  if (known.settled || state === "running") return;
  known.settled = true;
  const stick = isAtEnd();
  if (page.following?.key === key && !page.following.isWhole) showBlocks(known.view, turn.answer.blocks);
  known.view.settle(turn.answer);
  if (stick) toEnd();
  if (page.following?.key === key) { page.following.close(); page.following = null; say(state === "done" ? "The answer is complete." : `The answer ${state}.`); }
}

const SHOW_BLOCK = {
  text: (view, index, block) => view.text(index, block.text),
  refusal: (view, index, block) => view.text(index, block.text, "refusal"),
  reasoning: (view, index, block) => view.reasoning(index, block.text),
  tool_call: (view, index, block) => { view.call(index, block.call, block.name); view.tool(index, "", block.text); },
  tool_result: (view, _, block) => view.result(block.call, block.text, block.is_error),
};
function showBlocks(view, blocks) {
  view.begin();
  for (const [index, block] of blocks.entries()) {
    const show = SHOW_BLOCK[block.kind] ?? (() => view.tool(index, block.name, block.text, block.kind.replaceAll("_", " ")));
    show(view, index, block);
  }
}

/** Show what the conversation costs so far, the answer that is on its way included. */
function showTotal(live) {
  const settled = page.turns.filter((turn) => turn.answer.state !== "running").map((turn) => turn.answer.cost);
  const costs = [...settled, ...(live ? [live] : [])].map((cost) => cost?.amount_usd ?? null);
  const known = costs.filter((amount) => amount !== null).map(Number);
  $("total").hidden = costs.length === 0;
  const sum = known.length ? money(known.reduce((total, amount) => total + amount, 0)) : "cost unknown";
  $("total").textContent = `${known.length && known.length < costs.length ? "at least " : ""}${sum}`;
}

function showProblem(problem) {
  $("log").append(problemView(problem, "This did not work"));
  toEnd();
}

function setBusy(running) {
  page.busy = Boolean(running);
  const hadFocus = document.activeElement === $("send") || document.activeElement === $("stop");
  $("send").hidden = page.busy;
  $("stop").hidden = !page.busy;
  if (hadFocus) (page.busy ? $("stop") : $("text")).focus();
}

async function ask(text) {
  if (page.busy || !text.trim()) return;
  setBusy(true);
  await started; // who types fast has sent before the models are there
  setBusy(true);
  say("Sent.");
  memory.set("looms-spec", spec());
  page.askedAt = performance.now();
  try {
    page.asked = (await call(`${conversation()}/messages`, { method: "POST", body: JSON.stringify({ text, spec: spec() }) })).answer.key;
  } catch (problem) {
    setBusy(false);
    showProblem(problem);
    if (!$("text").value) { $("text").value = text; grow(); }
    return;
  }
  tabs?.postMessage(page.id);
  await refresh();
  toEnd();
}

async function stop() {
  if (!page.following) return;
  try { await call(`/api/answers/${encodeURIComponent(page.following.key)}/stop`, { method: "POST", body: "{}" }); } catch (problem) { showProblem(problem); }
}

function open(id) {
  page.following?.close();
  page.following = null;
  page.id = id;
  page.views.clear();
  $("log").querySelectorAll(":scope > :not(#welcome)").forEach((old) => old.remove());
  memory.set("looms-conversation", id);
  history.replaceState(null, "", `#${id}`);
  return refresh();
}

// --- the conversations ----------------------------------------------------------------------------------------------

async function showChats() {
  let found;
  try { found = await call("/api/conversations"); } catch (problem) { $("chats").close(); showProblem(problem); return; }
  $("entries").replaceChildren(...found.map(entryView));
  $("nothing").hidden = found.length > 0;
}

function entryView(entry) {
  const item = el("li", {});
  const name = el("button", { type: "button", className: "name", title: entry.title }, entry.title, entry.is_running ? el("i", { role: "img", "aria-label": "being answered" }) : null);
  if (entry.id === page.id) name.setAttribute("aria-current", "true");
  name.addEventListener("click", async () => { $("chats").close(); await open(entry.id); $("text").focus(); });
  const rename = el("button", { type: "button", className: "small", "aria-label": `Rename ${entry.title}` }, "Rename");
  rename.addEventListener("click", () => item.replaceChildren(...renaming(entry)));
  const remove = el("button", { type: "button", className: "small", "aria-label": `Delete ${entry.title}` }, "Delete");
  remove.addEventListener("click", () => {
    if (!remove.classList.contains("sure")) { remove.classList.add("sure"); remove.textContent = "Sure?"; remove.setAttribute("aria-label", `Really delete ${entry.title}`); return; }
    forget(entry);
  });
  remove.addEventListener("blur", () => { remove.classList.remove("sure"); remove.textContent = "Delete"; remove.setAttribute("aria-label", `Delete ${entry.title}`); });
  item.append(name, rename, remove);
  return item;
}

/** Give the field in which a conversation gets another name, and what takes it: Enter; Escape leaves the old one. */
function renaming(entry) {
  const field = el("input", { type: "text", value: entry.title, maxLength: 80, "aria-label": "Name of the conversation" });
  const form = el("form", {}, field, el("button", { type: "submit", className: "small" }, "Save"));
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    try { await call(`/api/conversations/${entry.id}`, { method: "PATCH", body: JSON.stringify({ title: field.value }) }); } catch (problem) { $("chats").close(); showProblem(problem); }
    showChats();
  });
  form.addEventListener("keydown", (event) => { if (event.key === "Escape") { event.preventDefault(); event.stopPropagation(); showChats(); } });
  queueMicrotask(() => field.select());
  return [form];
}

async function forget(entry) {
  try { await call(`/api/conversations/${entry.id}`, { method: "DELETE" }); } catch (problem) { $("chats").close(); showProblem(problem); return; }
  if (entry.id === page.id) await open(randomId());
  tabs?.postMessage(entry.id);
  await showChats();
  $("close").focus();
}

// --- the model ------------------------------------------------------------------------------------------------------

const OTHER = "other…";
const spec = () => ($("model").value === OTHER ? $("spec").value.trim() : $("model").value);

async function loadModels() {
  const { models, asks } = await call("/api/models");
  page.asks = new Set(asks);
  const groups = new Map();
  for (const model of models) groups.set(model.provider, [...(groups.get(model.provider) ?? []), model]);
  const select = $("model");
  for (const [provider, found] of groups) {
    select.append(el("optgroup", { label: provider }, ...found.map((model) => el("option", { value: model.spec }, model.model ? `${model.model} · ${provider}` : provider))));
  }
  select.append(el("option", { value: OTHER }, OTHER));
  const before = memory.get("looms-spec");
  if (models.some((model) => model.spec === before)) select.value = before;
  else if (before && !models.length) { select.value = OTHER; $("spec").value = before; }
  $("spec").hidden = select.value !== OTHER;
}

// --- what the user does ---------------------------------------------------------------------------------------------

function grow() {
  const text = $("text");
  text.style.height = "auto";
  text.style.height = `${text.scrollHeight}px`;
}

function submit() {
  const text = $("text").value;
  if (page.busy || !text.trim()) return;
  $("text").value = "";
  grow();
  ask(text);
}

const touches = matchMedia("(pointer: coarse)").matches;
$("composer").addEventListener("submit", (event) => { event.preventDefault(); submit(); });
$("text").addEventListener("input", grow);
$("text").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && !event.shiftKey && !event.isComposing && !touches) { event.preventDefault(); submit(); }
});
document.addEventListener("keydown", (event) => { if (event.key === "Escape" && page.busy && !$("chats").open) stop(); });
$("menu").addEventListener("click", () => { $("chats").showModal(); showChats(); });
$("close").addEventListener("click", () => $("chats").close());
$("chats").addEventListener("click", (event) => { if (event.target === $("chats")) $("chats").close(); }); // what is around it
$("stop").addEventListener("click", stop);
$("new").addEventListener("click", async () => { await open(randomId()); $("text").focus(); });
$("model").addEventListener("change", () => { $("spec").hidden = $("model").value !== OTHER; if (!$("spec").hidden) $("spec").focus(); });
$("welcome").querySelectorAll("button").forEach((idea) => idea.addEventListener("click", () => ask(idea.textContent)));
$("log").addEventListener("scroll", () => { $("latest").hidden = isAtEnd(); });
$("latest").addEventListener("click", toEnd);
tabs?.addEventListener("message", (message) => { if (message.data === page.id) refresh(); });
addEventListener("hashchange", () => { const id = location.hash.slice(1); if (IS_ID.test(id) && id !== page.id) open(id); });
document.addEventListener("visibilitychange", () => { if (!document.hidden && !page.following) refresh(); });

async function main() {
  try { await loadModels(); } catch (problem) { showProblem(problem); }
  const named = location.hash.slice(1) || memory.get("looms-conversation");
  await open(IS_ID.test(named) ? named : randomId());
}
const started = main();
