/** The interface of tambur.js, which a page loads from its Tambur server. */

declare namespace tambur {
  type Mode = "auth" | "presence" | "direct";

  /**
   * - `"connecting"`: an attempt to connect is under way.
   * - `"connected"`: the connection is open.
   * - `"waiting"`: the connection is lost or an attempt failed, and the next attempt follows. Also while the user
   *   has left the page, and the browser keeps it.
   * - `"closed"`: the page closed the connection, or `max_retries` attempts in a row failed. `reopen()` connects again.
   * - `"refused"`: the server refuses this connection, and would refuse it again; or the application disconnected
   *   it; or its session continues elsewhere. `reopen()` connects again.
   */
  type State = "connecting" | "connected" | "waiting" | "closed" | "refused";

  interface Options {
    /** The public half of the app's credentials, as in its TAMBUR_URL. */
    api_key: string;
    /** The app, as in its TAMBUR_URL. */
    app_id: string;
    /** Connect with TLS. Default: as the script was loaded; as the page was loaded if that is not from a server. */
    ssl?: boolean;
    /**
     * The server, as `host` or `host:port`, without `https://`. Default: where the script was loaded from. Required if the module was not
     * loaded from a Tambur server, such as in a bundle.
     */
    host?: string;
    /** How many attempts in a row may fail before the connection is closed. Default: any number. */
    max_retries?: number;
    /** Whether the session continues after a lost connection, and missed messages are replayed. Default: true. */
    resume?: boolean;
    /** The `ready` of the connection: called on each connect but one that continues a session. */
    ready?: Connection["ready"];
    /** The `onstate` of the connection: called when `state` has changed. */
    onstate?: Connection["onstate"];
    /** The `onclose` of the connection: called when it is closed or refused. */
    onclose?: Connection["onclose"];
    /** The `onerror` of the connection: called with each error that is not thrown. */
    onerror?: Connection["onerror"];
    /** The `ontoken` of the connection: returns a token from your app. */
    ontoken?: Connection["ontoken"];
    /** The `onresume` of the connection: called when a session continues. */
    onresume?: Connection["onresume"];
  }

  interface StreamOptions {
    /**
     * How many of the newest kept messages to start with: 0 to 1000. The stream must have an `[[apps.history]]` entry
     * on the server. It takes a connection without `resume: false`.
     */
    last?: number;
  }

  /** The events of an object, by name: the type of each event's `detail`. */
  interface Events<Details> extends EventTarget {
    addEventListener<Name extends keyof Details & string>(
      type: Name,
      listener: Listener<Details[Name]> | null,
      options?: boolean | AddEventListenerOptions,
    ): void;
    removeEventListener<Name extends keyof Details & string>(
      type: Name,
      listener: Listener<Details[Name]> | null,
      options?: boolean | EventListenerOptions,
    ): void;
  }

  type Listener<Detail> =
    | ((event: CustomEvent<Detail>) => void)
    | { handleEvent(event: CustomEvent<Detail>): void };

  /** The `detail` of each event of a connection. Each event also calls the handler of its name. */
  interface ConnectionEvents {
    ready: Connection;
    state: State;
    close: Connection;
    resume: Connection;
    /** `preventDefault()` keeps the error out of the console. */
    error: TamburError;
  }

  /** The `detail` of each event of a stream. Each event also calls the handler of its name. */
  interface StreamEvents {
    ready: Stream;
    message: string;
    auth: string;
    presence: Presence;
    direct: Direct;
    enabled: Mode;
    disabled: Mode;
    missed: Stream;
  }

  type Presence = [user: string, what: "up" | "down"];
  type Direct = [from: string, text: string];

