// The log of a run: follows the end of the log, jumps to any byte of it, and searches it on the machine.
//
// The page shows a window of the log, the bytes `first` to `next`. While the window reaches the end of the log, new
// lines are fetched. After a jump it may lie anywhere: then later lines are fetched when the user scrolls to them.

const QUICK = 1000; // ms between polls while new lines arrive
const SLOW = 3000; // ms between polls while no new lines arrive, and before a retry if the machine does not answer
const LONGEST = 10000; // ms, the longest back-off
const KEPT = 512 * 1024; // bytes of the log that stay in the page; other bytes can be fetched again
const MOST_LISTED = 100; // matches in one answer

const box = document.getElementById("log");
const text = document.getElementById("log-text");
const status = document.getElementById("log-status");
const follow = document.getElementById("log-follow");
const earlier = document.getElementById("log-earlier");
const later = document.getElementById("log-later");
const sizeText = document.getElementById("log-size");
const searchForm = document.getElementById("log-search");
const searchField = document.getElementById("log-search-text");
const list = document.getElementById("log-matches");
const { url, search: searchUrl, lines: linesUrl } = box.dataset;

let next = null; // byte offset at which the next poll begins
let first = 0; // byte offset of the first byte shown
let size = 0; // bytes of the log
let isOpen = false; // the last line shown has no line end yet
let style = "";
let isFollowing = true;
let wait = QUICK;
let quietLooks = 0;
let timer = 0;
let isDone = false;
let isAsking = false;
let current = null; // byte offset of the line that is marked
let isJumping = false;
let generation = 0; // counts jumps: an answer to a request from before a jump is not shown
let action = 0; // counts searches: a new one replaces the one under way

function say(words, isTrouble = false) {
  if (status.textContent !== words) status.textContent = words;
  status.classList.toggle("trouble", isTrouble);
}

function bytes(count) {
  if (count < 1000) return `${count} bytes`;
  const units = ["kB", "MB", "GB", "TB"];
  let value = count / 1000;
  while (value >= 999.5 && units.length > 1) {
    value /= 1000;
    units.shift();
  }
  return `${value < 10 ? value.toFixed(1) : Math.round(value)} ${units[0]}`;
}

function setSize(value) {
  size = value;
  sizeText.textContent = value ? bytes(value) : "";
  sizeText.title = value ? `${value.toLocaleString()} bytes` : "";
}

class Away extends Error {}

async function ask(place, query) {
  let response;
  try {
    response = await fetch(`${place}?${new URLSearchParams(query)}`, { headers: { Accept: "application/json" } });
  } catch {
    throw new Away("The service does not answer.");
  }
  if (response.redirected) throw new Away("You are signed out. Load this page again to sign in.");
  if (response.status === 503) throw new Away("The service's database is unavailable.");
  if (!response.ok) throw new Away(`The service answers with an error (${response.status}).`);
  return response.json();
}

// Shows what went wrong with something that the user asked for. Such requests are not repeated.
async function attempt(work) {
  try {
    return await work();
  } catch (error) {
    if (!(error instanceof Away)) throw error;
    say(error.message, true);
    return null;
  }
}

// --- the window ---

function row([offset, html, isRest]) {
  const element = document.createElement("div");
  element.className = isRest ? "l rest" : "l";
  element.dataset.at = offset;
  const number = document.createElement(isRest ? "span" : "a");
  number.className = "n";
  if (!isRest) {
    number.href = `?at=${offset}#log`;
    number.tabIndex = -1;
    number.setAttribute("aria-label", "Link to this line");
  }
  const content = document.createElement("span");
  content.innerHTML = html; // escaped by the service, see runners/pages/ansi.py
  element.append(number, content, "\n");
  return element;
}

function chunk(answer, continues) {
  const element = document.createElement("div");
  element.dataset.start = answer.start;
  element.dataset.end = answer.next;
  const rows = answer.lines.map(row);
  if (continues && rows.length) rows[0].classList.add("rest"); // it has no number of its own
  element.append(...rows);
  return element;
}

function ownLines(element) {
  return element.querySelectorAll(".l:not(.rest)").length;
}

