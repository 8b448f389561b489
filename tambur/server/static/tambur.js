/*
 * Tambur for browsers. Load it from the server that you want to connect to:
 *
 *     <script src="https://tambur.example.com/tambur.js"></script>
 *     <script>
 *       const connection = new tambur.Connection("API_KEY", "APP_ID");
 *       const news = connection.get_stream("news");
 *       news.onmessage = (text) => console.log(text);
 *     </script>
 *
 * tambur.d.ts beside it declares and explains the whole interface; the protocol is docs/reference/protocol.md.
 */
"use strict";

var tambur = (() => {
  const MODES = ["auth", "presence", "direct"];
  const PRIVATE = "private";
  const FIRST_WAIT_MS = 500;
  const MAX_WAIT_MS = 30_000;
  const CONNECT_TIMEOUT_MS = 10_000;
  // A proxy or server need not take a longer URL, and that is where long polling puts a command.
  const MAX_POLLED_COMMAND = 6_000;
  // The server holds a poll for longer; a proxy that answers in its place would be asked again at once, for ever.
  const MIN_EMPTY_POLL_MS = 250;

  const script = document.currentScript;
  const origin = script && script.src ? new URL(script.src) : window.location;

  /** The page misused something, the connection failed, or the server refused something: `code` says which. */
  class TamburError extends Error {
    constructor(message, { code, command = null, result = null, stream = null, cause } = {}) {
      super(message, { cause });
      this.name = "TamburError";
      this.code = code;
      this.command = command;
      this.result = result;
      this.stream = stream;
    }
  }

  /** How long to wait after so many failures: longer each time, and not the same for all. */
  function wait(failures) {
    return Math.min(FIRST_WAIT_MS * 2 ** (failures - 1), MAX_WAIT_MS) * (0.5 + Math.random() / 2);
  }

  function check(condition, message, code = "invalid_state") {
    if (!condition) throw new TamburError(message, { code });
  }

  /**
   * Ask the server why it takes no connection. A page cannot see how a WebSocket or a script was refused, so this
   * asks the balancer, which refuses for the same reasons. Null if the server gives no reason that will last.
   */
  async function fetchRefusal(url) {
    const signal = AbortSignal.timeout(CONNECT_TIMEOUT_MS);
    const options = { cache: "no-store", credentials: "omit", referrerPolicy: "origin", signal };
    const answer = await fetch(`${url}?instance=0&callback=_`, options);
    const code = answer.headers.get("Tambur-Refused");
    return code && { code, reason: (await answer.text()).trim() };
  }

  // Transports. Each has send(text) and close(), and calls back: onframe(text or array) for what the server
  // sends, and onlost() once, when there is no connection or no longer one.

  class WebSocketTransport {
    constructor(base, path, ssl, { onframe, onlost }) {
      this.socket = new WebSocket(`${ssl ? "wss" : "ws"}://${base}${path}`);
      this.socket.onmessage = (event) => onframe(event.data);
      this.socket.onclose = () => onlost();
    }

    send(text) {
      this.socket.send(text);
    }

    close() {
      this.socket.onmessage = this.socket.onclose = null;
      this.socket.close();
    }
  }

  /** Script tags, since they work across origins wherever anything does. Each is a request of its own. */
  class LongPollTransport {
    static #requests = new Map();
    static #count = 0;

    /** What the server's scripts call, with the number of the request and its answer. */
    static answer(number, value) {
      const request = LongPollTransport.#requests.get(number);
      if (request) request.value = value;
    }

    #url;
    #handlers;
    #commands = [];
    #sending = false;
    #greeted = false;
    #open = true;

    constructor(base, path, ssl, handlers) {
      this.#url = `${ssl ? "https" : "http"}://${base}/comet${path}`;
      this.#handlers = handlers;
      this.#request("", (greeting) => {
        if (typeof greeting !== "string") return this.#lose();
        this.#url += `/${greeting.slice("id:".length)}`;
        this.#greeted = true;
        handlers.onframe(greeting);
        this.#poll();
      });
    }

    #poll() {
      const begun = Date.now();
      this.#request("", (event) => {
        if (event !== undefined) this.#handlers.onframe(event);
        else if (Date.now() - begun < MIN_EMPTY_POLL_MS) return this.#lose();
        if (this.#open) this.#poll();
      });
    }

    send(text) {
      this.#commands.push(text);
      this.#sendNext();
    }

    // One at a time, since requests may overtake each other.
    #sendNext() {
      if (this.#sending || !this.#open || this.#commands.length === 0) return;
      this.#sending = true;
      this.#request(`&data=${encodeURIComponent(this.#commands.shift())}`, (ack) => {
        this.#sending = false;
        if (ack === undefined) return this.#lose();
        this.#handlers.onframe(ack);
        this.#sendNext();
      });
    }

    close() {
      if (this.#open && this.#greeted) this.#request("&data=fin", () => {});
      this.#open = false;
    }

    #lose() {
      if (!this.#open) return;
      this.#open = false;
      this.#handlers.onlost();
    }

    #request(query, onanswer) {
      const number = ++LongPollTransport.#count;
      const element = document.createElement("script");
      const request = { value: undefined };
      LongPollTransport.#requests.set(number, request);
      const done = () => {
        LongPollTransport.#requests.delete(number);
        element.remove();
      };
      element.onload = () => {
        done();
        if (this.#open) onanswer(request.value);
      };
      element.onerror = () => {
        done();
        this.#lose();
      };
      // The server may check the page's origin, and a script tag tells it by the Referer alone.
      element.referrerPolicy = "origin";
      element.src = `${this.#url}?instance=${number}&callback=tambur._answer&ts=${Date.now()}${query}`;
      document.head.append(element);
    }
  }

  class Stream {
    onmessage = null;
    onauth = null;
    onpresence = null;
    ondirect = null;
    onenabled = null;
    ondisabled = null;

    #connection;
    #ready = null;
    #active = false;
    #wanted = true;
    // Mode -> its user (undefined for auth): of what is enabled; and of what was enabled, or on its way
    // there, when the connection was lost. Between them, mode -> { user } of each attempt to enable.
    #enabled = new Map();
    #lost = new Map();
    #enabling = new Map();

    constructor(connection, name) {
      this.#connection = connection;
      this.name = name;
    }

    get ready() {
      return this.#ready;
    }

    set ready(handler) {
      this.#ready = handler;
      if (this.#active) this.#connection._call(handler, this, this);
    }

    get active() {
      return this.#active;
    }

    get enabled_modes() {
      return MODES.filter((mode) => this.#enabled.has(mode));
    }

    close() {
      this.#requireNotPrivate("closed");
      check(this.#active, `stream '${this.name}' is not active, so it cannot be closed`);
      this.#wanted = false;
      this.#connection._send(["unsubscribe", this.name], this);
      const tell = this._deactivate();
      this.#lost.clear();
      tell();
    }

    reopen() {
      this.#requireNotPrivate("reopened");
      check(!this.#active && !this.#wanted, `stream '${this.name}' is open already`);
      this.#wanted = true;
      if (this.#connection._isOpen) this._subscribe();
    }

    enable_auth(token) {
      this.#enable("auth", undefined, token);
    }

    enable_presence(user, token) {
      this.#enable("presence", user, token);
    }

    enable_direct(user, token) {
      this.#enable("direct", user, token);
    }

    disable_auth() {
      this.#disable("auth");
    }

    disable_presence() {
      this.#disable("presence");
    }

    disable_direct() {
      this.#disable("direct");
    }

    direct_msg(user, text) {
      check(this.#enabled.has("direct"), `direct mode is not enabled on stream '${this.name}'`);
      this.#connection._send(["direct", this.name, String(user), String(text)], this);
    }

    #requireNotPrivate(what) {
      check(this.name !== PRIVATE, `the stream 'private' is always there: it cannot be ${what}`);
    }

    #enable(mode, user, token) {
      check(this.name !== PRIVATE, "the stream 'private' has no modes");
      check(this.#active, `stream '${this.name}' is not active, so ${mode} cannot be enabled`);
      check(
        !this.#enabled.has(mode) && !this.#enabling.has(mode),
        `${mode} is enabled on stream '${this.name}' already`,
      );
      check(
        token !== undefined || this.#connection.ontoken,
        `${mode} takes a token, or the connection an ontoken that gets one`,
        "invalid_argument",
      );
      const attempt = { user };
      this.#enabling.set(mode, attempt);
      if (token !== undefined) return this.#sendToken(mode, attempt, token);
      const subscriber_id = this.#connection.subscriber_id;
      new Promise((resolve) => resolve(this.#connection.ontoken(mode, this.name, subscriber_id))).then(
        (fresh) => this.#sendToken(mode, attempt, fresh),
        (cause) => {
          if (this.#enabling.get(mode) === attempt) this.#enabling.delete(mode);
          const message = `no token for ${mode} on stream '${this.name}': ${cause}`;
          this.#connection._report(new TamburError(message, { code: "no_token", stream: this.name, cause }));
        },
      );
    }

    #sendToken(mode, attempt, token) {
      // Closed or lost while the token was fetched: it was for the subscriber id of then.
      if (this.#enabling.get(mode) !== attempt) return;
      const users = mode === "auth" ? [] : [String(attempt.user)];
      this.#connection._send(
        ["set_mode", mode, this.name, ...users, String(token)],
        this,
        () => {
          if (this.#enabling.get(mode) !== attempt) return;
          this.#enabling.delete(mode);
          this.#enabled.set(mode, attempt.user);
          this.#connection._call(this.onenabled, this, mode);
        },
        () => this.#enabling.get(mode) === attempt && this.#enabling.delete(mode),
      );
    }

    #disable(mode) {
      check(this.#enabled.has(mode), `${mode} is not enabled on stream '${this.name}'`);
      this.#enabled.delete(mode);
      this.#connection._send(["unset_mode", mode, this.name], this, () =>
        this.#connection._call(this.ondisabled, this, mode),
      );
    }

    // What the connection calls.

    /** The connection is open. */
    _subscribe() {
      if (!this.#wanted) return;
      if (this.name === PRIVATE) return this.#activate();
      const refused = () => (this.#wanted = false); // so that the page can reopen it
      this.#connection._send(["subscribe", this.name], this, () => this.#activate(), refused);
    }

    #activate() {
      if (!this.#wanted) return;
      this.#active = true;
      this.#connection._call(this.#ready, this, this);
      const lost = this.#lost;
      this.#lost = new Map();
      if (!this.#connection.ontoken) return;
      for (const [mode, user] of lost) {
        if (this.#active && !this.#enabled.has(mode) && !this.#enabling.has(mode)) this.#enable(mode, user);
      }
    }

    /** Closed, or the connection is lost. Returns what tells the page so, once everything is as it will be. */
    _deactivate() {
      const enabled = this.#enabled;
      this.#active = false;
      this.#lost = new Map(enabled);
      for (const [mode, { user }] of this.#enabling) this.#lost.set(mode, user);
      this.#enabling.clear();
      this.#enabled = new Map();
      return () => {
        for (const mode of enabled.keys()) this.#connection._call(this.ondisabled, this, mode);
      };
    }

    /** Whether a command that could not be done is still to be. */
    _wants([command, mode]) {
      return command === "subscribe" ? this.#wanted : this.#enabling.has(mode);
    }

    _receive(kind, body) {
      if (!this.#wanted) return; // it was on its way when the stream was closed
      const handlers = { auth: this.onauth, presence: this.onpresence, direct: this.ondirect };
      this.#connection._call(kind in handlers ? handlers[kind] : this.onmessage, this, body);
    }
  }

  class TamburConnection {
    onclose = null;
    onerror = null;
    ontoken = null;
    subscriber_id = null;

    #path;
    #host;
    #ssl;
    #maxRetries;
    #ready = null;
    #streams = new Map();
    #transport = null;
    #handle = 0;
    #pending = new Map();
    #failures = 0;
    #webSocketsPass = false;
    #timer = null;
    // Another one for each attempt to connect; null while there is none.
    #attempt = null;
    #closed = false;

    constructor(options) {
      for (const name of ["api_key", "app_id"]) {
        check(typeof options[name] === "string" && options[name], `${name} must be a string`, "invalid_argument");
      }
      this.api_key = options.api_key;
      this.app_id = options.app_id;
      this.#path = `/${encodeURIComponent(this.api_key)}/${encodeURIComponent(this.app_id)}`;
      this.#host = options.host || origin.host;
      this.#ssl = options.ssl ?? origin.protocol === "https:";
      this.#maxRetries = options.max_retries ?? Infinity;
      for (const name of ["onclose", "onerror", "ontoken"]) this[name] = options[name] ?? null;
      this.#ready = options.ready ?? null;
      // Not at once, so that handlers can still be assigned.
      this.#timer = setTimeout(() => this.#connect());
      this.#followPage(window.addEventListener);
    }

    // A page that was left may be kept, frozen, for who goes back to it. Its user is not there meanwhile, but
    // the browser would leave the socket open.
    #onpagehide = () => this.#reset();
    #onpageshow = ({ persisted }) => {
      if (persisted && !this.#attempt) this.#connect();
    };

    #followPage(change) {
      change("pagehide", this.#onpagehide);
      change("pageshow", this.#onpageshow);
    }

    get ready() {
      return this.#ready;
    }

    set ready(handler) {
      this.#ready = handler;
      if (this._isOpen) this._call(handler, this, this);
    }

    get_stream(name) {
      check(typeof name === "string" && name, "a stream's name is a string that is not empty", "invalid_argument");
      let stream = this.#streams.get(name);
      if (!stream) {
        stream = new Stream(this, name);
        this.#streams.set(name, stream);
        if (this._isOpen) stream._subscribe();
      }
      return stream;
    }

    close() {
      if (this.#closed) return;
      this.#closed = true;
      this.#followPage(window.removeEventListener);
      this.#reset();
      this._call(this.onclose, this, this);
    }

    reopen() {
      check(this.#closed, "the connection is open already");
      this.#closed = false;
      this.#followPage(window.addEventListener);
      this.#failures = 0;
      this.#connect();
    }

    #connect() {
      const handlers = { onframe: (frame) => this.#receive(frame), onlost: () => this.#lose() };
      this.#attempt = {};
      // Every third attempt polls; every tenth where it cannot be but that the server is away, or that the
      // network is another one now.
      const round = this.#webSocketsPass ? 10 : 3;
      const polls = typeof WebSocket === "undefined" || this.#failures % round === round - 1;
      const Transport = polls ? LongPollTransport : WebSocketTransport;
      this.#timer = setTimeout(() => this.#retry(), CONNECT_TIMEOUT_MS);
      try {
        this.#transport = new Transport(this.#host, this.#path, this.#ssl, handlers);
      } catch (cause) {
        this.#lose(cause);
      }
    }

    /** Let go of the connection, whatever state it is in. */
    #reset() {
      clearTimeout(this.#timer);
      if (this.#transport) this.#transport.close();
      this.#transport = this.#attempt = null;
      this.subscriber_id = null;
      this.#pending.clear();
      const active = [...this.#streams.values()].filter((stream) => stream.active);
      for (const tell of active.map((stream) => stream._deactivate())) tell();
    }

    #lose(cause) {
      if (this._isOpen) return this.#retry();
      this.#reset();
      const attempt = (this.#attempt = {});
      // Nothing else goes on with this attempt, but the page may close the connection meanwhile.
      const unlessClosed = (next) => (value) => attempt === this.#attempt && next(value);
      fetchRefusal(`${this.#ssl ? "https" : "http"}://${this.#host}${this.#path}`).then(
        unlessClosed((refusal) => (refusal ? this.#giveUp(refusal) : this.#retry(cause))),
        unlessClosed(() => this.#retry(cause)),
      );
    }

    /** The server refused the connection, and will again: asking once more would not change that. */
    #giveUp({ code, reason }) {
      this.#reset();
      this._report(new TamburError(`${this.#host} refused the connection: ${reason}`, { code }));
      if (!this.#closed && !this.#attempt) this.close();
    }

    #retry(cause) {
      const [code, what] = this._isOpen
        ? ["connection_lost", "lost the connection to"]
        : ["cannot_connect", "cannot connect to"];
      this.#reset();
      this.#failures += 1;
      const message = `${what} ${this.#host}${cause ? `: ${cause.message}` : ""}`;
      this._report(new TamburError(message, { code, cause }));
      if (this.#closed || this.#attempt) return; // the page closed or reopened the connection in its onerror
      if (this.#failures > this.#maxRetries) return this.close();
      this.#timer = setTimeout(() => this.#connect(), wait(this.#failures));
    }

    #receive(frame) {
      if (typeof frame === "string" && frame.startsWith("id:")) return this.#open(frame.slice("id:".length));
      let array = frame;
      try {
        if (typeof frame === "string") array = JSON.parse(frame);
      } catch (cause) {
        return this._report(new TamburError("the server sent something that is not JSON", { code: "invalid_frame", cause }));
      }
      const [word, ...rest] = Array.isArray(array) ? array : [];
      if (word === "ack") this.#acknowledge(...rest);
      else if (word === "msg") this.#streams.get(rest[0])?._receive(rest[1], rest[2]);
    }

    #open(subscriber_id) {
      clearTimeout(this.#timer);
      this.#failures = 0;
      this.#webSocketsPass ||= this.#transport instanceof WebSocketTransport;
      this.subscriber_id = subscriber_id;
      // Those that the page makes in its ready subscribe by themselves.
      for (const stream of [...this.#streams.values()]) if (this._isOpen) stream._subscribe();
      if (this._isOpen) this._call(this.#ready, this, this);
    }

    #acknowledge(handle, result) {
      if (handle === 0) {
        const message = `the server did not understand: ${result}`;
        return this._report(new TamburError(message, { code: "malformed_command", result }));
      }
      const pending = this.#pending.get(handle);
      this.#pending.delete(handle);
      if (!pending) return;
      if (result === "ok") return pending.onok?.();
      const [command] = pending.array;
      if (result === "unavailable" && command !== "direct") this.#sendLater(pending);
      else pending.onrefused?.();
      const stream = pending.stream.name;
      const message = `the server refused ${command} on stream '${stream}': ${result}`;
      this._report(new TamburError(message, { code: result, command, result, stream }));
    }

    /** The server cannot do it at the moment: ask again after a growing wait, if the connection is still the same. */
    #sendLater({ array, stream, onok, onrefused, attempts }) {
      const { subscriber_id } = this;
      const again = () => {
        if (this.subscriber_id !== subscriber_id) return;
        if (stream._wants(array)) this._send(array, stream, onok, onrefused, attempts + 1);
      };
      setTimeout(again, wait(attempts));
    }

    // What streams call.

    get _isOpen() {
      return this.subscriber_id !== null;
    }

    _send(array, stream, onok, onrefused, attempts = 1) {
      const [command, ...rest] = array;
      const handle = ++this.#handle;
      const text = JSON.stringify([command, handle, ...rest]);
      if (this.#transport instanceof LongPollTransport && encodeURIComponent(text).length > MAX_POLLED_COMMAND) {
        const message = `the ${command} on stream '${stream.name}' is too long for long polling`;
        const result = "message_too_large";
        this._report(new TamburError(message, { code: result, command, result, stream: stream.name }));
        return onrefused?.();
      }
      this.#pending.set(handle, { array, stream, onok, onrefused, attempts });
      this.#transport.send(text);
    }

    /** Call a handler of the page, whose mistakes must not become ours. */
    _call(handler, self, ...args) {
      if (typeof handler !== "function") return;
      try {
        handler.apply(self, args);
      } catch (cause) {
        const isOurs = cause instanceof TamburError;
        const message = cause instanceof Error ? cause.message : String(cause);
        this._report(isOurs ? cause : new TamburError(message, { code: "handler_failed", cause }));
      }
    }

    _report(error) {
      if (typeof this.onerror !== "function") return console.error(error);
      try {
        this.onerror(error);
      } catch (another) {
        console.error(another);
      }
    }
  }

  /** With or without `new`; either named options or, in this order, the most used of them. */
  function Connection(api_key, app_id, ssl, ready, onclose, max_retries) {
    const named = typeof api_key === "object" && api_key !== null;
    return new TamburConnection(named ? api_key : { api_key, app_id, ssl, ready, onclose, max_retries });
  }
  Connection.prototype = TamburConnection.prototype;

  return { Connection, TamburError, _answer: LongPollTransport.answer };
})();
