import { defineConfig } from "vite";

// Vite serves the page, and Flask answers its requests: one origin, so one session cookie.
const flask = process.env.FLASK_URL ?? "http://127.0.0.1:5000";
const paths = ["/login", "/logout", "/rooms", "/session", "/static", "/tambur-token"];
const proxy = Object.fromEntries(paths.map((path) => [path, flask]));

export default defineConfig({ server: { proxy }, preview: { proxy } });
