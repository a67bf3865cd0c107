// A server of one of the peers, as small as its documentation shows it: every connection is in two rooms; what one sends with "say:" before
// it goes to everybody. Prints its port.
import http from "node:http";

const [, , kind] = process.argv;
const server = http.createServer();

if (kind === "ws") {
  const { WebSocketServer } = await import("ws");
  const sockets = new WebSocketServer({ server, perMessageDeflate: false });
  const rooms = new Map([["one", new Set()], ["two", new Set()]]);
  sockets.on("connection", (socket) => {
    for (const room of rooms.values()) room.add(socket);
    socket.on("message", (data) => {
      const text = data.toString();
      if (!text.startsWith("say:")) return socket.send("connected");
      const frame = Buffer.from(text.slice(4));
      for (const other of rooms.get("one")) other.send(frame, { binary: false });
    });
    socket.on("close", () => {
      for (const room of rooms.values()) room.delete(socket);
    });
  });
} else {
  const { Server } = await import("socket.io");
  const io = new Server(server, { transports: ["websocket"], perMessageDeflate: false, wsEngine: (await import("ws")).WebSocketServer });
  io.on("connection", (socket) => {
    socket.join(["one", "two"]);
    socket.on("say", (text) => io.to("one").emit("event", text));
  });
}

server.listen(0, "127.0.0.1", () => console.log(server.address().port));
