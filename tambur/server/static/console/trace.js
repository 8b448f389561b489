// The trace of the stream that is followed.

import { $, bytes, decimal, element, labelled, setRows, time } from "./page.js";

const KEPT_PUBLICATIONS = 100;

export class Trace {
  constructor() {
    this.publications = new Map(); // by their IDs
    this.newest = []; // what the other nodes reported last
    this.reports = new Map(); // of each publication, by its key: what each other node did with it, by the node's name
  }

  clear() {
    this.publications.clear();
    this.newest = [];
    this.reports.clear();
  }

  add(publications) {
    for (const publication of publications) this.publications.set(publication.id, publication);
    const ids = [...this.publications.keys()].sort((a, b) => a - b);
    for (const id of ids.slice(0, -KEPT_PUBLICATIONS)) {
      this.reports.delete(this.publications.get(id).key);
      this.publications.delete(id);
    }
    this.match();
  }

  report(reports) {
    this.newest = reports;
    this.match();
  }

  // A node may forget a publication, or have it before this one.
  match() {
    const known = new Set([...this.publications.values()].map(({ key }) => key));
    for (const { node, publications = [] } of this.newest) {
      for (const { key, ...rest } of publications) {
        if (!known.has(key)) continue;
        if (!this.reports.has(key)) this.reports.set(key, new Map());
        this.reports.get(key).set(node, rest);
      }
    }
    this.show();
  }

  show() {
    const newest = [...this.publications.values()].sort((a, b) => b.id - a.id);
    const items = newest.map((publication) => ({ ...publication, elsewhere: [...this.reports.get(publication.key) ?? []] }));
    setRows($("trace"), items, ({ id }) => id, row);
    $("trace-none").hidden = newest.length > 0;
  }
}

function text({ kind, user, text: shown, bytes: size, excluding }) {
  if (kind === "direct") return `to ${user}, ${bytes(size)}`;
  if (kind === "presence") return `${user} is ${shown}`;
  return excluding ? `${shown} (without one subscriber)` : shown;
}

function written([node, { subscribers, cut_off: cutOff, wait_ms: wait, write_ms: write }]) {
  const cut = cutOff ? `, ${cutOff} cut off` : "";
  return `${node}: ${subscribers}${subscribers && write !== null ? ` in ${decimal(wait + write)} ms` : ""}${cut}`;
}

// How many were cut off, and the users of those that had any.
function cutOffText(had) {
  const count = had.reduce((total, [, report]) => total + report.cut_off, 0);
  const users = had.flatMap(([, report]) => report.cut_off_users ?? []);
  return users.length ? `${count}: ${users.join(", ")}` : count;
}

function row(publication) {
  const { at, kind, elsewhere } = publication;
  const acceptor = publication.claimed ? ["this node", publication] : elsewhere.find(([, { claimed }]) => claimed);
  const unknown = kind === "public" || kind === "auth" ? "another node" : "a subscriber";
  const { check_ms: check, broker_ms: broker, nodes } = acceptor?.[1] ?? publication;
  const { wait_ms: wait, write_ms: write } = publication;
  const steps = Object.entries({ check, broker, wait, write })
    .filter(([, ms]) => ms !== null).map(([step, ms]) => `${step} ${decimal(ms)}`);
  // The nodes that had it: those to which it was delivered.
  const had = [["this node", publication], ...elsewhere].filter(([, { subscribers }]) => subscribers !== null);
  const silent = (nodes ?? 0) - had.length;
  const sum = (field) => had.reduce((total, [, report]) => total + report[field], 0);
  const isList = had.length > 1 || silent > 0 || kind === "presence"; // the other nodes do not report presence
  const cell = labelled("nodes", isList ? "" : nodes ?? "–", isList ? "nodes" : "");
  if (isList) {
    const items = had.map((report) => element("li", { textContent: written(report) }));
    if (silent > 0) items.push(element("li", { className: "quiet", textContent: `${silent} more, without a report` }));
    cell.append(element("ul", {}, ...items));
  }
  return element(
    "tr", {},
    element("td", { className: "time" }, time(at)),
    element("td", { textContent: kind, className: "word" }),
    element("td", { textContent: text(publication), className: "message" }),
    labelled("accepted by", acceptor?.[0] ?? unknown),
    cell,
    labelled("written to", had.length ? sum("subscribers") : "–", "number"),
    labelled("cut off", cutOffText(had), sum("cut_off") ? "number bad" : "number"),
    element("td", { textContent: steps.join(", ") || "–", className: "steps" }),
  );
}
