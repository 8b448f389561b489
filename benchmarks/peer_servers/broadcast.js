// Node's ws or socket.io, as the argument says: POST sends the body to every subscriber. Prints its port.
"use strict";

const http = require("http");
const moduleName = process.argv[2];

let publish;
const server = http.createServer((request, response) => {
  const chunks = [];
  request.on("data", (chunk) => chunks.push(chunk));
  request.on("end", () => {
    publish(Buffer.concat(chunks).toString());
    response.writeHead(204).end();
  });
});
if (moduleName === "ws") {
  const subscribers = new (require("ws").WebSocketServer)({ server });
  publish = (message) => {
    for (const client of subscribers.clients) client.send(message);
  };
} else {
  const subscribers = new (require("socket.io").Server)(server, { transports: ["websocket"], serveClient: false });
  publish = (message) => subscribers.emit("message", message);
}
server.keepAliveTimeout = 65_000;
server.listen({ host: "127.0.0.1", port: 0, backlog: 2048 }, () => console.log(server.address().port));
