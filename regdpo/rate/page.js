"use strict";
const $ = (id) => document.getElementById(id);
const still = matchMedia("(prefers-reduced-motion: reduce)").matches;
const RETRY = 1500; // milliseconds until a server that does not answer is asked again
const PAUSE = 700; // between two rounds of the videos
const DRIFT = 0.06; // seconds that one video may be ahead of the other
const UNSENT = "regdpo-rate-unsent"; // an answer that the server has not confirmed
const KNOWN = "regdpo-rate-rater";
const KEYS = "regdpo-rate-keys"; // "off": single keys do nothing

let who = null; // { rater, form }
let state = null; // what the server said last
let busy = true; // nothing is answered while something is sent or loaded
let shownAt = 0;
let round = 0; // a timer of an earlier item does nothing

// ---- asking the server -------------------------------------------------------------------------------------------

const memory = {
  get(key) { try { return localStorage.getItem(key); } catch { return null; } },
  set(key, value) { try { value === null ? localStorage.removeItem(key) : localStorage.setItem(key, value); } catch { /* private windows */ } },
};

async function ask(what, body) {
  for (;;) {
    let response, said;
    try {
      response = await fetch(`/api/${what}`, {
        method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body), cache: "no-store",
      });
      said = await response.json();
    } catch {
      warn("The server does not answer. Nothing is lost: this page goes on when it is back.");
      await new Promise((again) => setTimeout(again, RETRY));
      continue;
    }
    if (!response.ok) throw new Error(said.error);
    warn("");
    return said;
  }
}

async function attempt(work) {
  busy = true;
  document.body.classList.add("busy");
  try {
    await work();
  } catch (error) {
    warn(error.message);
    busy = false;
  }
  document.body.classList.remove("busy");
}

const say = (text) => { $("status").textContent = text; };
const warn = (text) => { $("alert").textContent = text; };

// An answer is kept here until the server has it, so that a closed page loses none either.
async function send(answer) {
  memory.set(UNSENT, JSON.stringify(answer));
  try {
    return await ask("answer", answer);
  } finally {
    memory.set(UNSENT, null);
  }
}

// ---- what is shown -----------------------------------------------------------------------------------------------

function view(name) {
  for (const main of document.querySelectorAll("main")) main.hidden = main.id !== name;
}

const element = (tag, values = {}, ...children) => {
  const made = Object.assign(document.createElement(tag), values);
  made.append(...children);
  return made;
};

function show(said) {
  const before = state?.item?.name;
  state = said;
  if (!said.item) return finish();
  view("rating");
  $("title").textContent = said.title;
  $("count").textContent = `${said.done + 1} of ${said.of}`;
  Object.assign($("progress"), { max: said.of, value: said.done });
  $("undo").disabled = !said.undo;
  if (said.item.name !== before) load(said.item);
  else busy = false;
  ask_questions();
}

function load(item) {
  const source = (which) => `/media/${item.name}/${which}?rater=${encodeURIComponent(who.rater)}`;
  round += 1;
  $("skip").hidden = true;
  $("prompt").textContent = item.prompt;
  $("prompt").scrollTop = 0;
  $("first").hidden = !item.first;
  if (item.first) $("first").src = source("first");
  else $("first").removeAttribute("src");
  const figures = item.sides.map((side) => {
    const label = item.sides.length < 2 ? "The video" : side === "left" ? "Left" : "Right";
    const video = element("video", { muted: true, playsInline: true, preload: "auto", src: source(side) });
    video.setAttribute("aria-label", `${label}${item.sides.length < 2 ? "" : " video"}`);
    video.addEventListener("click", replay);
    return element("figure", {}, video, element("figcaption", { textContent: label }));
  });
  $("videos").className = item.sides.length < 2 ? "single" : "";
  $("videos").replaceChildren(...figures);
  follow(videos(), round);
}

const videos = () => [...$("videos").querySelectorAll("video")];

// Videos start together, end together and wait for each other; the first leads.
function follow(all, mine) {
  const [first, ...others] = all;
  let ready = 0;
  for (const video of all) {
    video.addEventListener("loadeddata", () => {
      if (mine !== round || ++ready < all.length) return;
      shownAt = performance.now();
      busy = false;
      for (const button of document.querySelectorAll(".current button")) button.disabled = false;
      if (!still) replay();
    }, { once: true });
    video.addEventListener("error", () => {
      if (mine !== round) return;
      busy = false;
      $("skip").hidden = false;
      warn("A video cannot be played. Load the page again, or leave this one out.");
    });
    video.addEventListener("ended", () => {
      if (mine !== round || still || !all.every((it) => it.ended)) return;
      setTimeout(() => { if (mine === round) replay(); }, PAUSE);
    });
  }
  first.addEventListener("timeupdate", () => {
    for (const video of others) if (!video.ended && Math.abs(video.currentTime - first.currentTime) > DRIFT) video.currentTime = first.currentTime;
  });
}

function replay() {
  for (const video of videos()) {
    video.currentTime = 0;
    video.play().catch(() => {});
  }
}

// ---- questions ---------------------------------------------------------------------------------------------------

