/** The interface of tambur.js, which a page loads from its Tambur server. */

declare namespace tambur {
  type Mode = "auth" | "presence" | "direct";

  interface Options {
    api_key: string;
    app_id: string;
    /** Connect with TLS. Default: if the script was loaded with it. */
    ssl?: boolean;
    /** The server, as `host` or `host:port`. Default: where the script was loaded from. */
    host?: string;
    /** How many attempts in a row may fail before the connection is closed. Default: any number. */
    max_retries?: number;
    ready?: Connection["ready"];
    onclose?: Connection["onclose"];
    onerror?: Connection["onerror"];
    ontoken?: Connection["ontoken"];
  }

  /**
   * A connection to one app. It connects by itself: by WebSocket or, where that fails, by long polling. After
   * a connection is lost it connects again, with growing pauses, and subscribes to its streams again. After a
   * refusal that would not change, such as a wrong key, it closes. It disconnects when the user leaves the page,
   * and connects again when the user goes back to it.
   */
  interface Connection {
    readonly api_key: string;
    readonly app_id: string;
    /** What the server calls this connection; null while there is none. It is another after each reconnect. */
    readonly subscriber_id: string | null;
    /** Called each time that the connection is made, and at once if it is when assigned. */
    ready: ((this: Connection, connection: Connection) => void) | null;
    /** Called when the page closes the connection, when the server refuses it, and after `max_retries`. */
    onclose: ((this: Connection, connection: Connection) => void) | null;
    /** Called with each error that is not thrown; its `code` says which. Default: console.error. */
    onerror: ((error: TamburError) => void) | null;
    /**
     * Asked for a token when a mode is enabled without one, and after a reconnect, when the modes that were
     * enabled are to be so again. The user of presence and direct is the one that they were enabled for.
     */
    ontoken: ((mode: Mode, stream: string, subscriber_id: string) => string | Promise<string>) | null;
    /** The stream of a name, subscribed; always the same one. `"private"` has the private messages. */
    get_stream(name: string): Stream;
    /** Closes the connection, if it is not. */
    close(): void;
    /** Connects again. Throws if the connection is open. */
    reopen(): void;
  }

  /** One stream of a connection. */
  interface Stream {
    readonly name: string;
    /** Whether it is subscribed. */
    readonly active: boolean;
    /** The modes that are enabled. */
    readonly enabled_modes: Mode[];
    /**
     * Called each time that the stream is subscribed, also after a reconnect, and at once if it is when
     * assigned. The place to enable modes.
     */
    ready: ((this: Stream, stream: Stream) => void) | null;
    /** A message to the stream; of the stream "private", a private message. */
    onmessage: ((this: Stream, text: string) => void) | null;
    /** A message to `auth:` the stream. */
    onauth: ((this: Stream, text: string) => void) | null;
    /** A user joined or left. */
    onpresence: ((this: Stream, event: [user: string, what: "up" | "down"]) => void) | null;
    /** A message from another user. */
    ondirect: ((this: Stream, event: [from: string, text: string]) => void) | null;
    /** A mode is enabled now. */
    onenabled: ((this: Stream, mode: Mode) => void) | null;
    /** A mode is no longer enabled. */
    ondisabled: ((this: Stream, mode: Mode) => void) | null;
    /** Unsubscribes. Throws if the stream is not active. */
    close(): void;
    /** Subscribes again. Throws if the stream was not closed. */
    reopen(): void;
    /** Each throws if the stream is not active, or the mode is enabled; without a token, `ontoken` is asked. */
    enable_auth(token?: string): void;
    enable_presence(user: string, token?: string): void;
    enable_direct(user: string, token?: string): void;
    /** Each throws if the mode is not enabled. */
    disable_auth(): void;
    disable_presence(): void;
    disable_direct(): void;
    /** Sends a message to a user. Throws if direct is not enabled. It is no error if the user is not there. */
    direct_msg(user: string, text: string): void;
  }

  /** Why the server refuses a connection. These close it. */
  type Refusal =
    /** The server has no app with this `api_key` and `app_id`. */
    | "unknown_app"
    /** The app has `allowed_origins`, and the page's origin is not one of them. */
    | "origin_not_allowed"
    /** The server has `public_hosts`, and the connection's host is not one of them. */
    | "host_not_allowed";

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
    /** The server cannot reach its broker. */
    | "unavailable";

  type Code =
    | Refusal
    | Result
    /** No connection was made, and the server gave no reason. The next attempt follows. */
    | "cannot_connect"
    /** The connection ended. The next attempt follows. */
    | "connection_lost"
    /** `ontoken` failed; `cause` is what it threw. */
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
    /** What happened, for programs. A newer server may send other codes than these. */
    readonly code: Code | (string & {});
    /** What caused it, if anything else did. */
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
