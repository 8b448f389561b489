// The common parts of the panels. The server's texts are only ever set as text, never as markup.

export const $ = (id) => document.getElementById(id);

// From the server's "hello".
export const server = { fields: [], interval: 2, token: "", node: "" };

export function element(name, properties = {}, ...children) {
  const made = Object.assign(document.createElement(name), properties);
  made.append(...children);
  return made;
}

// A cell of a table that a phone shows with its label.
export function labelled(label, text, className = "") {
  const cell = element("td", { className, textContent: text });
  cell.dataset.label = label;
  return cell;
}

export function decimal(number) {
  return number.toLocaleString("en", { maximumFractionDigits: number < 10 ? 2 : number < 100 ? 1 : 0 });
}

export function bytes(number) {
  for (const unit of ["B", "KiB", "MiB"]) {
    if (number < 1024) return `${decimal(number)} ${unit}`;
    number /= 1024;
  }
  return `${decimal(number)} GiB`;
}

export function duration(seconds) {
  const units = [["day", 86400], ["hour", 3600], ["minute", 60]];
  for (const [unit, size] of units) {
    const count = Math.floor(seconds / size);
    if (count) return `${count} ${unit}${count > 1 ? "s" : ""}`;
  }
  return "less than a minute";
}

export function time(at) {
  const date = new Date(at * 1000);
  return element("time", { dateTime: date.toISOString(), textContent: date.toLocaleTimeString("en-GB") });
}

export async function ask(path, parameters, body) {
  const query = parameters ? `?${new URLSearchParams(parameters)}` : "";
  const options = body && { method: "POST", headers: { "Tambur-Console": server.token }, body: JSON.stringify(body) };
  // The page's own URL may hold the password, and then a relative URL would, which fetch refuses. An origin holds none.
  const answer = await fetch(location.origin + path + query, options);
  if (!answer.ok) throw new Error((await answer.text()).trim());
  return answer.json();
}

const focusable = (row) => [...row.querySelectorAll("a, button, [tabindex]")];

// Show items as the rows of a table or list. A row whose item is the same stays, with its focus and its selection.
// The focus of a row that changes or goes passes to the same place of the row there, or to the heading.
export function setRows(body, items, keyOf, makeRow) {
  const rows = [...body.children];
  const focusedRow = rows.findIndex((row) => row.contains(document.activeElement));
  const place = focusedRow < 0 ? -1 : focusable(rows[focusedRow]).indexOf(document.activeElement);
  const before = new Map(rows.map((row) => [row.key, row]));
  const wanted = items.map((item) => {
    const [key, state] = [keyOf(item), JSON.stringify(item)];
    const row = before.get(key);
    return row?.state === state ? row : Object.assign(makeRow(item), { key, state });
  });
  const staying = new Set(wanted);
  const changed = focusedRow < 0 ? -1 : wanted.findIndex((row) => row.key === rows[focusedRow].key);
  for (const row of rows) if (!staying.has(row)) row.remove();
  let next = body.firstElementChild;
  for (const row of wanted) {
    if (row === next) next = next.nextElementSibling;
    else body.insertBefore(row, next);
  }
  if (focusedRow < 0 || staying.has(rows[focusedRow])) return;
  const row = wanted[changed < 0 ? Math.min(focusedRow, wanted.length - 1) : changed];
  const targets = row ? focusable(row) : [];
  (targets[Math.min(place, targets.length - 1)] ?? headingOf(body)).focus();
}

function headingOf(body) {
  return focusableHeading($(body.closest("[aria-labelledby]").getAttribute("aria-labelledby")));
}

export function focusableHeading(heading) {
  heading.tabIndex = -1;
  return heading;
}
