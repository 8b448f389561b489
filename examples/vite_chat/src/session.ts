/** The application and the logged-in user, as the application describes them. */
export interface Session {
  user: string;
  csrf_token: string;
  tambur_url: string;
  api_key: string;
  app_id: string;
}

/** The session of the user; null if nobody is logged in. */
export async function fetchSession(): Promise<Session | null> {
  const answer = await fetch("/session");
  if (answer.status === 401) return null;
  if (!answer.ok) throw new Error(`The application answered ${answer.status}.`);
  return answer.json();
}

/** Send a form to the application. Throws if the application refuses it. */
export async function post(session: Session, url: string, fields: Record<string, string>): Promise<Response> {
  const body = new URLSearchParams({ csrf_token: session.csrf_token, ...fields });
  const answer = await fetch(url, { method: "POST", body });
  if (!answer.ok) throw new Error(`The application answered ${answer.status}.`);
  return answer;
}
