// The console's page. The server's texts are only ever set as text, never as markup.
/* global uPlot */

const $ = (id) => document.getElementById(id);

// Each chart shows one or two members of a sample. "total" sums up the last 10 minutes.
const CHARTS = [
  { title: "Connections", fields: ["connections"] },
  { title: "Subscriptions", fields: ["subscriptions"] },
  { title: "Publishes", unit: "/s", fields: ["publishes"] },
  { title: "Deliveries", unit: "/s", fields: ["deliveries"] },
  { title: "Refused", unit: "in 10 min", fields: ["refusals"], total: true },
  { title: "Waiting to be sent", fields: ["waiting_bytes"], format: bytes },
  { title: "Slow subscribers", note: "dropped because they read too slowly", unit: "in 10 min", fields: ["slow"], total: true },
  { title: "Broker latency", unit: "ms", fields: ["broker_p50_ms", "broker_p99_ms"], names: ["p50", "p99"], format: decimal },
  { title: "Sessions", unit: "in 10 min", fields: ["resumed", "not_resumed"], names: ["resumed", "refused"], total: true },
  { title: "Messages missed", unit: "in 10 min", fields: ["incomplete"], total: true,
    note: "answers with complete: false" },
  { title: "Webhooks waiting", fields: ["webhooks"] },
];
const COUNTS = [1, 2, 5].flatMap((n) => [0, 1, 2, 3, 4, 5, 6, 7].map((power) => n * 10 ** power)).sort((a, b) => a - b);
const SIZES = Array.from({ length: 30 }, (_, power) => 512 * 2 ** power);
const SHOWN_S = 600;
const KEPT_REFUSALS = 200;
const KEPT_PUBLICATIONS = 100;

let fields = [];
let samples = [];
let refusals = [];
let token = "";
let charts = [];
let stream = null; // the one that is followed: its app, its name, and its live events

function element(name, properties = {}, ...children) {
  const made = Object.assign(document.createElement(name), properties);
  made.append(...children);
  return made;
}

function decimal(number) {
  return number.toLocaleString("en", { maximumFractionDigits: number < 10 ? 2 : number < 100 ? 1 : 0 });
}

function bytes(number) {
  for (const unit of ["B", "KiB", "MiB"]) {
    if (number < 1024) return `${decimal(number)} ${unit}`;
    number /= 1024;
  }
  return `${decimal(number)} GiB`;
}

function duration(seconds) {
  const units = [["day", 86400], ["hour", 3600], ["minute", 60]];
  for (const [unit, size] of units) {
    const count = Math.floor(seconds / size);
    if (count) return `${count} ${unit}${count > 1 ? "s" : ""}`;
  }
  return "less than a minute";
}

function time(at) {
  const date = new Date(at * 1000);
  return element("time", { dateTime: date.toISOString(), textContent: date.toLocaleTimeString("en-GB") });
}

// Now

function color(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
}

class Chart {
  constructor(definition) {
    this.definition = { format: decimal, unit: "", ...definition };
    this.figure = element("span", { className: "figure" });
    this.at = element("span", { className: "at" });
    this.plotted = element("div", { className: "plot" });
    this.plotted.setAttribute("role", "img");
    this.card = element(
      "figure", { title: definition.note ?? "" },
      element("figcaption", {}, definition.title, this.at), this.figure, this.plotted,
    );
    $("charts").append(this.card);
    new ResizeObserver(() => this.plot?.setSize(this.size())).observe(this.plotted);
  }

  size() {
    return { width: this.plotted.clientWidth, height: 96 };
  }

  draw() {
    const { fields: shown, format, unit } = this.definition;
    const incrs = format === bytes ? SIZES : unit === "ms" ? undefined : COUNTS; // the distances of its lines
    const axis = { stroke: color("quiet"), font: "11px system-ui", grid: { stroke: color("line"), width: 1 }, ticks: { show: false } };
    const colors = [color("accent"), color("second")];
    this.plot?.destroy();
    this.plot = new uPlot({
      ...this.size(),
      padding: [8, 6, 0, 0],
      legend: { show: false },
      cursor: { sync: { key: "now" }, y: false, drag: { x: false, y: false } },
      hooks: { setCursor: [(plot) => this.show(plot.cursor.idx)] },
      scales: {
        x: { range: () => [Date.now() / 1000 - SHOWN_S, Date.now() / 1000] },
        y: { range: (_, __, most) => [0, Math.max(format === bytes ? 1024 : 1, (most ?? 0) * 1.15)] },
      },
      axes: [
        { ...axis, size: 20, space: 70, values: (_, at) => at.map((s) => new Date(s * 1000).toLocaleTimeString("en-GB", { hour: "2-digit", minute: "2-digit" })) },
        { ...axis, size: format === bytes ? 52 : 36, space: 26, incrs, values: (_, at) => at.map(format) },
      ],
      series: [{}, ...shown.map((_, i) => ({ stroke: colors[i], width: 1.5, points: { show: false }, fill: shown.length === 1 ? `${colors[i]}22` : undefined }))],
    }, this.data(), this.plotted);
    this.show(null);
  }

