// The console's page: its panels, and its link to the server.

import { addSamples, clearSamples, redraw, showNodes, showSamples } from "./now.js";
import { $, focusableHeading, server } from "./page.js";
import { addRefusals, clearRefusals } from "./refused.js";
import { follow, isFollowing, setApps, showStreams, unfollow } from "./streams.js";

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
  $("stream").hidden = !isFollowing();
  $("search").hidden = $("streams-table").hidden = $("streams-title").hidden = isFollowing();
  showStreams();
}

window.addEventListener("hashchange", () => {
  const focused = document.activeElement;
  showPanel();
  // The focus of what is hidden now passes to the heading.
  if (focused.closest("[hidden]")) {
    focusableHeading([...document.querySelectorAll("main h2")].find((heading) => !heading.closest("[hidden]"))).focus();
  }
});

for (const form of document.querySelectorAll("form[role=search]")) {
  form.addEventListener("submit", (event) => event.preventDefault());
}

// The link to the server

function setLink(state, text) {
  $("link").dataset.state = state;
  $("link").textContent = text;
  document.body.classList.toggle("lost", state === "lost");
}

function connect() {
  const source = new EventSource("/events");
  const on = (name, take) => source.addEventListener(name, (event) => take(JSON.parse(event.data)));
  on("hello", ({ apps, interval_s: interval, node, sample, token }) => {
    Object.assign(server, { fields: sample, interval, node, token });
    clearSamples();
    clearRefusals([...new Set(apps.map((app) => app.split("/")[1]))]);
    setApps(apps);
    showStreams();
    setLink("live", "Live");
  });
  // Of this node immediately, and of the others once they have answered.
  on("samples", (samples) => {
    addSamples(server.node, samples);
    showSamples();
  });
  on("refusals", (refusals) => addRefusals(server.node, refusals));
  on("nodes", (nodes) => {
    document.body.classList.toggle("alone", nodes.length === 1);
    for (const { node, samples = [], refusals = [] } of nodes) {
      if (samples.length) addSamples(node, samples);
      addRefusals(node, refusals);
    }
    showNodes(nodes);
    if (nodes.length > 1) showSamples();
  });
  source.addEventListener("error", () => {
    setLink("lost", "The server does not answer. Trying again.");
    // A browser tries again by itself, but not after an answer other than 200.
    if (source.readyState === EventSource.CLOSED) setTimeout(connect, 2000);
  });
}

showPanel();
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
connect();