  /**
   * A connection to one app. It connects by itself: by WebSocket or, where that fails, by long polling. After
   * a connection is lost it connects again, with growing pauses, and continues its session: streams, modes and
   * `subscriber_id` stay, and the page receives the messages that it missed. Where the session has ended, it
   * subscribes to its streams again. After a refusal that would not change, such as a wrong key, it closes. It
   * disconnects when the user leaves the page, and connects again when the user goes back to it.
   */
  interface Connection extends Events<ConnectionEvents> {
    /** As given. */
    readonly api_key: string;
    /** As given. */
    readonly app_id: string;
    /** Whether the connection is open, on its way or closed. `onstate` is called when it has changed. */
    readonly state: State;
    /**
     * The server's ID for this session; null before the first connect and while the connection is closed. It stays
     * while the connection is lost, and changes when the session cannot be continued.
     */
    readonly subscriber_id: string | null;
    /** Called on each connect but one that continues a session; immediately if already connected. */
    ready: ((this: Connection, connection: Connection) => void) | null;
    /** Called when `state` has changed. */
    onstate: ((this: Connection, state: State) => void) | null;
    /** Called when the page closes the connection, when it enters the state "refused", and after `max_retries`. */
    onclose: ((this: Connection, connection: Connection) => void) | null;
    /** Called with each error that is not thrown; its `code` says which. Default: console.error. */
    onerror: ((this: Connection, error: TamburError) => void) | null;
    /**
     * Returns a token. Called when a mode is enabled without one, and for each mode that was enabled when the page
     * begins anew: where the session has ended, or messages were missed and the stream has no `onmissed`. A token for
     * presence or direct must be for the user that the mode was enabled for. An error that it throws reaches `onerror`
     * as `no_token`, and the mode stays disabled.
     */
    ontoken: ((mode: Mode, stream: string, subscriber_id: string) => string | Promise<string>) | null;
    /** The session continues on a new connection, and all its streams are subscribed again. */
    onresume: ((this: Connection, connection: Connection) => void) | null;
    /**
     * The stream of that name, subscribed; always the same object. `"private"` receives private messages. The options
     * count when the stream is made. A message to `auth:news` arrives at the stream `news`, in `onauth`.
     */
    get_stream(name: string, options?: StreamOptions): Stream;
    /** Closes the connection, if it is open. */
    close(): void;
    /** Connects again. Throws unless the state is `"closed"` or `"refused"`. */
    reopen(): void;
  }

  /** One stream of a connection. */
  interface Stream extends Events<StreamEvents> {
    /** As given to `get_stream`. */
    readonly name: string;
    /** Whether the stream is subscribed. False while the connection is lost. */
    readonly active: boolean;
    /** The modes that are enabled. They stay while the connection is lost. */
    readonly enabled_modes: Mode[];
    /**
     * Called on each subscribe but one that continues after a lost connection; immediately if already subscribed. The
     * place to enable modes.
     */
    ready: ((this: Stream, stream: Stream) => void) | null;
    /** A public message; on the stream `"private"`, a private message. */
    onmessage: ((this: Stream, text: string) => void) | null;
    /** A message published to `auth:` and this stream. */
    onauth: ((this: Stream, text: string) => void) | null;
    /** A user joined or left. After a lost connection, called for the changes since. */
    onpresence: ((this: Stream, event: Presence) => void) | null;
    /** A message from another user. */
    ondirect: ((this: Stream, event: Direct) => void) | null;
    /** A mode is enabled now. */
    onenabled: ((this: Stream, mode: Mode) => void) | null;
    /** A mode is no longer enabled. */
    ondisabled: ((this: Stream, mode: Mode) => void) | null;
    /**
     * Messages were missed and cannot be replayed: load again what they changed. Called once, before the first message
     * that follows. Without it, and without a listener for `missed`, the page begins anew: its modes are disabled, and
     * `ready` is called.
     */
    onmissed: ((this: Stream, stream: Stream) => void) | null;
    /** Unsubscribes. Throws if the stream is not active. */
    close(): void;
    /** Subscribes again. Throws if the stream was not closed. */
    reopen(): void;
    /**
     * Asks to receive the messages that are published to `auth:` and this stream; then `onenabled` is called. Without a
     * token, `ontoken` is called. Throws if the stream is not active, as before `ready`, or the mode is enabled.
     */
    enable_auth(token?: string): void;
    /**
     * Asks to be present as a user, and to receive who else is, in `onpresence`; then `onenabled` is called. Without a
     * token, `ontoken` is called. Throws as `enable_auth` does.
     */
    enable_presence(user: string, token?: string): void;
    /**
     * Asks to send direct messages as a user, and to receive them in `ondirect`; then `onenabled` is called. Without a
     * token, `ontoken` is called. Throws as `enable_auth` does.
     */
    enable_direct(user: string, token?: string): void;
    /** Disables auth mode. Throws if it is not enabled. */
    disable_auth(): void;
    /** Disables presence mode: the others see the user leave. Throws if it is not enabled. */
    disable_presence(): void;
    /** Disables direct mode. Throws if it is not enabled. */
    disable_direct(): void;
    /**
     * Sends a message to a user. Throws if direct mode is not enabled or the stream is not active. An absent user is
     * not an error.
     */
    direct_msg(user: string, text: string): void;
  }