  column(field) {
    const index = fields.indexOf(field);
    return samples.map((sample) => sample[index] ?? null);
  }

  data() {
    return [this.column("at"), ...this.definition.fields.map((field) => this.column(field))];
  }

  update() {
    this.plot.setData(this.data());
    this.show(this.plot.cursor.idx);
  }

  // The figure is the newest value, or the one under the pointer.
  show(index) {
    const { title, fields: shown, format, unit, names, total } = this.definition;
    const isPast = index !== null && index !== undefined && index < samples.length - 1;
    const columns = shown.map((field) => this.column(field));
    const values = columns.map((column) => {
      if (isPast) return column[index];
      return total ? column.reduce((sum, value) => sum + value, 0) : column.findLast((value) => value !== null);
    });
    const texts = values.map((value) => (value === null || value === undefined ? "–" : format(value)));
    const suffix = isPast && total ? "" : ` ${unit}`;
    this.figure.replaceChildren(...texts.flatMap((text, i) => [
      ...(i ? [" "] : []),
      element("span", { className: i ? "second" : "" }, text, ...(names ? [element("small", { textContent: ` ${names[i]}` })] : [])),
    ]), element("small", { textContent: suffix }));
    this.at.textContent = isPast ? new Date(samples[index][0] * 1000).toLocaleTimeString("en-GB") : "";
    if (!isPast) {
      const now = texts.map((text, i) => (names ? `${names[i]} ${text}` : text)).join(", ");
      const most = Math.max(0, ...columns.flat());
      this.plotted.setAttribute("aria-label", `${title}: ${now} ${unit}; at most ${format(most)} at a time in the last 10 minutes`);
    }
  }
}

function showSamples(added) {
  samples = [...samples, ...added];
  const oldest = samples.at(-1)[0] - SHOWN_S;
  samples = samples.filter((sample) => sample[0] >= oldest);
  if (!charts.length) {
    charts = CHARTS.map((definition) => new Chart(definition));
    for (const chart of charts) chart.draw();
  } else {
    for (const chart of charts) chart.update();
  }
}

function showNodes(nodes) {
  $("nodes").replaceChildren(...nodes.map(({ node, health, version, age_s: age }, i) => element(
    "tr", {},
    element("td", { textContent: i ? node : `${node} (this one)` }),
    element("td", { textContent: health ?? "ok", className: health ? "bad" : "good" }),
    element("td", { textContent: version ?? "–" }),
    element("td", { textContent: age === null ? "–" : duration(age) }),
  )));
}

// Refused

function refusalRow({ at, event, facts }) {
  const { app = "", status = "", stream = "", reason = "", ...rest } = facts;
  const others = Object.entries(rest).map(([name, value]) => `${name}: ${value}`);
  return element(
    "tr", {},
    element("td", { className: "time" }, time(at)),
    element("td", { textContent: event, className: "word" }),
    element("td", { textContent: app }),
    element("td", { textContent: status }),
    element("td", { textContent: stream, className: "name" }),
    element("td", { textContent: [reason, ...others].filter(Boolean).join("; "), className: "reason" }),
  );
}

function showRefusals() {
  const app = $("refused-app").value;
  const text = $("refused-text").value.toLowerCase();
  const shown = refusals.filter(({ event, facts }) =>
    (!app || facts.app === app) && [event, ...Object.values(facts)].join(" ").toLowerCase().includes(text));
  $("refusals").replaceChildren(...shown.map(refusalRow).reverse());
  $("refused-none").hidden = refusals.length > 0;
  $("refused-count").textContent = refusals.length || "";
  $("refused-shown").textContent = refusals.length ? `${shown.length} of ${refusals.length} shown` : "";
}

$("refused-app").addEventListener("change", showRefusals);
$("refused-text").addEventListener("input", showRefusals);
for (const form of document.querySelectorAll("form[role=search]")) {
  form.addEventListener("submit", (event) => event.preventDefault());
}

