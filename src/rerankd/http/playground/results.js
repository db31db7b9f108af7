// The ranked lists: a bar for each score, the way from input order, the threshold across all of them.
import { element } from "./dom.js";
import { number, t } from "./i18n.js";
import { NAMES } from "./settings.js";

const FEW = 100;

/**
 * Documents of an answer from the best to the worst, those without a score at the end.
 *
 * The server's order, not one by score: a cascade has scores of two models, which have no common scale.
 */
export function ranking(answer) {
  const ranked = answer.results.map(({ index }) => index);
  const rest = [...answer.scores.keys()].filter((index) => !ranked.includes(index));
  return [...ranked, ...rest].map((index) => ({ index, score: answer.scores[index] }));
}

/**
 * The lists of all runs, each `{ answer, milliseconds, documents }`.
 *
 * `threshold` is `{ value }` and shared: moving it in one list moves it in the other.
 */
export function resultLists(runs, threshold) {
  const orders = runs.map((run) => ranking(run.answer));
  const lists = runs.map((run, place) => new List(run, orders[place], place, runs.length > 1, place > 0 && orders[0], threshold));
  const follow = () => lists.forEach((list) => list.follow(threshold.value));
  lists.forEach((list) => (list.onThreshold = follow));
  follow();
  return lists;
}

class List {
  onThreshold = () => {};

  constructor(run, order, place, several, first, threshold) {
    this.order = order;
    this.run = run;
    this.rows = order.map((entry, rank) => row(entry, rank, run, first && first.findIndex((other) => other.index === entry.index)));
    this.list = element("ol", { class: "rows" }, this.rows.slice(0, FEW));
    this.passing = element("output", { class: "passing" });
    this.slider = element("input", {
      type: "range", min: 0, max: 1, step: 0.01, value: threshold.value, "aria-label": t("threshold"),
      oninput: (event) => ((threshold.value = Number(event.target.value)), this.onThreshold()),
    });
    this.bubble = element("span", { class: "bubble", "aria-hidden": "true" });
    this.element = element(
      "section",
      { class: `list list-${NAMES[place].toLowerCase()}`, "aria-label": several ? NAMES[place] : t("results") },
      element("div", { class: "list-bar" }, several && element("span", { class: "badge" }, NAMES[place]), facts(run)),
      warnings(run.answer),
      element("div", { class: "scale" }, this.slider, this.bubble, this.passing),
      this.list,
      order.length > FEW && this.more(order.length),
    );
  }

  more(count) {
    const button = element("button", { type: "button", class: "quiet more", onclick: () => (this.list.append(...this.rows.slice(FEW)), button.remove()) }, t("more")(count));
    return button;
  }

  follow(value) {
    this.element.style.setProperty("--threshold", value);
    this.slider.value = value;
    this.bubble.textContent = value.toFixed(2);
    const passing = this.order.map(({ score }) => score !== null && score >= value);
    passing.forEach((does, place) => this.rows[place].classList.toggle("below", !does));
    this.passing.textContent = t("passing")(passing.filter(Boolean).length, passing.length);
  }

  /** Rows glide from where they stood in the input to their place. */
  animate() {
    if (matchMedia("(prefers-reduced-motion: reduce)").matches || this.order.length > FEW) return;
    const after = this.rows.map((one) => one.getBoundingClientRect().top);
    const inInput = [...this.rows.keys()].sort((one, other) => this.order[one].index - this.order[other].index);
    this.list.append(...inInput.map((place) => this.rows[place]));
    const before = this.rows.map((one) => one.getBoundingClientRect().top);
    this.list.append(...this.rows);
    this.rows.forEach((one, place) => {
      const from = { transform: `translateY(${before[place] - after[place]}px)` };
      one.animate([from, { transform: "none" }], { duration: 420, easing: "cubic-bezier(.2,.8,.2,1)" });
    });
  }
}

function row({ index, score }, rank, run, rankInFirst) {
  const places = index - rank;
  const way = places > 0 ? "up" : places < 0 ? "down" : "same";
  const arrow = { up: "▲", down: "▼", same: "•" }[way];
  const shown = score === null ? t("unscored") : number(score, 3);
  const error = run.answer.errors?.find((one) => one.index === index);
  const elsewhere = typeof rankInFirst === "number" && rankInFirst !== rank;
  const said = run.answer.results.find((one) => one.index === index) ?? {};
  const notes = [error?.message, elsewhere && t("inOther")(rankInFirst + 1), said.rescored === false && t("byFirst"), said.team && t("team")(said.team)];
  const text = element("p", { class: "text" }, passages(run.documents[index], said.best_passage));
  return element(
    "li",
    {
      class: "row", tabIndex: 0, "data-index": index, style: { "--score": score ?? 0 },
      onkeydown: (event) => event.key === "Enter" && text.classList.toggle("whole"),
      ondblclick: () => text.classList.toggle("whole"),
    },
    element("span", { class: "rank" }, String(rank + 1)),
    element(
      "span",
      { class: `way ${way}`, title: t("fromPlace")(index + 1) },
      element("span", { "aria-hidden": "true" }, places ? `${arrow} ${Math.abs(places)}` : arrow),
      element("span", { class: "visually-hidden" }, t("moved")(places)),
    ),
    element("div", { class: "what" }, text, notes.filter(Boolean).map((note) => element("p", { class: "note" }, note))),
    element("span", { class: "score" }, shown),
  );
}

/** A document with its best passage marked; what is around it shows once the row is opened. Offsets are code points. */
function passages(document, best) {
  const points = best ? Array.from(document) : [];
  if (!best || best.end - best.start >= points.length) return document;
  const part = (from, to) => points.slice(from, to).join("");
  return [
    element("span", { class: "around" }, part(0, best.start)),
    element("mark", { title: t("bestPassage")(best.start, best.end) }, part(best.start, best.end)),
    element("span", { class: "around" }, part(best.end)),
  ];
}

/** Time, tokens and cache of a run, with its time as a bar of parts. */
function facts({ answer, milliseconds }) {
  const { total = 0, ...parts } = answer.meta?.timings_ms ?? {};
  const phases = { ...parts, [t("inBrowser")]: Math.max(0, milliseconds - total) };
  const whole = Object.values(phases).reduce((sum, part) => sum + part, 0) || 1;
  const told = Object.entries(phases).map(([name, part]) => `${name} ${number(part, 1)} ms`).join(" · ");
  const cached = answer.meta?.cached_documents;
  const { experiment, cascade, calibration, long_documents: long } = answer.meta ?? {};
  return element(
    "div",
    { class: "facts" },
    element("strong", {}, t("milliseconds")(number(milliseconds))),
    element("span", { class: "phases", role: "img", "aria-label": told, title: told }, Object.values(phases).map((part) => element("i", { style: { "flex-grow": String(part / whole) } }))),
    element("span", {}, t("tokens")(number(answer.usage?.total_tokens ?? 0))),
    cached ? element("span", {}, t("cached")(number(cached))) : undefined,
    long?.chunks ? element("span", {}, t("chunks")(number(long.chunks))) : undefined,
    cascade && element("span", {}, t("rescored")(number(cascade.rescored), number(answer.scores.length), cascade.first)),
    calibration && element("span", {}, t("calibrated")(calibration)),
    experiment && element("span", {}, t("arm")(experiment.name, experiment.arm)),
  );
}

function warnings(answer) {
  const said = answer.meta?.warnings ?? [];
  return element("p", { class: "warning" }, said.join(" "));
}
