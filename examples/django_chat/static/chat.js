/* The page of all rooms. It uses tambur.js, which comes from the Tambur server. */
"use strict";

const { apiKey, appId, room: firstRoom, user, tokenUrl } = document.body.dataset;
const isAdmin = "admin" in document.body.dataset;
const MAX_SHOWN = 500;
const REFUSALS = {
  400: "That is empty or too long. It was not sent.",
  403: "You may not do that. If you have logged out, log in again.",
  503: "Tambur does not answer. Your message may not have arrived.",
};

const NO_CONNECTION = "There is no connection just now. It was not sent.";
const MODES = ["auth", "presence", "direct"];

const links = new Map([...document.querySelectorAll("nav a")].map((link) => [link.textContent, link]));
const messages = document.querySelector("#messages");
const people = document.querySelector("#people");
const others = document.querySelector("#others");
const state = document.querySelector("#state");
const notice = document.querySelector("#notice");
const compose = document.querySelector("#compose");
const { to: receiver, text: input } = compose.elements;

const connection = new tambur.Connection(apiKey, appId);
/** Send a form to the application. Throws if the application refuses it. */
async function post(url, fields) {
  const csrf = compose.querySelector("input[type=hidden]");
  const body = new URLSearchParams({ [csrf.name]: csrf.value, ...fields });
  const answer = await fetch(url, { method: "POST", body });
  if (!answer.ok) throw new Error(REFUSALS[answer.status] ?? `The server answered ${answer.status}.`);
  return answer;
}

connection.ontoken = async (mode, stream, subscriber_id) =>
  (await (await post(tokenUrl, { mode, stream, subscriber_id })).json()).token;
connection.onerror = (error) => {
  // A room asks again for what was refused when its user enters it again.
  if (error.stream) rooms.get(error.stream.replace(/-admins$/, ""))?.asked.clear();
  (isConnected() ? notice : state).textContent = error.message;
};
// While a connection is lost, its modes stay enabled. It continues with all that was missed.
connection.onstate = showState;
connection.onresume = () => {
  for (const room of rooms.values()) room.choose();
  showState();
};

/** A room that the user has entered. Its messages arrive from then on, also while the user is in another room. */
class Room {
  constructor(name) {
    this.name = name;
    this.url = links.get(name).href;
    this.list = document.createElement("ol");
    this.unread = 0;
    this.present = new Set(); // the other users
    this.asked = new Set(); // the modes that have been asked for
    // The messages of a room are "auth:" messages, so that only those who may enter receive them.
    this.stream = connection.get_stream(name);
    this.notes = isAdmin ? connection.get_stream(`${name}-admins`) : null;
    // Called again only if the connection could not continue. Then no mode is enabled.
    this.stream.ready = () => {
      this.asked.clear();
      this.present.clear();
      this.choose();
    };
    this.stream.onenabled = (mode) => {
      this.asked.delete(mode);
      this.choose();
    };
    this.stream.ondisabled = (mode) => {
      if (mode === "presence") this.present.clear();
      showState();
    };
    this.stream.onpresence = ([name, what]) => {
      if (what === "up") this.present.add(name);
      else this.present.delete(name);
      showPeople();
    };
    // Only the application publishes these, so their form is known.
    this.stream.onauth = (text) => show(this, JSON.parse(text));
    this.stream.ondirect = ([from, text]) => show(this, { from, to: `@${user}`, text });
    this.stream.onmissed = () => this.list.append(element("li", "Some messages are missing here."));
    if (!this.notes) return;
    this.notes.ready = () => this.notes.enable_auth();
    this.notes.onenabled = this.notes.ondisabled = showState;
    this.notes.onauth = this.stream.onauth;
    this.notes.onmissed = this.stream.onmissed;
  }

  /** Enable the modes that the room needs: one is present in the current room only. */
  choose() {
    const { stream, asked } = this;
    for (const mode of stream.active ? MODES : []) {
      const isEnabled = stream.enabled_modes.includes(mode);
      const isWanted = mode === "auth" || this === current;
      if (isEnabled && !isWanted) stream[`disable_${mode}`]();
      if (!isEnabled && isWanted && !asked.has(mode)) {
        asked.add(mode);
        stream[`enable_${mode}`](...(mode === "auth" ? [] : [user]));
      }
    }
    showState();
  }
}

const rooms = new Map();
let current = null;

