"use strict";
// The page of the lanterns. It follows its WebSocket and calls the API; which commands there are
// and where the API is stands in the page (#config).

const config = JSON.parse(document.getElementById("config").textContent);
const api = config.api || `${location.protocol}//${location.hostname}:${config.apiPort}`;
const RETRY_MS = 1000;
const ASKS = 30; // times that the page asks for an unknown outcome
const ANSWER_MS = 5000; // the API itself says 503 or 504 before that

const body = document.body;
const byId = (id) => document.getElementById(id);
const light = new Map(); // what a command sets -> the last one of it
const kinds = new Map(config.commands.map((kind) => [kind.name, kind]));
const buttons = new Map();
const inputs = new Map();

// What is drawn

function draw() {
  const power = light.get("power");
  const color = light.get("color");
  const on = power !== undefined && power.command === "ON";
  if (color) document.documentElement.style.setProperty("--color", `#${color.value}`);
  body.classList.toggle("lit", on);
  const words = power ? (on ? "On" : "Off") : "Nobody has lit it yet";
  const shines = byId("shines");
  shines.textContent = "";
  if (color) shines.append(document.createElement("i"));
  shines.append(color ? `${words}, #${color.value}` : words);
  byId("look").textContent = `A lantern: ${color ? `${words}, colour #${color.value}` : words}`;
  for (const [name, button] of buttons) {
    const kind = kinds.get(name);
    if (!kind.form) button.setAttribute("aria-pressed", String((light.get(kind.sets) || {}).command === name));
  }
}

function count(number) {
  byId("number").textContent = number === null ? "–" : String(number);
  byId("unit").textContent = number === 1 ? "lantern connected" : "lanterns connected";
}

function say(connected, words) {
  body.classList.toggle("cut", !connected);
  byId("said").textContent = words;
}

// What we hear

function heard(message) {
  if ("lanterns" in message) {
    count(message.lanterns);
    const there = message.lanterns !== null;
    say(there, there ? "Connected" : "Cut off: the server has lost the bus");
    return;
  }
  const kind = kinds.get(message.command);
  if (!kind) return; // a newer server's command: a reload will know it
  light.set(kind.sets, message);
  const input = inputs.get(message.command);
  if (input && input !== document.activeElement) input.value = shown(kind, message.value);
  draw();
}

function listen() {
  const address = new URL("ws", location.href); // beside the page, wherever a proxy has put it
  address.protocol = location.protocol === "https:" ? "wss:" : "ws:";
  const socket = new WebSocket(address);
  let patience;
  function end() {
    // The silent connection's own end is not waited for: a browser takes a minute to give it up.
    clearTimeout(patience);
    socket.onmessage = socket.onclose = null;
    socket.close();
    say(false, "Cut off: trying again…");
    count(null);
    setTimeout(listen, RETRY_MS);
  }
  function wait() {
    clearTimeout(patience);
    patience = setTimeout(end, config.silenceMs);
  }
  socket.onmessage = (event) => {
    wait();
    heard(JSON.parse(event.data));
  };
  socket.onclose = end;
  wait();
}

// What we say

const shown = (kind, value) => (kind.form === "color" ? `#${value}` : value);
const meant = (kind, value) => (kind.form === "color" ? value.replace("#", "") : value);

const problem = (words) => (byId("problem").textContent = words);
const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

async function outcome(kind, id) {
  // Accepted, or not, or not known yet: ask until the service can tell.
  problem(`${kind.label}: the outcome is unknown. Asking…`);
  for (let tries = 0; tries < ASKS; tries += 1) {
    await pause(RETRY_MS);
    try {
      const response = await fetch(`${api}/requests/${id}`, { signal: AbortSignal.timeout(ANSWER_MS) });
      const answer = await response.json();
      if (answer.outcome === "accepted") return problem("");
      if (answer.outcome) return problem(`${kind.label}: not accepted. Nothing was done.`);
    } catch {
      // it is away: try again
    }
  }
  return problem(`${kind.label}: the outcome is unknown (request ${id}).`);
}

async function call(kind) {
  const input = inputs.get(kind.name);
  const button = buttons.get(kind.name);
  const params = { command: kind.name, value: input ? meant(kind, input.value) : null };
  button.setAttribute("aria-busy", "true");
  try {
    const response = await fetch(api, {
      method: "POST",
      body: JSON.stringify({ method: "message", params }),
      signal: AbortSignal.timeout(ANSWER_MS),
    });
    const { error } = await response.json();
    if (!error) problem("");
    else if (error.id) await outcome(kind, error.id);
    else problem(`${kind.label}: ${error.message}`);
  } catch {
    problem(`${kind.label}: the API at ${api} does not answer. The outcome is unknown: look at the lantern.`);
  } finally {
    button.removeAttribute("aria-busy");
  }
}

function build(kind) {
  const button = document.createElement("button");
  button.type = "button";
  button.id = `command-${kind.name}`;
  button.textContent = kind.label;
  button.addEventListener("click", () => call(kind));
  buttons.set(kind.name, button);
  if (!kind.form) return button;
  const input = document.createElement("input");
  input.type = kind.form;
  input.id = `value-${kind.name}`;
  input.setAttribute("aria-label", kind.label);
  if (kind.form === "color") input.value = "#ffc857";
  if (kind.form === "range") Object.assign(input, { min: 0, max: 255, value: 255 });
  input.addEventListener("change", () => call(kind));
  inputs.set(kind.name, input);
  const both = document.createElement("div");
  both.className = "with";
  both.append(button, input);
  return both;
}

byId("commands").append(...config.commands.map(build));
draw();
listen();
