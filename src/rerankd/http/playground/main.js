// The page: what is asked, what is shown, and what happens in between.
import * as api from "./api.js";
import { $, element } from "./dom.js";
import { join, readFile, split } from "./documents.js";
import { currentLanguage, number, preferredLanguage, t, translate } from "./i18n.js";
import { EXAMPLES } from "./examples.js";
import { resultLists } from "./results.js";
import { NAMES, Setting, settingFields } from "./settings.js";
import { LANGUAGES } from "./snippets.js";

const state = {
  settings: [new Setting(), new Setting()],
  models: [],
  instructions: [],
  server: undefined,
  threshold: { value: 0.5 },
  runs: [],
  problem: undefined,
  snippet: "curl",
  running: undefined,
};

/** Statuses after which the same call may succeed; 0 is no answer at all. */
const RETRYABLE = new Set([0, 408, 429, 503, 504]);
const STACKED = matchMedia("(max-width: 880px)");

const chosen = () => ($("compare").checked ? state.settings : state.settings.slice(0, 1));
const documents = () => split($("documents").value, $("split").value);
const key = () => $("key").value.trim();
const asked = (setting) => ({ query: $("query").value.trim(), documents: documents(), ...setting });

// ---- what is shown

function showServer(serverState) {
  const { server } = state;
  const words = server ? [server.served_model_name, server.engine, server.model_dtype, server.device] : [t("states")[serverState] ?? ""];
  $("server").dataset.state = server ? "ready" : serverState;
  $("server").textContent = words.filter(Boolean).join(" · ");
}

function showCount() {
  const found = documents();
  const most = state.models[0]?.max_documents ?? Infinity;
  const characters = found.reduce((sum, one) => sum + one.length, 0);
  const over = found.length > most;
  $("count").classList.toggle("over", over);
  $("count").textContent = over ? t("tooMany")(number(found.length), number(most)) : t("count")(number(found.length), number(characters));
}

function showSettings() {
  $("settings").replaceChildren(...settingFields(chosen(), state, showCall));
}

function showExamples() {
  const names = t("exampleNames");
  const options = Object.keys(EXAMPLES).map((name) => element("option", { value: name }, names[name]));
  $("example").replaceChildren(element("option", { value: "" }, t("chooseExample")), ...options);
}

function showResults({ animated = false } = {}) {
  const lists = resultLists(state.runs, state.threshold);
  $("lists").className = lists.length > 1 ? "two" : "";
  $("lists").replaceChildren(...(lists.length ? lists.map((list) => list.element) : [emptyState()]));
  if (animated) lists.forEach((list) => list.animate());
}

function emptyState() {
  const bars = [92, 71, 38, 17].map((width) => element("i", { style: { width: `${width}%` } }));
  const names = t("exampleNames");
  const buttons = Object.keys(EXAMPLES).map((name) => element("button", { type: "button", class: "pill", onclick: () => tryExample(name) }, names[name]));
  return element(
    "div",
    { class: "empty" },
    element("div", { class: "bars", "aria-hidden": "true" }, bars),
    element("p", { class: "title" }, t("emptyTitle")),
    element("p", {}, t("emptyText")),
    element("p", { class: "examples" }, element("span", {}, t("tryExample")), buttons),
  );
}

function showProblem() {
  const { problem } = state;
  $("problem").replaceChildren(...(problem ? [problemCard(problem)] : []));
}

function problemCard(problem) {
  const words = t("errors");
  const text = problem.code === "unreachable" ? t("unreachableText") : problem.code === "file" ? t(problem.message) : problem.message;
  const facts = [problem.status || "", problem.code, problem.requestId && `${t("requestId")} ${problem.requestId}`];
  const again = element("button", { type: "button", class: "quiet", onclick: () => $("ask").requestSubmit() }, problem.retryAfter ? t("retryIn")(problem.retryAfter) : t("retry"));
  return element(
    "div",
    { class: "problem" },
    element("p", { class: "title" }, words[problem.code] ?? words.other),
    element("p", {}, text),
    element("p", { class: "small" }, facts.filter(Boolean).join(" · ")),
    RETRYABLE.has(problem.status) && problem.code !== "file" && again,
  );
}

function showCall() {
  $("call").hidden = state.runs.length === 0;
  $("call-title").textContent = state.runs.length > 1 ? `${t("sameCall")} · ${NAMES[0]}` : t("sameCall");
  $("code").textContent = LANGUAGES[state.snippet](asked(state.settings[0]), Boolean(key()));
  $("tabs").replaceChildren(
    ...Object.keys(LANGUAGES).map((name) =>
      element("button", {
        type: "button", role: "tab", id: `tab-${name}`, class: "tab", tabIndex: name === state.snippet ? 0 : -1,
        "aria-selected": String(name === state.snippet), "aria-controls": "code", onclick: () => showSnippet(name), onkeydown: moveTab,
      }, name),
    ),
  );
  $("code").setAttribute("aria-labelledby", `tab-${state.snippet}`);
}

function showSnippet(name) {
  state.snippet = name;
  showCall();
  $(`tab-${name}`).focus();
}

function moveTab(event) {
  const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
  const names = Object.keys(LANGUAGES);
  if (step) showSnippet(names[(names.indexOf(state.snippet) + step + names.length) % names.length]);
}

function showAll() {
  showExamples();
  showSettings();
  showCount();
  showResults();
  showProblem();
  showCall();
  showServer($("server").dataset.state);
  showRunning();
}