  /** Why the server refuses or closes a connection for good. Each of these ends in the state `"refused"`. */
  type Refusal =
    /** The server has no app with this `api_key` and `app_id`. */
    | "unknown_app"
    /** The app has `allowed_origins`, and the page's origin is not one of them. */
    | "origin_not_allowed"
    /** The server has `public_hosts`, and the connection's host is not one of them. */
    | "host_not_allowed"
    /** The application disconnected this connection. */
    | "disconnected"
    /** Another connection continues the session. */
    | "session_taken";

  /** Why the server refuses a command. Only `"unavailable"` is tried again. */
  type Result =
    | "already_subscribed"
    | "not_subscribed"
    | "invalid_token"
    | "mode_already_enabled"
    | "mode_not_enabled"
    | "invalid_stream"
    | "invalid_user_id"
    | "message_too_large"
    | "too_many_streams"
    /** The connection has sent too many bytes of direct messages in this second. */
    | "rate_limited"
    | "invalid_hello"
    | "invalid_options"
    /** The server cannot reach its broker. */
    | "unavailable";

  type Code =
    | Refusal
    | Result
    /** No connection was made, and the server gave no reason. The next attempt follows. */
    | "cannot_connect"
    /** The connection ended. The next attempt follows. */
    | "connection_lost"
    /** `ontoken` failed, or returned something else than a token; `cause` is the error. */
    | "no_token"
    /** A handler of the page threw an error; `cause` is that error. */
    | "handler_failed"
    /** The server did not understand a command. */
    | "malformed_command"
    /** The server sent something that is not JSON. */
    | "invalid_frame"
    /** Thrown: an argument is missing, or has the wrong type. */
    | "invalid_argument"
    /** Thrown: the connection or the stream is not in a state for that. */
    | "invalid_state";

  /** Misuse, which is thrown, or a failure, which `onerror` receives. */
  interface TamburError extends Error {
    /** The error's code, for programs. A newer server may send other codes than these. */
    readonly code: Code | (string & {});
    /** The underlying error, if there is one. */
    readonly cause?: unknown;
    /** The refused command, such as `"set_mode"`; null otherwise. */
    readonly command: string | null;
    /** The server's answer to that command, which is also the `code`; null otherwise. */
    readonly result: string | null;
    /** The name of the stream that it was about; null otherwise. */
    readonly stream: string | null;
  }

  const TamburError: { new (message: string, fields: { code: string }): TamburError; prototype: TamburError };

  const Connection: {
    prototype: Connection;
    new (options: Options): Connection;
    new (
      api_key: string,
      app_id: string,
      ssl?: boolean,
      ready?: Connection["ready"],
      onclose?: Connection["onclose"],
      max_retries?: number,
    ): Connection;
    (options: Options): Connection;
    (
      api_key: string,
      app_id: string,
      ssl?: boolean,
      ready?: Connection["ready"],
      onclose?: Connection["onclose"],
      max_retries?: number,
    ): Connection;
  };
}