/** Show a room, and enter it. */
function enter(name) {
  const left = current;
  if (!rooms.has(name)) rooms.set(name, new Room(name));
  current = rooms.get(name);
  current.unread = 0;
  document.title = `${name} · Tambur chat`;
  for (const [other, link] of links) {
    if (other === name) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  if (receiver.value.startsWith("@")) receiver.value = "everybody";
  messages.replaceChildren(current.list);
  messages.scrollTop = messages.scrollHeight;
  left?.choose();
  current.choose();
  showUnread();
}

for (const [name, link] of links) {
  link.addEventListener("click", (event) => {
    // A click with a key opens a tab or window, as usual.
    if (event.ctrlKey || event.metaKey || event.shiftKey || event.altKey) return;
    event.preventDefault();
    if (name === current.name) return;
    history.pushState(null, "", link.href);
    enter(name);
  });
}
addEventListener("popstate", () => {
  for (const [name, link] of links) if (link.href === location.href) enter(name);
});

function isConnected() {
  const isReady = (stream, modes) => stream.active && stream.enabled_modes.length === modes;
  return isReady(current.stream, 3) && (!isAdmin || isReady(current.notes, 1));
}

function showState() {
  const isBack = isConnected();
  state.textContent = isBack ? "" : "Connecting…";
  if (isBack && notice.textContent === NO_CONNECTION) notice.textContent = "";
  showPeople();
}

compose.addEventListener("submit", async (event) => {
  event.preventDefault();
  const message = { from: user, to: receiver.value, text: input.value.trim() };
  try {
    await send(message);
    if (input.value.trim() === message.text) input.value = "";
    notice.textContent = "";
  } catch (error) {
    notice.textContent = error.message;
  }
});

async function send(message) {
  const room = current;
  if (!isConnected()) throw new Error(NO_CONNECTION);
  if (message.to.startsWith("@")) {
    const name = message.to.slice(1);
    if (!room.present.has(name)) throw new Error(`${name} is not here any more. It was not sent.`);
    room.stream.direct_msg(name, message.text);
  } else {
    await post(`${room.url}/messages`, { to: message.to, text: message.text });
  }
  // All other messages come back from Tambur, as they do to all other receivers.
  if (message.to.startsWith("@") || (message.to === "admins" && !isAdmin)) show(room, message);
}

/** Text from users goes into the page as text, never as HTML. */
function element(name, text, ...children) {
  const made = document.createElement(name);
  made.append(text, ...children);
  return made;
}

function show(room, { from, to, text }) {
  const isAtEnd = messages.scrollTop + messages.clientHeight > messages.scrollHeight - 20;
  const head = element("p", element("b", from));
  if (to === "admins") head.append(" to the admins");
  if (to.startsWith("@")) head.append(` only to ${to === `@${user}` ? "you" : to.slice(1)}`);
  head.append(" ", element("time", new Date().toLocaleTimeString([], { timeStyle: "short" })));
  const item = element("li", head, element("p", text));
  item.className = to.startsWith("@") ? "direct" : to;
  item.toggleAttribute("data-mine", from === user);
  room.list.append(item);
  if (room.list.children.length > MAX_SHOWN) room.list.firstChild.remove();
  if (room !== current) {
    room.unread += 1;
    showUnread();
  } else if (isAtEnd) messages.scrollTop = messages.scrollHeight;
}

/** Say at each room's link how many messages have come since the user left it. */
function showUnread() {
  for (const [name, link] of links) {
    const unread = rooms.get(name)?.unread;
    link.replaceChildren(name, ...(unread ? [" ", element("span", String(unread), element("i", " new"))] : []));
  }
}

function showPeople() {
  const { present } = current;
  const names = isConnected() ? [...present].sort() : [];
  const items = names.map((name) => element("li", name));
  if (isConnected()) items.unshift(element("li", `${user} (you)`));
  people.replaceChildren(...items);
  // The chosen user stays chosen after leaving: a message for one user must not go to everybody.
  const chosen = receiver.value;
  if (chosen.startsWith("@") && !names.includes(chosen.slice(1))) names.push(chosen.slice(1));
  others.replaceChildren(
    ...names.map((name) => {
      const option = element("option", present.has(name) ? `Only ${name}` : `Only ${name} (not here)`);
      option.value = `@${name}`;
      return option;
    }),
  );
  receiver.value = chosen;
}

enter(firstRoom);
