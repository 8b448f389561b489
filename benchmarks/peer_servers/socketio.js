// Node's socket.io: POST emits the body to every subscriber. Prints its port.
"use strict";

const http = require("http");
const { Server } = require("socket.io");

const server = http.createServer((request, response) => {
  const chunks = [];
  request.on("data", (chunk) => chunks.push(chunk));
  request.on("end", () => {
    subscribers.emit("message", Buffer.concat(chunks).toString());
    response.writeHead(204).end();
  });
});
const subscribers = new Server(server, { transports: ["websocket"], serveClient: false });
server.keepAliveTimeout = 65_000;
server.listen({ host: "127.0.0.1", port: 0, backlog: 2048 }, () => console.log(server.address().port));