// Numbers are CSS counters that begin with `value`, so that one assignment numbers all lines. null: not known.
let before = 0; // lines before the first one shown
function setNumbers(value) {
  before = value;
  text.classList.toggle("unnumbered", value === null);
  text.style.counterReset = `line ${value ?? 0}`;
}

async function countLines() {
  if (first === 0) {
    setNumbers(0);
    return;
  }
  setNumbers(null);
  const [asked, when] = [first, generation];
  const answer = await ask(linesUrl, { before: asked }).catch(() => ({ lines: null }));
  if (when !== generation || answer.lines === null) return;
  let known = answer.lines;
  for (const element of text.children) {
    if (Number(element.dataset.start) >= asked) break;
    known -= ownLines(element); // earlier lines were added meanwhile
  }
  if (first <= asked) setNumbers(known);
}

function edges() {
  first = text.firstElementChild ? Number(text.firstElementChild.dataset.start) : 0;
  earlier.hidden = first === 0;
  later.hidden = next === null || next >= size || isFollowing;
}

function dropFirst() {
  const height = box.scrollHeight;
  const lines = ownLines(text.firstElementChild);
  text.firstElementChild.remove();
  if (before !== null) setNumbers(before + lines);
  edges();
  if (!isFollowing) box.scrollTop -= height - box.scrollHeight;
}

function append(answer) {
  if (!answer.lines.length) return;
  text.append(chunk(answer, isOpen));
  isOpen = answer.open;
  while (text.children.length > 1 && answer.next - Number(text.children[1].dataset.start) > KEPT) dropFirst();
  edges();
  if (isFollowing) box.scrollTop = box.scrollHeight;
}

function clear() {
  generation += 1;
  isJumping = false;
  text.replaceChildren();
  next = null;
  style = "";
  isOpen = false;
  quietLooks = 0;
  isDone = false;
}

function isAtEnd() {
  return next === null || next >= size;
}

function setFollowing(value) {
  isFollowing = value;
  follow.setAttribute("aria-pressed", String(value));
  follow.textContent = value ? "Following" : "Follow";
  edges();
  if (!value) return;
  if (!isAtEnd() && size - next > KEPT / 4) clear();
  box.scrollTop = box.scrollHeight;
  look();
}

async function look() {
  if (isAsking || isDone || isJumping) return;
  clearTimeout(timer);
  if (!isFollowing && next !== null && (!isAtEnd() || next - first > KEPT)) {
    // Keep the lines that the user reads, and what a search has said.
    if (/^(Live|Catching)/.test(status.textContent)) say("Paused while you scroll. Follow shows the new lines.");
    return;
  }
  if (document.hidden) return; // the event visibilitychange resumes the polls
  isAsking = true;
  const when = generation;
  let isFirst = false;
  try {
    const answer = await ask(url, next === null ? {} : { from: next, style });
    if (when !== generation) return;
    if (answer.problem) {
      say(`${answer.problem} Retrying…`, true);
      wait = answer.was_asked ? Math.min(Math.max(wait * 2, SLOW), LONGEST) : SLOW;
    } else {
      isFirst = next === null;
      setSize(answer.size);
      next = answer.next;
      append(answer);
      style = answer.style;
      isDone = answer.done;
      quietLooks = answer.lines.length ? 0 : quietLooks + 1;
      wait = quietLooks > 5 ? SLOW : QUICK;
      const isBehind = answer.lines.length && answer.next < answer.size && answer.active;
      if (answer.note) say(answer.note);
      else if (isDone) say("The run has ended. This is the end of its log.");
      else say(isBehind ? "Catching up…" : "Live");
      if (isFollowing && answer.lines.length && size - next > 4 * KEPT) clear();
      if (answer.lines.length && size - next > 65536) wait = 50;
    }
  } catch (error) {
    if (!(error instanceof Away)) throw error;
    say(`${error.message} Retrying…`, true);
    wait = Math.min(Math.max(wait * 1.5, QUICK), LONGEST);
  } finally {
    isAsking = false;
    if (!isDone) timer = setTimeout(look, when === generation ? wait : 0);
  }
  if (isFirst) countLines();
}

box.addEventListener("scroll", () => {
  if (next === null) return; // a jump has emptied the window
  const isBelow = box.scrollHeight - box.scrollTop - box.clientHeight < 24;
  if (isBelow && !isAtEnd()) showLater();
  else if (isBelow !== isFollowing) setFollowing(isBelow);
});
follow.addEventListener("click", () => setFollowing(!isFollowing));

