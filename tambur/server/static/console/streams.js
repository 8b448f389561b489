// The panel "Streams": search, and the stream that is followed.

import { $, ask, bytes, element, labelled, setRows } from "./page.js";
import { Trace } from "./trace.js";

let stream = null; // the one that is followed: its app, its name, its live events and its trace

function streamHash(app, name) {
  return `#/streams/${encodeURIComponent(app)}/${encodeURIComponent(name)}`;
}

export function setApps(names) {
  const apps = new Set(names.map((name) => name.split("/")[1]));
  const chosen = $("streams-app").value;
  $("streams-app").replaceChildren(...names.map((name) => element("option", {
    value: name, textContent: apps.size === names.length ? name.split("/")[1] : name,
  })));
  if (names.includes(chosen)) $("streams-app").value = chosen;
}

export async function showStreams() {
  const app = $("streams-app").value;
  const prefix = $("streams-prefix").value;
  if (!app || $("streams").hidden || stream) return;
  let found;
  try {
    found = await ask("/streams", { app, prefix });
  } catch (error) {
    $("streams-shown").textContent = error.message;
    return;
  }
  if (app !== $("streams-app").value || prefix !== $("streams-prefix").value) return;
  const { streams, more } = found;
  $("streams-shown").textContent = more ? `the first ${streams.length}` : `${streams.length} found`;
  setRows($("streams-rows"), streams, ({ stream: name }) => `${app} ${name}`, ({ stream: name, subscribers, users, kept }) => element(
    "tr", {},
    element("td", {}, element("a", { href: streamHash(app, name), textContent: name })),
    ...[subscribers, users, kept].map((count) => element("td", { className: "number", textContent: count })),
  ));
}

// Present users and subscribers

async function showUsers() {
  const shown = stream;
  if (!shown) return;
  let found;
  try {
    found = await ask("/stream", { app: shown.app, stream: shown.name });
  } catch (error) {
    $("users-count").textContent = error.message;
    return;
  }
  if (shown !== stream) return;
  const { users, more_users: more, kept, more_kept: moreKept } = found;
  showSubscribers(found);
  $("users-count").textContent = `${users.length}${more ? " and more" : ""}; kept messages: ${kept}${moreKept ? " and more" : ""}`;
  setRows($("users"), users, (user) => user, (user) => {
    const button = element("button", { textContent: "Disconnect", className: "danger", type: "button" });
    button.setAttribute("aria-label", `Disconnect ${user}`);
    button.addEventListener("click", () => disconnect({ user_id: user }, `the user ${user}`));
    return element("li", {}, user, button);
  });
}

async function reveal(handle) {
  const { app, name, ids } = stream;
  try {
    const { subscriber_id: id } = await ask("/subscriber", null, { app, stream: name, handle });
    ids.set(handle, id);
    return id;
  } catch (error) {
    $("disconnect-answer").textContent = error.message;
    return null;
  }
}

function subscriberRow({ handle, id, number, auth, presence, direct, waiting_bytes: waiting }) {
  const show = element("button", { textContent: "Show", type: "button", ariaLabel: `Show the ID of subscriber ${number}` });
  show.addEventListener("click", async () => { await reveal(handle); showUsers(); });
  const end = element("button", { textContent: "Disconnect", type: "button", className: "danger", ariaLabel: `Disconnect subscriber ${number}` });
  end.addEventListener("click", async () => {
    const found = await reveal(handle);
    if (found) disconnect({ subscriber_id: found }, "this subscriber");
  });
  return element(
    "tr", {},
    element("td", {}, id ? element("span", { textContent: id, tabIndex: -1 }) : show), // it takes the focus of the button
    labelled("auth", auth ? "yes" : "no"), labelled("present as", presence ?? "–"), labelled("direct as", direct ?? "–"),
    labelled("waiting", bytes(waiting), "number"), element("td", {}, end),
  );
}

function showSubscribers({ subscribers, more_subscribers: more }) {
  $("subscribers-count").textContent = `${more ? "the first " : ""}${subscribers.length}, on this node`;
  $("subscribers-table").hidden = !subscribers.length;
  const items = subscribers.map((subscriber, i) => ({ ...subscriber, number: i + 1, id: stream.ids.get(subscriber.handle) }));
  setRows($("subscribers"), items, ({ handle }) => handle, subscriberRow);
}

async function disconnect(target, words) {
  if (!confirm(`Disconnect ${words}? All sessions end, and their tokens are void.`)) return;
  try {
    const { disconnected } = await ask("/disconnect", null, { app: stream.app, ...target });
    $("disconnect-answer").textContent = `${disconnected} disconnected`;
  } catch (error) {
    $("disconnect-answer").textContent = error.message;
  }
  showUsers();
}

// The followed stream

// Which nodes the trace has, as far as the other nodes have answered.
function followingText(reports) {
  const answered = reports.filter((report) => !report.failed).length;
  const failed = reports.filter((report) => report.failed).map((report) => `; ${report.node}: ${report.failed}`);
  return `following${answered ? ` on ${answered + 1} nodes` : ""}${failed.join("")}`;
}

export function follow(app, name) {
  stream?.source.close();
  const source = new EventSource(`/follow?${new URLSearchParams({ app, stream: name })}`);
  const trace = new Trace();
  const opened = { app, name, source, ids: new Map() };
  stream = opened;
  const on = (event, take) => source.addEventListener(event, ({ data }) => {
    if (stream === opened) take(JSON.parse(data));
  });
  source.addEventListener("open", () => trace.clear());
  source.addEventListener("error", () => {
    if (stream !== opened) return;
    $("stream-state").textContent = "not following; trying again";
    if (source.readyState === EventSource.CLOSED) {
      setTimeout(() => stream === opened && follow(app, name), 2000);
    }
  });
  on("failed", (reason) => { $("stream-state").textContent = reason; });
  on("publications", (publications) => trace.add(publications));
  on("reports", (reports) => {
    trace.report(reports);
    $("stream-state").textContent = followingText(reports);
  });
  $("stream-name").textContent = name;
  for (const id of ["stream-state", "publish-answer", "disconnect-answer", "users-count", "subscribers-count"]) $(id).textContent = "";
  for (const id of ["users", "subscribers"]) $(id).replaceChildren();
  trace.show();
  showUsers();
}

export function unfollow() {
  stream?.source.close();
  stream = null;
}

export function isFollowing() {
  return stream !== null;
}

$("streams-app").addEventListener("change", showStreams);
$("streams-prefix").addEventListener("input", showStreams);
$("search").addEventListener("submit", () => {
  if ($("streams-prefix").value) location.hash = streamHash($("streams-app").value, $("streams-prefix").value);
});
$("publish").addEventListener("submit", async (event) => {
  event.preventDefault();
  const message = $("publish-message");
  try {
    await ask("/publish", null, { app: stream.app, stream: $("publish-kind").value + stream.name, message: message.value });
    message.value = "";
    $("publish-answer").textContent = "published";
  } catch (error) {
    $("publish-answer").textContent = error.message;
  }
});
$("disconnect").addEventListener("submit", (event) => {
  event.preventDefault();
  disconnect({ subscriber_id: $("disconnect-id").value.trim() }, "this subscriber");
});
setInterval(() => { showStreams(); showUsers(); }, 2000);
