import { Connection } from "tambur";

import { post, type Session } from "./session";

/** Connect to the Tambur server, with tokens from the application. */
export function connect(session: Session): Connection {
  const { host, protocol } = new URL(session.tambur_url);
  const { api_key, app_id } = session;
  const connection = new Connection({ api_key, app_id, host, ssl: protocol === "https:" });
  connection.ontoken = async (mode, stream, subscriber_id) => {
    const answer = await post(session, "/tambur-token", { mode, stream, subscriber_id });
    return (await answer.json()).token;
  };
  return connection;
}
