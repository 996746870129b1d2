// Follows a task in a web page, and goes on where it was when the connection breaks.
//
//   followStream(flik, taskId, newTicket, onEvent)    by EventSource
//   followSocket(flik, taskId, newTicket, onEvent)    by WebSocket
//
// `flik` is where Flik is, as in https://flik.example. `newTicket` returns a promise of a ticket: it asks a server of
// yours, which has the key and calls POST /api/v1/tickets. A ticket works once, so each connection takes a new one.
// `onEvent` is given each event, those with a number (`seq`) once and in order. If the page is of another origin than
// Flik, FLIK_CORS_ORIGINS must name it.

const KINDS = ["pending", "queued", "processing", "progress", "retryScheduled", "artifact", "completed", "failed",
  "cancelled", "expired", "reset", "delayed", "live"];
const ENDED = ["COMPLETED", "FAILED", "CANCELLED", "EXPIRED"];
const PAUSE_MS = 1000;

async function followStream(flik, taskId, newTicket, onEvent, since = 0) {
  const comeBack = () => setTimeout(followStream, PAUSE_MS, flik, taskId, newTicket, onEvent, since);
  let ticket;
  try { ticket = await newTicket(); } catch { return comeBack(); }
  const source = new EventSource(`${flik}/api/v1/tasks/${taskId}/events?since=${since}&ticket=${ticket}`);
  for (const kind of KINDS) source.addEventListener(kind, (message) => {
    const event = JSON.parse(message.data);
    since = event.seq ?? since;
    if (ENDED.includes(event.status)) source.close();
    onEvent(event);
  });
  source.onerror = () => {
    source.close(); // by itself it would come back with the ticket that is spent
    comeBack();
  };
}

async function followSocket(flik, taskId, newTicket, onEvent, fromSeq = 0) {
  const comeBack = () => setTimeout(followSocket, PAUSE_MS, flik, taskId, newTicket, onEvent, fromSeq);
  let ticket;
  try { ticket = await newTicket(); } catch { return comeBack(); }
  const socket = new WebSocket(`${flik.replace(/^http/, "ws")}/ws/json?ticket=${ticket}`);
  socket.onclose = comeBack;
  socket.onmessage = (message) => {
    const said = JSON.parse(message.data);
    if (said.type === "ready") socket.send(JSON.stringify({ type: "subscribe", id: "a", taskId, fromSeq }));
    if (said.type !== "event" && said.type !== "reset") return;
    fromSeq = said.event.seq ?? fromSeq;
    if (ENDED.includes(said.event.status)) {
      socket.onclose = null;
      socket.close();
    }
    onEvent(said.event);
  };
}
