// Node's ws: POST gives the body to every subscriber. Prints its port.
"use strict";

const http = require("http");
const { WebSocketServer } = require("ws");

const server = http.createServer((request, response) => {
  const chunks = [];
  request.on("data", (chunk) => chunks.push(chunk));
  request.on("end", () => {
    const message = Buffer.concat(chunks).toString();
    for (const client of subscribers.clients) client.send(message);
    response.writeHead(204).end();
  });
});
const subscribers = new WebSocketServer({ server });
server.keepAliveTimeout = 65_000;
server.listen({ host: "127.0.0.1", port: 0, backlog: 2048 }, () => console.log(server.address().port));
