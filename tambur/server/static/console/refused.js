// The panel "Refused".

import { $, element, setRows, time } from "./page.js";

const KEPT_REFUSALS = 200;

let refusals = [];
let count = 0;

function refusalRow({ at, node, event, facts }) {
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
    element("td", { textContent: node, className: "node" }),
  );
}

export function clearRefusals(apps) {
  refusals = [];
  const chosen = $("refused-app").value;
  $("refused-app").replaceChildren(
    element("option", { value: "", textContent: "all" }), ...apps.map((app) => element("option", { value: app, textContent: app })),
  );
  $("refused-app").value = apps.includes(chosen) ? chosen : "";
  showRefusals();
}

export function addRefusals(node, added) {
  const numbered = added.map(([at, event, facts]) => ({ number: count++, at, node, event, facts }));
  refusals = [...refusals, ...numbered].sort((a, b) => a.at - b.at || a.number - b.number).slice(-KEPT_REFUSALS);
  if (added.length) showRefusals();
}

function showRefusals() {
  const app = $("refused-app").value;
  const text = $("refused-text").value.toLowerCase();
  const shown = refusals.filter(({ node, event, facts }) =>
    (!app || facts.app === app) && [event, node, ...Object.values(facts)].join(" ").toLowerCase().includes(text));
  setRows($("refusals"), shown.reverse(), ({ number }) => number, refusalRow);
  $("refused-none").hidden = refusals.length > 0;
  $("refused-count").textContent = refusals.length || "";
  $("refused-shown").textContent = refusals.length ? `${shown.length} of ${refusals.length} shown` : "";
}

$("refused-app").addEventListener("change", showRefusals);
$("refused-text").addEventListener("input", showRefusals);