const open_question = () => state.questions.find((question) => !(question.axis in state.item.said));
const loaded = () => videos().every((video) => video.readyState >= 2);

function ask_questions() {
  const current = open_question();
  $("questions").replaceChildren(...state.questions.map((question) => {
    const mine = question === current;
    const said = state.item.said[question.axis];
    const buttons = state.answers.map(([value, label], index) => {
      const button = element("button", { type: "button", disabled: !mine || !loaded() }, label);
      if (mine) {
        button.append(" ", element("kbd", { textContent: index + 1 }));
        button.dataset.key = index + 1;
        button.addEventListener("click", () => answer(value));
      }
      button.setAttribute("aria-pressed", value === said);
      return button;
    });
    const group = element("div", { className: mine ? "question current" : "question", id: `question-${question.axis}`, tabIndex: -1 },
      element("h2", { id: `title-${question.axis}`, textContent: question.title }),
      element("p", { id: `text-${question.axis}`, textContent: question.text }),
      element("div", { className: "answers" }, ...buttons));
    group.setAttribute("role", "group");
    group.setAttribute("aria-labelledby", `title-${question.axis}`);
    group.setAttribute("aria-describedby", `text-${question.axis}`);
    if (mine) group.setAttribute("aria-current", "step");
    return group;
  }));
  tell_keys();
  if (current) $(`question-${current.axis}`).focus({ preventScroll: true });
}

function answer(value) {
  if (busy || !state?.item || !(value === "skip" || loaded())) return;
  const question = open_question();
  const label = Object.fromEntries(state.answers)[value] ?? "Left out";
  const seconds = shownAt ? (performance.now() - shownAt) / 1000 : 0;
  attempt(async () => {
    const said = await send({ ...who, item: state.item.name, axis: question.axis, answer: value, seconds: Math.min(seconds, 86400) });
    const next = said.item ? `${said.done + 1} of ${said.of}` : "all done";
    say(`${question.title}: ${label}. ${said.item?.name === state.item.name ? "" : `Next, ${next}.`}`);
    show(said);
  });
}

async function leave_out() {
  const name = state.item.name;
  while (state.item?.name === name && open_question()) {
    const asked = { ...who, item: name, axis: open_question().axis, answer: "skip", seconds: 0 };
    await attempt(async () => {
      const said = await send(asked);
      if (said.item?.name === name) state = said;
      else { say("Left out."); show(said); }
    });
    if ($("alert").textContent) return;
  }
}

function undo() {
  if (!state?.undo) return;
  attempt(async () => {
    const said = await ask("undo", who);
    say("Taken back. Answer it again.");
    show(said);
  });
}

function finish() {
  round += 1;
  $("videos").replaceChildren();
  $("all").textContent = state.of ? `All ${state.of} are done.` : "There is nothing to rate of this kind.";
  $("back").hidden = !state.undo;
  view("done");
  busy = false;
  $("done").focus();
}

function start() {
  round += 1;
  $("videos").replaceChildren();
  state = null;
  busy = false;
  say("");
  view("start");
  $("rater").focus();
}

// ---- keys and buttons --------------------------------------------------------------------------------------------

// Speech input and shaking hands press keys that nobody meant: single ones can be switched off (WCAG 2.1.4).
function tell_keys() {
  const on = $("keys").checked;
  document.body.classList.toggle("keyless", !on);
  for (const button of document.querySelectorAll("[data-key]")) {
    if (on) button.setAttribute("aria-keyshortcuts", button.dataset.key);
    else button.removeAttribute("aria-keyshortcuts");
  }
}

document.addEventListener("keydown", (event) => {
  const typing = event.target.closest("input:not([type=checkbox]), textarea, select");
  if (!state || !$("keys").checked || typing || event.ctrlKey || event.metaKey || event.altKey || event.repeat) return;
  const key = event.key.toLowerCase();
  if (key === "z") return busy || undo();
  if (!state.item) return;
  if (key === "s" && !$("skip").hidden) return busy || leave_out();
  if (key === " " && !event.target.closest("button, input")) {
    event.preventDefault();
    replay();
  }
  const chosen = state.answers[Number(key) - 1];
  if (chosen) answer(chosen[0]);
});
$("keys").checked = memory.get(KEYS) !== "off";
$("keys").addEventListener("change", () => {
  memory.set(KEYS, $("keys").checked ? null : "off");
  tell_keys();
  say($("keys").checked ? "Single keys are on." : "Single keys are off.");
});
tell_keys();
$("replay").addEventListener("click", replay);
$("undo").addEventListener("click", () => busy || undo());
$("back").addEventListener("click", () => busy || undo());
$("skip").addEventListener("click", () => busy || leave_out());
$("other").addEventListener("click", start);
$("begin").addEventListener("submit", (event) => {
  event.preventDefault();
  const values = new FormData(event.target);
  who = { rater: values.get("rater"), form: values.get("form") };
  memory.set(KNOWN, who.rater);
  attempt(async () => {
    const unsent = memory.get(UNSENT);
    if (unsent) await send(JSON.parse(unsent)).catch(() => {});
    show(await ask("next", who));
  });
});
$("rater").value = memory.get(KNOWN) ?? "";
start();
