import { connect } from "./connect";
import { fetchSession, post, type Session } from "./session";
import "./style.css";

interface Message {
  from: string;
  text: string;
}

const ROOM = "lobby";

function find<Type extends HTMLElement>(selector: string): Type {
  return document.querySelector<Type>(selector)!;
}

const messages = find("#messages");
const people = find("#people");
const state = find("#state");
const notice = find("#notice");
const compose = find<HTMLFormElement>("#compose");
const input = find<HTMLInputElement>("#compose input");

/** Text from users goes into the page as text, never as HTML. */
function append(text: string, className = ""): HTMLElement {
  const item = document.createElement("li");
  item.className = className;
  item.append(text);
  messages.append(item);
  item.scrollIntoView({ block: "nearest" });
  return item;
}

function enter(session: Session): void {
  const { user } = session;
  const connection = connect(session);
  const lobby = connection.get_stream(ROOM);
  const present = new Set<string>();

  const show = (): void => {
    state.textContent = connection.state === "connected" ? "" : "Connecting…";
    people.textContent = `Here now: ${[`${user} (you)`, ...[...present].sort()].join(", ")}`;
  };
  connection.onstate = show;
  connection.onerror = (error) => console.warn(error.code, error.message);

  lobby.ready = () => {
    lobby.enable_auth();
    lobby.enable_presence(user);
  };
  lobby.onauth = (text) => {
    // Only the application publishes these, so their form is known.
    const message = JSON.parse(text) as Message;
    const author = document.createElement("b");
    author.append(message.from);
    append(message.text, message.from === user ? "mine" : "").prepend(author, " ");
  };
  lobby.onpresence = ([name, what]) => {
    if (what === "up") present.add(name);
    else present.delete(name);
    show();
  };
  lobby.ondisabled = (mode) => {
    if (mode === "presence") present.clear();
  };
  lobby.onmissed = () => append("Some messages are missing here.", "gap");

  compose.onsubmit = async (event) => {
    event.preventDefault();
    const text = input.value.trim();
    try {
      await post(session, `/rooms/${ROOM}/messages`, { to: "everybody", text });
      if (input.value.trim() === text) input.value = "";
      notice.textContent = "";
    } catch (error) {
      notice.textContent = error instanceof Error ? error.message : String(error);
    }
  };
  show();
}

const session = await fetchSession();
if (session) enter(session);
else location.assign("/login");