// Streams

async function ask(path, parameters, body) {
  const query = parameters ? `?${new URLSearchParams(parameters)}` : "";
  const options = body && { method: "POST", headers: { "Tambur-Console": token }, body: JSON.stringify(body) };
  const answer = await fetch(path + query, options);
  if (!answer.ok) throw new Error((await answer.text()).trim());
  return answer.json();
}

function streamHash(app, name) {
  return `#/streams/${encodeURIComponent(app)}/${encodeURIComponent(name)}`;
}

async function showStreams() {
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
  // The rows stay while they say the same, so they keep their focus and selection.
  const listed = JSON.stringify([app, streams]);
  if (listed === $("streams-rows").dataset.listed) return;
  $("streams-rows").dataset.listed = listed;
  const focused = document.activeElement?.closest("#streams-rows a")?.hash;
  $("streams-rows").replaceChildren(...streams.map(({ stream: name, subscribers, users, kept }) => element(
    "tr", {},
    element("td", {}, element("a", { href: streamHash(app, name), textContent: name })),
    ...[subscribers, users, kept].map((count) => element("td", { className: "number", textContent: count })),
  )));
  if (focused) [...document.querySelectorAll("#streams-rows a")].find((link) => link.hash === focused)?.focus();
}

function publicationText({ kind, user, text, bytes: size, excluding }) {
  if (kind === "direct") return `to ${user}, ${bytes(size)}`;
  if (kind === "presence") return `${user} is ${text}`;
  return excluding ? `${text} (without one subscriber)` : text;
}

function publicationRow(publication) {
  const { at, kind, claimed, nodes, subscribers, cut_off: cutOff } = publication;
  const steps = ["check", "broker", "wait", "write"]
    .map((step) => [step, publication[`${step}_ms`]])
    .filter(([, ms]) => ms !== null).map(([step, ms]) => `${step} ${decimal(ms)}`);
  const number = (label, value) => {
    const cell = element("td", { className: "number", textContent: value ?? "–" });
    cell.dataset.label = label;
    return cell;
  };
  const cut = number("cut off", cutOff);
  cut.classList.toggle("bad", cutOff > 0);
  const elsewhere = kind === "public" || kind === "auth" ? "another node" : "a subscriber";
  return element(
    "tr", {},
    element("td", { className: "time" }, time(at)),
    element("td", { textContent: kind, className: "word" }),
    element("td", { textContent: publicationText(publication), className: "message" }),
    element("td", { textContent: claimed ? "this node" : elsewhere, className: "word" }),
    number("nodes", nodes),
    number("written to", subscribers),
    cut,
    element("td", { textContent: steps.join(", ") || "–", className: "steps" }),
  );
}

function showTrace() {
  const publications = [...stream.publications.values()].sort((a, b) => b.id - a.id);
  $("trace").replaceChildren(...publications.map(publicationRow));
  $("trace-none").hidden = publications.length > 0;
}

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
  if (JSON.stringify(users) === shown.users) return;
  shown.users = JSON.stringify(users);
  $("users").replaceChildren(...users.map((user) => {
    const button = element("button", { textContent: "Disconnect", className: "danger", type: "button" });
    button.setAttribute("aria-label", `Disconnect ${user}`);
    button.addEventListener("click", () => disconnect({ user_id: user }, `the user ${user}`));
    return element("li", {}, user, button);
  }));
}

