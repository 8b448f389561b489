// The whole interface of tambur.js, as a page uses it that loads it with a script tag. tsc checks this; nobody runs it.
/// <reference path="./node_modules/tambur/tambur/server/static/tambur.d.ts" />

const connection = new tambur.Connection({
  api_key: "key",
  app_id: "app",
  host: "tambur.example.com:8080",
  ssl: true,
  max_retries: 3,
  resume: true,
  ready: (it) => it.get_stream("news"),
  onstate: (state) => console.log(state),
  onclose: null,
  onerror: (error) => console.log(error.code),
  ontoken: async (mode, stream, subscriber_id) => `${mode}${stream}${subscriber_id}`,
  onresume: ({ state }) => console.log(state),
});
const called: tambur.Connection = tambur.Connection("key", "app", false, function () { this.close(); }, null, 3);
called.reopen();
const identity: [string, string, string | null] = [connection.api_key, connection.app_id, connection.subscriber_id];
const state: "connecting" | "connected" | "waiting" | "closed" | "refused" = connection.state;

connection.onerror = (error) => {
  const { code, command, result, stream, cause, message } = error;
  switch (code) {
    case "unknown_app":
    case "origin_not_allowed":
    case "host_not_allowed":
    case "disconnected":
    case "session_taken":
      console.log("refused", message);
      break;
    default:
      console.log(code.length, command?.length, result?.length, stream?.length, cause);
  }
};
connection.addEventListener("state", (event) => { const now: tambur.State = event.detail; console.log(now); });
connection.addEventListener("error", (event) => { event.preventDefault(); console.log(event.detail.code); });
connection.addEventListener("ready", ({ detail }) => detail.get_stream("news"), { once: true });
connection.addEventListener("resume", ({ detail }) => console.log(detail.subscriber_id));
connection.addEventListener("close", { handleEvent: ({ detail }) => detail.reopen() });
// @ts-expect-error - not an event of a connection
connection.addEventListener("message", () => {});

const stream: tambur.Stream = connection.get_stream("news");
const options: tambur.StreamOptions = { last: 50 };
connection.get_stream("room", options).onmissed = function (it) { console.log(this === it, it.active); };
stream.addEventListener("missed", ({ detail }) => console.log(detail.name));
stream.ready = function (it) { this.enable_auth(); it.enable_presence("alice"); it.enable_direct("alice", "token"); };
stream.onmessage = (text) => console.log(text.length);
stream.onauth = (text) => console.log(text.length);
stream.onpresence = ([user, what]) => console.log(user.length, what === "up");
stream.ondirect = ([from, text]) => console.log(from.length, text.length);
stream.onenabled = stream.ondisabled = (mode: tambur.Mode) => console.log(mode === "auth");
const listener = (event: CustomEvent<string>) => console.log(event.detail.length);
stream.addEventListener("message", listener);
stream.removeEventListener("message", listener);
stream.addEventListener("auth", listener);
stream.addEventListener("presence", ({ detail: [user, what] }) => console.log(user, what === "down"));
stream.addEventListener("direct", ({ detail: [from, text] }) => console.log(from, text));
stream.addEventListener("enabled", ({ detail }) => console.log(detail === "presence"));
stream.addEventListener("disabled", ({ detail }) => console.log(detail === "direct"));
stream.addEventListener("ready", ({ detail }) => detail.direct_msg("bob", "Hello"));
// @ts-expect-error - not an event of a stream
stream.addEventListener("state", () => {});
// @ts-expect-error - its payload is an array
stream.addEventListener("presence", ({ detail }) => detail.toUpperCase());
// @ts-expect-error - read-only
stream.active = true;
const modes: tambur.Mode[] = stream.enabled_modes;
if (stream.active && stream.name) stream.close();
stream.reopen();
stream.disable_auth();
stream.disable_presence();
stream.disable_direct();
try {
  connection.close();
} catch (error) {
  if (error instanceof tambur.TamburError) console.log(error.code === "invalid_state", identity, state, modes);
}