async function extend(button, query, show) {
  if (button.disabled) return;
  button.disabled = true;
  const when = generation;
  await attempt(async () => {
    const answer = await ask(url, query);
    if (when !== generation) return;
    if (answer.problem) say(answer.problem, true);
    else show(answer);
  });
  button.disabled = false;
}

earlier.addEventListener("click", () =>
  extend(earlier, { before: first }, (answer) => {
    const height = box.scrollHeight;
    if (isFollowing) setFollowing(false);
    const part = chunk(answer, false);
    if (answer.open) text.querySelector(".l")?.classList.add("rest"); // it continues the last line of this part
    text.prepend(part);
    if (before !== null) setNumbers(Math.max(0, before - ownLines(part)));
    while (text.children.length > 1 && Number(text.lastElementChild.dataset.start) - answer.start > KEPT) {
      next = Number(text.lastElementChild.dataset.start); // fetch it again when the user scrolls there
      text.lastElementChild.remove();
      isOpen = false;
      isDone = false;
    }
    edges();
    if (first === 0) setNumbers(0);
    box.scrollTop += box.scrollHeight - height; // keep the visible lines in place
  }),
);

function showLater() {
  return extend(later, { from: next, style }, (answer) => {
    setSize(answer.size);
    next = answer.next;
    style = answer.style;
    append(answer);
    if (isAtEnd()) look();
  });
}
later.addEventListener("click", showLater);

// --- jumps and links ---

// The line at byte `offset`, if it is in the window.
function lineAt(offset) {
  if (next === null || offset < first || offset >= next) return null;
  let found = null;
  for (const part of text.children) {
    if (offset >= Number(part.dataset.end)) continue;
    for (const line of part.children) {
      if (Number(line.dataset.at) > offset) return found;
      found = line;
    }
  }
  return found;
}

function mark(line, words) {
  for (const old of text.querySelectorAll(".marked")) old.classList.remove("marked");
  CSS.highlights?.delete("log-match");
  current = Number(line.dataset.at);
  line.classList.add("marked");
  const { top, height } = line.getBoundingClientRect();
  box.scrollTop += top - box.getBoundingClientRect().top - Math.max(40, (box.clientHeight - height) / 3);
  if (!words || !CSS.highlights) return;
  const walker = document.createTreeWalker(line.querySelector("span:last-of-type"), NodeFilter.SHOW_TEXT);
  const ranges = [];
  for (let node = walker.nextNode(); node; node = walker.nextNode()) {
    const found = node.data.toLowerCase().indexOf(words.toLowerCase());
    if (found < 0) continue;
    const range = new Range();
    range.setStart(node, found);
    range.setEnd(node, found + words.length);
    ranges.push(range);
  }
  CSS.highlights.set("log-match", new Highlight(...ranges));
}

async function jump(offset, words = "") {
  isFollowing = false;
  follow.setAttribute("aria-pressed", "false");
  follow.textContent = "Follow";
  if (!lineAt(offset)) {
    clear();
    const when = generation;
    isJumping = true;
    let answer;
    try {
      answer = await ask(url, { at: offset });
    } finally {
      if (when === generation) isJumping = false;
    }
    if (when !== generation) return false;
    if (answer.problem || answer.note) {
      say(answer.problem || answer.note, Boolean(answer.problem));
      return false;
    }
    setSize(answer.size);
    next = answer.next;
    style = answer.style;
    isDone = answer.done;
    append(answer);
    countLines();
  }
  const line = lineAt(offset) ?? text.querySelector(".l");
  if (line) mark(line, words);
  edges();
  if (isAtEnd()) look();
  return true;
}

function toBeginning() {
  attempt(async () => {
    if (await jump(0)) {
      box.scrollTop = 0;
      say("The beginning of the log.");
    }
  });
}
function toEnd() {
  if (!isAtEnd()) clear();
  setFollowing(true);
}
document.getElementById("log-beginning").addEventListener("click", toBeginning);
document.getElementById("log-end").addEventListener("click", toEnd);
box.addEventListener("keydown", (event) => {
  if (event.target !== box || event.ctrlKey || event.altKey || event.metaKey) return;
  const does = { Home: toBeginning, End: toEnd, n: () => find("error", 1), p: () => find("error", -1) }[event.key];
  if (does) {
    event.preventDefault();
    does();
  } else if (event.key === "/") {
    event.preventDefault();
    searchField.focus();
  }
});

