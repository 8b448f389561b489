/*
 * Tambur for browsers. Load it from your Tambur server:
 *
 *     <script src="https://tambur.example.com/tambur.js"></script>
 *     <script>
 *       const connection = new tambur.Connection("API_KEY", "APP_ID");
 *       const news = connection.get_stream("news");
 *       news.onmessage = (text) => console.log(text);
 *     </script>
 *
 * As a module: import { Connection } from "https://tambur.example.com/tambur.mjs", or from the npm package "tambur".
 *
 * tambur.d.ts declares and explains the whole interface. The protocol is docs/reference/protocol.md.
 */
"use strict";

var tambur = ((url) => {
  const MODES = ["auth", "presence", "direct"];
  const PRIVATE = "private";
  const FIRST_WAIT_MS = 500;
  const MAX_WAIT_MS = 30_000;
  const CONNECT_TIMEOUT_MS = 10_000;
  // A request of long polling carries so many commands, and ends with the one that passes so many characters.
  const MAX_POLLED_COMMANDS = 100;
  const MAX_POLLED_LENGTH = 16 * 1024; // up to 48 KiB in UTF-8
  const BUSY_WAIT_MS = 1_000;
  // The connection may be silent for so many heartbeats before it counts as lost.
  const MAX_HEARTBEATS = 1.5;
  // Browsers take a longer time for none.
  const MAX_TIMER_MS = 2 ** 31 - 1;
  // The close code of a connection that the client means to continue.
  const LOST = 4000;
  const MAX_LAST = 1_000;
  // Close codes after which the client stays away.
  const ENDINGS = {
    4003: { code: "disconnected", reason: "the application disconnected it" },
    4009: { code: "session_taken", reason: "its session continues on another connection" },
  };

  // The server that this was loaded from; null if that is not known.
  const home = url ? new URL(url) : null;

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

  /** Returns a token; throws if it is something else, such as a log-in page or a JSON string. Its text stays secret. */
  function checkToken(token) {
    const found = typeof token === "string" ? `a string of ${token.length} characters` : token && typeof token;
    const isToken = /^\w{1,64}$/.test(token) && typeof token === "string";
    check(isToken, `a token has 40 hexadecimal digits, but ontoken returned ${found}`, "no_token");
    return token;
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

  // Transports. Each has send(text) and close(code), and calls back: onframe(text or array) for what the server
  // sends, and onlost(code) once, when there is no connection or no longer one.

  class WebSocketTransport {
    constructor(base, path, ssl, { onframe, onlost }) {
      this.socket = new WebSocket(`${ssl ? "wss" : "ws"}://${base}${path}`);
      this.socket.onmessage = (event) => onframe(event.data);
      this.socket.onclose = ({ code }) => onlost(code);
    }

    send(text) {
      this.socket.send(text);
    }

    close(code) {
      this.socket.onmessage = this.socket.onclose = null;
      this.socket.close(code);
    }
  }

  /** Where WebSockets do not pass: each request carries commands there, and frames back. */
  class LongPollTransport {
    #url;
    #handlers;
    #commands = [];
    // The server's name for this connection, and the number of the last frame.
    #secret;
    #received = 0;
    #requests = 0;
    #isSending = false;
    #ending = new AbortController();

    constructor(base, path, ssl, handlers) {
      this.#url = `${ssl ? "https" : "http"}://${base}/comet${path}`;
      this.#handlers = handlers;
      this.#request([]);
    }

    get #isOpen() {
      return !this.#ending.signal.aborted;
    }

    send(text) {
      this.#commands.push(text);
      if (!this.#isSending) this.#next();
    }

    /** Send the commands that wait, or poll. Requests may overtake each other, so one at a time has commands. */
    #next() {
      let length = 0;
      let count = 0;
      while (count < this.#commands.length && count < MAX_POLLED_COMMANDS && length < MAX_POLLED_LENGTH) {
        length += this.#commands[count++].length;
      }
      this.#request(this.#commands.splice(0, count));
    }

    async #request(commands) {
      this.#requests += 1;
      this.#isSending ||= commands.length > 0;
      let answer;
      try {
        answer = await this.#post(commands);
      } catch {
        return this.#lose();
      }
      if (commands.length) this.#isSending = false;
      this.#requests -= 1;
      this.#take(answer);
      if (this.#isOpen && (!this.#requests || (this.#commands.length && !this.#isSending))) this.#next();
    }

    async #post(commands) {
      const answer = await fetch(this.#url, this.#options(commands, { signal: this.#ending.signal }));
      if (answer.status === 429) {
        // It has taken nothing, since too many commands wait there.
        await new Promise((resolve) => setTimeout(resolve, BUSY_WAIT_MS));
        return this.#post(commands);
      }
      const content = await answer.json();
      check(Array.isArray(content.frames), "not an answer of a Tambur server", "invalid_frame");
      return content;
    }

    #options(commands, { close, ...options }) {
      const fields = JSON.stringify({ poll: this.#secret, n: this.#secret && this.#received, close });
      const body = `${fields.slice(0, -1)}${fields.length > 2 ? "," : ""}"send":[${commands}]}`;
      // The server may check the page's origin.
      return { method: "POST", body, credentials: "omit", referrerPolicy: "origin", ...options };
    }

    /** Pass frames on. Those that have not been confirmed come again. */
    #take({ poll, n, frames }) {
      this.#secret = poll;
      const isNew = (_, index) => n - frames.length + index >= this.#received;
      const fresh = frames.filter(isNew);
      this.#received = Math.max(this.#received, n);
      for (const frame of fresh.length ? fresh : [["heartbeat"]]) {
        if (!this.#isOpen) return;
        if (frame[0] === "close") return this.#lose(frame[1]);
        this.#handlers.onframe(frame);
      }
    }

    /** Tell the server, which would otherwise wait for the next poll. */
    close(code = 1000) {
      if (!this.#isOpen) return;
      this.#ending.abort();
      if (!this.#secret) return;
      // It is to arrive while the user leaves the page, too.
      const options = this.#options(this.#commands, { close: code, mode: "no-cors", keepalive: true });
      fetch(this.#url, options).catch(() => {});
    }

    #lose(code) {
      if (!this.#isOpen) return;
      // Firefox ends the poll before it tells that the user leaves the page.
      this.close(LOST);
      this.#handlers.onlost(code);
    }
  }

  class Stream extends EventTarget {
    onmessage = null;
    onauth = null;
    onpresence = null;
    ondirect = null;
    onenabled = null;
    ondisabled = null;
    onmissed = null;

    #connection;
    #ready = null;
    #active = false;
    #wanted = true;
    // How many kept messages to start with, if any.
    #last;
    // Where to go on from; null where the stream begins anew.
    #position = null;
    // Whether the next subscribe continues a lost one: `ready` has been called, and is not called again.
    #continues = false;
    // Whether `ready` has been assigned while the stream was not active.
    #isReadyNew = false;
    #listensForMissed = false;
    // Mode -> { user, token } of what is enabled, and of each attempt to enable.
    #enabled = new Map();
    #enabling = new Map();
    // Mode -> user of what was enabled, or on its way there, when the session ended.
    #lost = new Map();
    // The options of the last subscribe, which may be on its way.
    #options = {};
    // The users that the page knows to be present, and those that a new list has named so far.
    #present = new Set();
    #listed = null;

    constructor(connection, name, last) {
      super();
      this.#connection = connection;
      this.#last = last;
      this.name = name;
    }

    addEventListener(type, ...rest) {
      this.#listensForMissed ||= type === "missed";
      super.addEventListener(type, ...rest);
    }

    get ready() {
      return this.#ready;
    }

    set ready(handler) {
      this.#ready = handler;
      this.#isReadyNew = !this.#active;
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
      this.#position = null;
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
      check(this.#active, `stream '${this.name}' is not active, so it takes no direct message`);
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
      check(mode === "auth" || (user ?? "") !== "", `${mode} takes a user ID that is not empty`, "invalid_argument");
      const attempt = { user: mode === "auth" ? undefined : String(user) };
      this.#enabling.set(mode, attempt);
      if (token !== undefined) return this.#useToken(mode, attempt, token);
      const subscriber_id = this.#connection.subscriber_id;
      const asked = new Promise((resolve) => resolve(this.#connection.ontoken(mode, this.name, subscriber_id)));
      asked.then(checkToken).then(
        (fresh) => this.#useToken(mode, attempt, fresh),
        (cause) => {
          if (this.#enabling.get(mode) === attempt) this.#enabling.delete(mode);
          const message = `no token for ${mode} on stream '${this.name}': ${cause}`;
          this.#connection._report(new TamburError(message, { code: "no_token", stream: this.name, cause }));
        },
      );
    }

    #useToken(mode, attempt, token) {
      attempt.token = String(token);
      if (this.#active) this.#sendToken(mode, attempt);
    }

    #sendToken(mode, attempt) {
      // Closed or lost while the token was fetched: it was for the subscriber id of then.
      const isWanted = () => this.#enabling.get(mode) === attempt;
      if (!isWanted() || attempt.token === undefined) return;
      const { user, token } = attempt;
      if (mode === "presence") this.#listed = new Set();
      this.#connection._send(
        ["set_mode", mode, this.name, ...(mode === "auth" ? [] : [user]), token],
        this,
        () => {
          if (!isWanted()) return;
          this.#enabling.delete(mode);
          this.#enabled.set(mode, attempt);
          if (mode === "presence") this.#compareList();
          this.#connection._emit(this, "enabled", mode);
        },
        () => isWanted() && this.#enabling.delete(mode),
      );
    }

    #disable(mode) {
      check(this.#enabled.has(mode), `${mode} is not enabled on stream '${this.name}'`);
      this.#enabled.delete(mode);
      const tell = () => {
        if (mode === "presence") this.#present.clear();
        this.#connection._emit(this, "disabled", mode);
      };
      if (!this.#connection._isOpen) return tell(); // the mode is lost with the connection
      delete this.#options[mode]; // in case that this subscribe is sent again
      this.#connection._send(["unset_mode", mode, this.name], this, tell);
    }

    /** A list of present users is complete: tell the page who has left since the list before. */
    #compareList() {
      const listed = this.#listed;
      this.#listed = null;
      if (!listed) return;
      for (const user of [...this.#present]) {
        if (!listed.has(user) && this.#present.delete(user)) this.#connection._emit(this, "presence", [user, "down"]);
      }
    }

    /** Note who is present. Returns whether the page does not know it yet. */
    #notePresence([user, what]) {
      if (what !== "up") {
        this.#listed?.delete(user);
        return this.#present.delete(user);
      }
      this.#listed?.add(user);
      return !this.#present.has(user) && Boolean(this.#present.add(user));
    }

    // Callbacks of the connection

    /** The connection is open. `complete`: whether no private message was missed. */
    _subscribe(complete = true) {
      if (!this.#wanted) return this.#connection._settle(this);
      if (this.name === PRIVATE) return this.#activate({ complete });
      const options = (this.#options = {});
      if (this.#connection._isExtended) {
        if (this.#position) options.since = this.#position;
        else if (this.#last !== undefined) options.last = this.#last;
      }
      for (const [mode, { user, token }] of this.#enabled) options[mode] = mode === "auth" ? token : [user, token];
      if (options.presence) this.#listed = new Set();
      this.#connection._send(
        ["subscribe", this.name, ...(Object.keys(options).length ? [options] : [])],
        this,
        (info) => this.#activate(info),
        (result) => {
          const tell = this._deactivate();
          // A token is void: begin anew. Otherwise, the page can reopen the stream.
          this.#wanted &&= result === "invalid_token";
          tell();
          if (!this.#wanted) this.#connection._settle(this);
          else if (this.#connection._isOpen) this._subscribe();
        },
      );
    }

    #activate({ position, complete = true } = {}) {
      const connection = this.#connection;
      if (!this.#wanted) return connection._settle(this);
      const hearsOfMissed = this.#listensForMissed || typeof this.onmissed === "function";
      if (this.#continues && !complete && !hearsOfMissed) {
        // The page begins anew, as after a reconnect without a session.
        for (const mode of this.#enabled.keys()) connection._send(["unset_mode", mode, this.name], this);
        this._deactivate()();
        if (!connection._isOpen) return; // the page closed it in a handler
      }
      if (position) this.#position = position;
      this.#active = true;
      const continues = this.#continues;
      if (!complete && hearsOfMissed) connection._emit(this, "missed", this);
      if (this.#active && !continues) connection._emit(this, "ready", this);
      else if (this.#active && this.#isReadyNew) connection._call(this.#ready, this, this);
      this.#isReadyNew = false;
      if (this.#active) this.#compareList();
      for (const [mode, attempt] of [...this.#enabling]) if (continues && this.#active) this.#sendToken(mode, attempt);
      const lost = this.#lost;
      this.#lost = new Map();
      if (connection.ontoken) {
        for (const [mode, user] of lost) {
          if (this.#active && !this.#enabled.has(mode) && !this.#enabling.has(mode)) this.#enable(mode, user);
        }
      }
      connection._settle(this);
    }

    /** The connection is lost, and its session may continue. */
    _suspend() {
      this.#continues ||= this.#active;
      this.#active = false;
    }

    /** Closed, or the session is over. Returns what tells the page so, once everything is as it will be. */
    _deactivate() {
      const enabled = this.#enabled;
      this.#active = this.#continues = false;
      // A stream that starts with history has no other way to fill a gap.
      if (this.#last === undefined) this.#position = null;
      for (const [mode, { user }] of [...enabled, ...this.#enabling]) this.#lost.set(mode, user);
      this.#enabling.clear();
      this.#enabled = new Map();
      this.#present.clear();
      this.#listed = null;
      return () => {
        for (const mode of enabled.keys()) this.#connection._emit(this, "disabled", mode);
      };
    }

    /** Whether a command that could not be done is still to be. */
    _wants([command, mode]) {
      return command === "subscribe" ? this.#wanted : this.#enabling.has(mode);
    }

    _receive(kind, body, position) {
      if (!this.#wanted) return; // it was on its way when the stream was closed
      if (position) this.#position = position;
      if (kind === "presence" && !this.#notePresence(body)) return;
      this.#connection._emit(this, MODES.includes(kind) ? kind : "message", body);
    }
  }

  class TamburConnection extends EventTarget {
    onstate = null;
    onclose = null;
    onerror = null;
    ontoken = null;
    onresume = null;
    subscriber_id = null;

    #path;
    #host;
    #ssl;
    #maxRetries;
    #ready = null;
    #isReadyNew = false;
    #streams = new Map();
    #transport = null;
    // Whether to continue a session after the connection was lost; its key, and the position of private messages.
    #resumes;
    #session = null;
    #position = null;
    // The parts of a resume whose answers are missing.
    #unsettled = new Set();
    // When the last frame came, and how long none may come; 0 where the server sends no heartbeat.
    #heardAt = 0;
    #maxSilence = 0;
    #handle = 0;
    #pending = new Map();
    #failures = 0;
    #webSocketsPass = false;
    #timer = null;
    // Another one each time that the server is asked why it refused; null while it is not asked.
    #question = null;
    #state = "connecting";

    constructor(options) {
      super();
      for (const name of ["api_key", "app_id"]) {
        check(typeof options[name] === "string" && options[name], `${name} must be a string`, "invalid_argument");
      }
      this.api_key = options.api_key;
      this.app_id = options.app_id;
      this.#path = `/${encodeURIComponent(this.api_key)}/${encodeURIComponent(this.app_id)}`;
      check(
        options.host || home,
        "host is required, since tambur.js was not loaded from a Tambur server",
        "invalid_argument",
      );
      this.#host = options.host || home.host;
      check(!/[/\s]/.test(this.#host), `host is 'host' or 'host:port', not '${this.#host}'`, "invalid_argument");
      this.#ssl = options.ssl ?? (home || location).protocol === "https:";
      this.#maxRetries = options.max_retries ?? Infinity;
      this.#resumes = options.resume ?? true;
      for (const name of ["onstate", "onclose", "onerror", "ontoken", "onresume"]) this[name] = options[name] ?? null;
      this.#ready = options.ready ?? null;
      // Not at once, so that handlers can still be assigned.
      this.#timer = setTimeout(() => this.#connect());
      this.#followPage(window.addEventListener);
    }

    #onpage = ({ type }) => {
      // The browser may keep a page that the user leaves, with its socket open, and show it again later.
      // Meanwhile the user is not there.
      if (type === "pagehide") this.#leave("waiting");
      else if (type === "offline") this.#transport && this.#retry();
      else if (type !== "visibilitychange" || !document.hidden) this.#wake(type === "online");
    };

    #followPage(change) {
      // As they are captured, those of the document come by here, too.
      for (const type of ["pagehide", "pageshow", "visibilitychange", "resume", "offline", "online"]) {
        change(type, this.#onpage, true);
      }
    }

    /** The page was asleep, or the network has changed. */
    #wake(isAnotherNetwork) {
      if (this.#state === "waiting" || (this.#state === "connecting" && isAnotherNetwork)) {
        this.#leave("waiting");
        if (this.#state === "waiting") this.#connect(); // unless the page closed it in a handler
      } else this.#checkSilence();
    }

    #checkSilence() {
      if (!this._isOpen || !this.#maxSilence) return;
      clearTimeout(this.#timer);
      const silence = Date.now() - this.#heardAt;
      // Where it is negative, the clock was set back.
      if (silence < 0 || silence >= this.#maxSilence) return this.#retry();
      this.#timer = setTimeout(() => this.#checkSilence(), this.#maxSilence - silence);
    }

    get state() {
      return this.#state;
    }

    get ready() {
      return this.#ready;
    }

    set ready(handler) {
      this.#ready = handler;
      this.#isReadyNew = !this._isOpen;
      if (this._isOpen) this._call(handler, this, this);
    }

    get_stream(name, { last } = {}) {
      check(typeof name === "string" && name, "a stream's name is a string that is not empty", "invalid_argument");
      check(
        last === undefined || (Number.isInteger(last) && last >= 0 && last <= MAX_LAST),
        `last is an integer from 0 to ${MAX_LAST}`,
        "invalid_argument",
      );
      check(last === undefined || this.#resumes, "last takes a connection without resume: false", "invalid_argument");
      let stream = this.#streams.get(name);
      if (!stream) {
        stream = new Stream(this, name, last);
        this.#streams.set(name, stream);
        if (this._isOpen) stream._subscribe();
      }
      return stream;
    }

    close() {
      if (this.#isClosed) return;
      this.#leave("closed");
      this._emit(this, "close", this);
    }

    reopen() {
      check(this.#isClosed, "the connection is open already");
      this.#followPage(window.addEventListener);
      this.#failures = 0;
      this.#connect();
    }

    get #isClosed() {
      return this.#state === "closed" || this.#state === "refused";
    }

    #connect() {
      this.#enter("connecting");
      if (this.#state !== "connecting" || this.#transport) return; // the page closed or reopened it in a handler
      const handlers = { onframe: (frame) => this.#receive(frame), onlost: (code) => this.#lose(code) };
      // Every third attempt polls. Once a WebSocket has passed, an attempt fails because the server is down or
      // the network has changed, so only every tenth polls.
      const round = this.#webSocketsPass ? 10 : 3;
      const polls = typeof WebSocket === "undefined" || this.#failures % round === round - 1;
      const Transport = polls ? LongPollTransport : WebSocketTransport;
      this.#timer = setTimeout(() => this.#retry(), CONNECT_TIMEOUT_MS);
      try {
        this.#transport = new Transport(this.#host, this.#path, this.#ssl, handlers);
      } catch (cause) {
        this.#askWhy(cause);
      }
    }

    /** Enter a state, and tell the page if it is another one. */
    #enter(state) {
      if (this.#state === state) return;
      this.#state = state;
      this._emit(this, "state", state);
    }

    /** End the connection or the attempt, if there is one, and enter a state. */
    #leave(state) {
      clearTimeout(this.#timer);
      const isNew = this.#state !== state;
      this.#state = state;
      if (this.#transport) this.#transport.close(this.#isClosed ? undefined : LOST);
      this.#transport = this.#question = null;
      const unanswered = [...this.#pending.values()];
      this.#pending.clear();
      this.#unsettled.clear();
      let tell = [];
      if (this.#isClosed || !this.#session) tell = this.#endSession();
      else for (const stream of this.#streams.values()) stream._suspend();
      if (this.#isClosed) this.#followPage(window.removeEventListener);
      // A mode that was on its way to be disabled is disabled now.
      for (const { array, onok } of unanswered) if (array[0] === "unset_mode") onok?.();
      for (const each of tell) each();
      if (isNew && this.#state === state) this._emit(this, "state", state);
    }

    /** Returns what tells the page so, once everything is as it will be. */
    #endSession() {
      this.#session = this.#position = this.subscriber_id = null;
      return [...this.#streams.values()].map((stream) => stream._deactivate());
    }

    /** The transport is closed. */
    #lose(code) {
      if (ENDINGS[code]) return this.#giveUp(ENDINGS[code], "closed");
      if (this._isOpen) return this.#retry();
      this.#askWhy();
    }

    #askWhy(cause) {
      this.#leave("connecting");
      const question = (this.#question = {});
      // The page may close the connection before the answer arrives.
      const unlessClosed = (next) => (value) => question === this.#question && next(value);
      fetchRefusal(`${this.#ssl ? "https" : "http"}://${this.#host}${this.#path}`).then(
        unlessClosed((refusal) => (refusal ? this.#giveUp(refusal) : this.#retry(cause))),
        unlessClosed(() => this.#retry(cause)),
      );
    }

    /** The server refused or closed the connection, and would again: asking once more would not change that. */
    #giveUp({ code, reason }, what = "refused") {
      this.#fail("refused", new TamburError(`${this.#host} ${what} the connection: ${reason}`, { code }));
    }

    #retry(cause) {
      const [code, what] = this._isOpen
        ? ["connection_lost", "lost the connection to"]
        : ["cannot_connect", "cannot connect to"];
      this.#failures += 1;
      const message = `${what} ${this.#host}${cause ? `: ${cause.message}` : ""}`;
      const state = this.#failures > this.#maxRetries ? "closed" : "waiting";
      this.#fail(state, new TamburError(message, { code, cause }));
    }

    #fail(state, error) {
      this.#leave(state);
      this._report(error);
      if (this.#state !== state) return; // the page closed or reopened the connection in a handler
      if (this.#isClosed) this._emit(this, "close", this);
      else this.#timer = setTimeout(() => this.#connect(), wait(this.#failures));
    }

    #receive(frame) {
      this.#heardAt = Date.now();
      if (typeof frame === "string" && frame.startsWith("id:")) return this.#greet(frame.slice("id:".length));
      let array = frame;
      try {
        if (typeof frame === "string") array = JSON.parse(frame);
      } catch (cause) {
        return this._report(new TamburError("the server sent something that is not JSON", { code: "invalid_frame", cause }));
      }
      const [word, ...rest] = Array.isArray(array) ? array : [];
      if (word === "ack") this.#acknowledge(...rest);
      else if (word === "session") this.#session = rest[0];
      else if (word === "msg") {
        const [name, ...message] = rest;
        if (name === PRIVATE && message[2]) this.#position = message[2];
        this.#streams.get(name)?._receive(...message);
      }
    }

    #greet(id) {
      if (!this.#resumes) return this.#open({ id });
      const options = {};
      if (this.#session) {
        options.session = this.#session;
        if (this.#position) options.since = this.#position;
      }
      const refused = () => {
        if (!this.#session) return this.#open({ id });
        this.#session = null;
        this.#greet(id);
      };
      this._send(["hello", options], null, (info) => this.#open(info), refused);
    }

    /** The server takes commands. Without an extended connection, it has told the id alone. */
    #open({ id, session = null, position = null, resumed = false, complete = true, heartbeat_s = 0 }) {
      clearTimeout(this.#timer);
      this.#failures = 0;
      this.#pending.clear();
      const transport = this.#transport;
      this.#webSocketsPass ||= transport instanceof WebSocketTransport;
      const tell = resumed ? [] : this.#endSession();
      this.subscriber_id = id;
      this.#session = session;
      this.#position = position;
      this.#maxSilence = Math.min(heartbeat_s * 1000 * MAX_HEARTBEATS, MAX_TIMER_MS);
      for (const each of tell) each();
      if (this.#transport !== transport) return; // the page closed the connection in a handler
      // Streams that the page makes in a handler subscribe by themselves.
      const streams = [...this.#streams.values()];
      if (resumed) this.#unsettled = new Set([this, ...streams]);
      this.#enter("connected");
      this.#checkSilence();
      for (const stream of streams) if (this._isOpen) stream._subscribe(complete || !resumed);
      if (this._isOpen && !resumed) this._emit(this, "ready", this);
      else if (this._isOpen && this.#isReadyNew) this._call(this.#ready, this, this);
      this.#isReadyNew = false;
      this._settle(this);
    }

    #acknowledge(handle, result, info) {
      if (handle === 0 && this._isOpen) {
        const message = `the server did not understand: ${result}`;
        return this._report(new TamburError(message, { code: "malformed_command", result }));
      }
      // Until the connection is open, only a hello can be meant.
      const [answered] = handle ? [handle] : this.#pending.keys();
      const pending = this.#pending.get(answered);
      this.#pending.delete(answered);
      if (!pending) return;
      if (result === "ok") return pending.onok?.(info);
      const [command] = pending.array;
      if (command === "hello" && result !== "unavailable") return pending.onrefused();
      if (result === "unavailable" && command !== "direct") this.#sendLater(pending);
      else pending.onrefused?.(result);
      const stream = pending.stream?.name ?? null;
      const message = `the server refused ${command}${stream ? ` on stream '${stream}'` : ""}: ${result}`;
      this._report(new TamburError(message, { code: result, command, result, stream }));
    }

    /** The server cannot do it at the moment: ask again after a growing wait, if the connection is still the same. */
    #sendLater({ array, stream, onok, onrefused, attempts }) {
      const transport = this.#transport;
      const again = () => {
        if (this.#transport !== transport) return;
        if (!stream || stream._wants(array)) this._send(array, stream, onok, onrefused, attempts + 1);
        else onrefused?.();
      };
      setTimeout(again, wait(attempts));
    }

    // Interface for streams

    get _isOpen() {
      return this.#state === "connected";
    }

    get _isExtended() {
      return this.#session !== null;
    }

    /** A part of a resume is done, if one is under way. */
    _settle(part) {
      if (this.#unsettled.delete(part) && !this.#unsettled.size) this._emit(this, "resume", this);
    }

    _send(array, stream, onok, onrefused, attempts = 1) {
      const [command, ...rest] = array;
      const handle = ++this.#handle;
      const text = JSON.stringify([command, handle, ...rest]);
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

    /** Tell the page of an event: its handler first, then its listeners. */
    _emit(target, type, detail) {
      this._call(target[type === "ready" ? type : `on${type}`], target, detail);
      target.dispatchEvent(new CustomEvent(type, { detail }));
    }

    _report(error) {
      const isHandled = typeof this.onerror === "function";
      try {
        if (isHandled) this.onerror(error);
      } catch (another) {
        console.error(another);
      }
      const isUnheard = this.dispatchEvent(new CustomEvent("error", { detail: error, cancelable: true }));
      if (isUnheard && !isHandled) console.error(error);
    }
  }

  /** With or without `new`; either named options or, in this order, the most used of them. */
  function Connection(api_key, app_id, ssl, ready, onclose, max_retries) {
    const named = typeof api_key === "object" && api_key !== null;
    return new TamburConnection(named ? api_key : { api_key, app_id, ssl, ready, onclose, max_retries });
  }
  Connection.prototype = TamburConnection.prototype;

  return { Connection, TamburError };
})(document.currentScript?.src || location.href);