function showRunning() {
  const running = Boolean(state.running);
  $("results").setAttribute("aria-busy", String(running));
  document.body.classList.toggle("running", running);
  $("rank").firstElementChild.textContent = t(running ? "stop" : "rank");
}

// ---- what happens

async function learnServer() {
  try {
    state.server = await api.info(key());
    state.models = state.server.models ?? [];
    state.instructions = (await api.instructions(key())).data ?? [];
    showServer("ready");
  } catch (error) {
    state.server = undefined;
    const closed = error.code === "unauthorized";
    if (closed) $("key-field").hidden = false;
    const other = closed ? "closed" : ((await api.health())?.state ?? "unreachable");
    showServer(other);
    if (other === "starting") setTimeout(learnServer, 1000);
  }
  showSettings();
  showCount();
}

async function rank() {
  if (state.running) return state.running.abort();
  const running = (state.running = new AbortController());
  showRunning();
  try {
    const texts = documents();
    const runs = await Promise.all(chosen().map((setting) => api.rerank(asked(setting), { key: key(), signal: running.signal })));
    Object.assign(state, { runs: runs.map((run) => ({ ...run, documents: texts })), problem: undefined });
    showResults({ animated: true });
    $("said").textContent = t("said")(texts[runs[0].answer.results?.[0]?.index ?? 0], texts.length);
    if (!state.server) await learnServer();
  } catch (error) {
    if (!running.signal.aborted) explain(error);
    running.abort();
  } finally {
    state.running = undefined;
    showRunning();
    showProblem();
    showCall();
    if (STACKED.matches && !running.signal.aborted) $("results").scrollIntoView({ behavior: "smooth" });
  }
}

function explain(error) {
  if (!(error instanceof api.CallError)) throw error;
  state.problem = error;
  if (error.code === "unauthorized") {
    $("key-field").hidden = false;
    $("key").focus();
  } else if (error.param === "query" || error.param === "documents") $(error.param).focus();
}

function fill({ query, documents: texts, instruction }) {
  if (query !== undefined) $("query").value = query;
  const { text, by } = join(texts);
  $("documents").value = text;
  $("split").value = by;
  if (instruction !== undefined) state.settings[0].instruction = instruction;
  showSettings();
  showCount();
}

function tryExample(name) {
  fill(EXAMPLES[name]);
  $("ask").requestSubmit();
}

async function take(file) {
  try {
    fill({ documents: await readFile(file) });
    state.problem = undefined;
  } catch (error) {
    state.problem = { code: "file", message: error.message };
  }
  showProblem();
}

function cycleTheme() {
  const root = document.documentElement;
  const dark = getComputedStyle(root).colorScheme === "dark" || (getComputedStyle(root).colorScheme !== "light" && matchMedia("(prefers-color-scheme: dark)").matches);
  root.style.colorScheme = dark ? "light" : "dark";
  localStorage.setItem("theme", root.style.colorScheme);
}

async function copy() {
  await navigator.clipboard?.writeText($("code").textContent);
  $("copy").textContent = t("copied");
  setTimeout(() => ($("copy").textContent = t("copy")), 1500);
}

function shortcut(event) {
  const typing = event.target.closest("input, textarea, select");
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) $("ask").requestSubmit();
  else if (event.key === "/" && !typing) {
    event.preventDefault();
    $("query").focus();
  } else if (event.key === "Escape" && state.running) state.running.abort();
  else if (event.target.matches(".row") && ["ArrowDown", "ArrowUp"].includes(event.key)) {
    event.preventDefault();
    (event.key === "ArrowDown" ? event.target.nextElementSibling : event.target.previousElementSibling)?.focus();
  }
}

/** A document that is pointed at is marked in both lists. */
function mark(event) {
  const index = event.target.closest?.(".row")?.dataset.index;
  for (const row of document.querySelectorAll(".two .row")) row.classList.toggle("marked", row.dataset.index === index);
}

function listen() {
  $("ask").addEventListener("submit", (event) => (event.preventDefault(), rank()));
  $("documents").addEventListener("input", showCount);
  $("split").addEventListener("change", showCount);
  $("compare").addEventListener("change", showSettings);
  $("example").addEventListener("change", (event) => event.target.value && tryExample(event.target.value));
  $("file").addEventListener("change", (event) => event.target.files[0] && take(event.target.files[0]));
  $("key").addEventListener("change", () => (sessionStorage.setItem("key", key()), learnServer()));
  $("language").addEventListener("click", () => changeLanguage(currentLanguage() === "en" ? "zh" : "en"));
  $("theme").addEventListener("click", cycleTheme);
  $("copy").addEventListener("click", copy);
  document.addEventListener("keydown", shortcut);
  $("lists").addEventListener("pointerover", mark);
  $("lists").addEventListener("focusin", mark);
  $("drop").addEventListener("dragover", (event) => (event.preventDefault(), $("drop").classList.add("over")));
  $("drop").addEventListener("dragleave", () => $("drop").classList.remove("over"));
  $("drop").addEventListener("drop", (event) => {
    $("drop").classList.remove("over");
    if (event.dataTransfer.files[0]) (event.preventDefault(), take(event.dataTransfer.files[0]));
  });
}

function changeLanguage(to) {
  translate(to);
  $("language").textContent = to === "zh" ? "English" : "中文";
  $("language").lang = to === "zh" ? "en" : "zh";
  showAll();
}

document.documentElement.style.colorScheme = localStorage.getItem("theme") ?? "";
$("key").value = sessionStorage.getItem("key") ?? "";
$("key-field").hidden = !key();
listen();
changeLanguage(preferredLanguage());
learnServer();