async function copy(words, done) {
  try {
    await navigator.clipboard.writeText(words);
  } catch {
    // Without HTTPS there is no clipboard: copy a field that nobody sees.
    const field = document.createElement("textarea");
    field.className = "log-clipboard";
    field.value = words;
    document.body.append(field);
    field.select();
    const isCopied = document.execCommand("copy");
    field.remove();
    if (!isCopied) {
      say("The browser does not allow copying. Select the lines and copy them with the keyboard.", true);
      return;
    }
  }
  say(done);
}

text.addEventListener("click", (event) => {
  const number = event.target.closest("a.n");
  if (!number || event.ctrlKey || event.metaKey || event.shiftKey) return;
  event.preventDefault();
  const address = new URL(number.getAttribute("href"), location.href);
  history.replaceState(null, "", address);
  if (isFollowing) setFollowing(false);
  mark(number.parentElement);
  copy(address.href, "The link to this line is copied, and in the address of this page.");
});

document.getElementById("log-copy").addEventListener("click", () => {
  const selection = getSelection();
  const isSelected = selection.toString() && box.contains(selection.anchorNode);
  const lines = [...text.querySelectorAll(".l > span:last-of-type")].map((line) => line.textContent).join("\n");
  const words = isSelected ? selection.toString() : lines;
  copy(
    words,
    isSelected ? "The selected text is copied." : `The lines shown here are copied (${bytes(words.length)}).`,
  );
});

const wrap = document.getElementById("log-wrap");
function setWrap(value) {
  wrap.setAttribute("aria-pressed", String(value));
  box.classList.toggle("unwrapped", !value);
}
wrap.addEventListener("click", () => {
  const value = wrap.getAttribute("aria-pressed") !== "true";
  setWrap(value);
  localStorage.setItem("log-wrap", value ? "1" : "0");
});
setWrap(localStorage.getItem("log-wrap") !== "0");

// --- the search on the machine ---

function place(match) {
  return match.line === null ? `byte ${match.offset.toLocaleString()}` : `line ${match.line.toLocaleString()}`;
}

// Asks until something is found or everything was searched: one request takes at most some seconds.
async function searched(query, isForward, when) {
  let from = query;
  for (;;) {
    const answer = await ask(searchUrl, from);
    if (when !== action) return null;
    if (answer.problem) {
      say(answer.problem, true);
      return null;
    }
    setSize(answer.size);
    if (answer.matches.length || answer.resume === null) return answer;
    say(`Searching… ${isForward ? "up to" : "back to"} ${bytes(answer.resume)} of ${bytes(answer.size)}`);
    from = { ...query, [isForward ? "from" : "before"]: answer.resume };
  }
}

// Where a search begins: the marked line, else the first or last line that can be seen.
function origin(isForward) {
  if (current !== null && next !== null && current >= first && current < next) return isForward ? current + 1 : current;
  if (isFollowing || next === null) return isForward ? 0 : size;
  const top = box.getBoundingClientRect().top;
  for (const line of text.querySelectorAll(".l")) {
    if (line.getBoundingClientRect().bottom > top) return Number(line.dataset.at);
  }
  return isForward ? 0 : size;
}

async function find(kind, direction) {
  const words = searchField.value;
  if (kind === "text" && !words) {
    searchField.focus();
    return;
  }
  action += 1;
  const when = action;
  const isForward = direction > 0;
  const base = kind === "text" ? { text: words, limit: 1 } : { errors: 1, limit: 1 };
  const what = kind === "text" ? `“${words}”` : "error";
  say("Searching…");
  await attempt(async () => {
    const start = origin(isForward);
    const side = isForward ? "from" : "before";
    let answer = await searched({ ...base, [side]: start }, isForward, when);
    let again = "";
    if (answer && !answer.matches.length && (isForward ? start > 0 : start < size)) {
      answer = await searched({ ...base, [side]: isForward ? 0 : size }, isForward, when);
      again = isForward ? ", from the beginning again" : ", from the end again";
    }
    if (!answer || when !== action) return;
    const [match] = answer.matches;
    if (!match) {
      say(kind === "text" ? `${what} is nowhere in the log.` : "The log has no line that looks like an error.");
    } else if (await jump(match.offset, match.match)) {
      say(`${kind === "text" ? "Found" : "Error"} in ${place(match)}${again}.`);
      current = match.offset;
    }
  });
}

