/* The page of a room. It uses tambur.js, which comes from the Tambur server. */
"use strict";

const { apiKey, appId, room: roomName, user, tokenUrl } = document.body.dataset;
const isAdmin = "admin" in document.body.dataset;
const MAX_SHOWN = 500;
const REFUSALS = {
  400: "That is empty or too long. It was not sent.",
  403: "You may not do that. If you have logged out, log in again.",
  503: "Tambur does not answer. Your message may not have arrived.",
};

const messages = document.querySelector("#messages");
const people = document.querySelector("#people");
const others = document.querySelector("#others");
const state = document.querySelector("#state");
const notice = document.querySelector("#notice");
const compose = document.querySelector("#compose");
const { to: receiver, text: input } = compose.elements;

const connection = new tambur.Connection(apiKey, appId);
// The messages of a room are "auth:" messages, so that only those who may enter receive them.
const room = connection.get_stream(roomName);
const adminNotes = isAdmin ? connection.get_stream(`${roomName}-admins`) : null;
// The other users in the room.
const present = new Set();

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
  (isConnected() ? notice : state).textContent = error.message;
};

// While a connection is lost, its modes stay enabled. It continues with all that was missed.
connection.onstate = connection.onresume = showState;

// Called again only if the connection could not continue. Then no mode is enabled.
room.ready = () => {
  present.clear();
  room.enable_auth();
  room.enable_presence(user);
  room.enable_direct(user);
};
room.onenabled = room.ondisabled = showState;
room.onpresence = ([name, what]) => {
  if (what === "up") present.add(name);
  else present.delete(name);
  showPeople();
};
// Only the application publishes these, so their form is known.
room.onauth = (text) => show(JSON.parse(text));
room.ondirect = ([from, text]) => show({ from, to: `@${user}`, text });

if (adminNotes) {
  adminNotes.ready = () => adminNotes.enable_auth();
  adminNotes.onenabled = adminNotes.ondisabled = showState;
  adminNotes.onauth = (text) => show(JSON.parse(text));
}

function isConnected() {
  const isReady = (stream, modes) => stream.active && stream.enabled_modes.length === modes;
  return isReady(room, 3) && (!adminNotes || isReady(adminNotes, 1));
}

function showState() {
  state.textContent = isConnected() ? "" : "Connecting…";
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
  if (!isConnected()) throw new Error("There is no connection just now. It was not sent.");
  if (message.to.startsWith("@")) {
    const name = message.to.slice(1);
    if (!present.has(name)) throw new Error(`${name} is not here any more. It was not sent.`);
    room.direct_msg(name, message.text);
  } else {
    await post(compose.action, { to: message.to, text: message.text });
  }
  // All other messages come back from Tambur, as they do to all other receivers.
  if (message.to.startsWith("@") || (message.to === "admins" && !isAdmin)) show(message);
}

/** Text from users goes into the page as text, never as HTML. */
function element(name, text, ...children) {
  const made = document.createElement(name);
  made.append(text, ...children);
  return made;
}

function show({ from, to, text }) {
  const isAtEnd = messages.scrollTop + messages.clientHeight > messages.scrollHeight - 20;
  const head = element("p", element("b", from));
  if (to === "admins") head.append(" to the admins");
  if (to.startsWith("@")) head.append(` only to ${to === `@${user}` ? "you" : to.slice(1)}`);
  head.append(" ", element("time", new Date().toLocaleTimeString([], { timeStyle: "short" })));
  const item = element("li", head, element("p", text));
  item.className = to.startsWith("@") ? "direct" : to;
  const list = messages.querySelector("ol");
  list.append(item);
  if (list.children.length > MAX_SHOWN) list.firstChild.remove();
  if (isAtEnd) messages.scrollTop = messages.scrollHeight;
}

function showPeople() {
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