function showSubscribers({ subscribers, more_subscribers: more }) {
  const shown = stream;
  $("subscribers-count").textContent = `${more ? "the first " : ""}${subscribers.length}, on this node`;
  $("subscribers-table").hidden = !subscribers.length;
  const state = JSON.stringify([subscribers, [...shown.ids]]);
  if (state === shown.subscribers) return;
  shown.subscribers = state;
  const reveal = async (handle) => {
    try {
      const { subscriber_id: id } = await ask("/subscriber", null, { app: shown.app, stream: shown.name, handle });
      shown.ids.set(handle, id);
      return id;
    } catch (error) {
      $("disconnect-answer").textContent = error.message;
      return null;
    }
  };
  $("subscribers").replaceChildren(...subscribers.map(({ handle, auth, presence, direct, waiting_bytes: waiting }, i) => {
    const id = shown.ids.get(handle);
    const show = element("button", { textContent: "Show", type: "button", ariaLabel: `Show the ID of subscriber ${i + 1}` });
    show.addEventListener("click", async () => { await reveal(handle); showUsers(); });
    const end = element("button", { textContent: "Disconnect", type: "button", className: "danger", ariaLabel: `Disconnect subscriber ${i + 1}` });
    end.addEventListener("click", async () => {
      const found = await reveal(handle);
      if (found) disconnect({ subscriber_id: found }, "this subscriber");
    });
    const cell = (label, text) => {
      const made = element("td", { textContent: text });
      made.dataset.label = label;
      return made;
    };
    const waits = cell("waiting", bytes(waiting));
    waits.className = "number";
    return element(
      "tr", {}, element("td", {}, id ?? show), cell("auth", auth ? "yes" : "no"),
      cell("present as", presence ?? "–"), cell("direct as", direct ?? "–"), waits, element("td", {}, end),
    );
  }));
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

function follow(app, name) {
  stream?.source.close();
  const source = new EventSource(`/follow?${new URLSearchParams({ app, stream: name })}`);
  const publications = new Map();
  stream = { app, name, publications, source, ids: new Map() };
  source.addEventListener("open", () => {
    $("stream-state").textContent = "following";
    publications.clear();
  });
  source.addEventListener("error", () => {
    $("stream-state").textContent = "not following; trying again";
    if (source.readyState === EventSource.CLOSED) {
      setTimeout(() => stream?.source === source && follow(app, name), 2000);
    }
  });
  source.addEventListener("failed", (event) => { $("stream-state").textContent = JSON.parse(event.data); });
  source.addEventListener("publications", (event) => {
    for (const publication of JSON.parse(event.data)) publications.set(publication.id, publication);
    const ids = [...publications.keys()].sort((a, b) => a - b);
    for (const id of ids.slice(0, -KEPT_PUBLICATIONS)) publications.delete(id);
    if (stream?.source === source) showTrace();
  });
  $("stream-name").textContent = name;
  for (const id of ["stream-state", "publish-answer", "disconnect-answer", "users-count", "subscribers-count"]) $(id).textContent = "";
  for (const id of ["users", "subscribers"]) $(id).replaceChildren();
  showTrace();
  showUsers();
}

function unfollow() {
  stream?.source.close();
  stream = null;
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

// Panels

function showPanel() {
  const [, name = "now", app, streamName] = location.hash.split("/");
  for (const section of document.querySelectorAll("main > section")) section.hidden = section.id !== name;
  for (const link of document.querySelectorAll("nav a")) {
    if (link.hash === `#/${name}`) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  if (name === "streams" && streamName) follow(decodeURIComponent(app), decodeURIComponent(streamName));
  else unfollow();
  $("stream").hidden = !stream;
  $("search").hidden = $("streams-table").hidden = $("streams-title").hidden = Boolean(stream);
  showStreams();
}

window.addEventListener("hashchange", showPanel);

// The link to the server

function setLink(state, text) {
  $("link").dataset.state = state;
  $("link").textContent = text;
  document.body.classList.toggle("lost", state === "lost");
}

function connect() {
  const source = new EventSource("/events");
  const on = (name, take) => source.addEventListener(name, (event) => take(JSON.parse(event.data)));
  on("hello", (hello) => {
    fields = hello.sample;
    token = hello.token;
    samples = [];
    refusals = [];
    const apps = [...new Set(hello.apps.map((app) => app.split("/")[1]))];
    const chosen = $("refused-app").value;
    $("refused-app").replaceChildren(
      element("option", { value: "", textContent: "all" }), ...apps.map((app) => element("option", { value: app, textContent: app })),
    );
    $("refused-app").value = apps.includes(chosen) ? chosen : "";
    const chosenApp = $("streams-app").value;
    $("streams-app").replaceChildren(...hello.apps.map((app) => element("option", {
      value: app, textContent: apps.length === hello.apps.length ? app.split("/")[1] : app,
    })));
    if (hello.apps.includes(chosenApp)) $("streams-app").value = chosenApp;
    showRefusals();
    showStreams();
    setLink("live", "Live");
  });
  on("samples", showSamples);
  on("nodes", showNodes);
  on("refusals", (added) => {
    refusals = [...refusals, ...added].slice(-KEPT_REFUSALS);
    showRefusals();
  });
  source.addEventListener("error", () => {
    setLink("lost", "The server does not answer. Trying again.");
    // A browser tries again by itself, but not after an answer other than 200.
    if (source.readyState === EventSource.CLOSED) setTimeout(connect, 2000);
  });
}

showPanel();
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => charts.forEach((chart) => chart.draw()));
connect();