searchForm.addEventListener("submit", (event) => {
  event.preventDefault();
  find("text", 1);
});
searchField.addEventListener("keydown", (event) => {
  if (event.key !== "Enter" || !event.shiftKey) return;
  event.preventDefault();
  find("text", -1);
});
document.getElementById("log-search-back").addEventListener("click", () => find("text", -1));
document.getElementById("log-next-error").addEventListener("click", () => find("error", 1));
document.getElementById("log-previous-error").addEventListener("click", () => find("error", -1));

// The list of matches: of the text, or of the errors if there is no text.
async function listMatches(from = 0) {
  const words = searchField.value;
  action += 1;
  const when = action;
  say("Searching…");
  await attempt(async () => {
    const base = words ? { text: words } : { errors: 1 };
    const answer = await searched({ ...base, limit: MOST_LISTED, from }, true, when);
    if (!answer) return;
    if (!from) list.replaceChildren();
    list.querySelector(".more-matches")?.remove();
    for (const match of answer.matches) list.append(matchItem(match));
    if (answer.resume !== null) list.append(moreItem(answer.resume));
    const count = list.querySelectorAll(".match").length;
    list.hidden = count === 0;
    const found = words ? `matches of “${words}”` : "errors";
    if (count) say(`${answer.resume === null ? count : `The first ${count}`} ${found}.`);
    else say(words ? `“${words}” is nowhere in the log.` : "The log has no line that looks like an error.");
  });
}

function matchItem(match) {
  const item = document.createElement("li");
  const link = document.createElement("a");
  item.className = "match";
  link.href = `?at=${match.offset}#log`;
  link.textContent = place(match);
  const hit = document.createElement("mark");
  hit.textContent = match.match;
  const words = document.createElement("code");
  words.append(match.before, hit, match.after);
  item.append(link, " ", words);
  link.addEventListener("click", (event) => {
    if (event.ctrlKey || event.metaKey || event.shiftKey) return;
    event.preventDefault();
    attempt(() => jump(match.offset, match.match));
    box.focus();
  });
  return item;
}

function moreItem(resume) {
  const item = document.createElement("li");
  const button = document.createElement("button");
  item.className = "more-matches";
  button.type = "button";
  button.className = "button small";
  button.textContent = "More";
  button.addEventListener("click", () => listMatches(resume));
  item.append(button);
  return item;
}

document.getElementById("log-list").addEventListener("click", () => {
  if (list.hidden) listMatches();
  else list.hidden = true;
});
searchField.addEventListener("input", () => {
  list.hidden = true;
});

// --- links into the log ---

async function toReason() {
  action += 1;
  box.scrollIntoView({ block: "nearest" });
  say("Searching…");
  await attempt(async () => {
    const answer = await ask(searchUrl, { reason: 1 });
    if (answer.problem) say(answer.problem, true);
    else if (answer.matches.length && (await jump(answer.matches[0].offset)))
      say("Here the log says why the run ended.");
    else if (!answer.matches.length) {
      toEnd();
      say("The end of the log.");
    }
  });
  box.focus();
}

document.addEventListener("click", (event) => {
  const link = event.target.closest("a[data-log-reason]");
  if (!link || event.ctrlKey || event.metaKey || event.shiftKey) return;
  event.preventDefault();
  toReason();
});

document.addEventListener("visibilitychange", look);
document.addEventListener("runChanged", () => {
  isDone = false; // fetch the last lines at the end of the run
  look();
});
const at = new URLSearchParams(location.search).get("at");
if (/^\d{1,15}$/.test(at ?? "")) {
  attempt(async () => {
    if (await jump(Number(at))) say("This is the line of the link.");
    else look();
  });
} else if (at === "reason") toReason();
else setFollowing(true);
