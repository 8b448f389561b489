// The panel "Now": a chart of each figure, and the nodes.
/* global uPlot */

import { $, bytes, decimal, duration, element, labelled, server, setRows } from "./page.js";

// Each chart shows one or two members of a sample. "total" sums up the last 10 minutes. "most" is not a sum over the nodes, but
// the most of all nodes.
const CHARTS = [
  { title: "Connections", fields: ["connections"] },
  { title: "Subscriptions", fields: ["subscriptions"] },
  { title: "Publishes", unit: "/s", fields: ["publishes"] },
  { title: "Deliveries", unit: "/s", fields: ["deliveries"] },
  { title: "Refused", unit: "in 10 min", fields: ["refusals"], total: true },
  { title: "Waiting to be sent", fields: ["waiting_bytes"], format: bytes },
  { title: "Slow subscribers", note: "dropped because they read too slowly", unit: "in 10 min", fields: ["slow"], total: true },
  { title: "Broker latency", note: "with several nodes, of the slowest one", unit: "ms", fields: ["broker_p50_ms", "broker_p99_ms"],
    names: ["p50", "p99"], format: decimal, most: true },
  { title: "Sessions", unit: "in 10 min", fields: ["resumed", "not_resumed"], names: ["resumed", "refused"], total: true },
  { title: "Messages missed", unit: "in 10 min", fields: ["incomplete"], total: true,
    note: "answers with complete: false" },
  { title: "Webhooks waiting", note: "in the whole cluster", fields: ["webhooks"], most: true },
];
const TOTALS = new Set(CHARTS.filter(({ total }) => total).flatMap(({ fields }) => fields));
const MOST = new Set(CHARTS.filter(({ most }) => most).flatMap(({ fields }) => fields));
const COUNTS = [1, 2, 5].flatMap((n) => [0, 1, 2, 3, 4, 5, 6, 7].map((power) => n * 10 ** power)).sort((a, b) => a - b);
const SIZES = Array.from({ length: 30 }, (_, power) => 512 * 2 ** power);
const SHOWN_S = 600;
const LATE_SLOTS = 2; // a node's newest sample may be so many intervals late

const samplesOf = new Map(); // of each node, by its name
let samples = []; // of all nodes together
let charts = [];

function color(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
}

class Chart {
  constructor(definition) {
    this.definition = { format: decimal, unit: "", ...definition };
    // The unit of two figures does not fit beside them on a phone.
    const caption = definition.names ? `${definition.title}, ${definition.unit}` : definition.title;
    this.figure = element("span", { className: "figure" });
    this.at = element("span", { className: "at" });
    this.plotted = element("div", { className: "plot" });
    this.plotted.setAttribute("role", "img");
    this.card = element(
      "figure", { title: definition.note ?? "" },
      element("figcaption", {}, caption, this.at), this.figure, this.plotted,
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
    const index = server.fields.indexOf(field);
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
    const { title, fields: shown, format, unit, names, note, total } = this.definition;
    const isPast = index !== null && index !== undefined && index < samples.length - 1;
    const columns = shown.map((field) => this.column(field));
    const values = columns.map((column) => {
      if (isPast) return column[index];
      return total ? column.reduce((sum, value) => sum + value, 0) : column.findLast((value) => value !== null);
    });
    const texts = values.map((value) => (value === null || value === undefined ? "–" : format(value)));
    const suffix = names || (isPast && total) ? "" : ` ${unit}`;
    this.figure.replaceChildren(...texts.flatMap((text, i) => [
      ...(i ? [" "] : []),
      element("span", { className: i ? "second" : "" }, text, ...(names ? [element("small", { textContent: ` ${names[i]}` })] : [])),
    ]), element("small", { textContent: suffix }));
    this.at.textContent = isPast ? new Date(samples[index][0] * 1000).toLocaleTimeString("en-GB") : "";
    if (!isPast) {
      const now = texts.map((text, i) => (names ? `${names[i]} ${text}` : text)).join(", ");
      const most = Math.max(0, ...columns.flat());
      this.plotted.setAttribute("aria-label", `${title}${note ? ` (${note})` : ""}: ${now} ${unit}; at most ${format(most)} at a time in the last 10 minutes`);
    }
  }
}

// One sample for each interval, of all nodes.
function together() {
  const bySlot = [...samplesOf.values()].map((own) => new Map(own.map((sample) => [slotOf(sample), sample])));
  const slots = [...new Set(bySlot.flatMap((own) => [...own.keys()]))].sort((a, b) => a - b);
  return slots.map((slot) => {
    const found = [];
    for (const own of bySlot) {
      for (let late = 0; late <= LATE_SLOTS; late++) {
        const sample = own.get(slot - late);
        // Its counts belong to its own interval.
        if (sample) found.push(late ? sample.map((value, i) => (TOTALS.has(server.fields[i]) ? 0 : value)) : sample);
        if (sample) break;
      }
    }
    return server.fields.map((field, i) => {
      if (field === "at") return slot * server.interval;
      const values = found.map((sample) => sample[i]).filter((value) => value !== null);
      if (MOST.has(field)) return values.length ? Math.max(...values) : null;
      return values.reduce((sum, value) => sum + value, 0);
    });
  });
}

function slotOf(sample) {
  return Math.round(sample[0] / server.interval);
}

export function clearSamples() {
  samplesOf.clear();
}

// Add samples of a node. The newest sample of this node is the newest of all.
export function addSamples(node, added) {
  const all = [...(samplesOf.get(node) ?? []), ...added];
  const oldest = (samplesOf.get(server.node) ?? all).at(-1)[0] - SHOWN_S;
  samplesOf.set(node, all.filter((sample) => sample[0] >= oldest));
}

export function showSamples() {
  samples = together();
  if (!charts.length) {
    charts = CHARTS.map((definition) => new Chart(definition));
    redraw();
  } else {
    for (const chart of charts) chart.update();
  }
}

export function redraw() {
  for (const chart of charts) chart.draw();
}

export function showNodes(nodes) {
  const shown = nodes.map(({ node, health, version, age_s: age }) => {
    const last = version === null ? undefined : samplesOf.get(node)?.at(-1); // a node without a version does not answer
    const figure = (field) => (last ? decimal(last[server.fields.indexOf(field)]) : "–");
    return {
      node, health, version, age: age === null ? "–" : duration(age),
      figures: ["connections", "publishes", "deliveries"].map(figure),
    };
  });
  for (const node of [...samplesOf.keys()]) {
    if (!nodes.some((other) => other.node === node)) samplesOf.delete(node);
  }
  const counted = shown.filter(({ figures }) => figures[0] !== "–").length;
  $("now-nodes").textContent = nodes.length === 1 ? "on the only node"
    : counted === nodes.length ? `on ${counted} nodes` : `on ${counted} of ${nodes.length} nodes; the others have no console, or do not answer`;
  setRows($("nodes"), shown, ({ node }) => node, ({ node, health, version, age, figures }) => element(
    "tr", {},
    element("td", { className: "name", textContent: node === server.node ? `${node} (this one)` : node }),
    element("td", { textContent: health ?? "ok", className: health ? "bad" : "good" }),
    labelled("version", version ?? "–"),
    labelled("running for", age),
    ...["connections", "publishes/s", "deliveries/s"].map((label, i) => labelled(label, figures[i], "number")),
  ));
}
